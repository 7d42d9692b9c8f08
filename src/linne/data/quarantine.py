"""A list of images to leave out, with reasons: written by `linne data check`, read wherever a source is opened.

JSON that a person may edit; no image is touched. The list names examples as the source does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from linne.data.names import counted, listed, printable
from linne.data.split import Examples, select
from linne.errors import SourceError

FORMAT = 1
_MAX_BYTES = 2**30


def save_quarantine(path: Path, images: Mapping[str, str], *, source: str, fingerprint: str) -> None:
    """Write `images`, names with reasons, to the new JSON file `path`; `source` and its fingerprint are for people.

    Raises:
        SourceError: there is such a file, which somebody may have edited, or it cannot be written.
    """
    written = {"format": FORMAT, "source": source, "fingerprint": fingerprint, "images": dict(images)}
    data = (json.dumps(written, indent=1, allow_nan=False) + "\n").encode()
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        check_free(path)
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SourceError(f"`{printable(path)}` cannot be written: {(error.strerror or str(error)).lower()}") from error


def check_free(path: Path) -> None:
    """Raise unless a quarantine list can be written to `path`: nothing is there, and the folder is.

    Raises:
        SourceError: it cannot.
    """
    if os.path.lexists(path):
        raise SourceError(f"`{printable(path)}` is there already", hint="name a new file, or remove that one")
    if not path.absolute().parent.is_dir():
        raise SourceError(f"no folder `{printable(path.parent)}` to write `{printable(path.name)}` to")


def read_quarantine(path: Path) -> Mapping[str, str]:
    """Return what `save_quarantine` wrote: the name of each image to leave out, and why.

    Raises:
        SourceError: the file is not there, or not such a file.
    """
    shown = printable(path)
    try:
        if path.exists() and not path.is_file():  # reading a named pipe would wait for a writer
            raise SourceError(f"quarantine list `{shown}` is not a regular file")
        if path.stat().st_size > _MAX_BYTES:
            raise SourceError(f"quarantine list `{shown}` is larger than {_MAX_BYTES // 2**20} MiB")
        content = json.loads(path.read_bytes())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        hint = f"`linne data check SOURCE --quarantine {shown}` writes one"
        raise SourceError(f"quarantine list `{shown}` cannot be read: {reason}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"quarantine list `{shown}` is not JSON: {error}") from error
    problem = _problem(content)
    if problem:
        raise SourceError(f"quarantine list `{shown}` cannot be used: {problem}")
    images: Mapping[str, str] = content["images"]
    return images


def _problem(content: Any) -> str | None:
    """Return what is wrong with a parsed list, or None."""
    if not isinstance(content, dict) or not {"format", "images"} <= content.keys():
        return "expected the fields format and images"
    if content["format"] is True or content["format"] != FORMAT:
        return f"format is {content['format']!r:.40}, expected {FORMAT}"
    images = content["images"]
    if not isinstance(images, dict) or not all(isinstance(reason, str) for reason in images.values()):
        return "images is not a text for each name"
    return None


def leave_out(examples: Examples, names: Mapping[str, str]) -> Examples:
    """Return `examples` without those called `names`, and with a note of how many those are.

    Raises:
        SourceError: none of them is there, or a split, or a class of train, would be left without an image.
    """
    given, found = {}, 0
    for name, split in examples.given.items():
        stays_N = np.array([split.example_name(k) not in names for k in range(len(split))], np.bool_)
        found += int((~stays_N).sum())
        if stays_N.any():
            given[name] = select(split, stays_N, name)
        elif name != "train":  # else another would be made, and nobody would know
            raise SourceError(
                f"the quarantine list leaves no image of {name}",
                hint="take some of its images off the list, or that split out of the source",
            )
    if names and not found:
        raise SourceError(
            f"none of {counted(len(names), 'image')} on the quarantine list is in this source, among them "
            f"{listed(sorted(names), 2)}",
            hint="is it another source's list?",
        )
    before, after = (
        set() if split is None else set(split.labels_N.tolist())
        for split in (examples.given.get("train"), given.get("train"))
    )
    emptied = before - after
    if emptied:
        labels = [examples.labels[label] for label in sorted(emptied)]
        raise SourceError(
            f"the quarantine list leaves no training image of {listed(labels)}",
            hint="take some of its images off the list, or the class out of the source",
        )
    notes = [f"left out {counted(found, 'image')} on the quarantine list"]
    if found < len(names):
        notes.append(f"{counted(len(names) - found, 'name')} on the quarantine list not in this source")
    # Without the identity of an index: it stands for all images, and these are fewer.
    return replace(examples, given=given, notes=(*examples.notes, *notes), index="")
