"""A PrivateUse1 device in Python: every operator of torch runs, on the host's memory, and leaves a trace.

torch sees a foreign device: tensors that say `npu:0`, kernels reached through the dispatcher, gradients computed by
the autograd engine's thread for that device. What a real device would refuse is refused: a tensor of the host among
those of the device, a type it does not know, whatever `Rules` say.
"""

from __future__ import annotations

import atexit
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils import _foreach_utils, _pytree

Refuse = Callable[[Any, tuple[Any, ...], dict[str, Any]], None]
Compute = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


def _nothing(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse nothing."""


def _faithfully(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return op(*args, **kwargs)


@dataclass(frozen=True)
class Rules:
    """What one kind of device does differently from the host."""

    refuse: Refuse = _nothing
    """Called with an operator and its arguments, tensors as the caller gave them; raises or warns."""
    compute: Compute = _faithfully
    """Called with an operator and its arguments on the host; returns what the device answers."""
    mixed: str = "Expected all tensors to be on the same device, but found at least two devices, {device} and cpu!"
    """The error for a tensor of the host among those of the device."""
    unknown_dtypes: dict[torch.dtype, str] = field(default_factory=dict)
    """The error for each type of number that the device cannot hold."""


@dataclass
class Trace:
    """What reached the device."""

    operators: Counter[str] = field(default_factory=Counter)
    dtypes: set[str] = field(default_factory=set)
    """Of the tensors it held, without `torch.`."""
    seeds: list[int] = field(default_factory=list)
    num_reads: int = 0
    """How often numbers came back to the host, for which a real device's queue is waited for."""

    def to_dict(self) -> dict[str, Any]:
        """Return what `json` can write."""
        seen = {"operators": dict(self.operators), "dtypes": sorted(self.dtypes)}
        return {**seen, "seeds": self.seeds, "num_reads": self.num_reads}


TRACE = Trace()
_installed: dict[str, Any] = {"name": "", "rules": Rules()}


class DeviceTensor(torch.Tensor):
    """A tensor of the device; its numbers are in `host`."""

    host: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> DeviceTensor:
        rules: Rules = _installed["rules"]
        TRACE.dtypes.add(str(host.dtype).removeprefix("torch."))
        if host.dtype in rules.unknown_dtypes:
            raise RuntimeError(rules.unknown_dtypes[host.dtype])
        outside: DeviceTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=f"{_installed['name']}:0",
        )
        outside.host = host
        return outside

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})

    def tolist(self) -> Any:
        """Return the numbers; torch's own refuses subclasses, and copies a foreign device's tensors to the host."""
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse, in torch's words for any device but the CPU."""
        if not force:
            raise TypeError(
                f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
                "memory first."
            )
        return self.cpu().numpy()

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype}, {self.device})"


def install(name: str, module: object, rules: Rules = Rules()) -> None:
    """Make `name` torch's foreign device, one of them, with `module` as `torch.<name>`."""
    from torch.utils import backend_registration

    _installed.update(name=name, rules=rules)
    if hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        backend_registration._setup_privateuseone_for_python_backend(name, backend_module=module)
    else:
        if name != "privateuseone":
            torch.utils.rename_privateuse1_backend(name)
            torch.utils.generate_methods_for_privateuse1_backend()
        torch._register_device_module(name, module)
        torch.ops.load_library(str(_compiled_guard()))
    library = torch.library.Library("aten", "IMPL")
    for operator, kernel in FACTORIES.items():
        library.impl(operator, kernel, "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")  # how `torch.tensor(..., device=...)` copies
    _installed["library"] = library  # the kernels leave with it
    _foreach_utils._foreach_supported_types.append(DeviceTensor)  # a real device's tensors are no subclass
    # The engine's thread for the device gives back Python objects after a backward pass has returned: it gets the time
    # for it, since Python ends a thread that asks for its lock later, and C++ then ends the process.
    atexit.register(time.sleep, 0.3)


def _factory(operator: str) -> Callable[..., DeviceTensor]:
    """Return the kernel of an operator that makes a tensor from nothing."""
    packet, _, overload = operator.partition(".")
    op = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def kernel(*args: Any, device: Any = None, pin_memory: Any = None, **kwargs: Any) -> DeviceTensor:
        TRACE.operators[f"aten::{operator}"] += 1
        _installed["rules"].refuse(op, args, kwargs)
        return DeviceTensor(op(*args, device="cpu", **kwargs))

    return kernel


