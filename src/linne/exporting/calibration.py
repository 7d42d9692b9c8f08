"""Which images ranges are measured on: of the training split alone, as many of each class. Those of `val` decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from linne.bundle import Bundle
from linne.data.source import Ints, Source
from linne.errors import BundleError, SourceError
from linne.evaluation import chunks, class_mapping, split_of
from linne.preprocess import Floats, InputSpec, UInt8, normalise
from linne.verifying.examples import Batch, Examples, of_source, spread

NUM_CHECKED = 2000
"""Images of the validation split that decide whether the accuracy holds."""


@dataclass(frozen=True, eq=False, slots=True)
class Calibration:
    """Images of the training split, as the network's preprocessing makes them."""

    images_NHWC: UInt8
    spec: InputSpec
    name: str
    """For people: `500 images, 50 of each of 10 classes, split train of digits`."""
    num_by_class: dict[str, int]

    def __len__(self) -> int:
        return len(self.images_NHWC)

    def normalised(self, positions: Ints | slice) -> Floats:
        """Return some of the images N x C x H x W, as a network sees them."""
        return normalise(self.images_NHWC[positions], self.spec)

    def batches(self, size: int) -> Iterator[Floats]:
        """Yield all images, `size` at a time; the last batch is filled up with the first images."""
        for start in range(0, len(self), size):
            yield self.normalised(np.arange(start, start + size) % len(self))


def calibration_of(bundle: Bundle, source: Source, num_images: int, seed: int = 0) -> Calibration:
    """Return up to `num_images` of the training split, as many of each class as there are; the same for a seed.

    Raises:
        SourceError: the source has no training split, or none of its images can be read.
    """
    train = split_of(source, "train")
    picked_N = balanced(train.labels_N, num_images, seed)
    part = replace(train, indices_N=train.indices_N[picked_N], labels_N=train.labels_N[picked_N])
    images: list[UInt8] = []
    labels: list[int] = []
    for chunk, positions, _ in chunks(part, bundle.input):
        images += list(chunk)
        labels += part.labels_N[positions].tolist()
    if not images:
        raise SourceError(f"none of {len(picked_N)} images of split `train` of `{source.name}` can be read")
    counts_K = np.bincount(labels, minlength=source.num_classes)
    low, high = int(counts_K.min()), int(counts_K.max())
    each = f"{low}" if low == high else f"{low} to {high}"
    name = f"{len(images):,} images, {each} of each of {source.num_classes} classes, split train of {source.name}"
    num_by_class = dict(zip(source.labels, counts_K.tolist(), strict=True))
    return Calibration(np.stack(images), bundle.input, name, num_by_class)


def balanced(labels_N: Ints, count: int, seed: int) -> Ints:
    """Return positions of up to `count` examples: one of each class in turn, drawn without a pattern.

    A class with fewer examples than its share gives all of them, and the others more.
    """
    shuffled_N = np.random.default_rng(seed).permutation(len(labels_N))
    by_class_N = shuffled_N[np.argsort(labels_N[shuffled_N], kind="stable")]
    counts_K = np.bincount(labels_N)
    turn_N = np.concatenate([np.arange(size) for size in counts_K]) if len(labels_N) else by_class_N
    return by_class_N[np.argsort(turn_N, kind="stable")][:count]


def examples_of(bundle: Bundle, source: Source) -> Examples:
    """Return the images of the validation split that decide; without labels where the source's classes are others.

    Where there is no such split they are of the training split: on those a network is surer than on others.

    Raises:
        SourceError: there are none.
    """
    split = "val" if "val" in source.splits else "train"
    split_of(source, split)
    try:
        class_mapping(source, bundle.labels)
    except BundleError:
        return _without_labels(bundle, source, split)
    return of_source(bundle, source, split, NUM_CHECKED)


def _without_labels(bundle: Bundle, source: Source, split: str) -> Examples:
    """Return the images of a split for their answers alone."""
    whole = source.splits[split]
    picked_N = spread(len(whole), NUM_CHECKED)
    part = replace(whole, indices_N=whole.indices_N[picked_N], labels_N=whole.labels_N[picked_N])

    def batches() -> Iterator[Batch]:
        for images, positions, skipped in chunks(part, bundle.input):
            yield Batch(images, [part.example_name(position) for position in positions], None, len(skipped))

    name = f"{len(part):,} images, split {split} of {source.name}, whose classes are others"
    return Examples(name, batches, f"{name} {source.fingerprint}", len(part))
