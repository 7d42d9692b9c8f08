"""What lies beside shards and describes them: `_info.json` as timm reads it, and the names of the classes.

`_info.json` lists each split's files and how many samples each has; timm's `wds/` data sets need it. What
`linne data pack` knows besides is under the key `linne` of the same file, which other programs pass over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from linne.data.names import SPLIT_NAMES, label_of, listed, printable
from linne.data.shards.names import CLASSES, INFOS
from linne.errors import SourceError

FORMAT = 1
_MAX_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Packed:
    """What `linne data pack` wrote down about a set; see docs/guides/packing.md."""

    channels: int
    image_size: tuple[int, int]
    same_size: bool
    origin: str
    """The fingerprint of the source that was packed."""
    text: str
    """One line: from what, how and when not seen in the images."""


@dataclass(frozen=True, slots=True)
class Info:
    """What is known of shards without opening them; empty where nothing is stated."""

    splits: Mapping[str, str] = field(default_factory=dict)
    """Shard to split."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Shard to number of samples."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Shard to size in bytes."""
    labels: tuple[str, ...] | None = None
    """Class names, where labels are numbers."""
    packed: Packed | None = None
    notes: tuple[str, ...] = ()


def read_info(root: str) -> Info:
    """Return what the files beside the shards in `root` state.

    Raises:
        SourceError: one of them cannot be read, or says something that does not fit.
    """
    path = _first(root, INFOS)
    shown = printable(path) if path else ""
    document = _document(path, shown) if path else {}
    try:
        splits, counts = _stated_splits(document)
        own = document.get("linne")
        if own is None:
            labels, notes = _class_names(root)
            return Info(splits, counts, labels=labels, notes=tuple(notes))
        if own["format"] > FORMAT:
            raise SourceError(f"`{shown}` was written by a newer linne", hint="pip install --upgrade linne")
        sizes = {str(name): int(shard["size_bytes"]) for name, shard in own["shards"].items()}
        labels = tuple(map(str, own["labels"]))
        if not all(label.isprintable() for label in labels):
            raise ValueError("a class name cannot be printed")
        return Info(splits, counts, sizes, labels, _packed(own))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise SourceError(f"`{shown}` does not list shards as timm and linne do: {_said(error)}") from error


def _packed(own: Mapping[str, Any]) -> Packed:
    height, width = own["image_size"]
    settings, origin = own["settings"], str(own["origin"]["fingerprint"])
    size = "at full size" if settings["size"] is None else f"shorter edge at most {int(settings['size'])} pixels"
    source = printable(str(own["origin"]["source"]))
    text = f"packed from `{source}` (fingerprint {origin[:12]}): {size}, {printable(str(settings['format']))}"
    num_left_out = sum(len(shard["left_out"]) for shard in own["shards"].values())
    if num_left_out:
        text += f"; {num_left_out:,} unreadable left out"
    return Packed(int(own["channels"]), (int(height), int(width)), bool(own["same_size"]), origin, text)


def _first(root: str, names: tuple[str, ...]) -> str | None:
    paths = (os.path.join(root, name) for name in names)
    return next((path for path in paths if os.path.isfile(path)), None)


def _document(path: str, shown: str) -> dict[str, Any]:
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            raise SourceError(f"`{shown}` is larger than {_MAX_BYTES // 2**20} MiB")
        with open(path, "rb") as file:
            document = json.loads(file.read())
    except OSError as error:
        raise SourceError(f"`{shown}` cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"`{shown}` is not JSON: {_said(error)}") from error
    if not isinstance(document, dict):
        raise SourceError(f"`{shown}` does not list shards as timm and linne do: it holds no object")
    return document


def _stated_splits(document: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, int]]:
    splits, counts = {}, {}
    for name, stated in document.get("splits", {}).items():
        if name.casefold() not in SPLIT_NAMES:  # a selection of somebody's, such as `train_10percent`
            continue
        lengths = stated.get("shard_lengths", [None] * len(stated["filenames"]))
        for path, length in zip(stated["filenames"], lengths, strict=True):
            splits[str(path)] = SPLIT_NAMES[name.casefold()]
            if length is not None:
                counts[str(path)] = int(length)
    return splits, counts


def _class_names(root: str) -> tuple[tuple[str, ...] | None, list[str]]:
    """Return the lines of `classes.txt`, or None where there is none; and a note."""
    path = _first(root, CLASSES)
    if path is None:
        return None, []
    shown = printable(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file.read(_MAX_BYTES).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"`{shown}` cannot be read: {_said(error)}") from error
    while lines and not lines[-1]:
        lines.pop()
    names = tuple(map(label_of, lines))
    if "" in names:
        raise SourceError(f"`{shown}` line {names.index('') + 1} is empty; expected a class name on each line")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise SourceError(f"`{shown}` has {listed(twice)} twice")
    return names, [f"class names from `{shown}`"]


def _said(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return printable(text[:200]).lower()
