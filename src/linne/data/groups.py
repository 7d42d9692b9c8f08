"""Which examples belong together and must not be parted: what a column of a list, or a part of their names, says."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from linne.data.draw import Groups
from linne.data.names import counted, listed, printable
from linne.data.source import Split
from linne.errors import RecipeError, SourceError, suggest


def find_groups(given: Mapping[str, Split], columns: Mapping[str, Sequence[str]], group_by: str) -> Groups:
    """Return the groups of the train split among `given`, the splits that the files define.

    Args:
        columns: A value for each example of the store, by the name of the column.
        group_by: One of `columns`, or else a regular expression with one group that is found in every example's name.

    Raises:
        RecipeError: it is neither.
        SourceError: an example has no group, or a group is in two of the splits.
    """
    values = {name: _values(split, columns, group_by) for name, split in given.items()}
    _check_apart({name: set(of_split) for name, of_split in values.items()}, group_by)
    names = tuple(sorted(set(values["train"])))
    position_of = {name: position for position, name in enumerate(names)}
    return Groups(names, np.array([position_of[value] for value in values["train"]], np.int64))


def _values(split: Split, columns: Mapping[str, Sequence[str]], group_by: str) -> list[str]:
    """Return the group of each example of `split`, in Unicode NFC: copies may respell names."""
    if group_by in columns:
        column = columns[group_by]
        values = [unicodedata.normalize("NFC", column[index]) for index in split.indices_N.tolist()]
        what = f"column `{_as_typed(group_by)}` is empty"
    else:
        pattern = _pattern(group_by, columns)
        found = (pattern.search(split.example_name(position)) for position in range(len(split)))
        values = [unicodedata.normalize("NFC", match[1] or "") if match else "" for match in found]
        what = f"group_by `{_as_typed(group_by)}` finds nothing"
    without = [split.example_name(position) for position, value in enumerate(values) if not value]
    if without:
        raise SourceError(
            f"{what} in {len(without):,} of {counted(len(values), 'example')} of {split.name}: {listed(without)}",
            hint=_EXAMPLE
            if len(without) == len(values)
            else "every example needs a group: give those one of their own",
        )
    return values


def _pattern(text: str, columns: Iterable[str]) -> re.Pattern[str]:
    shown = _as_typed(text)
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise RecipeError(f"group_by `{shown}` is not a regular expression: {error}", hint=_EXAMPLE) from error
    if pattern.groups == 0:
        columns = list(columns)
        has = f"the columns {listed([printable(name) for name in columns], 8)}" if columns else "no further columns"
        raise RecipeError(
            f"group_by `{shown}` is no column, and as a regular expression has no group; the source has {has}",
            hint=suggest(text, columns) or _EXAMPLE,
        )
    if pattern.groups > 1:
        raise RecipeError(
            f"group_by `{shown}` has {pattern.groups} groups, expected one",
            hint="`(?:...)` makes parentheses that do not count",
        )
    return pattern


def _as_typed(text: str) -> str:
    """Return `text` for a message, with the backslashes of a regular expression as they were typed."""
    return text if text.isprintable() else printable(text)


_EXAMPLE = r"for names such as `cat/patient7_2.jpg`: `--group-by 'patient(\d+)_'`"


def _check_apart(groups_of: Mapping[str, set[str]], group_by: str) -> None:
    names = list(groups_of)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            shared = sorted(groups_of[one] & groups_of[other])
            if shared:
                number = counted(len(shared), "group")
                raise SourceError(
                    f"{number} of `{_as_typed(group_by)}` in both {one} and {other} of the source's own splits: "
                    f"{listed([printable(name) for name in shared])}",
                    hint="move them into one split, or leave out group_by",
                )
