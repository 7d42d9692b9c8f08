"""How images are prepared, as a person says it: fields of `InputSpec`, and words for what is usual.

`scaling` is a word for mean and deviation: `imagenet`, `half`, `unit`, `raw`, or `caffe`, which is `raw` less a mean
and with blue first. Of a graph, `order=bgr` says that it takes blue first, and `layout=nhwc` that channels are last.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from linne.errors import BundleError, RecipeError, suggest
from linne.preprocess import InputSpec
from linne.weights.answers import SCALINGS, Scaling

# Means of Caffe's models of ImageNet, blue first 103.939, 116.779, 123.68, of pixels of 0 to 255.
CAFFE = Scaling("Caffe's", (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255))
SCALING_WORDS = {**SCALINGS, "caffe": CAFFE}
ORDERS = ("rgb", "bgr")
IN_GRAPHS = "linne.input"
"""Under which `linne export` writes into an ONNX file how images are prepared for it."""
MAX_BYTES = 4096
"""Of what is written there."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What was said of how images are prepared."""

    fields: Mapping[str, Any]
    """Of `InputSpec`."""
    layout: str | None
    """Of a graph's input: `nchw` or `nhwc`; None where unsaid."""
    bgr: bool
    """Whether a graph takes blue first."""


def preparation(said: Mapping[str, Any], channels: int = 3) -> Preparation:
    """Return what `said` means, its word for the scaling replaced by mean and deviation of so many channels.

    Raises:
        RecipeError: no such field or word, or two of them disagree.
    """
    fields = dict(said)
    scaling, order, layout = (fields.pop(key, None) for key in ("scaling", "order", "layout"))
    known = [field.name for field in dataclasses.fields(InputSpec)]
    for name in fields:
        if name not in known:
            hint = f"there are {', '.join(sorted([*known, 'scaling', 'order', 'layout']))}"
            raise RecipeError(f"no field `{name}` of preprocessing", hint=hint)
    if order is not None and order not in ORDERS:
        raise RecipeError(f"no order of channels `{order}`", hint="use rgb or bgr")
    if scaling is None:
        return Preparation(fields, layout, order == "bgr")
    if scaling not in SCALING_WORDS:
        words = ", ".join(f"`{word}`" for word in SCALING_WORDS)
        raise RecipeError(f"no scaling `{scaling}`", hint=suggest(scaling, SCALING_WORDS) or f"use one of {words}")
    for name in ("mean", "std"):
        if name in fields:
            raise RecipeError(f"`{scaling}` and `{name}={fields[name]}` both say how pixels are scaled")
    if scaling == "caffe" and order == "rgb":
        raise RecipeError("`caffe` has blue first, and `order=rgb` says red", hint="type the means: mean=... std=...")
    chosen = SCALING_WORDS[scaling]
    if channels == 1 and len(set(chosen.mean)) > 1:
        raise RecipeError(f"`{scaling}` is of three colours, and images are grey", hint="use mean=... and std=...")
    fields |= {"mean": chosen.mean[:channels], "std": chosen.std[:channels]}
    return Preparation(fields, layout, order == "bgr" or scaling == "caffe")


def says_scaling(said: Mapping[str, Any]) -> bool:
    """Return whether `said` holds anything of how pixels are scaled."""
    return bool({"scaling", "mean", "std"} & said.keys())


def scaling_unsaid(name: str) -> RecipeError:
    """Return the error for the file `name`, of which nobody says how pixels are scaled."""
    words = ", ".join(f"`{word}` ({scaling.name})" for word, scaling in SCALING_WORDS.items())
    return RecipeError(
        f"nobody says how pixels are scaled for `{name}`",
        hint=f"use --preprocess with one of {words}, or mean=... and std=... of pixels of 0 to 1",
    )


def preparation_in(metadata: Mapping[str, str], name: str) -> Mapping[str, Any]:
    """Return what an ONNX file called `name` itself says of how images are prepared for it, but their size.

    Raises:
        RecipeError: it says something that cannot be read.
    """
    text = metadata.get(IN_GRAPHS)
    if text is None:
        return {}
    try:
        spec = InputSpec.from_dict(json.loads(text[:MAX_BYTES]))
    except (ValueError, TypeError, AttributeError, RecursionError, BundleError) as error:
        raise RecipeError(f"the graph `{name}` says in `{IN_GRAPHS}` what cannot be read: {error}") from error
    return {key: getattr(spec, key) for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode")}
