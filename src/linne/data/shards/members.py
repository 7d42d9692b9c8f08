"""Which samples lie where in shards, by WebDataset's convention, and what label each has.

Members whose names agree up to the first dot after the last `/` are one sample: `dog/01.jpg`, `dog/01.cls`. Only text
and JSON are read here, and nothing else than images later: a shard's pickles are never opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from linne.data.files import Names
from linne.data.index import LEAST_FILES, Found, Index, index_of
from linne.data.names import counted, label_of, listed, printable
from linne.data.shards.names import INFO_FILES, Shards
from linne.data.shards.tar import Member, members
from linne.data.sources.walk import IMAGE_SUFFIXES
from linne.errors import SourceError

LABEL_KINDS = ("cls", "json", "txt")
"""Where a label is looked for, in this order."""
LABEL_KEYS = ("label", "cls", "class", "target")
"""What a sample's JSON may call its label, in this order."""
_IMAGE_KINDS = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)
_META = re.compile(r"__[^/]*__($|/)")
_MAX_TEXT, _MAX_JSON = 1000, 2**20
_VERSION = 1
"""Of what is kept in an index; raised when reading shards finds something else."""

Sample = dict[str, Member]


def index_shards(shards: Shards, *, packed: bool) -> tuple[Index, list[str]]:
    """Return where the images of `shards` lie, kept for next time where there are many; and notes.

    Arrays: `shards_N`, `offsets_N`, `sizes_N`, `codes_N`, `names`, `name_ends`, and `counts`, one a shard. Facts:
    `values`, the label that each code stands for, and `notes`. `packed` takes names and labels from what
    `linne data pack` writes in each sample's JSON.

    Raises:
        SourceError: a shard is damaged or breaks the convention; the message names shard and sample.
    """
    full = [os.path.join(shards.root, path) for path in shards.paths]
    listing = hashlib.sha256("\0".join(shards.paths).encode("utf-8", "surrogateescape")).hexdigest()
    key = f"shards {_VERSION} {packed} {os.path.realpath(shards.root)} {listing}"

    # What `read_info` reads, there or not: splits are kept under the index, and hang on it too.
    watched = [*full, *(os.path.join(shards.root, name) for name in INFO_FILES)]

    def look() -> Found:
        index = _look(shards, packed)
        return Found(index, watched, keep=len(index.arrays["codes_N"]) >= LEAST_FILES)

    return index_of(key, look)


class _Reader:
    """What has been found so far."""

    def __init__(self, *, packed: bool) -> None:
        self._packed = packed
        self.names: list[str] = []
        self.places: list[tuple[int, int, int]] = []
        self.codes: list[int] = []
        self.values: dict[str, int] = {}
        self.num_others = 0

    def read(self, file: IO[bytes], number: int, shard: str) -> None:
        """Take in the samples of one shard."""
        shown, key, sample = printable(shard), "", Sample()
        for member in members(file, shown):
            folder, slash, base = member.name.rpartition("/")
            stem, dot, suffix = base.partition(".")
            if not stem or not dot or _META.match(member.name):
                self.num_others += 1
                continue
            if (found := folder + slash + stem) != key:
                self._add(file, number, shard, key, sample)
                key, sample = found, Sample()
            if sample.setdefault(suffix.lower(), member) is not member:
                raise SourceError(f"`{printable(member.name)}` is twice in `{shown}`")
        self._add(file, number, shard, key, sample)

    def _add(self, file: IO[bytes], number: int, shard: str, key: str, sample: Sample) -> None:
        if not sample:
            return
        shown = f"`{printable(key)}` in `{printable(shard)}`"
        image = _image(sample, shown)
        if image is None:
            self.num_others += len(sample)
            return
        if self._packed:
            name, value = _packed_facts(_json(file, sample, shown), shown)
        else:
            name, value = printable(f"{shard}/{image.name}"), _label(file, sample, shown)
        self.names.append(name)
        self.places.append((number, image.offset, image.size))
        self.codes.append(self.values.setdefault(value, len(self.values)))


