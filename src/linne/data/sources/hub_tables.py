"""A set as tables, as Hugging Face has them: which columns are images and labels, and which splits they make."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from linne.data.names import SPLIT_NAMES, alike, counted, label_of, listed, printable
from linne.data.source import Ints, Split
from linne.data.sources.arrow import ArrowStore, ArrowTexts, arrow_identities, joined, numbered
from linne.data.sources.location import choose_column
from linne.data.sources.rows import LABEL_NAMES
from linne.data.sources.sample import sample_of
from linne.data.split import SPLITS, Examples
from linne.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


def examples_of(
    tables: Mapping[str, Dataset], options: Mapping[str, str], shown: str, notes: Sequence[str]
) -> Examples:
    """Return the images and labels in `tables`, which are by the names that the set gives its splits.

    `options` may say the columns, as `image` and `label`; `shown` is what to call the set.

    Raises:
        SourceError: there are no images or labels, they can be read in two ways, or there is no train split.
    """
    notes = list(notes)
    splits = {name: tables[found] for name, found in _recognise(tables, shown, notes).items()}
    image, label = _choose(splits, options, shown)
    notes.append(f"columns: image is `{printable(image)}`, label is `{printable(label)}`")
    store = _store(splits, image, shown)
    labels, given = _label(splits, label, store, shown, notes)
    sample = sample_of(store, shown)
    return Examples(
        labels=labels,
        given=given,
        channels=sample.channels,
        image_size=sample.image_size,
        same_size=sample.same_size,
        identities=arrow_identities,
        notes=(*notes, *sample.notes),
        columns=_columns(splits, (image, label)),
    )


def _recognise(tables: Mapping[str, Any], shown: str, notes: list[str]) -> dict[str, str]:
    """Return for each of our splits, in their order, what the set calls it."""
    found: dict[str, str] = {}
    for name in tables:
        split = SPLIT_NAMES.get(name.casefold())
        if split in found:
            raise SourceError(f"`{shown}` has the splits `{found[split]}` and `{name}`, both of which name {split}")
        if split:
            found[split] = name
    if not found and len(tables) == 1:
        (only,) = tables
        notes.append(f"its only split, `{printable(only)}`, is read as train")
        return {"train": only}
    if "train" not in found:
        raise SourceError(
            f"`{shown}` has {listed([printable(name) for name in tables], 5)} and no split called train",
            hint="nothing would be learnt from",
        )
    others = [printable(name) for name in tables if name not in found.values()]
    if others:
        notes.append(f"splits not used: {listed(others, 5)}")
    if len(found) > 1:
        said = (f"{split} is `{found[split]}`" for split in SPLITS if split in found)
        notes.append(f"splits found: {', '.join(said)}")
    return {split: found[split] for split in SPLITS if split in found}


def _choose(splits: Mapping[str, Dataset], options: Mapping[str, str], shown: str) -> tuple[str, str]:
    """Return the columns of the images and of the labels."""
    import datasets

    features: Mapping[str, Any] = splits["train"].features
    names = list(features)
    images = [name for name in names if isinstance(features[name], datasets.Image)]
    images = images or [name for name in names if _holds_bytes(features[name])]
    labels = [name for name in names if isinstance(features[name], datasets.ClassLabel)]
    labels = labels or [n for n in names if n.casefold() in LABEL_NAMES and _is_text(features[n])]
    labels = labels or [name for name in names if getattr(features[name], "dtype", "") in ("string", "large_string")]
    chosen = [_chosen(role, found, names, options, shown) for role, found in (("image", images), ("label", labels))]
    if chosen[0] not in images and not _holds_bytes(features[chosen[0]]):
        raise SourceError(f"column `{printable(chosen[0])}` of `{shown}` holds no images")
    if not isinstance(features[chosen[1]], datasets.ClassLabel) and not _is_text(features[chosen[1]]):
        raise SourceError(f"column `{printable(chosen[1])}` of `{shown}` holds neither classes nor texts nor numbers")
    for name, table in splits.items():
        differing = [column for column in chosen if not _alike(features[column], table.features.get(column))]
        if differing:
            raise SourceError(f"{name} and train of `{shown}` differ in what column `{printable(differing[0])}` holds")
    return chosen[0], chosen[1]


def _chosen(role: str, found: Sequence[str], names: Sequence[str], options: Mapping[str, str], shown: str) -> str:
    """Return the column that the user states for `role`, or else the only one found."""
    if role in options:
        return choose_column("hf", role, names, options[role], shown)
    found = [name for name in found if name.casefold() == role] or found
    if len(found) == 1:
        return found[0]
    others = [printable(name) for name in found or names]
    what = f"{len(found)} columns that may be the {role}:" if found else f"no column of {role}s, but"
    raise SourceError(f"`{shown}` has {what} {listed(others, 10)}", hint=f"say which: `hf:{shown}?{role}={others[0]}`")


def _alike(one: Any, other: Any) -> bool:
    """Return whether two columns can be joined: writers differ in how they keep texts and bytes."""
    stated = any(getattr(feature, "names", None) for feature in (one, other))  # classes must be the same
    alike = any(test(one) and test(other) for test in (_holds_bytes, _is_text))
    return bool(one == other or (alike and not stated))


def _holds_bytes(feature: Any) -> bool:
    kind = feature.get("bytes") if isinstance(feature, dict) else feature
    return getattr(kind, "dtype", "") in ("binary", "large_binary")


def _is_text(feature: Any) -> bool:
    return re.fullmatch(r"(large_)?string|u?int\d+|bool", str(getattr(feature, "dtype", ""))) is not None


def _store(splits: Mapping[str, Dataset], column: str, shown: str) -> ArrowStore:
    """Return the images of all splits."""
    import pyarrow as pa
    import pyarrow.compute as pc

    stored = [table.data.column(column) for table in splits.values()]
    bytes_of = [pc.struct_field(part, "bytes") if pa.types.is_struct(part.type) else part for part in stored]
    images: pa.ChunkedArray = joined(bytes_of)
    if images.null_count == len(images):
        raise SourceError(
            f"`{shown}` names its images by paths and does not hold them",
            hint="save it again with `save_to_disk` or `push_to_hub`, which put the images in",
        )
    sizes = [len(table) for table in splits.values()]
    return ArrowStore(images, tuple(splits), tuple(np.cumsum([0, *sizes[:-1]]).tolist()))


def _label(
    splits: Mapping[str, Dataset], column: str, store: ArrowStore, shown: str, notes: list[str]
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Return the classes of train, in the set's own order where it has one and else sorted, and the labelled splits."""
    codes_N, names = _codes(splits, column, shown)
    labels_of: dict[str, Ints] = {}
    for name, start, end in zip(splits, store.starts, [*store.starts[1:], len(store)], strict=True):
        num_without = int((codes_N[start:end] < 0).sum())
        if num_without == end - start and name != "train":
            notes.append(f"{name} is not used: none of its {counted(num_without, 'example')} has a label")
        elif num_without:
            number = f"{num_without:,} of {counted(end - start, 'example')}"
            raise SourceError(f"{number} of {name} in `{shown}` have no label")
        else:
            labels_of[name] = codes_N[start:end]
    trained_K = np.bincount(labels_of["train"], minlength=len(names)) > 0
    for name, labels_N in labels_of.items():
        there_K = np.bincount(labels_N, minlength=len(names)) > 0
        unknown = [names[k] for k in np.flatnonzero(there_K & ~trained_K)]
        if unknown:
            raise SourceError(f"{name} of `{shown}` has {listed(unknown)}, which train does not have")
        lacking = [names[k] for k in np.flatnonzero(trained_K & ~there_K)]
        if lacking:
            notes.append(f"{name} has no images of {listed(lacking, 5)}")
    unused = [names[k] for k in np.flatnonzero(~trained_K)]
    if unused:
        notes.append(f"left out {counted(len(unused), 'class', 'classes')} without images: {listed(unused, 5)}")
    labels = tuple(names[k] for k in np.flatnonzero(trained_K))
    if len(labels) < 2:
        raise SourceError(f"`{shown}` has only one class, {listed(labels)}; expected at least two")
    new_K = np.cumsum(trained_K) - 1
    start_of = dict(zip(splits, store.starts, strict=True))
    return labels, {
        name: Split(name, store, np.arange(len(labels_N)) + start_of[name], new_K[labels_N])
        for name, labels_N in labels_of.items()
    }


