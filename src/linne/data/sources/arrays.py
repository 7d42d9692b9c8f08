"""Images that are already pixels in memory: one uint8 array for a whole set, of a file or of a Python program."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linne.data.names import alike, counted, label_of, listed, printable
from linne.data.source import Ints, Source, Split, UInt8
from linne.data.split import Examples, SplitPlan, divide
from linne.errors import SourceError


@dataclass(frozen=True, eq=False, slots=True)
class ArrayStore:
    """All images as one array; splits of one set share it."""

    images_NHWC: UInt8
    """1 or 3 channels."""
    prefix: str
    """`train` makes the images `train[0]`, `train[1]` ..."""
    names: tuple[str, ...] | None = None
    """What to call the images instead."""

    def __len__(self) -> int:
        return len(self.images_NHWC)

    @property
    def array(self) -> UInt8 | None:
        return self.images_NHWC

    def load(self, index: int) -> bytes | UInt8:
        """Return image `index` as a view of uint8 H x W x C."""
        pixels_HWC: UInt8 = self.images_NHWC[index]
        return pixels_HWC

    def name(self, index: int) -> str:
        return f"{self.prefix}[{index}]" if self.names is None else self.names[index]


def array_split(name: str, images_NHWC: UInt8, labels_N: Ints, prefix: str) -> Split:
    """Return a split of all of `images_NHWC`."""
    return Split(name, ArrayStore(images_NHWC, prefix), np.arange(len(images_NHWC)), labels_N)


def array_identities(splits: Sequence[Split]) -> list[bytes]:
    """Return bytes for each split that change when a pixel of its store, or the choice of its images, does."""
    digests: dict[int, bytes] = {}
    for split in splits:
        images_NHWC = split.store.array
        assert images_NHWC is not None
        if id(split.store) not in digests:  # splits share stores, and hashing takes a second a gigabyte
            digest = hashlib.sha256(repr(images_NHWC.shape).encode())
            for start in range(0, len(images_NHWC), 1024):  # not whole: a copy of what is no run of bytes may not fit
                digest.update(np.ascontiguousarray(images_NHWC[start : start + 1024]).data)
            digests[id(split.store)] = digest.digest()
    return [digests[id(split.store)] + split.indices_N.astype("<i8").tobytes() for split in splits]


def check_labels(labels_N: Ints, num_images: int, num_classes: int, what: str) -> None:
    """Raise unless there is one label an image, each below `num_classes`.

    Raises:
        SourceError: they do not fit; the message begins with `what`.
    """
    if num_images == 0:
        raise SourceError(f"{what} holds no images")
    if len(labels_N) != num_images:
        raise SourceError(f"{what} has {num_images:,} images and {len(labels_N):,} labels")
    if labels_N.min() < 0 or labels_N.max() >= num_classes:
        worst = labels_N.min() if labels_N.min() < 0 else labels_N.max()
        raise SourceError(f"{what} has label {worst}, expected 0 to {num_classes - 1}")


def from_arrays(
    images: Any,
    labels: Any,
    *,
    label_names: Sequence[str] | None = None,
    val: tuple[Any, Any] | None = None,
    test: tuple[Any, Any] | None = None,
    names: Sequence[str | int] | None = None,
    groups: Sequence[str | int] | None = None,
    val_fraction: float | None = 0.1,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    name: str = "arrays",
) -> Source:
    """Return a source of images that a Python program holds; the arrays are lent, not copied, and must not change.

    Args:
        images: uint8, N x H x W (grey) or N x H x W x C with 1 or 3 channels; whatever NumPy takes for an array.
        labels: One an image: texts, or whole numbers, whose classes are called by `label_names`, else by the number.
        label_names: The classes in order. One that no training image has is left out, and noted.
        val: Images and labels of the validation split; without `val` and `test` it is held out of `images`.
        test: Images and labels of the test split, likewise.
        names: What to call each of `images`, all different; decides what is held out. Else `train[0]` ...
        groups: A text or whole number for each of `images`; those alike are never parted by a split.
        val_fraction: Share held out for `val`; None for none.
        test_fraction: Share held out for `test`.
        split_seed: Decides, with the names or groups, what is held out.
        name: What to call the source.

    Raises:
        SourceError: the arrays are not images and their labels; the hint says how to make them so.
        RecipeError: a fraction is out of range.
    """
    parts = {"train": (images, labels), "val": val, "test": test}
    stated = {split: part for split, part in parts.items() if part is not None}
    examples = _examples(stated, label_names, names, groups)
    plan = SplitPlan(
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=split_seed,
        group_by=None if groups is None else "groups",
    )
    divided = divide(examples, plan)
    return Source(
        name=name,
        labels=examples.labels,
        splits=divided.splits,
        fingerprint=divided.fingerprint,
        channels=examples.channels,
        image_size=examples.image_size,
        same_size=True,
        notes=(*examples.notes, *divided.notes),
    )


def _examples(
    stated: Mapping[str, tuple[Any, Any]],
    label_names: Sequence[str] | None,
    names: Sequence[str | int] | None,
    groups: Sequence[str | int] | None,
) -> Examples:
    """Return the images and labels of each split that is `stated`, checked."""
    pixels = {split: _pixels(part[0], split) for split, part in stated.items()}
    shapes = {array.shape[1:] for array in pixels.values()}
    if len(shapes) > 1:
        raise SourceError(f"the splits have images of different shapes: {', '.join(sorted(map(str, shapes)))}")
    classes = {split: _classes(part[1], len(pixels[split]), label_names, split) for split, part in stated.items()}
    num_train = len(pixels["train"])
    own_names = None if names is None else _checked_names(names, num_train)
    if groups is not None and (len(stated) > 1 or len(groups) != num_train):
        wanted = f"{num_train:,}, one an image" if len(stated) == 1 else "none beside `val` or `test`"
        raise SourceError(f"`groups` has {counted(len(groups), 'value')}, expected {wanted}")
    known, notes = _known(classes, label_names)
    given = {}
    for split, (own, codes_N) in classes.items():
        store = ArrayStore(pixels[split], split, own_names if split == "train" else None)
        positions_K = np.array([known.index(label) for label in own], np.int64)
        given[split] = Split(split, store, np.arange(len(store)), positions_K[codes_N])
    height, width, channels = pixels["train"].shape[1:]
    return Examples(
        labels=known,
        given=given,
        channels=channels,
        image_size=(height, width),
        same_size=True,
        identities=array_identities,
        notes=tuple(notes),
        columns={} if groups is None else {"groups": _texts(groups, "groups")},
    )


def _pixels(images: Any, split: str) -> UInt8:
    """Return `images` as N x H x W x C, a view of them."""
    try:
        array = np.asarray(images)
    except ValueError as error:  # NumPy's words for rows of different lengths
        raise SourceError(
            f"{split} images have different sizes; expected one array of them", hint="resize them, or write files"
        ) from error
    if array.dtype != np.uint8:
        raise SourceError(f"{split} images are {array.dtype}, expected uint8", hint=_to_uint8(array))
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim == 4 and array.shape[3] in (1, 3) and array.size:
        return array
    hint = None
    if array.ndim == 4 and array.shape[1] in (1, 3):
        hint = "channels go last: `images.transpose(0, 2, 3, 1)`"
    elif array.ndim == 4 and array.shape[3] == 4:
        hint = "leave out the transparency: `images[..., :3]`"
    raise SourceError(
        f"{split} images have the shape {array.shape}, expected N x H x W or N x H x W x C with 1 or 3 channels",
        hint=hint,
    )


def _to_uint8(array: NDArray[Any]) -> str | None:
    """Return how to make `array` uint8, by what it seems to hold."""
    if array.dtype == np.bool_:
        return '`images.astype("uint8") * 255`'
    if array.dtype == np.uint16:
        return '`(images // 257).astype("uint8")`, where they go up to 65535'
    if array.dtype.kind not in "iuf" or not array.size:
        return None
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 255):  # NaN fails both
        return f"they go from {low:g} to {high:g}: bring them to 0 to 255 first"
    if array.dtype.kind == "f":
        return '`(images * 255).round().astype("uint8")`' if high <= 1 else '`images.round().astype("uint8")`'
    return '`images.astype("uint8")`'


def _classes(
    labels: Any, num_images: int, label_names: Sequence[str] | None, split: str
) -> tuple[tuple[str, ...], Ints]:
    """Return the classes in `labels`, in their order, and for each image its position among them."""
    array = np.asarray(labels)
    if array.ndim != 1:
        fix = "`labels.argmax(axis=1)`" if array.ndim == 2 and array.shape[1] > 1 else "`labels.ravel()`"
        raise SourceError(f"{split} labels have the shape {array.shape}, expected one label an image", hint=fix)
    if len(array) != num_images:
        raise SourceError(f"{split} has {counted(num_images, 'image')} and {counted(len(array), 'label')}")
    is_text = array.dtype.kind == "U" or all(isinstance(label, str) for label in array.tolist())
    if not is_text and array.dtype.kind not in "iu":
        hint = '`labels.astype("int64")`' if array.dtype.kind in "bf" else None
        raise SourceError(f"{split} labels are {array.dtype}, expected texts or whole numbers", hint=hint)
    found, codes_N = np.unique(array.astype(str) if is_text else array, return_inverse=True)
    values = found.tolist()
    if not is_text and label_names is not None:
        if values[0] < 0 or values[-1] >= len(label_names):
            worst = values[0] if values[0] < 0 else values[-1]
            raise SourceError(f"{split} has label {worst}, expected 0 to {len(label_names) - 1}")
        values = [label_names[value] for value in values]
    names = [label_of(str(value).strip()) for value in values]
    if "" in names:
        raise SourceError(f"{split} has {counted(int((codes_N == names.index('')).sum()), 'example')} without a label")
    # Numbers are sorted as numbers, and texts as they are once the spaces round them are gone.
    order = sorted(set(names)) if is_text else names
    if label_names is not None:
        order = [label_of(name.strip()) for name in label_names]
    pair = alike(order)
    if pair is not None or len(set(order)) < len(order):
        raise SourceError(f"the classes {listed(pair or order)} differ only by case, or not at all")
    unknown = sorted(set(names) - set(order))
    if unknown:
        raise SourceError(f"{split} has {listed(unknown)}, which `label_names` does not have")
    own = tuple(name for name in order if name in set(names))
    position_of = {name: position for position, name in enumerate(own)}
    return own, np.array([position_of[name] for name in names], np.int64)[codes_N]


def _known(
    classes: Mapping[str, tuple[tuple[str, ...], Ints]], label_names: Sequence[str] | None
) -> tuple[tuple[str, ...], list[str]]:
    """Return the classes of train, and notes on those without images."""
    known, notes = classes["train"][0], []
    if len(known) < 2:
        raise SourceError(f"train has only one class, {listed(known)}; expected at least two")
    if label_names is not None and len(known) < len(label_names):
        unused = [label for label in map(label_of, label_names) if label not in known]
        notes.append(f"left out {counted(len(unused), 'class', 'classes')} without images: {listed(unused, 5)}")
    for split, (own, _) in classes.items():
        unknown = [label for label in own if label not in known]
        if unknown:
            raise SourceError(f"{split} has {listed(unknown)}, which train does not have")
        lacking = [label for label in known if label not in own]
        if lacking:
            notes.append(f"{split} has no images of {listed(lacking, 5)}")
    return known, notes


def _texts(values: Sequence[str | int], what: str) -> tuple[str, ...]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (str, int, np.integer)):
            raise SourceError(f"`{what}` has {value!s:.40}, expected texts or whole numbers")
    return tuple(map(str, values))


def _checked_names(names: Sequence[str | int], num_images: int) -> tuple[str, ...]:
    shown = tuple(map(printable, _texts(names, "names")))
    if len(shown) != num_images:
        raise SourceError(f"`names` has {counted(len(shown), 'text')}, expected one for each of {num_images:,} images")
    if len(set(shown)) < num_images:
        twice = next(name for name, other in zip(sorted(shown), sorted(shown)[1:], strict=False) if name == other)
        raise SourceError(f"`names` has `{twice}` more than once, expected different ones")
    return shown
