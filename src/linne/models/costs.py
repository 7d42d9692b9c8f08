"""What a network costs: its parameters, and the multiplications for one image of the size it was designed for.

`costs.json` holds the numbers of timm's and torchvision's networks, written by `scripts/measure_models`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

NUM_CLASSES = 1000
"""Of the classifier that is counted in."""
CHANNELS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a network with three channels and a thousand classes costs."""

    parameters: int
    macs: int
    """Multiply-adds for one image in convolutions, matrix products and attention; a FLOP counter's number halved."""
    height: int
    width: int


def measured() -> dict[str, Cost]:
    """Return the cost of each network in `costs.json` by its full name. Those that could not be measured are not in."""
    table = json.loads(files("linne.models").joinpath("costs.json").read_text("utf-8"))
    return {name: cost_of(row) for name, row in table["networks"].items() if row is not None}


def cost_of(row: list[int]) -> Cost:
    """Return the cost that a row of the file says."""
    parameters, macs, height, width = row
    return Cost(parameters=parameters, macs=macs, height=height, width=width)


def measure(name: str) -> Cost | None:
    """Return the cost of the network `name`, counted on shapes alone, or None where that cannot be done.

    Takes a second or less and, for nearly all, no memory; no random number is drawn. None for networks of no designed
    size, whose parameters depend on it, and for those that need numbers while they run.
    """
    from linne.models import describe, input_defaults, load_provider, resolve
    from linne.models.provider import ModelRef

    designed = input_defaults(name)
    if designed is None:
        return None
    provider, own_name = resolve(name)
    size: dict[str, Any] = {"channels": CHANNELS, "height": designed.height, "width": designed.width}
    # At the size it was designed for, nearly every network needs no options, and to find those takes as long again.
    plain = ModelRef(provider=provider, name=own_name, num_classes=NUM_CLASSES, options={}, **size)
    try:
        return _count(load_provider(provider).build, plain)
    except Exception:  # a network refuses an input with whatever its author chose
        try:
            return _count(load_provider(provider).build, describe(name, num_classes=NUM_CLASSES, **size))
        except Exception:
            return None


def _count(build: Any, ref: Any) -> Cost:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            with torch.device("meta"):
                network = build(ref)
        except NotImplementedError:  # it looks at its numbers while it is built: torchvision's RegNets
            network = build(ref).to("meta")
        network.eval().requires_grad_(False)  # the counter's hooks stumble over weights that are a module's input
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, ref.channels, ref.height, ref.width))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    # A FLOP counter counts each multiply-add twice.
    return Cost(parameters=parameters, macs=counter.get_total_flops() // 2, height=ref.height, width=ref.width)
