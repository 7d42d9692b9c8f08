"""A bundle's graph in int8: ranges from images of the training split, the accuracy held on those of `val`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from linne.bundle import Bundle
from linne.exporting.calibration import Calibration, calibration_of, examples_of
from linne.exporting.int8_search import Quantised, Search
from linne.exporting.to_int8 import needs_reduced_range
from linne.exporting.wish import Int8
from linne.verifying import Reference, reference_of
from linne.verifying.examples import Examples

INT8_SHARE = 1.0
"""Of the largest logit, by which those of an int8 graph may be off on canaries, cuts and noise: beyond that it is no
answer. What int8 costs is measured on the validation split."""


@dataclass(frozen=True, eq=False, slots=True)
class Images:
    """What ranges are measured on, and what decides."""

    calibration: Calibration
    examples: Examples


def images_for(bundle: Bundle, wish: Int8, say: Callable[[str], None]) -> Images:
    """Return the images for `bundle`, before minutes of work.

    Raises:
        LinneError: there are none to measure ranges on, or none to verify with.
    """
    for note in wish.source.notes:
        say(note)
    examples = examples_of(bundle, wish.source)
    if "val" not in wish.source.splits:
        say("there is no split `val`: training images decide, of which the network is surer than of others")
    return Images(calibration_of(bundle, wish.source, wish.num_images, wish.seed), examples)


def to_budget(
    bundle: Bundle, content: bytes, wish: Int8, images: Images, *, trust_code: bool, say: Callable[[str], None]
) -> tuple[bytes, Mapping[str, Any]]:
    """Return the fp32 graph `content` of `bundle` in int8, and how it was made.

    Raises:
        CheckFailed: int8 costs more than `wish` allows.
    """
    started = time.perf_counter()
    calibration = images.calibration
    reduce_range, why = needs_reduced_range()
    say(f"measuring ranges on {calibration.name}")
    say(f"verifying on {images.examples.name}; weights have {7 if reduce_range else 8} bits: {why}")
    reference = Reference(reference_of(bundle, trust_code=trust_code), images.examples)
    search = Search(content, calibration, reference, max_drop=wish.max_drop, reduce_range=reduce_range, say=say)
    found = search.run(wish.keep_float)
    for line in found.outcome.report.details():
        say(line)
    say(f"quantised in {time.perf_counter() - started:.0f} s, {len(found.content) / 1e6:.1f} MB")
    facts = {
        "scheme": "QDQ, uint8 activations a tensor, int8 weights a channel",
        "weight_bits": 7 if reduce_range else 8,
        "weight_bits_because": why,
        "calibration": calibration_facts(images, wish),
        **_facts(found),
    }
    return found.content, {"quantisation": facts}


def calibration_facts(images: Images, wish: Int8) -> dict[str, Any]:
    """Return what is kept of the images that ranges were measured on."""
    return {
        "images": images.calibration.name,
        "seed": wish.seed,
        "num_by_class": images.calibration.num_by_class,
        "source_fingerprint": wish.source.fingerprint,
    }


def _facts(found: Quantised) -> dict[str, Any]:
    return {
        "method": found.outcome.method,
        "num_layers": len(found.layers),
        "in_float": list(found.outcome.in_float),
        "work_in_float": found.outcome.work_in_float,
        "logit_gap_alone": dict(found.gaps),
        "tried": [item.to_dict() for item in found.tried],
        "verified": dict(found.outcome.report.kept()),
    }
