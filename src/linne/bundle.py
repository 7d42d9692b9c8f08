"""A trained classifier as one folder: written all or nothing, checked whole before anything in it is used.

Holds no code and no pickle: `config.json`, `model.safetensors` (or `model.onnx`), `bundle.json`, `canaries/*.png` and
`README.md`.
The checks find damage, mix-ups and half-written folders. They do not say who wrote a bundle: whoever can rewrite
every file can also rewrite the checksums.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

import linne
from linne.bundle_card import render_card
from linne.bundle_format import (
    AGAIN,
    FORMAT_VERSION,
    GRAPH,
    MANIFEST,
    check_files,
    describe_file,
    exact_keys,
    explained,
    parse_files,
    parse_json,
    read_bytes,
    read_manifest,
    replace_file,
    seal,
    sync_folder,
    table,
    to_json,
    write_file,
)
from linne.canary import canary_batch, canary_images
from linne.errors import BundleError
from linne.hash_ahead import HashAhead
from linne.preprocess import Floats, InputSpec

__all__ = [
    "FORMAT_VERSION",
    "Bundle",
    "Canary",
    "add_metrics",
    "canary_batch",
    "canary_images",
    "model_card",
    "open_bundle",
    "write_bundle",
]

TASK = "image-classification"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
GRAPH_PROVIDER = "onnx"
"""The provider that a bundle's `model` names where the network is `model.onnx`: nothing builds it from weights."""
PARTIAL = ".partial-"

_KEYS = ("format", "linne", "task", "labels", "input", "model", "metrics", "canaries", "provenance", "files")


@dataclass(frozen=True, slots=True)
class Canary:
    """One image with the answer the bundle must give to it."""

    file: str
    """`canaries/0.png`."""
    label: str
    """The label with the largest logit."""
    logits: tuple[float, ...]
    """In the order of the bundle's labels; `bundle.json` keeps them by name, so that swapped labels are found."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that has been checked, without its weights."""

    path: Path
    task: str
    labels: tuple[str, ...]
    """Logit k is for `labels[k]`."""
    input: InputSpec
    model: Mapping[str, Any]
    """The fields of a `ModelRef`."""
    metrics: Mapping[str, Any]
    canaries: tuple[Canary, ...]
    provenance: Mapping[str, Any]
    """Recipe, seed, command, versions, device, source, date: whatever training knew."""
    files: Mapping[str, Mapping[str, Any]]
    """{name: {"sha256", "size_bytes"}} of every file but `bundle.json`, which carries its own checksum."""
    ahead: HashAhead | None = field(default=None, compare=False, repr=False)
    """Where it was opened with one: what hashes the file that will run. The network's is then checked when used."""

    @property
    def network_file(self) -> str:
        """The file that holds the network: `model.safetensors`, for one that is built, or `model.onnx`, a graph."""
        return GRAPH if self.model.get("provider") == GRAPH_PROVIDER else WEIGHTS

    def weights(self) -> dict[str, NDArray[Any]]:
        """Return every tensor of `model.safetensors` by name.

        Raises:
            BundleError: it holds a graph, or the file cannot be read. Where it was not checked on opening, it is now.
        """
        if self.network_file != WEIGHTS:
            raise BundleError(
                f"bundle `{self.path}` holds a graph, `{self.network_file}`, and no weights of a network by name",
                hint="`linne predict` and `linne evaluate` run it; training, tracing and distilling need weights",
            )
        self.require_network()
        try:
            return load_file(self.path / WEIGHTS)
        except (OSError, SafetensorError, TypeError) as error:
            raise BundleError(f"bundle `{self.path}`: `{WEIGHTS}` cannot be read: {error}", hint=AGAIN) from error

    def require_network(self) -> None:
        """Raise BundleError where the network's file was not compared with its sha256 on opening, and differs."""
        if self.ahead is not None:
            with explained(self.path):
                check_files(self.path, {self.network_file: self.files[self.network_file]}, ahead=self.ahead)


def open_bundle(folder: Path | str, *, ahead: HashAhead | None = None) -> Bundle:
    """Return the bundle in `folder`, after comparing every listed file with its size and sha256.

    Files that `bundle.json` does not list are neither read nor checked. With `ahead` the network's file, which holds
    almost all bytes, is compared with its sha256 only when it is used: an export of it may be what runs.

    Raises:
        BundleError: missing, half-written, altered, contradicting itself, or of a newer format.
    """
    folder = Path(folder)
    _check_place(folder)
    with explained(folder):
        return _read(folder, ahead)


