"""Steps of a training, traced: the loop's own step on what the loop's own loader yields, and nothing kept."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.profiler import profile

from linne import models
from linne.data.loading.loader import Batches, make_batches
from linne.device import Device
from linne.device.fallbacks import Fallbacks
from linne.errors import LinneError
from linne.log import Narrator
from linne.models.layout import layer_against_channels_last
from linne.planning import Plan
from linne.profiling.measured import summarise
from linne.profiling.parts import Parts, announce
from linne.profiling.passes import Steps, run_passes, times_as_fast
from linne.profiling.summary import TraceSummary
from linne.recipe import Recipe
from linne.recipes.auto import RESIDENT_SHARE
from linne.training.starting import throwaway_state
from linne.training.state import TrainState
from linne.training.step import train_step

DECIDING = {
    *("data.batch_size", "data.loader", "data.num_workers", "optim.optimizer"),
    *(f"device.{name}" for name in ("channels_last", "compile", "num_threads", "precision")),
    *(f"augment.{name}" for name in ("flip", "crop_padding", "cutout", "erase", "resized_crop_area", "policy", "hue")),
    *(f"augment.{name}" for name in ("rotate_degrees", "brightness", "contrast", "saturation", "mixup_alpha")),
    "augment.cutmix_alpha",
}
"""The recipe's fields that advice asks for."""


def trace_steps(
    plan: Plan,
    narrator: Narrator,
    num_steps: int | None,
    start: float,
    *,
    require_accelerator: bool,
    trust_code: bool = False,
) -> tuple[TraceSummary, profile]:
    """Return what was found of training steps of `plan`, with a network that is thrown away, and torch's record.

    `start` is when opening began, by `time.perf_counter`. Logs, checkpoints and validation are not part of a step.

    Raises:
        DeviceError: an operator ran on the CPU, and an accelerator is required.
        SourceError: too many images cannot be read.
    """
    recipe, source, device = plan.recipe, plan.source, plan.device
    parts, fallbacks = Parts(device), Fallbacks(device, allowed=not require_accelerator)
    total = sum(len(source.splits[name]) for name in ("train", "val") if name in source.splits)
    with device.repeatable(recipe.seed, recipe.device.num_threads, recipe.device.determinism), fallbacks.watch():
        with narrator.progress("decoding", total):
            loads = cast(Device, Loads(device, parts))
            batches, _ = make_batches(source, recipe, loads, narrator.advance, narrator.line)
        state = throwaway_state(recipe, source, device, batches, trust_code=trust_code)
        announce_step(state, parts)
        setup_seconds, parts.copied_bytes = time.perf_counter() - start, 0
        narrator.line("timing steps")
        steps = partial(steps_of, state, batches, recipe, device, parts)
        measured = run_passes(steps, parts, device, fallbacks, num_steps)
        facts = {"setup_seconds": setup_seconds, **_facts(plan)}
        summary = summarise(measured, parts, device, fallbacks, **facts)
        trials = _try(plan, steps, batches, measured.whole.seconds, num_steps, narrator, trust_code)
    return replace(summary, trials=trials), measured.recorded


