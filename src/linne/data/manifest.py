"""Splits as a file: which example is in which split, so that a later run or evaluation can have the same ones."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from linne.data.names import counted, listed, printable
from linne.data.source import ImageStore, Source, Split
from linne.data.split import SPLITS, Examples
from linne.errors import SourceError

FORMAT = 1
_MAX_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Manifest:
    """Which split and label each example had, by its name in the source."""

    labels: tuple[str, ...]
    places: Mapping[str, tuple[str, str]]
    """Example name to (split, label)."""


def save_manifest(source: Source, path: Path) -> str:
    """Write which example of `source` is in which split to the JSON file `path`, and return the file's sha256.

    Names are relative to the source, so the file stays true when the source is moved.
    """
    splits: dict[str, dict[str, list[str]]] = {}
    for name, split in source.splits.items():
        classes: dict[str, list[str]] = {label: [] for label in source.labels}
        for position, label in enumerate(split.labels_N.tolist()):
            classes[source.labels[label]].append(split.example_name(position))
        splits[name] = {label: sorted(names) for label, names in classes.items() if names}
    written = {"format": FORMAT, "labels": list(source.labels), "splits": splits}
    data = (json.dumps(written, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    # Under another name first: a run that is cut here must not leave half a list of the test images.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SourceError(f"`{printable(path)}` cannot be written: {(error.strerror or str(error)).lower()}") from error
    return hashlib.sha256(data).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Return what `save_manifest` wrote.

    Raises:
        SourceError: the file is not there, not such a file, or puts one example in two places.
    """
    shown = printable(path)
    try:
        if path.exists() and not path.is_file():  # reading a named pipe would wait for a writer
            raise SourceError(f"split file `{shown}` is not a regular file")
        if path.stat().st_size > _MAX_BYTES:
            raise SourceError(f"split file `{shown}` is larger than {_MAX_BYTES // 2**20} MiB")
        content = json.loads(path.read_bytes(), object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except OSError as error:
        raise SourceError(f"split file `{shown}` cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"split file `{shown}` is not JSON as linne writes it: {error}") from error
    version = content.get("format") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise SourceError(
            f"split file `{shown}` has format {version}, this linne reads {FORMAT}", hint="`pip install -U linne`"
        )
    problem = _problem(content)
    if problem:
        raise SourceError(f"split file `{shown}` cannot be used: {problem}")
    places: dict[str, tuple[str, str]] = {}
    for split, classes in content["splits"].items():
        for label, names in classes.items():
            for name in names:
                if name in places:
                    twice = f"`{printable(name)}` twice: in {places[name][0]} and in {split}"
                    raise SourceError(f"split file `{shown}` has {twice}")
                places[name] = (split, label)
    return Manifest(tuple(content["labels"]), places)


def _problem(content: Any) -> str | None:
    """Return what is wrong with a parsed manifest, or None."""
    if not isinstance(content, dict) or content.keys() != {"format", "labels", "splits"}:
        return "expected the fields format, labels and splits, and no other"
    if content["format"] is True or content["format"] != FORMAT:
        return f"format is {content['format']!r:.40}, expected {FORMAT}"
    labels, splits = content["labels"], content["splits"]
    if not _texts(labels) or len(set(labels)) != len(labels):
        return "labels are not a list of different texts"
    if not isinstance(splits, dict) or "train" not in splits or not splits.keys() <= set(SPLITS):
        return f"splits are not train with any of {', '.join(SPLITS[1:])}"
    for split, classes in splits.items():
        if not isinstance(classes, dict) or not all(_texts(names) for names in classes.values()):
            return f"{split} is not a list of names for each label"
        if not classes.keys() <= set(labels):
            unknown = printable(min(classes.keys() - set(labels)))
            return f"{split} has the class `{unknown}`, which is not among the labels"
    return None


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is there twice")
    return fields


def _no_constants(text: str) -> None:
    raise ValueError(f"{text} is not a JSON value")


def follow(examples: Examples, manifest: Manifest, shown: str) -> tuple[dict[str, Split], list[str]]:
    """Return the splits that `manifest` (called `shown` in messages) made of `examples`, and notes on what changed.

    Names that differ only by Unicode spelling, as in a folder that macOS has packed, are one. Examples it does not list
    are left out. A listed training example that is gone is noted; one of val or test is an error, because the score
    would be of another test.

    Raises:
        SourceError: val or test examples are gone, an example has another label, or a split spans two stores.
    """
    position_of = {label: position for position, label in enumerate(manifest.labels)}
    chosen: dict[str, list[tuple[ImageStore, int, int]]] = {name: [] for name in SPLITS}
    respelt = _respelt(manifest.places, examples.given.values())
    found, relabelled, num_new = set(), [], 0
    for split in examples.given.values():
        for position, index in enumerate(split.indices_N.tolist()):
            name, label = split.store.name(index), examples.labels[split.labels_N[position]]
            if name not in manifest.places:
                name = respelt.pop(unicodedata.normalize("NFC", name), "")
            if not name:
                num_new += 1
                continue
            found.add(name)
            place, stated = manifest.places[name]
            if stated != label:
                relabelled.append(f"{name}` is `{label}`, was `{stated}")
            else:
                chosen[place].append((split.store, index, position_of[label]))
    if relabelled:
        raise SourceError(
            f"{counted(len(relabelled), 'example')} changed class since `{shown}` was written: {listed(relabelled)}",
            hint="train again, without the split file",
        )
    notes = _gone(manifest, found, shown)
    splits = {name: _split(name, rows, shown) for name, rows in chosen.items() if rows}
    if "train" not in splits:
        raise SourceError(f"nothing that `{shown}` lists for train is in this source", hint="is it another source's?")
    counts = ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
    notes.insert(0, f"splits as in `{shown}`: {counts}")
    if num_new:
        notes.append(f"left out {counted(num_new, 'example')} that `{shown}` does not list")
    return splits, notes


def _respelt(listed_names: Iterable[str], splits: Iterable[Split]) -> dict[str, str]:
    """Return the listed names that no example has as they are spelt, by their Unicode NFC."""
    odd = {name for name in listed_names if not name.isascii()}
    if odd:
        odd -= {split.example_name(position) for split in splits for position in range(len(split))}
    return {unicodedata.normalize("NFC", name): name for name in odd}


def _gone(manifest: Manifest, found: set[str], shown: str) -> list[str]:
    """Return a note on training examples that are gone; raise where others are, unless nothing is left at all."""
    gone = {
        name: [n for n, (split, _) in manifest.places.items() if split == name and n not in found] for name in SPLITS
    }
    judging = [*gone["val"], *gone["test"]]
    if judging and found:
        number = counted(len(judging), "example")
        raise SourceError(
            f"`{shown}` lists {number} for val or test that this source no longer has: {listed(judging)}",
            hint="put back what is missing, or train again to make new splits",
        )
    if not gone["train"] or not found:
        return []
    number = counted(len(gone["train"]), "training example")
    return [f"`{shown}` lists {number} that this source no longer has: {listed(gone['train'])}"]


def _split(name: str, rows: Sequence[tuple[ImageStore, int, int]], shown: str) -> Split:
    store = rows[0][0]
    if any(other is not store for other, _, _ in rows):
        raise SourceError(
            f"`{shown}` mixes the source's own train and test examples in {name}", hint="is it another's?"
        )
    indices_N = np.array([index for _, index, _ in rows], np.int64)
    labels_N = np.array([label for _, _, label in rows], np.int64)
    order_N = np.argsort(indices_N, kind="stable")
    return Split(name, store, indices_N[order_N], labels_N[order_N])
