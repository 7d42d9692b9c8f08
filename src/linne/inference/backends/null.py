"""The null backend: one linear layer over the pixels, in numpy. For tests of everything around a backend.

Its answers depend on every pixel, so a wrong channel order, mean, resize or crop shows as it does in a network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from linne.bundle import Bundle, canary_batch, write_bundle
from linne.errors import BundleError, DeviceError
from linne.exports import Precision
from linne.inference.backends.base import Option, RunOptions
from linne.preprocess import Floats, InputSpec

PROVIDER = "null"


class NullBackend:
    """Logits = weight x pixels + bias, for bundles of `write_null_bundle`."""

    PRECISIONS: ClassVar[tuple[Precision, ...]] = ("fp32",)
    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, weight_KP: Floats, bias_K: Floats) -> None:
        self.weight_KP = weight_KP
        self.bias_K = bias_K
        self.description = "null (one linear layer, numpy)"
        self.batch_size: int | None = None
        self.canary_logits_NK: Floats | None = None

    @classmethod
    def why_unavailable(cls) -> str | None:
        """Return None: numpy is always there."""
        return None

    @classmethod
    def why_not(cls, bundle: Bundle, precision: Precision = "fp32") -> str | None:
        """Return None for a bundle of `write_null_bundle`."""
        return None if bundle.model.get("provider") == PROVIDER else "it holds a trained network"

    @classmethod
    def open(cls, bundle: Bundle, how: RunOptions) -> Self:
        """Return the layer; the device is ignored."""
        if how.require_accelerator:
            raise DeviceError("the null backend runs on the CPU, and an accelerator is required")
        if cls.why_not(bundle) is not None:
            raise BundleError(f"bundle `{bundle.path}` holds a trained network, which the null backend cannot run")
        weights = bundle.weights()
        return cls(weights["weight"], weights["bias"])

    def run(self, images_NCHW: Floats) -> Floats:
        """Return logits N x K."""
        # einsum adds in one order for every batch size; matmul does not.
        logits_NK: Floats = np.einsum("np,kp->nk", images_NCHW.reshape(len(images_NCHW), -1), self.weight_KP)
        return logits_NK + self.bias_K

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


def null_weights(num_classes: int, spec: InputSpec, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return random weights, scaled so that logits are around 1."""
    draw = np.random.default_rng(seed)
    num_pixels = spec.channels * spec.height * spec.width
    weight_KP = draw.normal(0, num_pixels**-0.5, (num_classes, num_pixels)).astype(np.float32)
    return {"weight": weight_KP, "bias": draw.normal(0, 0.1, num_classes).astype(np.float32)}


def write_null_bundle(
    folder: Path,
    labels: Sequence[str],
    spec: InputSpec,
    *,
    weights: Mapping[str, NDArray[Any]] | None = None,
    metrics: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Bundle:
    """Return a bundle for this backend, written to the new folder `folder`; without `weights` they are random."""
    weights = null_weights(len(labels), spec) if weights is None else weights
    settings = spec.to_dict()
    config = {
        "architecture": "null/linear",
        "num_classes": len(labels),
        "label_names": list(labels),
        "pretrained_cfg": {
            "input_size": [spec.channels, spec.height, spec.width],
            **{key: settings[key] for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode")},
        },
    }
    return write_bundle(
        folder,
        labels=labels,
        input=spec,
        model={"provider": PROVIDER, "name": "linear", "num_classes": len(labels)},
        weights=weights,
        config=config,
        canary_logits_NK=NullBackend(weights["weight"], weights["bias"]).run(canary_batch(spec)),
        metrics=metrics or {},
        provenance=provenance or {},
    )
