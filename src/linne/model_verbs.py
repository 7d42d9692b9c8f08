"""Verbs about networks and their pretrained weights, as functions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.host import prepare_for_torch
from linne.log import Narrator

if TYPE_CHECKING:
    from linne.importing import Imported
    from linne.models.listing import ModelListing, WeightsListing


def list_models(pattern: str | None = None) -> list[ModelListing]:
    """Return the models whose name matches `pattern`: a part of it, or a glob such as `timm/resnet*`."""
    from linne.models.listing import list_models as listed

    return listed(pattern)


def list_weights(pattern: str | None = None) -> list[WeightsListing]:
    """Return the published weights of the models whose name matches `pattern`: what they are, and whether here."""
    from linne.models.listing import list_weights as listed

    return listed(pattern)


def import_weights(
    weights: str | Path,
    output: str | Path,
    *,
    model: str | None = None,
    labels: str | Path | None = None,
    preprocess: Mapping[str, Any] | None = None,
    output_name: str | None = None,
    unproved: bool = False,
    trust_code: bool = False,
    quiet: bool = False,
) -> Imported:
    """Make a bundle of pretrained weights or a graph, and return it with what was found on the way.

    Args:
        weights: An ONNX file, a `.keras` file or a SavedModel, whose network is taken whole; a file or a folder of
            weights; or with `model` "default" or a name of its provider, which may download them.
        model: The network that they are of; a folder of timm or Hugging Face says it itself.
        labels: A file with the names of the classes, one a line or JSON, or "imagenet" for ImageNet's; otherwise what
            comes with the weights.
        preprocess: Fields of `InputSpec` that nobody else says, or that are to be other; `scaling` is a word for mean
            and deviation (`imagenet`, `half`, `unit`, `raw`, `caffe`), and of a graph `order` may be `bgr` and
            `layout` `nhwc`.
        output_name: Which output of a graph or model that has several.
        unproved: Take them also when their answers to photographs show that something is wrong.
        trust_code: Whether the Python file may be run that `python:FILE.py:NAME` names as the network.
        quiet: Say nothing on stderr.

    Raises:
        LinneError: something given cannot be used, or the weights do not fill the network.
        CheckFailed: their answers to photographs show that something is wrong.
    """
    prepare_for_torch()
    from linne.importing import import_weights as run

    say = Narrator(quiet=quiet).line
    return run(
        str(weights),
        Path(output),
        model=model,
        labels=labels,
        preprocess=preprocess or {},
        output_name=output_name,
        must_prove=not unproved,
        trust_code=trust_code,
        say=say,
    )
