"""A graph that takes pixels and scales them itself, equal to `linne.preprocess.normalise`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from linne.errors import CheckFailed
from linne.exporting.agreement import Trial
from linne.graphs.editing import pixel_form
from linne.graphs.session import GraphSession
from linne.preprocess import InputSpec, scale_and_bias
from linne.weights.answers import SCALINGS

TOLERANCE = 1e-6
"""How far scaled pixels may be off, as a share of the largest, or of 1 where that is less: half a dozen roundings."""


def with_pixels(content: bytes, trial: Trial) -> tuple[bytes, InputSpec]:
    """Return the graph with scaling in front, and how images are prepared for it: to size, and no further.

    Raises:
        CheckFailed: its scaling is not that of the reference.
    """
    import onnx

    spec = trial.spec
    scale_C, bias_C = scale_and_bias(spec)
    model = onnx.load_model_from_string(content)
    ahead, changed = pixel_form(model, spec.height, spec.width, scale_C.tolist(), bias_C.tolist())
    expected_NCHW = trial.images_NCHW
    found_NCHW = _planes(GraphSession(ahead, "the scaling"), trial)
    gap = float(np.abs(found_NCHW - expected_NCHW).max())
    if not gap <= TOLERANCE * max(1.0, float(np.abs(expected_NCHW).max())):
        raise CheckFailed(f"the graph scales pixels otherwise than the bundle does: by up to {gap:.2g}")
    raw = SCALINGS["raw"]
    return changed, dataclasses.replace(spec, mean=raw.mean[: spec.channels], std=raw.std[: spec.channels])


def _planes(session: GraphSession, trial: Trial) -> Any:
    return session.run(trial.images_NHWC)
