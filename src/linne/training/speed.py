"""What channels_last and torch.compile would gain: a few real training steps of each, timed."""

from __future__ import annotations

import itertools
import time

from linne.data.loading.loader import make_batches
from linne.data.source import Source
from linne.device import Device
from linne.models.layout import layer_against_channels_last
from linne.recipe import Recipe
from linne.training.starting import throwaway_state
from linne.training.step import train_step

SECONDS_EACH = 3.0


def measure_gains(
    recipe: Recipe, source: Source, device: Device, *, trust_code: bool = False
) -> list[tuple[str, str, str]]:
    """Return rows of (variant, images a second, gain over the recipe's own way), with a fresh network each.

    Steps are counted for about three seconds after two that warm up; `torch.compile` also states how long it built.
    """
    variants = [
        {"device.channels_last": recipe.device.channels_last, "device.compile": recipe.device.compile},
        {"device.channels_last": not recipe.device.channels_last, "device.compile": recipe.device.compile},
        {"device.channels_last": recipe.device.channels_last, "device.compile": not recipe.device.compile},
    ]
    crashes = layer_against_channels_last(recipe, source.num_classes, device.kind, trust_code=trust_code)
    rows = [("speed", "images/s", "against the recipe")]
    base = 0.0
    for variant in variants:
        layout = "channels_last" if variant["device.channels_last"] else "channels_first"
        name = f"{layout}, {'compiled' if variant['device.compile'] else 'eager'}"
        if variant["device.channels_last"] and crashes is not None:
            rows.append((name, "-", f"not tried: torch crashes with `{crashes}`"))
            continue
        try:
            rate, build_seconds = _measure(recipe.override(variant), source, device, trust_code)
        except Exception as error:  # no compiler, an operator that cannot be compiled: a finding, not the end
            if not variant["device.compile"]:
                raise
            rows.append((name, "-", f"cannot be used here: {type(error).__name__}"))
            continue
        base = base or rate
        built = f"; {build_seconds:.0f} s to compile" if variant["device.compile"] else ""
        rows.append((name, f"{rate:,.0f}", f"{rate / base:.2f} x{built}"))
    return rows


def _measure(recipe: Recipe, source: Source, device: Device, trust_code: bool) -> tuple[float, float]:
    """Return images a second, and the seconds that the first two steps took."""
    with device.repeatable(recipe.seed, recipe.device.num_threads):
        batches, _ = make_batches(source, recipe, device)
        state = throwaway_state(recipe, source, device, batches, trust_code=trust_code)
        endless = itertools.chain.from_iterable(batches.epoch(epoch) for epoch in itertools.count())
        start = time.perf_counter()
        for batch in itertools.islice(endless, 2):
            train_step(state, batch, recipe, device, len(batches))
        device.synchronise()
        warm = time.perf_counter()
        num_images = 0
        while time.perf_counter() - warm < SECONDS_EACH:
            batch = next(endless)
            train_step(state, batch, recipe, device, len(batches))
            device.synchronise()
            num_images += len(batch.labels_N)
        return num_images / (time.perf_counter() - warm), warm - start
