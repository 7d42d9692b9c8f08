"""ONNX Runtime's execution providers as data: what `--device` calls each, what brings it, and what it is told.

ONNX Runtime lists the providers that it was built with, not those that start here; `graphs.session` opens one and sees
who runs. Names and options were read in ONNX Runtime 1.24 to 1.32.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from linne.errors import DeviceError, suggest
from linne.graphs.plugins import PLUGINS, WINDOWS_ML, Plugin, find_plugin

CPU = "CPUExecutionProvider"
ONE_AT_A_TIME = "only one onnxruntime package at a time: each writes over the other, and the last installed wins"
_NO_TF32 = "NVIDIA_TF32_OVERRIDE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """An execution provider of ONNX Runtime."""

    name: str
    """As ONNX Runtime lists it."""
    install: str
    """What to type, or where it is found."""
    options: Mapping[str, str] = field(default_factory=dict)
    by_precision: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The precisions that it computes in, each with the options that go with it."""
    index: tuple[str, str] | None = None
    """The option that names one device of several, and its value with `{}` for the number."""
    threads: str | None = None
    """The option for the number of threads of its own; None where ONNX Runtime's threads compute."""
    beside: tuple[str, ...] = ()
    """Providers, none of them the CPU's, for the nodes that it leaves."""
    memory_pattern: bool = True
    """Whether it allows ONNX Runtime to plan the memory of all nodes at once."""
    no_accelerator: str | None = None
    """What it is or does instead of being an accelerator for certain; None where it is one."""


_ANY: Mapping[str, Mapping[str, str]] = {"fp32": {}, "fp16": {}, "int8": {}}
_ROCM = Provider(
    name="MIGraphXExecutionProvider",  # ROCMExecutionProvider ended with ONNX Runtime 1.22
    install="pip install onnxruntime-migraphx",
    index=("device_id", "{}"),
    # int8 needs no flag for a graph that is quantised: the flag quantises once more, by a table of its own.
    by_precision={"fp32": {}, "fp16": {"migraphx_fp16_enable": "1"}, "int8": {}},
)
_OPENVINO = "OpenVINOExecutionProvider"
_WITH_OPENVINO = "pip install onnxruntime-openvino"

PROVIDERS: Mapping[str, Provider] = {
    "cpu": Provider(name=CPU, install="pip install onnxruntime", by_precision=_ANY, no_accelerator="is the CPU"),
    "cuda": Provider(
        name="CUDAExecutionProvider",
        install='pip install "onnxruntime-gpu[cuda,cudnn]"',
        index=("device_id", "{}"),
        # On by default from Ampere on: products of numbers with 10 bits in place of 23.
        by_precision={"fp32": {"use_tf32": "0"}, "fp16": {}, "int8": {}},
    ),
    "tensorrt": Provider(
        name="TensorrtExecutionProvider",
        # onnxruntime-gpu 1.31 is linked with libnvinfer.so.10; tensorrt without a number is 11.
        install='pip install "onnxruntime-gpu[cuda,cudnn]" "tensorrt<11"',
        index=("device_id", "{}"),
        by_precision={"fp32": {}, "fp16": {"trt_fp16_enable": "1"}, "int8": {"trt_int8_enable": "1"}},
        beside=("CUDAExecutionProvider",),
    ),
    "rocm": _ROCM,
    "migraphx": _ROCM,
    # Where a precision is not one of a device's, the provider does not raise: the session is the CPU's.
    "openvino:cpu": Provider(
        name=_OPENVINO,
        install=_WITH_OPENVINO,
        options={"device_type": "CPU"},
        by_precision={"fp32": {"precision": "FP32"}, "int8": {}},
        threads="num_of_threads",
        no_accelerator="is the CPU",
    ),
    "openvino:gpu": Provider(
        name=_OPENVINO,
        install=_WITH_OPENVINO,
        options={"device_type": "GPU"},
        by_precision={"fp32": {"precision": "FP32"}, "fp16": {"precision": "FP16"}, "int8": {}},
        index=("device_type", "GPU.{}"),
    ),
    "openvino:npu": Provider(
        name=_OPENVINO,
        install=_WITH_OPENVINO,
        options={"device_type": "NPU"},
        by_precision={"fp16": {"precision": "FP16"}, "int8": {}},
    ),
    "dml": Provider(
        name="DmlExecutionProvider",
        install=f"on Windows: {WINDOWS_ML}",  # with DirectML in it; onnxruntime-directml ended with 1.24.4
        index=("device_id", "{}"),
        by_precision=_ANY,
        memory_pattern=False,
    ),
    "coreml": Provider(
        name="CoreMLExecutionProvider",
        install="on macOS: pip install onnxruntime",
        options={"ModelFormat": "MLProgram"},  # the older format computes in fp16 whatever the graph says
        # The Neural Engine has no fp32.
        by_precision={"fp32": {"MLComputeUnits": "CPUAndGPU"}, "fp16": {"MLComputeUnits": "ALL"}},
        no_accelerator="leaves it to Core ML what runs on the CPU, which does not tell",
    ),
    "xnnpack": Provider(
        name="XnnpackExecutionProvider",
        install="no wheel has it: build ONNX Runtime with --use_xnnpack",
        by_precision={"fp32": {}, "int8": {}},
        threads="intra_op_num_threads",
        no_accelerator="is the CPU",
    ),
}
"""By what `--device` calls it."""

