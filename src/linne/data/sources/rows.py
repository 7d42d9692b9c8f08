"""The rows of a list, checked: paths that stay in their folder, labels, splits, repeats, files that are there.

Every function takes a column as the file has it and returns what stands in it, or raises naming the rows.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from linne.data.names import SPLIT_NAMES, alike, counted, label_of, listed, printable
from linne.data.source import Ints
from linne.data.split import SPLITS
from linne.errors import SourceError, suggest

PATH_NAMES = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path")
LABEL_NAMES = ("label", "class", "target")
"""What columns are called, whatever the case; the first name wins over the others."""
_SHOWN = 5
_ODD_PART = re.compile(r"(?:^|/)\.{0,2}(?:/|$)" + (r"|^[A-Za-z]:" if os.name == "nt" else ""))
"""Found in an absolute path, and in one with an empty, `.` or `..` part."""


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Where rows stand in their file, for messages."""

    shown: str
    """What to call the file."""
    unit: str
    """`line` or `row`."""
    places_N: Ints
    """The number of each row's line, or of the row."""

    def place(self, position: int) -> str:
        """Return `line 7`."""
        return f"{self.unit} {self.places_N[position]:,}"

    def only(self, kept_N: Ints) -> Rows:
        """Return the rows at the positions `kept_N`."""
        return Rows(self.shown, self.unit, self.places_N[kept_N])

    def refuse(self, found: str, at: Sequence[int], said: Callable[[int], str], hint: str) -> SourceError:
        """Return the error that the file `found` in the rows `at`: the first five with what is `said` of each."""
        parts = [f"{self.place(position)} {said(position)}".rstrip() for position in at[:_SHOWN]]
        more = f" and {len(at) - _SHOWN:,} more" if len(at) > _SHOWN else ""
        return SourceError(f"`{self.shown}` {found}: {', '.join(parts)}{more}", hint=hint)


def paths_below(rows: Rows, texts: Sequence[str], base: str) -> Sequence[str]:
    """Return the paths relative to `base`, with `/`, and in one spelling each so that repeats are seen.

    The text decides, not the disk: a list that came from elsewhere cannot name files outside `base`, but a link that
    you put below `base` is followed.

    Raises:
        SourceError: a path is empty, a web address, or leads out of `base`.
    """
    if os.name == "nt":
        texts = [text.replace("\\", "/") for text in texts]
    odd = [position for position, text in enumerate(texts) if _ODD_PART.search(text)]
    if not odd:
        return texts
    paths, empty, outside, addresses = list(texts), [], [], []
    # An absolute path may spell the folder as it was typed, or as it is without links.
    folders = [os.path.join(folder, "") for folder in (base, os.path.realpath(base))]
    for position in odd:
        if not paths[position].strip():
            empty.append(position)
            continue
        if "://" in paths[position]:
            addresses.append(position)
            continue
        path = os.path.normpath(os.path.join(base, paths[position]))
        folder = next((folder for folder in folders if path.startswith(folder)), None)
        if folder is None:
            outside.append(position)
        else:
            paths[position] = path[len(folder) :].replace(os.sep, "/")
    if empty:
        raise rows.refuse("has rows without a path", empty, lambda at: "", "fill them in, or remove those rows")
    if addresses:
        hint = "linne reads files only: download the images first"
        raise rows.refuse("names web addresses", addresses, lambda at: f"`{printable(texts[at])}`", hint)
    if outside:
        raise rows.refuse(
            f"names files outside `{printable(base)}`",
            outside,
            lambda at: f"`{printable(texts[at])}`",
            f"name the folder that holds them all: `list:{rows.shown}?images=DIR`; paths are then relative to it",
        )
    return paths


def number_labels(rows: Rows, texts: Sequence[str]) -> tuple[list[str], Ints]:
    """Return the labels, sorted as texts, and each row's position among them.

    Raises:
        SourceError: a row has none, or two labels differ only by case.
    """
    label_by_text = {text: label_of(text.strip()) for text in set(texts)}
    if "" in label_by_text.values():
        empty = [position for position, text in enumerate(texts) if not label_by_text[text]]
        raise rows.refuse("has rows without a label", empty, lambda at: "", "fill them in, or remove those rows")
    labels = sorted(set(label_by_text.values()))
    pair = alike(labels)
    if pair is not None:
        both = sorted(next(k for k, text in enumerate(texts) if label_by_text[text] == label) for label in pair)
        said = "has labels that differ only by case"
        raise rows.refuse(said, both, lambda at: f"`{label_by_text[texts[at]]}`", "write them the same")
    number_of = {label: number for number, label in enumerate(labels)}
    number_by_text = {text: number_of[label] for text, label in label_by_text.items()}
    return labels, np.fromiter(map(number_by_text.__getitem__, texts), np.int64, len(texts))