FACTORIES = {
    operator: _factory(operator)
    for operator in ("empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step")
}
"""Without a tensor among their arguments, they reach the device by its name. torch makes all others of these."""


def _run(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    rules: Rules = _installed["rules"]
    if torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd"):
        parts = op.decompose(*args, **kwargs)  # in inference mode torch leaves this to us
        if parts is not NotImplemented:
            return parts
    TRACE.operators[op.name()] += 1
    rules.refuse(op, args, kwargs)
    if op.name() == "aten::copy_":
        return _copy_from(args[1], args[0])
    if op.name() == "aten::_to_copy" and _is_host(kwargs.get("device")):
        TRACE.num_reads += 1
        return op(args[0].host, **kwargs)
    given: dict[int, DeviceTensor] = {}
    host_args, host_kwargs = _pytree.tree_map(lambda value: _on_host(value, given, rules), (args, kwargs))
    answer = rules.compute(op, host_args, host_kwargs)
    for tensor in given.values():
        if tensor.host.size() != tensor.size() or tensor.host.stride() != tensor.stride():
            raise AssertionError(f"the simulated device cannot change a tensor's shape, as {op} did")
    if op.name() == "aten::_local_scalar_dense":
        TRACE.num_reads += 1
        return answer
    return _pytree.tree_map(lambda value: _on_device(value, given), answer)


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """Copy from the host to the device, the other way round, or within one."""
    unknown = _installed["rules"].unknown_dtypes
    if source.dtype in unknown:
        raise RuntimeError(unknown[source.dtype])
    host, other = (tensor.host if isinstance(tensor, DeviceTensor) else tensor for tensor in (target, source))
    TRACE.num_reads += host is target
    host.copy_(other)
    return target


def _is_host(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cpu"


def _on_host(value: Any, given: dict[int, DeviceTensor], rules: Rules) -> Any:
    """Return a tensor's numbers on the host, remembering whose they are."""
    if isinstance(value, DeviceTensor):
        given[id(value.host)] = value
        return value.host
    if isinstance(value, torch.Tensor) and value.dim() > 0:
        raise RuntimeError(rules.mixed.format(device=f"{_installed['name']}:0"))
    if isinstance(value, torch.device) and value.type == _installed["name"]:
        return torch.device("cpu")
    return value


def _on_device(value: Any, given: dict[int, DeviceTensor]) -> Any:
    """Return the tensor of the device over `value`: the one it came with when the operator changed it in place."""
    if not isinstance(value, torch.Tensor):
        return value
    return given[id(value)] if id(value) in given else DeviceTensor(value)


GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace {
using namespace c10;
struct Guard final : impl::DeviceGuardImplInterface {
  DeviceType type() const override { return DeviceType::PrivateUse1; }
  Device exchangeDevice(Device device) const override { return device; }
  Device getDevice() const override { return Device(DeviceType::PrivateUse1, 0); }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device device) const noexcept override { return Stream(Stream::DEFAULT, device); }
  Stream getDefaultStream(Device device) const override { return Stream(Stream::DEFAULT, device); }
  Stream exchangeStream(Stream stream) const noexcept override { return stream; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);
}
"""
"""What tells the autograd engine of one device. Newer torch takes it from Python."""


def _compiled_guard() -> Path:
    """Return `GUARD` as a library; needs `g++`."""
    folder = Path(tempfile.mkdtemp(prefix="linne-guard-"))
    (folder / "guard.cpp").write_text(GUARD)
    here = Path(torch.__file__).parent
    abi = int(torch._C._GLIBCXX_USE_CXX11_ABI)
    command = ["g++", "-std=c++17", "-shared", "-fPIC", f"-D_GLIBCXX_USE_CXX11_ABI={abi}", f"-I{here / 'include'}"]
    command += [str(folder / "guard.cpp"), "-o", str(folder / "guard.so"), f"-L{here / 'lib'}", "-lc10", "-ltorch_cpu"]
    subprocess.run(command, check=True)
    return folder / "guard.so"
