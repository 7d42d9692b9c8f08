"""What can be trained and what it costs, and which weights were published for it, as rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from linne.models.provider import BY_PLACE, HubFile, Pretrained, full_name

MOST_MEASURED = 10
"""Networks not in the file of costs that are measured while somebody waits: a second or less each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelListing:
    """One network, as far as it is known without training it."""

    name: str
    """What a user types; `timm/*` when the whole provider is unavailable."""
    provider: str
    height: int | None
    """The size it was designed for; None when it adapts to any."""
    width: int | None
    parameters: int | None = None
    """With three channels and a classifier of 1000 classes; None when that depends on the size, or is not known."""
    macs: int | None = None
    """Multiply-adds for one image of that size in convolutions, matrix products and attention."""
    unavailable: str | None = None
    """Why it cannot be built here, or None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsListing:
    """One set of published weights."""

    name: str
    """What a user types: `timm/resnet18.a1_in1k`."""
    height: int | None
    """Of the images that they were trained on last; None where files beside the weights say it."""
    width: int | None
    num_classes: int
    """0 where they have no classifier."""
    size_bytes: int | None
    """Of the file that is here, or about as the provider states it, or None."""
    licence: str | None
    """As the provider states it, or None."""
    where: str
    found: str | None
    """Where the file is on this machine, or None."""


def list_models(pattern: str | None = None) -> list[ModelListing]:
    """Return every network whose name fits, sorted by name; a provider that is missing is one row that says why.

    Imports every provider, which takes seconds.

    Args:
        pattern: a glob (`timm/vit_*`, `resnet1?`) over the full or the bare name, a part of the full name, or
            `hf:PLACE`, which no list holds.
    """
    from linne.models import load_provider
    from linne.models.costs import measure, measured

    listings = []
    for key, names in _names(pattern):
        if isinstance(names, str):
            row = full_name(key, "*")
            listings.append(ModelListing(name=row, provider=key, height=None, width=None, unavailable=names))
            continue
        for name in names:
            typed = full_name(key, name)
            if key in BY_PLACE or _fits(pattern, name, typed):
                made_for = load_provider(key).input_defaults(name)
                height, width = (made_for.height, made_for.width) if made_for else (None, None)
                listings.append(ModelListing(name=typed, provider=key, height=height, width=width))
    costs = measured()
    missing = [row.name for row in listings if row.height is not None and row.name not in costs]
    if len(missing) <= MOST_MEASURED:
        costs |= {name: cost for name in missing if (cost := measure(name)) is not None}
    known = [
        replace(row, parameters=cost.parameters, macs=cost.macs) if (cost := costs.get(row.name)) else row
        for row in listings
    ]
    return sorted(known, key=lambda row: row.name)


def list_weights(pattern: str | None = None) -> list[WeightsListing]:
    """Return the weights published for the networks that fit, or whose own names do, by network, its default first.

    Nothing is fetched, and nothing asked of a hub.

    Args:
        pattern: as for `list_models`; `resnet18.a1` fits names with a tag.
    """
    from linne.models import load_provider

    return [
        _row(weights)
        for key, names in _names(pattern)
        if not isinstance(names, str)
        for name in names
        for weights in load_provider(key).pretrained(name)
        if key in BY_PLACE
        or _fits(pattern, name, full_name(key, name))
        or _fits(pattern, f"{name}.{weights.tag}", weights.full_name)
    ]


def _names(pattern: str | None) -> Iterator[tuple[str, list[str] | str]]:
    """Yield each provider with its names, or why it has none here."""
    from linne.models import PROVIDERS, load_provider

    place = (pattern or "").partition(":")[0]
    for key in [place] if place in BY_PLACE else [key for key in PROVIDERS if key not in BY_PLACE]:
        provider = load_provider(key)
        problem = provider.why_unavailable()
        if problem is not None:
            yield key, problem
        else:
            yield key, [(pattern or "").partition(":")[2]] if key in BY_PLACE else provider.names()


def _row(weights: Pretrained) -> WeightsListing:
    from linne.models.fetching import find_pretrained

    found = find_pretrained(weights)
    where = weights.where
    is_file = found is not None and found.is_file()
    return WeightsListing(
        name=weights.full_name,
        height=weights.input.height if weights.input else None,
        width=weights.input.width if weights.input else None,
        num_classes=weights.num_classes,
        size_bytes=found.stat().st_size if found is not None and is_file else weights.size_bytes,
        licence=weights.licence,
        where=f"hub: {where.repository}" if isinstance(where, HubFile) else str(where),
        found=None if found is None else str(found),
    )


def _fits(pattern: str | None, name: str, typed: str) -> bool:
    if pattern is None:
        return True
    pattern = pattern.lower()
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(name.lower(), pattern) or fnmatchcase(typed.lower(), pattern)
    return pattern in typed.lower()
