"""What a bundle answers to the images that its exports are tried with: each image alone, in fp32 on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from linne.bundle import WEIGHTS, Bundle
from linne.errors import CheckFailed, LinneError
from linne.exporting.agreement import FP32_SHARE, Trial
from linne.inference.backends import choose_backend
from linne.inference.backends.base import RunOptions
from linne.preprocess import Floats

if TYPE_CHECKING:
    from torch import nn

SEVERAL = 3
"""Images that are also answered together."""


def answers_of(bundle: Bundle, trial: Trial, *, trust_code: bool) -> Floats:
    """Return the bundle's logits N x K for the images of `trial`.

    Raises:
        LinneError: the bundle cannot be run here.
        CheckFailed: an image's answer depends on which others are in the batch, which no export can keep.
    """
    name = "torch" if bundle.network_file == WEIGHTS else "onnxruntime"
    _, backend_class, _ = choose_backend(name, bundle)
    backend = backend_class.open(bundle, RunOptions(device="cpu", trust_code=trust_code))
    images_NCHW = trial.images_NCHW
    alone_NK = np.concatenate([backend.run(images_NCHW[i : i + 1]) for i in range(len(images_NCHW))])
    if alone_NK.shape[1:] != (len(bundle.labels),):
        raise LinneError(f"bundle `{bundle.path}`: its model gives {alone_NK.shape[1:]} logits an image")
    if not np.isfinite(alone_NK).all():
        raise CheckFailed(f"bundle `{bundle.path}` answers images with numbers that are not finite")
    together_NK = backend.run(images_NCHW[:SEVERAL])
    backend.close()
    gap = float(np.abs(together_NK - alone_NK[:SEVERAL]).max())
    if not gap <= FP32_SHARE * max(1.0, float(np.abs(alone_NK).max())):
        raise CheckFailed(
            f"bundle `{bundle.path}` answers an image otherwise when others are in the batch: logits differ by "
            f"{gap:.2g} between one image and {SEVERAL}, so that no export can answer as it does",
            hint="the network uses something of the whole batch in evaluation, as a batch norm without kept statistics",
        )
    return alone_NK


def network_to_export(bundle: Bundle, *, trust_code: bool) -> nn.Module:
    """Return the network of a bundle of weights, new on every call, since what exports it may change it."""
    from linne.models.from_bundle import network_of

    return network_of(bundle, trust_code=trust_code)
