"""From what a user types for weights to a file, and what is known of it before it is read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from linne import models
from linne.errors import RecipeError, suggest
from linne.models.provider import InputDefaults, Pretrained, WebFile
from linne.preprocess import InputSpec
from linne.weights import Weights

DEFAULT = "default"
"""What is typed for the weights that a network's provider would take."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt", ".onnx")
"""Of names that mean a file, also where there is none."""
_BARS_COMMERCE = re.compile(r"\bnc\b|non-?commercial|apple-amlr|facebookresearch/swag/")
"""Apple's for its research models, and SWAG's, which torchvision names by its address, do not say it in their names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Pretrained weights of a network, before they are read: a file or folder, or what a provider offers."""

    full_name: str
    """Of the network: `torchvision/mobilenet_v2`."""
    path: Path | None
    """Where they are, None as long as they are only offered."""
    offered: Pretrained | None
    """What their provider says about them; None where it does not know them."""

    @property
    def name(self) -> str:
        """What to call them."""
        return str(self.path) if self.offered is None else self.offered.full_name

    @property
    def input(self) -> InputDefaults | None:
        """What their provider prepares images with for them; None where it does not know them."""
        return None if self.offered is None else self.offered.input

    def fetched(self, say: Callable[[str], None]) -> Path:
        """Return where they are, from the cache of their provider or, with a line to `say`, from the network.

        Raises:
            LinneError: they are not here and cannot be fetched; the message says how to bring them.
        """
        if self.path is not None:
            return self.path
        from linne.models.fetching import fetch_pretrained

        assert self.offered is not None
        path = fetch_pretrained(self.offered, say)
        # On Hugging Face's hub what is said about weights lies beside them.
        return path.parent if self.offered.provider == "hf" and path.is_file() else path


def licence_of(found: Found, weights: Weights) -> str | None:
    """Return the licence of weights that were found and read, as their provider or their bundle states it, or None."""
    return weights.licence if found.offered is None else found.offered.licence


def bars_commerce(licence: str | None) -> bool:
    """Return whether a licence, named as providers do, is known to allow no commercial use."""
    return licence is not None and _BARS_COMMERCE.search(licence.lower()) is not None


def asked_for(tag: str | None, typed: str | None) -> str | None:
    """Return which weights are meant by a network's name with `tag` and by what was typed for weights beside it.

    Raises:
        RecipeError: they say different things.
    """
    if tag is not None and typed not in (None, DEFAULT, tag):
        raise RecipeError(f"weights are named twice: `{tag}` and `{typed}`", hint="leave one of them out")
    return tag or typed


def find(typed: str, full_name: str) -> Found:
    """Return the weights that `typed` means for the network `full_name`: `default`, a provider's name, or a path.

    A file that is one of the provider's own, by its name, is known as that. A file that is called like one of the
    other two is typed with its folder: `./default`.

    Raises:
        RecipeError: there is no such file, and the provider has no such weights.
    """
    offers = offers_for(full_name)
    by_tag = {offer.tag: offer for offer in offers}
    if typed in by_tag:
        return Found(full_name=full_name, path=None, offered=by_tag[typed])
    path = Path(typed).expanduser()
    if typed != DEFAULT and path.exists():
        return Found(full_name=full_name, path=path, offered=_one_of_theirs(path, offers))
    if os.sep in typed or path.suffix in SUFFIXES:
        raise RecipeError(f"no weights at `{typed}`: there is no such file or folder")
    if not offers:
        raise RecipeError(
            f"`{full_name}` has no pretrained weights",
            hint="use --weights FILE, or leave --weights out to train it anew",
        )
    if typed == DEFAULT:
        return Found(full_name=full_name, path=None, offered=offers[0])
    raise RecipeError(
        f"`{full_name}` has no pretrained weights `{typed}`, and there is no such file",
        hint=suggest(typed, by_tag) or f"use --weights with one of {', '.join(f'`{tag}`' for tag in by_tag)}",
    )


def offers_for(full_name: str) -> list[Pretrained]:
    """Return the weights that are published for a network, its provider's default first.

    Raises:
        RecipeError: there is no such network.
    """
    provider, own_name = models.resolve(full_name)
    return models.load_provider(provider).pretrained(own_name)


def _one_of_theirs(path: Path, offers: list[Pretrained]) -> Pretrained | None:
    """Return which of `offers` the file is, by the name under which it is published."""
    return next(
        (offer for offer in offers if isinstance(offer.where, WebFile) and offer.where.filename == path.name), None
    )


def spec_of(designed: InputDefaults, crop_mode: str | None = None) -> InputSpec:
    """Return the evaluation input that a network was designed for, with another `crop_mode` where one is given.

    Raises:
        RecipeError: it was designed for timm's `border`, which keeps all of an image between borders.
    """
    mode = crop_mode or designed.crop_mode
    if mode == "border":
        raise RecipeError(
            "these weights were made for whole images between borders (crop_mode `border`), which linne does not make",
            hint="stretch images instead: --set data.crop_mode=squash, or --preprocess crop_mode=squash in an import",
        )
    return InputSpec(
        channels=3,
        height=designed.height,
        width=designed.width,
        mean=designed.mean,
        std=designed.std,
        interpolation=designed.interpolation,
        crop_pct=designed.crop_pct,
        crop_mode=mode,
    )
