"""The child that computes on a device and compares: `python -m linne.doctor.battery --device cpu --dtype fp32`.

Every operation runs twice from the same numbers: on the device, and in float64 on the CPU. The inputs are rounded to
the dtype before either, so that what differs is the device's own. Each result is reported as soon as it is known.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linne.child import said_of, say
from linne.device import Device
from linne.errors import LinneError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCES = {"fp32": 5e-5, "bf16": 3.1e-2, "fp16": 4e-3}
"""How far a result may be from float64's, as a share of the largest value.

fp32: sums of a few thousand products in any order, Winograd's too, stay below 2e-5; TF32, with 10 bits of mantissa in
place of 23, is at 3e-4 and must be seen where fp32 was asked for. bf16 and fp16 round by up to 2**-8 and 2**-11 at
each stage; eight such roundings.
"""
STEP_TOLERANCES = {"fp32": 5e-4, "bf16": 0.1, "fp16": 1.5e-2}
"""The same for a whole training step, whose ten operations hand their rounding on."""

Results = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class At:
    """Where an operation is computed, and in what; `rounded` is the dtype that its inputs are exact in."""

    device: str
    dtype: torch.dtype
    rounded: torch.dtype
    fused: bool = False

    def draw(self, seed: int, *shape: int) -> Tensor:
        """Return normal numbers that are the same everywhere."""
        numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return numbers.to(self.rounded).to(self.dtype).to(self.device).requires_grad_()

    def grades(self, seed: int, num_images: int, num_channels: int) -> Tensor:
        """Return images of 8 by 8 whose values are the whole numbers from -32 to 31, each once a channel.

        All dtypes hold them, and the largest of a window is one value: where two are equal, devices may differ.
        """
        generator = torch.Generator().manual_seed(seed)
        rows = [torch.randperm(64, generator=generator) - 32 for _ in range(num_images * num_channels)]
        images = torch.stack(rows).view(num_images, num_channels, 8, 8)
        return images.to(self.dtype).to(self.device).requires_grad_()


def with_gradients(at: At, result: Tensor, *inputs: Tensor) -> Results:
    """Return the result and the gradients of its inputs, for one gradient of the result."""
    gradient = at.draw(99, *result.shape).detach()
    return (result, *torch.autograd.grad(result, inputs, gradient))


def _convolution(at: At) -> Results:
    images, weights = at.draw(1, 4, 8, 16, 16), at.draw(2, 16, 8, 3, 3)
    return with_gradients(at, F.conv2d(images, weights, stride=2, padding=1), images, weights)


def _depthwise_convolution(at: At) -> Results:
    images, weights = at.draw(1, 4, 16, 16, 16), at.draw(2, 16, 1, 3, 3)
    return with_gradients(at, F.conv2d(images, weights, padding=1, groups=16), images, weights)


def _matrix_product(at: At) -> Results:
    left, right = at.draw(1, 96, 256), at.draw(2, 256, 80)
    return with_gradients(at, left @ right, left, right)


def _batch_norm(at: At) -> Results:
    images, scale, shift = at.draw(1, 8, 16, 8, 8), at.draw(2, 16), at.draw(3, 16)
    return with_gradients(at, F.batch_norm(images, None, None, scale, shift, training=True), images, scale, shift)


def _layer_norm(at: At) -> Results:
    rows, scale, shift = at.draw(1, 64, 96), at.draw(2, 96), at.draw(3, 96)
    return with_gradients(at, F.layer_norm(rows, (96,), scale, shift), rows, scale, shift)


def _max_pooling(at: At) -> Results:
    images = at.grades(1, 4, 8)
    return with_gradients(at, F.max_pool2d(images, 3, 2, 1), images)


def _mean_pooling(at: At) -> Results:
    images = at.draw(1, 4, 8, 12, 12)
    return with_gradients(at, F.adaptive_avg_pool2d(images, 3), images)


def _softmax(at: At) -> Results:
    rows = at.draw(1, 64, 100)
    return with_gradients(at, F.softmax(rows, 1), rows)


def _attention(at: At) -> Results:
    queries, keys, values = (at.draw(seed, 2, 4, 32, 16) for seed in (1, 2, 3))
    return with_gradients(at, F.scaled_dot_product_attention(queries, keys, values), queries, keys, values)


def _cross_entropy(at: At) -> Results:
    logits, classes = at.draw(1, 64, 10), torch.arange(64).remainder(10).to(at.device)
    loss = F.cross_entropy(logits, classes, label_smoothing=0.1)
    return (loss, *torch.autograd.grad(loss, (logits,)))


def _optimizer(at: At, name: str) -> Results:
    """Return how three steps change weights: the change, since the weights alone hide a step that does nothing."""
    weights, gradients = at.draw(1, 4096).detach(), [at.draw(seed, 4096).detach() for seed in (2, 3, 4)]
    moved = nn.Parameter(weights.clone())
    optimizer: torch.optim.Optimizer
    if name == "sgd":
        optimizer = torch.optim.SGD([moved], 0.1, momentum=0.9, nesterov=True, weight_decay=1e-2, fused=at.fused)
    else:
        optimizer = torch.optim.AdamW([moved], 0.1, weight_decay=1e-2, fused=at.fused)
    for gradient in gradients:
        moved.grad = gradient.clone()
        optimizer.step()
    return ((moved.detach() - weights),)


def _sgd(at: At) -> Results:
    return _optimizer(at, "sgd")


def _adamw(at: At) -> Results:
    return _optimizer(at, "adamw")


def _training_step(at: At) -> Results:
    """Return the loss and how one step of training changes the weights, under autocast where the dtype is narrow."""
    widths = [(8, 3, 3, 3), (16, 8, 3, 3), (10, 16)]
    # Weights are fp32 in training, whatever the arithmetic is.
    kept = torch.float64 if at.dtype == torch.float64 else torch.float32
    wide = At(device=at.device, dtype=kept, rounded=at.rounded, fused=at.fused)
    weights = [nn.Parameter(wide.draw(seed, *shape).detach()) for seed, shape in enumerate(widths)]
    before = [weight.detach().clone() for weight in weights]
    images, classes = wide.draw(9, 16, 3, 16, 16).detach(), torch.arange(16).remainder(10).to(at.device)
    optimizer = torch.optim.SGD(weights, 0.1, momentum=0.9, fused=at.fused)
    with torch.autocast(at.device.partition(":")[0], dtype=at.dtype, enabled=at.dtype != kept):
        for weight in weights[:2]:
            images = F.conv2d(images, weight, stride=2, padding=1)
            images = F.gelu(F.batch_norm(images, None, None, training=True))
        loss = F.cross_entropy(F.linear(images.mean((2, 3)), weights[2]), classes)
    loss.backward()  # type: ignore[no-untyped-call]  # torch declares no types for it
    optimizer.step()
    return (loss.detach(), *(after.detach() - first for after, first in zip(weights, before, strict=True)))


OPERATIONS: dict[str, Callable[[At], Results]] = {
    "convolution": _convolution,
    "depthwise convolution": _depthwise_convolution,
    "matrix product": _matrix_product,
    "batch norm": _batch_norm,
    "layer norm": _layer_norm,
    "max pooling": _max_pooling,
    "mean pooling": _mean_pooling,
    "softmax": _softmax,
    "attention": _attention,
    "cross entropy": _cross_entropy,
    "SGD": _sgd,
    "AdamW": _adamw,
    "training step": _training_step,
}
ONLY_FP32 = ("SGD", "AdamW")
"""Weights and their optimiser stay in fp32: a narrow dtype has nothing to prove there."""


def error_of(got: Results, want: Results, device: str) -> tuple[float, str]:
    """Return the largest error as a share of the largest value, and what is wrong besides: `` where nothing is.

    The error is infinite where a value is not finite, a shape differs, or a result is not on `device`, which means
    that it was computed elsewhere.
    """
    worst = 0.0
    if len(got) != len(want):
        return math.inf, f"{len(got)} results, not {len(want)}"
    for number, (result, exact) in enumerate(zip(got, want, strict=True), 1):
        if result.device.type != torch.device(device).type:
            return math.inf, f"result {number} is on {result.device}"
        values = result.detach().cpu().to(torch.float64)
        if values.shape != exact.shape:
            return math.inf, f"result {number} has the shape {tuple(values.shape)}, not {tuple(exact.shape)}"
        if not bool(values.isfinite().all()):
            return math.inf, f"result {number} is not finite"
        largest = max(float(exact.detach().abs().max()), 1e-30)
        worst = max(worst, float((values - exact.detach()).abs().max()) / largest)
    return worst, ""


def copy_error(device: Device) -> tuple[float, str]:
    """Return 0 where numbers come back from the device bit for bit, else infinity and what does not."""
    numbers = torch.randint(0, 255, (257, 1023), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    kinds = {"bytes": numbers, "fp32": numbers.float().sqrt(), "whole numbers": numbers.long() << 40}
    for name, there in {**kinds, "transposed fp32": kinds["fp32"].t()}.items():
        for how, put in {"copied": there.to(device.torch_device), "page-locked": device.put(there)}.items():
            if not torch.equal(put.cpu(), there):
                return math.inf, f"{name} ({how}) do not come back as they went"
    return 0.0, ""


def matrix_rate(device: Device, dtype: torch.dtype, budget_s: float) -> float:
    """Return the TFLOP/s of the fastest matrix product within about `budget_s`, of sizes that double."""
    best, start, size = 0.0, time.perf_counter(), 256
    while time.perf_counter() - start < budget_s and size <= 8192:
        left = torch.ones(size, size, device=device.torch_device, dtype=dtype)
        seconds = _seconds(device, lambda square=left: square @ square)  # type: ignore[misc]
        best = max(best, 2 * size**3 / seconds / 1e12)
        # The next one takes eight times as long, three times.
        if seconds * 24 > budget_s:
            break
        size *= 2
    return best


def copy_rates(device: Device, size_bytes: int) -> dict[str, float]:
    """Return GB/s: to the device from page-locked memory, back, and within it (read and written)."""
    here = torch.ones(size_bytes, dtype=torch.uint8)
    there = here.to(device.torch_device)
    within = 2 * size_bytes / _seconds(device, there.clone) / 1e9
    if device.kind == "cpu":
        return {"within": within}
    pinned = here.pin_memory() if device.pins_memory else here
    to = _seconds(device, lambda: pinned.to(device.torch_device))
    back = _seconds(device, lambda: pinned.copy_(there))
    return {"to": size_bytes / to / 1e9, "back": size_bytes / back / 1e9, "within": within}


def _seconds(device: Device, work: Callable[[], object]) -> float:
    """Return the shortest of three times, after one that may compile or allocate."""
    times = []
    for _ in range(4):
        device.synchronise()
        start = time.perf_counter()
        work()
        device.synchronise()
        times.append(time.perf_counter() - start)
    return max(min(times[1:]), 1e-9)


def wheel_facts() -> dict[str, Any]:
    """Return what torch was built for, and whether it multiplies fp32 in TF32 where nobody says otherwise."""
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "architectures": _architectures(),
        "tf32": {
            "matrix_products": torch.get_float32_matmul_precision() != "highest",
            "convolutions": torch.backends.cudnn.allow_tf32,
        },
    }


def _architectures() -> list[str]:
    """Return what `torch.cuda.get_arch_list` does, which on torch 2.4 needs a GPU to be found first."""
    ask = getattr(torch._C, "_cuda_getArchFlags", None)
    return (ask() or "").split() if ask is not None else []


def _prove(name: str, tolerance: float, measure: Callable[[], tuple[float, str]]) -> None:
    """Report what one operation gives; that it starts as well, so that a crash has a name."""
    say("starts", operation=name)
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            error, message = measure()
            raised = ""
        except Exception as problem:  # a device's errors are of any kind, and all of them are findings
            error, message, raised = math.inf, "", said_of(problem)
    say(
        "result",
        operation=name,
        ok=error <= tolerance,
        error=error if math.isfinite(error) else None,
        tolerance=tolerance,
        message=message,
        raised=raised,
        warnings=[str(warning.message)[:300] for warning in caught],
        seconds=time.perf_counter() - start,
    )


def _compare(operation: Callable[[At], Results], device: Device, dtype: torch.dtype) -> tuple[float, str]:
    # torch 2.4 has no fused kernels for some pairs; training asks the record, and so does this.
    here = At(device=device.torch_device, dtype=dtype, rounded=dtype, fused=device.can.fused.holds)
    got = operation(here)
    device.synchronise()
    return error_of(got, operation(At(device="cpu", dtype=torch.float64, rounded=dtype)), device.torch_device)


def main(words: Sequence[str] | None = None) -> int:
    """Prove one device and dtype, reporting to stdout; return 0 when all was tried, whatever came of it."""
    parser = argparse.ArgumentParser(description="compute on a device and compare with float64 on the CPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32", choices=sorted(DTYPES))
    parser.add_argument("--rate-seconds", type=float, default=1.0, help="time for the matrix rate; 0: no rates")
    asked = parser.parse_args(words)
    say("wheel", **wheel_facts())
    try:
        device = Device.pick(asked.device)
    except LinneError as error:
        say("absent", reason=str(error))
        return 0
    names = {"name": device.name, "address": device.address, "torch_device": device.torch_device}
    say("device", kind=device.kind, **names, torch=torch.__version__, architecture=device.hardware.architecture)
    dtype = DTYPES[asked.dtype]
    with device.full_precision():
        _prove("copy both ways", 0.0, lambda: copy_error(device))
        for name, operation in OPERATIONS.items():
            if asked.dtype == "fp32" or name not in ONLY_FP32:
                tolerance = (STEP_TOLERANCES if name == "training step" else TOLERANCES)[asked.dtype]
                _prove(name, tolerance, lambda work=operation: _compare(work, device, dtype))  # type: ignore[misc]
        if asked.rate_seconds > 0:
            say("starts", operation="rates")
            copied = copy_rates(device, (32 if device.kind == "cpu" else 256) << 20)
            say("rates", matrix_tflops=matrix_rate(device, dtype, asked.rate_seconds), copy_gbs=copied)
    say("end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