def number_splits(rows: Rows, texts: Sequence[str] | None) -> Ints:
    """Return each row's split as a position in `SPLITS`; all of them are train where the list states none.

    Raises:
        SourceError: a row's split is not known.
    """
    if texts is None:
        return np.zeros(len(rows.places_N), np.int64)
    name_by_text = {text: SPLIT_NAMES.get(text.strip().casefold()) for text in set(texts)}
    unknown = [position for position, text in enumerate(texts) if not name_by_text[text]]
    if unknown:
        hint = suggest(texts[unknown[0]], SPLIT_NAMES) or f"known: {', '.join(SPLIT_NAMES)}"
        raise rows.refuse("has rows of no known split", unknown, lambda at: f"`{printable(texts[at])}`", hint)
    number_by_text = {text: SPLITS.index(name) for text, name in name_by_text.items() if name}
    return np.fromiter(map(number_by_text.__getitem__, texts), np.int64, len(texts))


def without_repeats(
    rows: Rows, paths: Sequence[str], labels: Sequence[str], labels_N: Ints, splits_N: Ints
) -> tuple[Ints, list[str]]:
    """Return the positions of the first row of each path, and a note on the others.

    Raises:
        SourceError: a path is there with two labels, or in two splits.
    """
    num_rows = len(paths)
    first = dict(zip(reversed(paths), range(num_rows - 1, -1, -1), strict=True))
    if len(first) == num_rows:
        return np.arange(num_rows), []
    first_N = np.fromiter(map(first.__getitem__, paths), np.int64, num_rows)
    for stated_N, names, what in ((labels_N, labels, "labels"), (splits_N, SPLITS, "splits")):
        others = np.flatnonzero(stated_N != stated_N[first_N]).tolist()
        if others:
            one, other = int(first_N[others[0]]), others[0]
            said = " and ".join(f"`{names[stated_N[at]]}` in {rows.place(at)}" for at in (one, other))
            more = f"; and {counted(len(others) - 1, 'more such row')}" if len(others) > 1 else ""
            raise SourceError(
                f"`{rows.shown}` gives one image two {what}: `{printable(paths[one])}` is {said}{more}",
                hint="keep one of the two rows",
            )
    repeats = np.flatnonzero(first_N != np.arange(num_rows)).tolist()
    example = f"{rows.place(repeats[0])} repeats `{printable(paths[repeats[0]])}`"
    kept_N = np.flatnonzero(first_N == np.arange(num_rows))
    return kept_N, [f"left out {counted(len(repeats), 'row')} that repeat an earlier one: {example}"]


def check_classes(rows: Rows, labels: Sequence[str], labels_N: Ints, splits_N: Ints) -> list[str]:
    """Return a note for each split that lacks classes.

    Raises:
        SourceError: val or test has a class that train lacks, where there is one; or there is only one class.
    """
    counts_SK = np.zeros((len(SPLITS), len(labels)), np.int64)
    np.add.at(counts_SK, (splits_N, labels_N), 1)
    untrained = np.flatnonzero(counts_SK[0, labels_N] == 0).tolist()
    if untrained and counts_SK[0].any():
        trained = [label for label, count in zip(labels, counts_SK[0].tolist(), strict=True) if count]
        raise rows.refuse(
            "has labels that no training row has",
            untrained,
            lambda at: f"`{labels[labels_N[at]]}`",
            suggest(labels[labels_N[untrained[0]]], trained) or "add training rows of that label, or remove these",
        )
    if len(labels) == 1:
        raise SourceError(
            f"`{rows.shown}` has only one class, `{labels[0]}`; expected at least two",
            hint=f"is it another column? `list:{rows.shown}?label=COLUMN` says which",
        )
    notes = []
    for name, counts_K in zip(SPLITS, counts_SK, strict=True):
        lacking = [label for label, count in zip(labels, counts_K.tolist(), strict=True) if not count]
        if lacking and counts_K.any():
            notes.append(f"{name} has no images of {listed(lacking, _SHOWN)}")
    return notes


def file_sizes(rows: Rows, paths: Sequence[str], base: str) -> Ints:
    """Return the size of each file in bytes.

    Raises:
        SourceError: one is not there, or not a regular file.
    """
    sizes_N = np.empty(len(paths), np.int64)
    missing, begin, look, is_regular = [], os.path.join(base, ""), os.stat, stat.S_ISREG
    for position, path in enumerate(paths):
        try:
            status = look(begin + path)
        except (OSError, ValueError):  # ValueError: a NUL in the path
            missing.append(position)
            continue
        sizes_N[position] = status.st_size
        if not is_regular(status.st_mode):
            missing.append(position)
    if missing:
        files = counted(len(missing), "file that is", "files that are")
        hint = _why_missing(paths[missing[0]], begin, rows.shown)
        raise rows.refuse(f"names {files} not there", missing, lambda at: f"`{printable(paths[at])}`", hint)
    return sizes_N


def _why_missing(path: str, begin: str, shown: str) -> str:
    """Return what to do about a file that is not there, by where something like it is."""
    if path != path.strip() and os.path.isfile(begin + path.strip()):
        return "take away the spaces round the path"
    if "\\" in path and os.path.isfile(begin + path.replace("\\", "/")):
        return "write `/` between folders, not a backslash"
    for ending in (".jpg", ".jpeg", ".png", ".JPG", ".JPEG"):
        if os.path.isfile(begin + path + ending):
            return f"`{printable(path + ending)}` is there: write paths with their ending"
    if os.path.isfile(path):
        return f"it is there from this folder: `list:{shown}?images=.`"
    return f"paths are relative to `{printable(begin)}`; `list:{shown}?images=DIR` names another folder"