class Loads:
    """A device as the loader sees it, where a copy to it is a part of the step."""

    def __init__(self, device: Device, parts: Parts) -> None:
        self._device, self._parts = device, parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return `tensor` on the device."""
        self._parts.begin("copy")
        there = self._device.put(tensor)
        self._parts.copied_bytes += tensor.nbytes
        self._parts.begin("prepare")
        return there


def announce_step(state: TrainState, parts: Parts) -> None:
    """Have what `train_step` calls say which part of the step begins."""
    announce(parts, state, "forward", "forward")
    announce(parts, state, "loss", "forward", then="backward")
    if state.teacher is not None:
        announce(parts, state.teacher, "blend", "forward", then="backward")
    if state.scaler is not None:
        announce(parts, state.scaler, "unscale_", "optimiser")
    if state.clip is not None:
        announce(parts, state, "clip", "optimiser")
    announce(parts, state.stepper, "step", "optimiser")


def steps_of(
    state: TrainState, batches: Batches, recipe: Recipe, device: Device, parts: Parts, *, relaid: bool = False
) -> Generator[int]:
    """Yield the number of images of each step when it is done, epoch after epoch.

    With `relaid` the batches come in another layout than the recipe's, and are copied into it.
    """
    layout = torch.channels_last if recipe.device.channels_last else torch.contiguous_format
    waiting = "prepare" if recipe.data.loader == "resident" else "wait" if recipe.data.num_workers else "decode"
    for epoch in itertools.count():
        coming = batches.epoch(epoch)
        parts.begin(waiting)
        for batch in coming:
            if relaid:
                batch = replace(batch, images_NCHW=batch.images_NCHW.contiguous(memory_format=layout))
            parts.begin("other")
            train_step(state, batch, recipe, device, len(batches))
            state.step = 0  # the schedule has no end here
            parts.begin("other")
            parts.end_step()
            yield len(batch.labels_N)
            parts.begin(waiting)


def _facts(plan: Plan) -> dict[str, Any]:
    """Return what advice asks of a plan."""
    recipe, source, device, data = plan.recipe, plan.source, plan.device, plan.recipe.data
    num_images = sum(len(source.splits[name]) for name in ("train", "val") if name in source.splits)
    pixels = num_images * data.height * data.width * data.channels
    fits = pixels <= RESIDENT_SHARE * device.memory_bytes() and recipe.augment.resized_crop_area is None
    return {
        "traced": "train",
        "subject": f"training {recipe.model.name} on {source.name}, {data.batch_size} images a step, "
        f"{recipe.device.precision}",
        "settings": {path: value for path, value in recipe.to_fields().items() if path in DECIDING},
        "resident_bytes": pixels if data.loader == "streaming" and fits else None,
        "size": (data.height, data.width),
    }


def _other_ways(plan: Plan, trust_code: bool) -> list[tuple[str, Any]]:
    """Return the settings that change a step's speed, cost nothing to try, and train as well: the other of each two.

    The other arithmetic, where that is fp32 or what the device was picked with, and the other layout, on devices of
    which somebody has shown that it may gain.
    """
    recipe, ways = plan.recipe, list[tuple[str, Any]]()
    other = plan.device.precision if recipe.device.precision == "fp32" else "fp32"
    if other != recipe.device.precision:
        ways.append(("device.precision", other))
    ref = models.describe_recipe(recipe, plan.source.num_classes, trust_code=trust_code)
    network = models.build(ref, trust_code=trust_code)
    classes, kind = plan.source.num_classes, plan.device.kind
    may_gain = plan.device.can.channels_last.holds or recipe.device.channels_last
    may_gain = may_gain and layer_against_channels_last(recipe, classes, kind, trust_code=trust_code) is None
    if may_gain and any(isinstance(module, nn.Conv2d) for module in network.modules()):
        ways.append(("device.channels_last", not recipe.device.channels_last))
    return ways


def _try(
    plan: Plan,
    steps: Steps,
    batches: Batches,
    seconds: float,
    num_steps: int | None,
    narrator: Narrator,
    trust_code: bool,
) -> dict[str, float]:
    """Return how many times as fast steps are in other ways, each with a network of its own."""
    found = {}
    for path, value in _other_ways(plan, trust_code):
        typed = f"{path}={str(value).lower()}"
        narrator.line(f"trying {typed}")
        try:
            found[typed] = _gain(plan, path, value, steps, batches, seconds, num_steps, trust_code)
        except (LinneError, RuntimeError) as error:  # no kernel, no memory: what was measured is not lost for it
            narrator.warn(f"{typed} could not be tried: {str(error).strip().partition(chr(10))[0][:200]}")
    return found


def _gain(
    plan: Plan,
    path: str,
    value: Any,
    steps: Steps,
    batches: Batches,
    seconds: float,
    num_steps: int | None,
    trust_code: bool,
) -> float:
    recipe, device = plan.recipe.override({path: value}), plan.device
    state = throwaway_state(recipe, plan.source, device, batches, trust_code=trust_code)
    relaid = path == "device.channels_last"
    others = partial(steps_of, state, batches, recipe, device, Parts(device), relaid=relaid)
    return times_as_fast(steps, others, device, seconds, num_steps)
