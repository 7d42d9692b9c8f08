"""Images to compare answers on: of a labelled source, of files without labels, or those that come with the bundle."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from linne.bundle import Bundle
from linne.data.images.decode import decode_file, read_file, to_input
from linne.data.source import Ints, Source, UInt8
from linne.errors import ImageError
from linne.evaluation import chunks, class_mapping, split_of
from linne.inference.inputs import NamedImage, find_images
from linne.preprocess import InputSpec, resize_and_crop
from linne.weights.answers import FOLDER as PHOTOGRAPHS
from linne.weights.answers import SHOWN

BATCH_IMAGES = 64


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images at the model's size, in the order of the examples."""

    images: Sequence[UInt8] | UInt8
    names: list[str]
    labels_N: Ints | None
    """Positions in the bundle's labels; None where nobody says."""
    num_skipped: int
    """Images before the last of these that could not be read."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Images that can be read again and again."""

    name: str
    """For people: `1,000 of 10,000 images, split test of cifar10`."""
    batches: Callable[[], Iterator[Batch]]
    identity: str
    """Changes when other images or other labels are compared."""
    num_images: int
    """Those that cannot be read included."""


def of_source(bundle: Bundle, source: Source, split: str, max_images: int | None) -> Examples:
    """Return the examples of a split, evenly spaced ones where there are more than `max_images`.

    Raises:
        SourceError: there is no such split.
        BundleError: the source has a class that the bundle does not know.
    """
    whole = split_of(source, split)
    to_bundle_K = class_mapping(source, bundle.labels)
    picked_N = spread(len(whole), max_images)
    part = replace(whole, indices_N=whole.indices_N[picked_N], labels_N=whole.labels_N[picked_N])

    def batches() -> Iterator[Batch]:
        for images, positions, skipped in chunks(part, bundle.input):
            names = [part.example_name(position) for position in positions]
            yield Batch(images, names, to_bundle_K[part.labels_N[positions]], len(skipped))

    of = "" if len(picked_N) == len(whole) else f" of {len(whole):,}"
    name = f"{len(picked_N):,}{of} images, split {split} of {source.name}"
    return Examples(name, batches, f"{name} {source.fingerprint}", len(picked_N))


def spread(total: int, most: int | None) -> Ints:
    """Return up to `most` of the positions 0 ... total - 1, evenly spaced, for sets that are in order of classes."""
    if most is None or total <= most:
        return np.arange(total, dtype=np.int64)
    return (np.arange(most, dtype=np.int64) * total) // most


def of_files(bundle: Bundle, inputs: Sequence[str | Path], max_images: int | None) -> Examples:
    """Return images without labels, as `linne predict` finds them.

    Raises:
        LinneError: an input names nothing.
    """
    found = list(find_images(inputs))
    picked = [found[position] for position in spread(len(found), max_images)]
    of = "" if len(picked) == len(found) else f" of {len(found):,}"
    name = f"{len(picked):,}{of} images without labels"
    digest = hashlib.sha256("\n".join(map(_described, picked)).encode("utf-8", "surrogateescape")).hexdigest()
    return Examples(name, lambda: _read(picked, bundle.input), f"{name} {digest}", len(picked))


def _described(image: NamedImage) -> str:
    """Return what tells an image from others and from its own older content."""
    if isinstance(image, tuple):
        return f"{image[0]} {hashlib.sha256(image[1]).hexdigest()}"
    facts = image.stat() if image.exists() else None
    return f"{image.absolute()} {facts and (facts.st_size, facts.st_mtime_ns)}"


def of_bundle(bundle: Bundle) -> Examples:
    """Return the bundle's canaries and, where it takes colours, the photographs that come with linne.

    As they are no examples of what the bundle was trained for, they show differences of logits rather than of labels.
    """
    photographs = [PHOTOGRAPHS / name for name in SHOWN] if bundle.input.channels == 3 else []

    def batches() -> Iterator[Batch]:
        images, names = [], []
        for canary in bundle.canaries:
            pixels_HWC = decode_file(bundle.path / canary.file, bundle.input.channels)
            images.append(resize_and_crop(pixels_HWC, bundle.input))
            names.append(canary.file)
        yield Batch(images, names, None, 0)
        yield from _read(photographs, bundle.input)

    name = f"{len(bundle.canaries)} canaries" + (f" and {len(photographs)} photographs" if photographs else "")
    return Examples(name, batches, name, len(bundle.canaries) + len(photographs))


def _read(images: Iterable[NamedImage], spec: InputSpec) -> Iterator[Batch]:
    rest = iter(images)
    while group := list(itertools.islice(rest, BATCH_IMAGES)):
        seen, names, skipped = [], [], 0
        for image in group:
            name = image[0] if isinstance(image, tuple) else str(image)
            try:
                data = image[1] if isinstance(image, tuple) else read_file(image)
                seen.append(to_input(data, spec, name=name))
                names.append(name)
            except ImageError:
                skipped += 1
        yield Batch(seen, names, None, skipped)