AUTO = ("cuda", "rocm", "dml")
"""What `auto` tries before the CPU. TensorRT takes minutes to open a graph; of Core ML it is not known what it runs on;
OpenVINO's devices leave no file by which they are found."""

_OTHER_WORDS = {
    "mps": "coreml",
    "xpu": "openvino:gpu",
    "npu": "openvino:npu",
    "gpu": "cuda",
    "openvino": "openvino:cpu",
}
"""What other backends call a device, and what it may be here."""


@dataclass(frozen=True, slots=True)
class Target:
    """One device, by one provider."""

    device: str
    """As it was asked for: `cuda:1`."""
    provider: Provider
    options: Mapping[str, str]
    plugin: Plugin | None = None
    """The library that brings the provider, where ONNX Runtime has it not built in."""


def target_for(device: str, precision: str = "fp32") -> Target:
    """Return the provider for what `--device` says, and what it is told; nothing is tried.

    Raises:
        DeviceError: no provider is called that, or it does not compute in `precision`.
    """
    key, _, number = device.rpartition(":") if device not in PROVIDERS else (device, "", "")
    if key in PLUGINS:
        plugin = find_plugin(key, number)
        return Target(device, Provider(name=plugin.provider, install=plugin.package, by_precision=_ANY), {}, plugin)
    provider = PROVIDERS.get(key)
    if provider is None or (number and (provider.index is None or not number.isdecimal())):
        raise _no_such(device)
    if precision not in provider.by_precision:
        known = ", ".join(provider.by_precision)
        raise DeviceError(f"ONNX Runtime does not compute in {precision} on `{device}`", hint=f"it computes in {known}")
    if key == "tensorrt" and precision == "fp32" and os.environ.get(_NO_TF32) != "0":
        # The provider has no option for it, unlike CUDA's.
        raise DeviceError(
            "TensorRT computes fp32 with TF32, which rounds to 10 bits, unless it is told not to",
            hint=f"set the environment variable {_NO_TF32}=0, or use --device cuda or --precision fp16",
        )
    options = {**provider.options, **provider.by_precision[precision]}
    if number and provider.index is not None:
        option, value = provider.index
        options[option] = value.format(number)
    return Target(device, provider, options)


def _no_such(device: str) -> DeviceError:
    known = ", ".join([*PROVIDERS, *(f"{key}:NAME" for key in PLUGINS)])
    word = _OTHER_WORDS.get(device.partition(":")[0])
    guess = f"did you mean `{word}`?" if word else suggest(device, PROVIDERS)
    return DeviceError(
        f"a graph does not run on `{device}` by ONNX Runtime", hint=f"{f'{guess} ' if guess else ''}It runs on {known}"
    )


def require_built_in(target: Target, runtime: Any) -> None:
    """Raise DeviceError unless `runtime`, the module onnxruntime, was built with the target's provider."""
    built_with = list(runtime.get_available_providers())
    if target.plugin is not None or target.provider.name in built_with:
        return
    names = ", ".join(name.removesuffix("ExecutionProvider") for name in built_with)
    raise DeviceError(
        f"onnxruntime {runtime.__version__} has no {target.provider.name} for `--device {target.device}`: "
        f"it was built with {names}{_several(installed_runtimes())}",
        hint=f"{target.provider.install} ({ONE_AT_A_TIME})",
    )


def load_libraries(provider: str, runtime: Any) -> None:
    """Load the libraries of NVIDIA that pip has installed, which are not where the system looks for them.

    What is missing shows when the provider does not start.
    """
    if provider == "TensorrtExecutionProvider":
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module("tensorrt")  # loads its libraries, which is all that is wanted of it
    if provider in ("CUDAExecutionProvider", "TensorrtExecutionProvider") and hasattr(runtime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find, and stdout is for data
            runtime.preload_dlls()


def installed_runtimes() -> tuple[str, ...]:
    """Return the installed packages that each bring the module onnxruntime."""
    return tuple(sorted(set(metadata.packages_distributions().get("onnxruntime", ()))))


def _several(packages: Sequence[str]) -> str:
    return f"; {' and '.join(packages)} are installed over each other" if len(packages) > 1 else ""


def automatic(built_with: Iterable[str], accelerators: Sequence[str]) -> tuple[str, ...]:
    """Return what `--device auto` tries in order, before the CPU.

    Args:
        built_with: the providers that ONNX Runtime lists.
        accelerators: the device files that `linne.host` finds; without one there is nothing to try.
    """
    listed = set(built_with)
    return tuple(device for device in AUTO if PROVIDERS[device].name in listed) if accelerators else ()
