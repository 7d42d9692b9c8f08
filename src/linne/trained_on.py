"""The source that a bundle was trained beside, split as it was then: whoever trained must not test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.errors import RecipeError, SourceError

if TYPE_CHECKING:
    from linne.bundle import Bundle
    from linne.data import Source


def as_in_training(bundle: Bundle, name: str, splits_file: str | Path | None) -> Source:
    """Return the source `name`, split as it was when `bundle` was trained."""
    from linne.data import open_source

    data = bundle.provenance.get("recipe", {}).get("data", {})
    beside = bundle.path.parent / "splits.json"
    known = bundle.provenance.get("source", {})
    is_same = name == known.get("name")
    if splits_file is None:
        splits_file = _splits_of_training(data, name, beside)
        is_same = is_same or splits_file is not None
    # Where a list says who trained, what made that list is done; where the list is of others, it was asked of those.
    asked = {} if splits_file is not None or beside.is_file() else data
    quarantine = asked.get("quarantine")
    source = open_source(
        name,
        val_fraction=data.get("val_fraction", 0.1),
        test_fraction=data.get("test_fraction", 0.15),
        split_seed=data.get("split_seed", 0),
        group_by=asked.get("group_by"),
        folds=asked.get("folds"),
        fold=asked.get("fold"),
        splits_file=None if splits_file is None else Path(splits_file),
        quarantine=None if quarantine is None else Path(quarantine),
        must_train=False,
    )
    if is_same and known.get("fingerprint") not in (None, source.fingerprint):
        changed = "the source is not what the bundle was trained beside: images, labels or splits have changed"
        source = replace(source, notes=(f"warning: {changed}", *source.notes))
    return source


def to_calibrate(bundle: Bundle, asked: str | Source | None) -> Source:
    """Return the source to calibrate with, split as it was when the bundle was trained: its own, or what is asked for.

    Raises:
        RecipeError: nothing is asked for, and the bundle does not say what it was trained on.
        SourceError: it cannot be opened.
    """
    if asked is not None and not isinstance(asked, str):
        return asked
    known = bundle.provenance.get("source", {}).get("name")
    name = asked or known
    if not isinstance(name, str):
        raise RecipeError(
            f"bundle `{bundle.path}` does not say what it was trained on, and int8 needs images to measure ranges on",
            hint="--calibrate SOURCE names images such as the network will see, a thousand or more",
        )
    try:
        return as_in_training(bundle, name, None)
    except SourceError as error:
        if asked is not None:
            raise
        raise SourceError(
            f"what the bundle was trained on is needed to measure ranges: {error.message}",
            hint="--calibrate SOURCE says where it is now",
        ) from error


def _splits_of_training(data: Mapping[str, Any], name: str, beside: Path) -> Path | None:
    """Return the list of who trained and who tests, None where the recipe alone decides it or `name` is of others.

    Raises:
        SourceError: a split file decided it, and neither that file nor the run's copy of it is at hand.
    """
    from linne.data import knows_most_of

    stated = data.get("splits_file")
    for path in (beside, Path(stated or beside)):
        if knows_most_of(path, name):
            return path
    if stated is None or beside.is_file():
        return None
    raise SourceError(
        f"the bundle was trained by the split file `{stated}`, which does not know `{name}` or is not here",
        hint="the run that made the bundle has a copy: `--splits-file RUN/splits.json`",
    )
