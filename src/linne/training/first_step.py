"""The first training step, computed on the device and on the CPU, and compared: once for each device and model.

A driver, a wheel or a kernel that computes wrong numbers trains, and trains badly, without a word. The CPU's float64 is
the reference, and how far the CPU's own fp32 and bf16 are from it is the measure: rounding grows with the depth of a
network, so no fixed tolerance fits all of them. Batch norm over a few images magnifies it most: the gradients of an
untrained MobileNetV2 are 0.7 % off in fp32 with it, and 0.001 % with fixed statistics. So everything is compared with
fixed ones first, tightly, and then once more as it trains, as tightly as that allows.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from linne.data.loading.loader import Batches
from linne.device import Device
from linne.device.fallbacks import Fallbacks, without_a_kernel
from linne.errors import CheckFailed, DeviceError
from linne.host import cache_folder
from linne.log import Narrator
from linne.recipe import Recipe

LARGE_SIDE = 64
"""Pixels a side from which fewer images are compared: the CPU computes every step three times."""
_NORMALISED = " with batch statistics"
LEAST_ALLOWED = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 2e-2}
"""A share of the reference that any device may be off; bf16 itself rounds by up to 2**-8 at each operation."""
TIMES_THE_CPUS = {"fp32": 30.0, "bf16": 4.0, "fp16": 4.0}
"""How many times as far from float64 as the CPU a device may be. In fp32 there is room for Winograd's transforms, which
lose a digit to a plain sum; products of bf16 and fp16 are summed in fp32 everywhere."""
_FP16_SCALE = 1024.0
"""Keeps small gradients above the smallest number of fp16, as a GradScaler does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCheck:
    """How far a device's first step was from the reference, and which operators it left to the CPU."""

    errors: Mapping[str, float]
    """By what was computed: the worst of logits, loss and all gradients, as a share of the reference."""
    allowed: Mapping[str, float]
    worst: str
    """The gradient with the largest part of the difference in what is wrong, or in fp32."""
    fallbacks: tuple[str, ...]
    seconds: float

    @property
    def wrong(self) -> str | None:
        """The first of them whose error is more than allowed (or no number); None where all agree."""
        return next((name for name, error in self.errors.items() if not error <= self.allowed[name]), None)

    def in_words(self) -> str:
        """Return one clause with the largest error of the widest precision."""
        name, error = next(iter(self.errors.items()))
        return f"first step agrees with the CPU's ({name} off by {error:.1g}, {self.allowed[name]:.1g} allowed)"


@dataclass(frozen=True, slots=True)
class _Step:
    """What one forward and backward pass gave, in float64 on the CPU."""

    logits_NK: torch.Tensor
    loss: torch.Tensor
    gradients: Mapping[str, torch.Tensor]


def check_first_step(
    model: nn.Module, images_NCHW: torch.Tensor, labels_N: torch.Tensor, recipe: Recipe, device: Device
) -> StepCheck:
    """Return how a step of `model` on `device` compares with the CPU's; mutates nothing and draws no random number.

    Everything random (dropout, dropped paths) is off. Takes the first few images.

    Raises:
        CheckFailed: they differ by more than rounding explains.
    """
    start = time.perf_counter()
    large = max(images_NCHW.shape[-2:]) >= LARGE_SIDE
    precision, seen = recipe.device.precision, _Operators()
    errors: dict[str, float] = {}
    allowed: dict[str, float] = {}
    worst = ""
    with torch.random.fork_rng(devices=[]):
        for normalised in (False, True) if _has_batch_norm(model) else (False,):
            count = (4 if large else 8) if normalised else (2 if large else 8)
            images, labels = images_NCHW[:count].detach().cpu(), labels_N[:count].detach().cpu()
            host = copy.deepcopy(model).cpu()
            reference = _step(host, images.double(), labels, "fp32", normalised)
            inputs = device.put(images), device.put(labels)
            for name in dict.fromkeys(("fp32", precision)):
                own = _step(host, images, labels, "fp32" if name == "fp32" else "bf16", normalised)
                with device.full_precision(), seen:
                    found = _step(model, *inputs, name, normalised, device)
                key = name + _NORMALISED * normalised
                errors[key] = _error(found, reference)
                allowed[key] = max(LEAST_ALLOWED[name], TIMES_THE_CPUS[name] * _error(own, reference))
                if not worst or not errors[key] <= allowed[key]:
                    worst = _worst(found, reference)
    check = StepCheck(
        errors=errors,
        allowed=allowed,
        worst=worst,
        fallbacks=tuple(without_a_kernel(seen.operators, device)),
        seconds=time.perf_counter() - start,
    )
    _judge(check, device)
    return check


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def _judge(check: StepCheck, device: Device) -> None:
    wrong = check.wrong
    if wrong is None:
        return
    raise CheckFailed(
        f"`{device.address}` ({device.name}) computes a first training step in {wrong} that differs from the CPU's by "
        f"{check.errors[wrong]:.2g} of its size, {check.allowed[wrong]:.2g} allowed; farthest off is the gradient of "
        f"`{check.worst}`",
        hint=f"`linne doctor --device {device.address}` says which operation is wrong; "
        "--no-device-check trains all the same",
    )


