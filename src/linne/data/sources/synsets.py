"""Classes that are named by WordNet numbers (`n01440764`): what they are called in English."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from linne.data.names import printable
from linne.data.sources.layout import Layout

_MOST_BYTES = 32 * 2**20
"""Of a table of words; WordNet's 82,115 nouns take 2.7 MB."""


def is_wnid(name: str) -> bool:
    """Return whether `name` is a WordNet number."""
    return re.fullmatch(r"n[0-9]{8}", name) is not None


def read_words(path: Path) -> dict[str, str]:
    """Return the words of each number in a table of lines `n01440764 tench, Tinca tinca`, as every ImageNet copy has.

    Tab or space parts the two. Other lines are passed over.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read(_MOST_BYTES).splitlines()
    pairs = (line.split(None, 1) for line in lines)
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2 and is_wnid(pair[0])}


def words_of_timm() -> dict[str, str]:
    """Return the words that timm's tables have, without importing timm; none where it is not installed."""
    path = _table_of_timm("imagenet_synset_to_lemma.txt")
    return {} if path is None else read_words(path)


def names_of_imagenet() -> tuple[str, ...] | None:
    """Return ImageNet's 1,000 classes in order, named as its source names them; None where timm is not installed.

    timm's tables are read, and timm is not imported.
    """
    path = _table_of_timm("imagenet_synsets.txt")
    return None if path is None else class_names(path.read_text(encoding="utf-8").split(), words_of_timm())


def _table_of_timm(name: str) -> Path | None:
    found = find_spec("timm")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "data/_info" / name
    return path if path.is_file() else None


def class_names(wnids: Sequence[str], words: Mapping[str, str]) -> tuple[str, ...]:
    """Return a different name for each of `wnids`: its first word, with the number where two classes share it.

    ImageNet has two classes `crane` and two `maillot`; a dog `Cardigan` and a garment `cardigan` count as one name as
    well, because not every system tells them apart. A number without words stays as it is.
    """
    firsts = [printable(words.get(wnid, wnid).split(",")[0].strip() or wnid) for wnid in wnids]
    times = Counter(first.casefold() for first in firsts)
    return tuple(
        first if times[first.casefold()] == 1 else f"{first} ({wnid})"
        for first, wnid in zip(firsts, wnids, strict=True)
    )


def renamed(layout: Layout, words: Mapping[str, str]) -> Layout:
    """Return `layout` with its classes, in the same order, called by their first words instead of their numbers."""
    names = dict(zip(layout.labels, class_names(layout.labels, words), strict=True))
    splits = {
        split: {names[label]: images for label, images in classes.items()} for split, classes in layout.splits.items()
    }
    return replace(layout, labels=tuple(names.values()), splits=splits)
