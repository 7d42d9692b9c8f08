"""`list:FILE`: images named one by one in a CSV, TSV, JSON Lines or Parquet file, with their labels and splits.

path,label,split          the header; `file` and `class` are understood too, and `?path=COL,label=COL` says any other
cats/1.jpg,cat,train      a path is relative to the list, and stays below the list's folder or that of `?images=DIR`
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linne.data.files import HASHED_BYTES, FileStore, Names, file_identities
from linne.data.index import LEAST_FILES, Found, Index, index_of, spread
from linne.data.names import listed, printable
from linne.data.places import nearest_path
from linne.data.source import Ints, Split
from linne.data.sources.location import choose_column, split_options
from linne.data.sources.rows import (
    LABEL_NAMES,
    PATH_NAMES,
    Rows,
    check_classes,
    file_sizes,
    number_labels,
    number_splits,
    paths_below,
    without_repeats,
)
from linne.data.sources.sample import sample_of
from linne.data.sources.tables import READERS, Table, read_table
from linne.data.split import SPLITS, Examples
from linne.errors import SourceError

ROLES = {"path": PATH_NAMES, "label": LABEL_NAMES, "split": ("split", "subset")}
_OPTIONS = (*ROLES, "images")


def open_list(location: str | None, root: Path | None) -> Examples:
    """Return the images that a list names, with the splits that it states.

    Every file must be there; none is opened but at most 256, for their size and colour. What a list of 20,000 rows
    or more holds is kept in the cache folder.

    Raises:
        SourceError: the list cannot be read, or a row cannot be used; the message names the rows.
        LinneError: the list is a Parquet file, and pyarrow is not installed.
    """
    place, options = split_options("list", location or "", _OPTIONS)
    path = Path(place).expanduser()
    _check(path, place)
    shown = printable(place)
    base = os.path.abspath(os.path.expanduser(options["images"])) if "images" in options else _folder_of(path)
    if not os.path.isdir(base):
        raise SourceError(f"no folder `{printable(options.get('images', base))}`", hint=nearest_path(Path(base)))
    # What `shown` is stands in the notes.
    key = "\0".join(["list 1", os.path.abspath(path), base, shown, *(f"{n}={options[n]}" for n in sorted(options))])
    found, notes = index_of(key, lambda: _look(str(path), base, shown, options))
    return _examples(found, base, notes)


def _check(path: Path, place: str) -> None:
    """Raise unless `path` is a file with the ending of a list."""
    kinds = ", ".join(READERS)
    if not place:
        raise SourceError("`list:` expects a file", hint=f"type `list:FILE`, with FILE ending in {kinds}")
    if path.suffix.lower() not in READERS:
        raise SourceError(
            f"`{printable(place)}` is not a list by its name; expected one ending in {kinds}",
            hint="a folder with one sub-folder a class is named by its path",
        )
    try:
        if path.is_file():
            return
        exists = path.exists()
    except ValueError:  # a NUL in the path
        exists = False
    found = f"`{printable(place)}` is not a regular file" if exists else f"no list `{printable(place)}`"
    raise SourceError(found, hint=None if exists else nearest_path(path))


def _folder_of(path: Path) -> str:
    return os.path.dirname(os.path.abspath(path))


def _examples(found: Index, base: str, notes: Sequence[str]) -> Examples:
    """Return what an index made by `_look` says."""
    facts, arrays = found.facts, found.arrays
    store = FileStore(base, Names(arrays["paths"], arrays["paths ends"]), arrays["sizes_N"])
    given = {}
    for number, name in enumerate(SPLITS):
        indices_N = np.flatnonzero(arrays["splits_N"] == number)
        if len(indices_N):
            given[name] = Split(name, store, indices_N, arrays["labels_N"][indices_N])
    by_content = int(store.sizes_N.sum()) <= HASHED_BYTES
    return Examples(
        labels=tuple(facts["labels"]),
        given=given,
        channels=facts["channels"],
        image_size=tuple(facts["image_size"]),
        same_size=facts["same_size"],
        identities=file_identities,
        notes=(*facts["notes"], *notes),
        columns={name: Names(arrays[f"column {name}"], arrays[f"column {name} ends"]) for name in facts["columns"]},
        index="" if by_content else found.identity,
    )


def _look(path: str, base: str, shown: str, options: Mapping[str, str]) -> Found:
    """Return everything that the list and the files it names say, as an index."""
    table = read_table(path, shown)
    roles = _recognise(table, shown, options)
    rows = Rows(shown, table.unit, np.asarray(table.places, np.int64))
    paths = paths_below(rows, table.columns[roles["path"]], base)
    labels, labels_N = number_labels(rows, table.columns[roles["label"]])
    splits_N = number_splits(rows, table.columns[roles["split"]] if "split" in roles else None)
    kept_N, repeats = without_repeats(rows, paths, labels, labels_N, splits_N)
    kept = kept_N.tolist()
    rows, paths, labels_N, splits_N = rows.only(kept_N), [paths[k] for k in kept], labels_N[kept_N], splits_N[kept_N]
    lacking = check_classes(rows, labels, labels_N, splits_N)
    sizes_N = file_sizes(rows, paths, base)
    store = FileStore(base, Names.of(paths), sizes_N)
    sample = sample_of(store, shown)
    arrays: dict[str, NDArray[Any]] = {"labels_N": labels_N, "splits_N": splits_N, "sizes_N": sizes_N}
    arrays |= {"paths": store.paths.text, "paths ends": store.paths.ends_N}
    others = [name for name in table.columns if name not in roles.values()]
    for name in others:
        texts = Names.of([table.columns[name][k] for k in kept])
        arrays |= {f"column {name}": texts.text, f"column {name} ends": texts.ends_N}
    said = (_say_columns(roles, others, table), table.notes, _say_splits(splits_N), repeats, lacking, sample.notes)
    facts = {
        "labels": labels,
        "columns": others,
        "channels": sample.channels,
        "image_size": list(sample.image_size),
        "same_size": sample.same_size,
        "notes": [note for notes in said for note in notes],
    }
    folders = {os.path.join(base, os.path.dirname(path)) for path in paths}
    files = [store.path(position) for position in spread(len(store)).tolist()]
    return Found(Index(facts, arrays), [path, *sorted(folders), *files], keep=len(paths) >= LEAST_FILES)


def _recognise(table: Table, shown: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return the column of each role that the list has."""
    names = list(table.columns)
    roles = {}
    for role, known in ROLES.items():
        if role in options:
            roles[role] = choose_column("list", role, names, options[role], shown)
            continue
        found = [name for name in names if name.casefold() in known]
        found = [name for name in found if name.casefold() == role] or found
        if len(found) > 1:
            both = listed([printable(name) for name in found], 5)
            raise SourceError(
                f"`{shown}` has the columns {both}, any of which may be the {role}",
                hint=f"say which: `list:{shown}?{role}={found[0]}`",
            )
        if found:
            roles[role] = found[0]
    missing = [role for role in ("path", "label") if role not in roles]
    if missing:
        has = listed([printable(name) for name in names], 10) or "no column of text"
        nested = [printable(name) for name in table.other_columns]
        raise SourceError(
            f"`{shown}` has {has}{f', and {listed(nested)} which hold no text' * bool(nested)}; expected a column "
            f"called {' and one called '.join(f'`{role}`' for role in missing)}",
            hint=_how_to_name(names, nested, missing, shown),
        )
    if len(set(roles.values())) < len(roles):
        raise SourceError(
            f"`list` was to take one column of `{shown}` for two things", hint=f"columns: {listed(names)}"
        )
    return roles