def _codes(splits: Mapping[str, Dataset], column: str, shown: str) -> tuple[Ints, list[str]]:
    """Return for each row its class as a position among the names, or -1 for none, and the names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    feature = splits["train"].features[column]
    stored = [table.data.column(column) for table in splits.values()]
    stated = getattr(feature, "names", None)
    if stated:
        codes_N = np.concatenate([pc.fill_null(values, -1).to_numpy().astype(np.int64) for values in stored])
        if codes_N.min() < -1 or codes_N.max() >= len(stated):
            raise SourceError(f"`{shown}` has the class {codes_N.max()}, expected 0 to {len(stated) - 1}")
        texts = list(stated)
    else:
        codes_N, texts = numbered(joined([values.cast(pa.string()).fill_null("") for values in stored]))
    label_by_text = [label_of(text.strip()) for text in texts]
    labels = list(dict.fromkeys(label_by_text)) if stated else sorted(set(label_by_text) - {""})
    pair = alike(labels)
    if pair is not None:
        raise SourceError(f"`{shown}` has the classes {listed(pair)}, which differ only by case")
    position_of: dict[str, int] = {label: position for position, label in enumerate(labels)}
    # The last entry is for -1.
    positions = np.array([*(position_of.get(label, -1) for label in label_by_text), -1], np.int64)
    return positions[codes_N], labels


def _columns(splits: Mapping[str, Dataset], used: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return the other columns of texts and numbers, for all splits, where all have them."""
    import pyarrow as pa

    columns: dict[str, Sequence[str]] = {}
    for name, feature in splits["train"].features.items():
        if name in used or not _is_text(feature) or any(name not in table.features for table in splits.values()):
            continue
        stored = [table.data.column(name).cast(pa.string()).fill_null("") for table in splits.values()]
        columns[name] = ArrowTexts(joined(stored))
    return columns
