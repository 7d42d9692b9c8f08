"""What `linne tune` found to be the fastest way to run a bundle on a machine: kept beside it, and used by `auto`.

`exports/tuned.json` holds one choice for each machine, device and goal. A choice counts only for the very network it
was measured with, on the machine and with the versions that it names; otherwise it is passed over, and that is said.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from linne.bundle import Bundle
from linne.bundle_format import EXPORTS, exact_keys, parse_json, read_bytes, replace_file, seal, table, unsealed
from linne.errors import BundleError
from linne.exports import PRECISIONS, Precision, identity_of
from linne.host import accelerator_names, processor_name, usable_cores

FILE = "tuned.json"
FORMAT_VERSION = 1
Goal = Literal["latency", "throughput"]
GOALS: tuple[Goal, ...] = ("latency", "throughput")

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "onnxruntime": (
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-migraphx",
        "onnxruntime-directml",
        "onnxruntime-openvino",
    ),
    "openvino": ("openvino",),
    "tflite": ("ai-edge-litert",),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
}
"""Whose versions decide how fast a backend is; MIGraphX, which is mostly no package of Python's, tells its own."""
_KEYS = (
    "of",
    "machine",
    "device",
    "goal",
    "backend",
    "precision",
    "threads",
    "batch",
    "options",
    "versions",
    "measured",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One way to run a bundle, with what was measured of it."""

    machine: str
    """As `machine_name` says."""
    device: str
    """As it was typed: `cpu`, `auto`, `cuda`."""
    goal: Goal
    backend: str
    precision: Precision
    threads: int | None
    batch: int
    """Images at once with which it was measured."""
    options: Mapping[str, str]
    versions: Mapping[str, str]
    measured: Mapping[str, Any]
    """The row of the table: milliseconds, images a second, what it is faster than, and the day."""


def machine_name() -> str:
    """Return what a choice depends on of this machine: its processor, cores and accelerators, with their drivers."""
    parts = [f"{processor_name() or 'processor'}, {usable_cores()} cores", *accelerator_names()]
    return "; ".join(" ".join(part.split()) for part in parts)


def versions_of(backend: str) -> dict[str, str]:
    """Return the installed versions of what `backend` runs by."""
    if backend == "migraphx":
        from linne.graphs.migraphx_program import UNKNOWN, installed_version

        version = installed_version()
        return {} if version is None or UNKNOWN in version else {backend: version}
    found = {}
    for package in PACKAGES.get(backend, ()):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def choices_of(bundle: Bundle) -> tuple[Choice, ...]:
    """Return all choices that are kept of the network that `bundle` holds now, whatever machine they are for.

    Raises:
        BundleError: the file was altered.
    """
    folder = bundle.path / EXPORTS
    if not os.path.lexists(folder / FILE):
        return ()
    again = f"delete `{folder / FILE}` and tune again"
    try:
        raw = read_bytes(folder, FILE)
        manifest = parse_json(raw, FILE)
        values = exact_keys(unsealed(raw, manifest, FILE), ("format", "choices"), FILE)
        if values["format"] != FORMAT_VERSION:
            raise BundleError(f"it has format `{values['format']}`, and this linne reads format {FORMAT_VERSION}")
        if not isinstance(values["choices"], list):
            raise BundleError("`choices` is no list")
        rows = [exact_keys(row, _KEYS, "choices") for row in values["choices"]]
        identity = identity_of(bundle)
        return tuple(_choice(row) for row in rows if row["of"] == identity)
    except BundleError as error:
        raise BundleError(f"`{folder / FILE}`: {error.message}", hint=again) from error


def choice_for(bundle: Bundle, device: str, goal: Goal) -> tuple[Choice | None, str | None]:
    """Return the choice for this machine, or None; and why one that is kept for it is passed over.

    Raises:
        BundleError: the file was altered.
    """
    # Where nothing was tuned, the machine is not looked at.
    kept = [choice for choice in choices_of(bundle) if choice.goal == goal and choice.device == device]
    if not kept:
        return None, None
    here = machine_name()
    for choice in kept:
        if choice.machine == here:
            versions = versions_of(choice.backend)
            if versions and versions == dict(choice.versions):
                return choice, None
            before = ", ".join(f"{name} {version}" for name, version in choice.versions.items())
            now = ", ".join(f"{name} {version}" for name, version in versions.items()) or "none"
            return None, f"what was tuned for {before} is not used with {now}: linne tune {bundle.path}"
    return None, f"what was tuned on {kept[0].machine} is not used here: linne tune {bundle.path}"


def keep_choice(bundle: Bundle, choice: Choice) -> Path:
    """Return the file that now holds `choice`, in the place of an older one for the same machine, device and goal.

    Raises:
        BundleError: the file was altered, or the disk refuses.
    """
    place = (choice.machine, choice.device, choice.goal)
    others = [kept for kept in choices_of(bundle) if (kept.machine, kept.device, kept.goal) != place]
    identity = identity_of(bundle)
    rows = [{"of": identity, **{key: _plain(getattr(kept, key)) for key in _KEYS[1:]}} for kept in (*others, choice)]
    path = bundle.path / EXPORTS / FILE
    try:
        path.parent.mkdir(exist_ok=True)
        replace_file(path, seal({"format": FORMAT_VERSION, "choices": rows}, FILE))
    except OSError as error:
        raise BundleError(f"`{path}` cannot be written: {error.strerror}") from error
    return path


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _choice(row: Mapping[str, Any]) -> Choice:
    """Return a row of the file as a choice.

    Raises:
        BundleError: a value is of another kind.
    """
    texts = ("machine", "device", "backend")
    threads, batch = row["threads"], row["batch"]
    options, versions = table(row["options"], "options"), table(row["versions"], "versions")
    sound = all(isinstance(row[key], str) for key in texts) and row["goal"] in GOALS and row["precision"] in PRECISIONS
    sound &= type(batch) is int and batch >= 1 and (threads is None or (type(threads) is int and threads >= 1))
    sound &= all(isinstance(value, str) for value in (*options.values(), *versions.values()))
    if not sound:
        raise BundleError("a choice in it has values of another kind")
    return Choice(
        **{key: row[key] for key in (*texts, "goal", "precision", "threads", "batch")},
        options=options,
        versions=versions,
        measured=table(row["measured"], "measured"),
    )