def _look(shards: Shards, packed: bool) -> Index:
    reader = _Reader(packed=packed)
    for number, path in enumerate(shards.paths):
        try:
            # A small buffer: what lies between two headers is skipped, and labels lie near their headers.
            with open(os.path.join(shards.root, path), "rb", buffering=4096) as file:
                reader.read(file, number, path)
        except OSError as error:
            raise SourceError(
                f"`{printable(path)}` cannot be read: {(error.strerror or str(error)).lower()}"
            ) from error
    if not reader.names:
        raise SourceError(
            f"no images in {listed([printable(path) for path in shards.paths])}",
            hint="a shard is a tar file of samples such as `0001.jpg` with `0001.cls`",
        )
    _check_unique(reader.names)
    notes = [f"ignored {counted(reader.num_others, 'member')} that belong to no image"] if reader.num_others else []
    places_N3 = np.array(reader.places, np.int64)
    names = Names.of(reader.names)
    arrays: dict[str, NDArray[Any]] = {
        "shards_N": places_N3[:, 0].astype(np.int32),
        "offsets_N": places_N3[:, 1].copy(),
        "sizes_N": places_N3[:, 2].copy(),
        "codes_N": np.array(reader.codes, np.int64),
        "names": names.text,
        "name_ends": names.ends_N,
        "counts": np.bincount(places_N3[:, 0], minlength=len(shards.paths)),
    }
    return Index({"values": list(reader.values), "notes": notes}, arrays)


def _check_unique(names: list[str]) -> None:
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    twice = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    raise SourceError(f"{listed(twice)} {'is' if len(twice) == 1 else 'are'} there twice")


def _image(sample: Sample, shown: str) -> Member | None:
    """Return the sample's image; None where it has neither an image nor a label."""
    found = [suffix for suffix in sample if suffix in _IMAGE_KINDS]
    if len(found) > 1:
        raise SourceError(f"{shown} has several images: {listed(['.' + suffix for suffix in found])}; expected one")
    if found:
        return sample[found[0]]
    if "npy" in sample:  # beside another image it is something else: an embedding, a mask
        return sample["npy"]
    if any(suffix.rpartition(".")[2] in (*_IMAGE_KINDS, "cls") for suffix in sample):
        raise SourceError(
            f"{shown} has no image, only {listed(['.' + suffix for suffix in sample])}",
            hint="a sample's name ends at its first dot: `a.b.jpg` is the member `.b.jpg` of `a`",
        )
    return None


def _label(file: IO[bytes], sample: Sample, shown: str) -> str:
    """Return the sample's label as text; numbers in decimal."""
    kind = next((kind for kind in LABEL_KINDS if kind in sample), None)
    if kind is None:
        raise SourceError(
            f"{shown} has no label, only {listed(['.' + suffix for suffix in sample])}",
            hint="linne reads `.cls` (a number or a name), `.json` (its `label`) and `.txt` (a name)",
        )
    if kind == "json":
        stated = _json(file, sample, shown)
        key = next((key for key in LABEL_KEYS if key in stated), None)
        if key is None:
            raise SourceError(f"the JSON of {shown} has none of {listed(LABEL_KEYS, 9)}")
        if isinstance(stated[key], bool) or not isinstance(stated[key], (int, str)):
            raise SourceError(f"the JSON of {shown} has a `{key}` that is neither a number nor a text")
        text = str(stated[key])
    else:
        try:
            text = _read(file, sample[kind], _MAX_TEXT, shown).decode()
        except UnicodeDecodeError:
            raise SourceError(f"the `.{kind}` of {shown} is not UTF-8") from None
    label = label_of(text.strip())
    if not label or len(label) > _MAX_TEXT:
        raise SourceError(f"{shown} has a label of {len(label):,} characters, expected 1 to {_MAX_TEXT:,}")
    return label


def _packed_facts(stated: Mapping[str, Any], shown: str) -> tuple[str, str]:
    name, label = stated.get("name"), stated.get("label")
    if not isinstance(name, str) or not name.isprintable() or not isinstance(label, int):
        raise SourceError(f"the JSON of {shown} has no name and label as `linne data pack` writes them")
    return name, str(label)


def _json(file: IO[bytes], sample: Sample, shown: str) -> Mapping[str, Any]:
    if "json" not in sample:
        raise SourceError(f"{shown} has no `.json`, which `linne data pack` writes")
    try:
        value = json.loads(_read(file, sample["json"], _MAX_JSON, shown))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"the JSON of {shown} cannot be read: {printable(str(error)[:200]).lower()}") from error
    if not isinstance(value, dict):
        raise SourceError(f"the JSON of {shown} is no object")
    return value


def _read(file: IO[bytes], member: Member, most: int, shown: str) -> bytes:
    if member.size > most:
        raise SourceError(
            f"`{printable(member.name)}` of {shown} has {member.size:,} bytes, expected at most {most:,} for a label"
        )
    file.seek(member.offset)
    return file.read(member.size)