def _step(
    model: nn.Module,
    images_NCHW: torch.Tensor,
    labels_N: torch.Tensor,
    precision: str,
    normalised: bool,
    device: Device | None = None,
) -> _Step:
    """Return one forward and backward pass of a copy of `model`, on the CPU without `device`.

    Batch norm takes the statistics of the images where they are to be `normalised`, and else those it holds.
    """
    network = copy.deepcopy(model).to(images_NCHW.dtype)
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(normalised)
    if device is None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits_NK = network(images_NCHW)
    else:
        with device.autocast(precision):
            logits_NK = network(images_NCHW)
    wide = torch.float64 if images_NCHW.dtype == torch.float64 else torch.float32
    loss = F.cross_entropy(logits_NK.to(wide), labels_N)
    scale = _FP16_SCALE if precision == "fp16" else 1.0
    (scale * loss).backward()  # type: ignore[no-untyped-call]
    gradients = {name: _home(p.grad) / scale for name, p in network.named_parameters() if p.grad is not None}
    return _Step(_home(logits_NK), _home(loss), gradients)


def _home(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().double()


def _error(found: _Step, reference: _Step) -> float:
    """Return the largest difference of logits, loss and all gradients together, each as a share of its norm."""
    if found.gradients.keys() != reference.gradients.keys():
        return float("inf")
    pairs = [(found.logits_NK, reference.logits_NK), (found.loss, reference.loss)]
    shares = [float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in pairs]
    squares = {name: float((found.gradients[name] - b).square().sum()) for name, b in reference.gradients.items()}
    size = sum(float(b.square().sum()) for b in reference.gradients.values())
    shares.append((sum(squares.values()) / max(size, 1e-24)) ** 0.5)
    return float("inf") if any(share != share for share in shares) else max(shares)


def _worst(found: _Step, reference: _Step) -> str:
    both = {name: b for name, b in reference.gradients.items() if name in found.gradients}
    return max(
        both, key=lambda name: float((found.gradients[name] - both[name]).norm().nan_to_num(torch.inf)), default=""
    )


def check_gradients(device: Device) -> None:
    """Raise DeviceError unless this process can compute a gradient on `device`.

    torch-directml cannot where any backward pass ran before it was imported (microsoft/DirectML issue 668): the engine
    made no queue for a device that it did not know of.
    """
    try:
        torch.ones(1, device=device.torch_device, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        said = str(error).strip().partition("\n")[0][:200]
        raise DeviceError(
            f"`{device.address}` computes no gradient in this process: {said}",
            hint="train in a process of its own, before anything else of torch; `linne doctor` proves the device",
        ) from error


def prove_device(
    model: nn.Module, batches: Batches, recipe: Recipe, device: Device, fallbacks: Fallbacks, narrator: Narrator
) -> None:
    """Check the first step of `model` unless it passed here before, say what came of it, and count what fell back.

    Raises:
        CheckFailed: the device computes something else than the CPU.
    """
    passed, key = PassedChecks(cache_folder() / "device-checks.json"), check_key(recipe, device)
    known = passed.find(key)
    if known is None:
        batch = next(batches.epoch(0))
        check = check_first_step(model, batch.images_NCHW, batch.labels_N, recipe, device)
        passed.add(key, check.fallbacks)
        known = check.fallbacks
        narrator.line(f"checked {device.address}: {check.in_words()}, in {check.seconds:.1f} s; not done again")
    fallbacks.add(known)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers which operators ran inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` as it is, and remember it."""
        self.operators.add(func)
        return func(*args, **(kwargs or {}))


class PassedChecks:
    """Which devices passed with which models, in a file of the cache: the check is done once."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def find(self, key: str) -> tuple[str, ...] | None:
        """Return the operators that fell back when `key` passed; None where it has not, or the file is damaged."""
        found = self._read().get(key)
        return tuple(map(str, found)) if isinstance(found, list) else None

    def add(self, key: str, fallbacks: tuple[str, ...]) -> None:
        """Remember that `key` passed. Where the cache cannot be written the check is done again next time."""
        entries = {**self._read(), key: list(fallbacks)}
        beside = self.file.with_name(f"{self.file.name}.{os.getpid()}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(entries, indent=1), encoding="utf-8")
            beside.replace(self.file)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


def check_key(recipe: Recipe, device: Device) -> str:
    """Return what a check holds for: this hardware, driver and torch, with this model as built, size and precision."""
    data, hardware = recipe.data, device.hardware
    parts = [
        *(device.kind, device.name, hardware.architecture, hardware.runtime, hardware.driver, torch.__version__),
        *(asdict(recipe.model), data.height, data.width, data.channels),
        *(recipe.device.precision, recipe.device.channels_last),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
