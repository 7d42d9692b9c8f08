"""How files and classes are named in labels, messages and manifests."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence


def printable(text: str | bytes | os.PathLike[str]) -> str:
    r"""Return `text` on one line and in valid UTF-8: what cannot be printed is escaped (`\n`, `\u202e`, `\udcff`).

    Two different texts stay different (backslashes are doubled), so the result still identifies a file.
    """
    text = os.fsdecode(text)
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(c if c.isprintable() and c != "\\" else c.encode("unicode_escape").decode() for c in text)


def label_of(folder_name: str) -> str:
    """Return the class label of a folder: its printable name in Unicode NFC.

    macOS copies may spell `é` as two code points; both spellings are one class.
    """
    return printable(unicodedata.normalize("NFC", folder_name))


def listed(names: Sequence[str], limit: int = 3) -> str:
    """Return the first `limit` names in backticks, and how many more there are."""
    text = ", ".join(f"`{name}`" for name in names[:limit])
    return f"{text} and {len(names) - limit} more" if len(names) > limit else text


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return `1 image`, `2 images`, `1,200 images`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def alike(labels: Sequence[str]) -> tuple[str, str] | None:
    """Return the first two of `labels` that differ only by case, or None: not every system can tell them apart."""
    spelt: dict[str, str] = {}
    for label in labels:
        other = spelt.setdefault(label.casefold(), label)
        if other != label:
            return other, label
    return None


MANY_CLASSES = 100
"""From here on two lists are of the same classes where a few are called otherwise: nothing else agrees so far."""
SAME_SHARE = 0.95
"""Of many classes: torchvision's names of ImageNet's 1,000 differ from WordNet's first words in two."""


def same_classes(names: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether both are names of the same classes in the same order, in whatever form they are written.

    Names agree in their first one, before a comma, case and numbering aside: `tench` and `tench, Tinca tinca`, `crane`
    and `crane (n02012849)` or `Crane (2)`. A name that the other list has in another place agrees with none. All must
    agree; of at least `MANY_CLASSES`, `SAME_SHARE`.
    """
    if len(names) != len(others):
        return False
    in_both = set(names) & set(others)
    agree = sum(
        name == other or (_first(name) == _first(other) and in_both.isdisjoint((name, other)))
        for name, other in zip(names, others, strict=True)
    )
    return agree >= (SAME_SHARE if len(names) >= MANY_CLASSES else 1) * len(names)


def _first(name: str) -> str:
    return re.sub(r" \((\d+|n\d{8})\)$", "", name.split(",")[0].strip()).casefold()


SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What splits are called in folders, lists, shards and published sets, whatever the case, and our word for each."""
