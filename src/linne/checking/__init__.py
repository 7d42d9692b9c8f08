"""Looks at every image of a source before the first step: files, copies, leaks, classes, outliers.

`check` reads everything once and returns a `CheckReport`; `quick_check` takes what is known without decoding. No file
is changed: what should be left out is written to a list that `open_source` honours.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from linne.checking import duplicates
from linne.checking.facts import Facts, gather
from linne.checking.findings import class_findings, example, file_findings, pixel_findings
from linne.checking.page import write_page
from linne.checking.quick import quick_check
from linne.checking.report import SEVERITIES, CheckReport, Group
from linne.data.images.headers import FORMATS
from linne.data.source import Ints, Source
from linne.log import Narrator

__all__ = ["CheckReport", "check", "quick_check", "write_page"]


def check(source: Source, *, narrator: Narrator | None = None, num_threads: int | None = None) -> CheckReport:
    """Return what was found in `source`, every image decoded once.

    Memory does not grow with the size of images: some 340 bytes are kept of each.

    Args:
        source: Opened; its splits decide what a leak is.
        narrator: Shows progress.
        num_threads: How many decode; as many as there are cores without.
    """
    started = time.perf_counter()
    narrator = Narrator(quiet=True) if narrator is None else narrator
    num_threads = num_threads or os.cpu_count() or 1
    facts = gather(source, num_threads=num_threads, narrator=narrator)
    exact = duplicates.exact_groups(facts)
    near = duplicates.near_groups(facts, exact, source.channels, num_threads)
    splits = tuple(source.splits.values())
    found = [
        *file_findings(facts, source.labels),
        *duplicates.findings(facts, exact, near, partial(_group, facts, source)),
        *class_findings(splits, source.labels),
        *pixel_findings(facts, source.labels),
    ]
    left_out = {**{n: f"cannot be read: {text}" for n, text in facts.problems.items()}}
    left_out |= duplicates.better_left_out(facts, exact, near)
    counts = {split.name: np.bincount(split.labels_N, minlength=source.num_classes) for split in splits}
    return CheckReport(
        source=source.name,
        fingerprint=source.fingerprint,
        labels=source.labels,
        counts={name: tuple(counts_K.tolist()) for name, counts_K in counts.items()},
        about=tuple(_about(facts)),
        notes=source.notes,
        findings=tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))),
        quarantine={facts.name(n): reason for n, reason in sorted(left_out.items())},
        seconds=time.perf_counter() - started,
    )


def _group(facts: Facts, source: Source, members: Ints) -> Group:
    return Group(tuple(example(facts, source.labels, n) for n in members.tolist()))


def _about(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield the make-up of the set in words."""
    rows_N = facts.rows_N[facts.rows_N["readable"]]
    if len(rows_N) == 0:
        return
    heights, widths = (np.quantile(rows_N[side], [0, 0.5, 1]).astype(int).tolist() for side in ("height", "width"))
    if heights[0] == heights[2] and widths[0] == widths[2]:
        yield "size", f"{heights[0]} x {widths[0]} pixels (height x width)"
    else:
        told = [
            f"{side} {low} to {high} (median {middle})"
            for side, (low, middle, high) in (("height", heights), ("width", widths))
        ]
        yield "size", f"{', '.join(told)} pixels"
    kinds, counts = np.unique(rows_N["format"], return_counts=True)
    order = np.argsort(-counts)
    told = [f"{FORMATS[kinds[k]] if kinds[k] >= 0 else 'pixels'} {counts[k]:,}" for k in order]
    yield "format", ", ".join(told)
    low, middle, high = np.quantile(rows_N["mean"], [0.05, 0.5, 0.95])
    yield "brightness", f"{middle:.0f} of 255; nine in ten images between {low:.0f} and {high:.0f}"