def _how_to_name(names: Sequence[str], nested: Sequence[str], missing: Sequence[str], shown: str) -> str:
    if nested and shown.lower().endswith(".parquet") and "path" in missing:
        return f"if the images are in the file itself, type `hf:{shown}`"
    if any(os.path.splitext(name)[1] for name in names):
        return "the first line names the columns: write `path,label` above the others"
    return f"name the columns: `list:{shown}?{','.join(f'{role}=COLUMN' for role in missing)}`"


def _say_columns(roles: Mapping[str, str], others: Sequence[str], table: Table) -> list[str]:
    notes = [f"columns: {', '.join(f'{role} is `{printable(name)}`' for role, name in roles.items())}"]
    if others:
        notes.append(f"columns kept for `--group-by`: {listed([printable(name) for name in others], 10)}")
    if table.other_columns:
        notes.append(f"columns not used, as they hold no text: {listed([printable(n) for n in table.other_columns])}")
    return notes


def _say_splits(splits_N: Ints) -> list[str]:
    counts = np.bincount(splits_N, minlength=len(SPLITS)).tolist()
    said = [f"{name} {count:,}" for name, count in zip(SPLITS, counts, strict=True) if count]
    return [f"splits as the list states them: {', '.join(said)}"] if len(said) > 1 or not counts[0] else []