def write_bundle(
    folder: Path | str,
    *,
    labels: Sequence[str],
    input: InputSpec,  # noqa: A002 - the field's name
    model: Mapping[str, Any],
    weights: Mapping[str, NDArray[Any]] | bytes,
    config: Mapping[str, Any],
    canary_logits_NK: Floats,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> Bundle:
    """Return the bundle written to the new folder `folder`, read back from the disk.

    Everything is written to a folder beside it, flushed, opened and only then renamed: whatever goes wrong before,
    there is no `folder`.

    Args:
        weights: tensors by name, or the bytes of an ONNX file where `model` has the provider `onnx`.
        config: what goes into `config.json`; its `label_names` must be `labels`.
        canary_logits_NK: the model's answers, in fp32, to `canary_batch(input)`.

    Raises:
        BundleError: `folder` exists, the parts contradict each other, a number is not finite, or the disk refuses.
    """
    folder = Path(folder)
    if os.path.lexists(folder):
        raise BundleError(
            f"`{folder}` exists already, and a bundle is never overwritten", hint="choose another folder, or delete it"
        )
    partial = folder.with_name(f".{folder.name}{PARTIAL}{secrets.token_hex(4)}")
    try:
        _parse_labels(list(labels))
        canaries = _describe_canaries(labels, canary_logits_NK, len(canary_images(input)))
        bundle = Bundle(folder, TASK, tuple(labels), input, model, metrics, canaries, provenance, files={})
        folder.parent.mkdir(parents=True, exist_ok=True)
        _fill(partial, bundle, weights, config)
        written = dataclasses.replace(_read(partial), path=folder)
        os.rename(partial, folder)
        sync_folder(folder.parent)
        return written
    except (BundleError, OSError, SafetensorError) as error:
        reason = error.message if isinstance(error, BundleError) else getattr(error, "strerror", None) or error
        raise BundleError(f"bundle `{folder}` cannot be written: {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def add_metrics(bundle: Bundle, metrics: Mapping[str, Any]) -> Bundle:
    """Return `bundle` with `metrics` added to its own, in `bundle.json` and the model card on disk.

    At every moment the folder is a bundle that opens: the card leaves the list of files before it changes and
    comes back after. An interruption in between leaves the new metrics with the old card.

    Raises:
        BundleError: the bundle on disk has changed, a metric is not JSON, or the disk refuses.
    """
    try:
        on_disk = _parse(bundle.path, read_manifest(bundle.path))
        updated = dataclasses.replace(on_disk, metrics={**on_disk.metrics, **metrics})
        card = _encoded_card(updated)
        without_card = {name: entry for name, entry in updated.files.items() if name != CARD}
        replace_file(bundle.path / MANIFEST, seal(_manifest(updated, without_card)))
        replace_file(bundle.path / CARD, card)
        files = {**without_card, CARD: describe_file(bundle.path, CARD)}
        replace_file(bundle.path / MANIFEST, seal(_manifest(updated, files)))
    except (BundleError, OSError) as error:
        reason = error.message if isinstance(error, BundleError) else error.strerror
        raise BundleError(f"bundle `{bundle.path}`: metrics cannot be added: {reason}") from error
    return dataclasses.replace(updated, files=files)


def model_card(bundle: Bundle) -> str:
    """Return the bundle's `README.md`, written from what its `bundle.json` says."""
    return render_card(_manifest(bundle, bundle.files))


def _encoded_card(bundle: Bundle) -> bytes:
    return model_card(bundle).encode("utf-8", "replace")


def _describe_canaries(labels: Sequence[str], logits_NK: Floats, count: int) -> tuple[Canary, ...]:
    if logits_NK.shape != (count, len(labels)):
        raise BundleError(f"canary logits have shape {logits_NK.shape}, expected {(count, len(labels))}")
    if not np.isfinite(logits_NK).all():
        raise BundleError("the model answers the canaries with numbers that are not finite")
    # Nine digits hold a float32 exactly.
    rows = [tuple(float(f"{value:.9g}") for value in row) for row in logits_NK]
    return tuple(Canary(f"canaries/{i}.png", labels[int(np.argmax(row))], row) for i, row in enumerate(rows))


def _fill(folder: Path, bundle: Bundle, weights: Mapping[str, NDArray[Any]] | bytes, config: Mapping[str, Any]) -> None:
    """Write every file of `bundle` into the new folder `folder`, `bundle.json` last."""
    (folder / "canaries").mkdir(parents=True)
    for canary, pixels_HWC in zip(bundle.canaries, canary_images(bundle.input), strict=True):
        Image.fromarray(pixels_HWC.squeeze(-1) if bundle.input.channels == 1 else pixels_HWC).save(folder / canary.file)
    write_file(folder / CONFIG, to_json(config, CONFIG))
    write_file(folder / CARD, _encoded_card(bundle))
    if isinstance(weights, bytes):
        write_file(folder / GRAPH, weights)
    else:
        _save_tensors(folder / WEIGHTS, weights)
        shutil.copymode(folder / CONFIG, folder / WEIGHTS)  # safetensors keeps others from reading it
    names = (CONFIG, bundle.network_file, CARD, *(canary.file for canary in bundle.canaries))
    for name in names:
        with open(folder / name, "rb+") as file:
            os.fsync(file.fileno())
    files = {name: describe_file(folder, name) for name in names}
    write_file(folder / MANIFEST, seal(_manifest(bundle, files)))
    sync_folder(folder / "canaries")
    sync_folder(folder)


def _save_tensors(path: Path, weights: Mapping[str, NDArray[Any]]) -> None:
    """Write `model.safetensors`, refusing values that are not numbers."""
    # safetensors writes the memory as it lies, whatever the strides. `np.ascontiguousarray` would make scalars 1-D.
    tensors = {name: np.asarray(value, order="C") for name, value in weights.items()}
    for name, value in tensors.items():
        if np.issubdtype(value.dtype, np.floating) and np.isnan(value).any():
            raise BundleError(f"weights `{name}` hold values that are not numbers")
    # transformers opens only files that say which framework they are for.
    save_file(tensors, path, metadata={"format": "pt"})


def _manifest(bundle: Bundle, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    canaries = [
        {"file": c.file, "label": c.label, "logits": dict(zip(bundle.labels, c.logits, strict=True))}
        for c in bundle.canaries
    ]
    return {
        "format": FORMAT_VERSION,
        "linne": linne.__version__,
        "task": bundle.task,
        "labels": list(bundle.labels),
        "input": bundle.input.to_dict(),
        "model": dict(bundle.model),
        "metrics": dict(bundle.metrics),
        "canaries": canaries,
        "provenance": dict(bundle.provenance),
        "files": {name: dict(entry) for name, entry in files.items()},
    }


def _check_place(folder: Path) -> None:
    """Raise BundleError with the likely reason unless `folder` holds a `bundle.json`."""
    unfinished = "a run was stopped while writing it; delete it and train again"
    if folder.name.startswith(".") and PARTIAL in folder.name:
        raise BundleError(f"`{folder}` is a half-written bundle", hint=unfinished)
    if not folder.exists():
        beside = sorted(folder.parent.glob(f".{folder.name}{PARTIAL}*")) if folder.parent.is_dir() else []
        if beside:
            raise BundleError(f"no bundle at `{folder}`, only the half-written `{beside[0]}`", hint=unfinished)
        raise BundleError(f"no bundle at `{folder}`: there is no such folder")
    if not folder.is_dir():
        hint = f"give its folder, `{folder.parent}`" if folder.name == MANIFEST else None
        raise BundleError(f"`{folder}` is a file, expected a bundle's folder", hint=hint)
    if not os.path.lexists(folder / MANIFEST):
        inside = folder / "bundle"
        hint = f"did you mean `{inside}`?" if (inside / MANIFEST).exists() else "`linne train` writes bundles"
        raise BundleError(f"`{folder}` is not a bundle: it has no `{MANIFEST}`", hint=hint)


def _read(folder: Path, ahead: HashAhead | None = None) -> Bundle:
    """Return the bundle in `folder` after every check, but for that of the network's file where there is `ahead`."""
    bundle = _parse(folder, read_manifest(folder))
    check_files(folder, bundle.files, later=() if ahead is None else (bundle.network_file,))
    _check_config(bundle, parse_json(read_bytes(folder, CONFIG), CONFIG))
    return dataclasses.replace(bundle, ahead=ahead)


def _parse(folder: Path, manifest: Mapping[str, Any]) -> Bundle:
    """Return the bundle that a `bundle.json` of the present format describes."""
    values = exact_keys(manifest, _KEYS, MANIFEST)
    if values["task"] != TASK:
        raise BundleError(f"the task is `{values['task']}`, expected `{TASK}`")
    labels = _parse_labels(values["labels"])
    model = table(values["model"], "model")
    if model.get("num_classes", len(labels)) != len(labels):
        raise BundleError(f"the model has {model['num_classes']} classes and the bundle {len(labels)} labels")
    canaries = _parse_canaries(values["canaries"], labels)
    files = parse_files(values["files"])
    metrics, provenance = table(values["metrics"], "metrics"), table(values["provenance"], "provenance")
    bundle = Bundle(folder, TASK, labels, _parse_input(values["input"]), model, metrics, canaries, provenance, files)
    for name in (CONFIG, bundle.network_file, *(canary.file for canary in canaries)):
        if name not in files:
            raise BundleError(f"`files` does not list `{name}`")
    return bundle


def _parse_labels(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name for name in value):
        raise BundleError("`labels` must be a list of texts, none empty")
    seen: set[str] = set()
    for name in value:
        if name in seen:
            raise BundleError(f"label `{name}` appears twice")
        if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise BundleError(f"label {name!a} is not Unicode text", hint="rename it")
        seen.add(name)
    return tuple(value)


def _parse_input(value: Any) -> InputSpec:
    values = exact_keys(value, tuple(field.name for field in dataclasses.fields(InputSpec)), "input")
    for key in ("channels", "height", "width"):
        if type(values[key]) is not int:
            raise BundleError(f"`input.{key}` is `{values[key]}`, expected a whole number")
    for key in ("mean", "std"):
        if not isinstance(values[key], list):
            raise BundleError(f"`input.{key}` is `{values[key]}`, expected a list")
    return InputSpec.from_dict(values)


def _parse_canaries(value: Any, labels: tuple[str, ...]) -> tuple[Canary, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= 64:
        raise BundleError("`canaries` must be a list of 1 to 64")
    canaries = []
    for i, item in enumerate(value):
        values = exact_keys(item, ("file", "label", "logits"), f"canaries.{i}")
        by_name = exact_keys(values["logits"], labels, f"canaries.{i}.logits")
        logits = tuple(by_name[label] for label in labels)
        if not all(type(logit) is float for logit in logits):
            raise BundleError(f"`canaries.{i}.logits` must be numbers with a decimal point")
        if values["label"] != labels[int(np.argmax(logits))]:
            raise BundleError(f"`canaries.{i}` is labelled `{values['label']}`, but its logits say otherwise")
        canaries.append(Canary(str(values["file"]), str(values["label"]), logits))
    return tuple(canaries)


def _check_config(bundle: Bundle, config: Mapping[str, Any]) -> None:
    """Raise BundleError unless `config.json`, which timm and transformers read, says the same as `bundle.json`."""
    names = config.get("label_names")
    if not isinstance(names, list) or len(names) != len(bundle.labels):
        found = len(names) if isinstance(names, list) else "no"
        raise BundleError(f"`{CONFIG}` has {found} label_names and `{MANIFEST}` {len(bundle.labels)} labels")
    for i, (theirs, ours) in enumerate(zip(names, bundle.labels, strict=True)):
        if theirs != ours:
            raise BundleError(f"label {i} is `{ours}` in `{MANIFEST}` and `{theirs}` in `{CONFIG}`")
    spec = bundle.input.to_dict()
    spec["input_size"] = [bundle.input.channels, bundle.input.height, bundle.input.width]
    settings = table(config.get("pretrained_cfg", {}), "pretrained_cfg")
    for key in ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"):
        if key in settings and settings[key] != spec[key]:
            raise BundleError(f"{key} is {spec[key]} in `{MANIFEST}` and {settings[key]} in `{CONFIG}`")
