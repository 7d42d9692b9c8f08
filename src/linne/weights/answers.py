"""What a network calls the photographs that come with the package, whatever runs it; no framework is imported.

Labels in another order, another network's weights and pixels scaled otherwise show in the names of three photographs
of things that most labels have a name for. `linne.weights.proving` looks into networks of torch as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from linne.data.images.decode import decode_file
from linne.metrics import softmax
from linne.preprocess import Floats, InputSpec, normalise, resize_and_crop

FOLDER = Path(__file__).parent / "photographs"
SHOWN = {
    "cat.jpg": ("tabby", "tiger cat", "egyptian cat"),
    "coffee.jpg": ("espresso", "coffee mug", "cup"),
    "rocket.jpg": ("missile", "projectile", "space shuttle"),
    "astronaut.jpg": (),
}
"""By photograph: ImageNet's names for what is on it; none where it has no name for it."""
TOP = 5


@dataclass(frozen=True, slots=True)
class Scaling:
    """A usual way to scale pixels: mean and deviation of red, green and blue, of pixels of 0 to 1."""

    name: str
    """What people call it."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def typed(self) -> str:
        """Return the two fields as they are typed."""
        fields = (("mean", self.mean), ("std", self.std))
        return " ".join(f"{key}={','.join(f'{value:.4g}' for value in values)}" for key, values in fields)


SCALINGS = {
    "imagenet": Scaling("ImageNet's mean and deviation", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": Scaling("mean and deviation 0.5", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": Scaling("pixels of 0 to 1", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "raw": Scaling("pixels of 0 to 255", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}
"""What networks are trained with, by the word for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What the photographs showed."""

    first_gap: float | None
    """Median over channels of |log(variance seen / variance kept)| at the first batch norm; None without one."""
    median_gap: float | None
    """The same, median over all batch norms."""
    num_named: int | None
    """Photographs for which one of the first five labels is right; None where the labels have no names for them."""
    num_asked: int | None
    problem: str | None
    """Why these weights are not to be used like this, or None."""
    hint: str | None = None

    def line(self) -> str:
        """Return what was found, in one line."""
        if self.problem is not None:
            return self.problem
        found = []
        if self.num_named is not None:
            found.append(f"{self.num_named} of {self.num_asked} photographs named right")
        if self.median_gap is not None:
            found.append("batch norms see what they saw in training")
        return ", ".join(found) or "answers are finite; nothing else can be checked without batch norms or known labels"


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What a network called the photographs."""

    num_named: int | None
    """Photographs for which one of the first five labels is right; None where the labels have no names for them."""
    num_asked: int | None
    sureness: float
    """Mean logarithm of the probability of right names; 0 is the best, and what it is without any."""
    problem: str | None
    hint: str | None = None


def prove_names(run: Callable[[Floats], Floats], spec: InputSpec, labels: Sequence[str] | None) -> Proof:
    """Return what `run`, from images N x C x H x W prepared by `spec` to logits N x K, calls the photographs.

    Finds wrong scaling too, by trying the usual ones, where labels have names for the photographs.
    """
    found = names_of(run(photographs(spec)), labels)
    hint = found.hint
    if found.problem is not None and found.num_asked and spec.channels == 3:
        hint = _better_scaling(run, spec, labels, found) or hint
    return Proof(
        first_gap=None,
        median_gap=None,
        num_named=found.num_named,
        num_asked=found.num_asked,
        problem=found.problem,
        hint=hint,
    )


def photographs(spec: InputSpec) -> Floats:
    """Return the photographs as a network sees them, N x C x H x W."""
    images = [resize_and_crop(decode_file(FOLDER / name, spec.channels), spec) for name in SHOWN]
    return normalise(np.stack(images), spec)


def names_of(logits_NK: Floats, labels: Sequence[str] | None) -> Names:
    """Return which photographs the answers name right."""
    accepted_N = [_positions(labels, accepted) for accepted in SHOWN.values()]
    asked = [position for position, accepted in enumerate(accepted_N) if accepted]
    named = [p for p in asked if accepted_N[p] & set(np.argsort(-logits_NK[p], kind="stable")[:TOP].tolist())]
    problem, hint, sureness = None, None, 0.0
    if not np.isfinite(logits_NK).all():
        problem = "answers to photographs are not finite numbers"
    elif asked:
        right_N = [softmax(logits_NK[p : p + 1])[0, sorted(accepted_N[p])].sum() for p in asked]
        sureness = float(np.log(np.maximum(right_N, np.finfo(np.float64).tiny)).mean())
        if 2 * len(named) < len(asked):
            problem = f"of {len(asked)} photographs {len(named)} got a right name among the first five"
            hint = "labels in another order, or another network's weights"
    return Names(
        num_named=len(named) if asked else None,
        num_asked=len(asked) if asked else None,
        sureness=sureness,
        problem=problem,
        hint=hint,
    )


def _better_scaling(
    run: Callable[[Floats], Floats], spec: InputSpec, labels: Sequence[str] | None, found: Names
) -> str | None:
    """Return a hint that names the usual scaling with which the photographs get right names, if there is one."""
    tried = {}
    for word, scaling in SCALINGS.items():
        other = dataclasses.replace(spec, mean=scaling.mean, std=scaling.std)
        tried[word] = names_of(run(photographs(other)), labels)
    word = max(tried, key=lambda word: (tried[word].num_named or 0, tried[word].sureness))
    best = tried[word]
    if best.problem is not None:
        return None
    return (
        f"with {SCALINGS[word].name} {best.num_named} of {best.num_asked} are named right, and with yours "
        f"{found.num_named}: use --preprocess {word}"
    )


def _positions(labels: Sequence[str] | None, accepted: Sequence[str]) -> set[int]:
    """Return which labels are names that are `accepted`. Lists write several names of a class with commas."""
    wanted = set(accepted)
    return {
        position
        for position, label in enumerate(labels or ())
        if not wanted.isdisjoint(name.strip().lower().replace("_", " ") for name in label.split(","))
    }
