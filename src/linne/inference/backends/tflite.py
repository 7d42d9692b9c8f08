"""The TensorFlow Lite backend: runs a bundle's export to TensorFlow Lite as a phone does, and imports no framework."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import numpy as np

from linne.bundle import Bundle
from linne.errors import BundleError, DeviceError, LinneError
from linne.exports import Precision, has_export, open_export
from linne.graphs.tflite_model import NONE, XNNPACK, TfliteModel, why_no_tflite
from linne.inference.backends.base import Option, RunOptions
from linne.preprocess import Floats

KIND = "tflite"


class TfliteBackend:
    """A bundle's export to TensorFlow Lite, run by LiteRT on the CPU."""

    PRECISIONS: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8")
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "delegate": Option(
            (XNNPACK, NONE), "who computes: XNNPACK what it can, or LiteRT's own kernels everything", tried=(NONE,)
        ),
    }

    def __init__(
        self,
        answer: Callable[[Floats], Floats],
        description: str,
        precision: Precision,
        canary_logits_NK: Floats | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Answer with `answer`, from normalised images to logits; `description` says who computes it."""
        self.answer: Callable[[Floats], Floats] | None = answer
        how = {"fp32": "", "fp16": ", weights in fp16"}.get(precision, f" in {precision}")
        self.description = description + how
        self.batch_size = batch_size
        self.canary_logits_NK = canary_logits_NK

    @classmethod
    def why_unavailable(cls) -> str | None:
        """Return why LiteRT cannot be imported, or None."""
        return why_no_tflite()

    @classmethod
    def why_not(cls, bundle: Bundle, precision: Precision = "fp32") -> str | None:
        """Return that there is no export in this precision, or None."""
        if has_export(bundle, KIND, precision):
            return None
        return f"it has no export to TensorFlow Lite: linne export {bundle.path} --to {KIND} --precision {precision}"

    @classmethod
    def open(cls, bundle: Bundle, how: RunOptions) -> Self:
        """Return the export on the CPU; warns where XNNPACK takes none of it. It has no code to trust."""
        if how.device not in ("auto", "cpu"):
            raise DeviceError(
                f"LiteRT has no device `{how.device}` here",
                hint="it runs on cpu; a phone's GPU or NPU is for the app on it",
            )
        if how.require_accelerator:
            raise DeviceError("an accelerator is required, and LiteRT runs on the CPU here")
        export = open_export(bundle, KIND, how.precision)
        try:
            model = TfliteModel(
                export.main_file.read_bytes(),
                str(export.main_file.relative_to(bundle.path)),
                num_threads=how.num_threads,
                delegate=how.options.get("delegate", XNNPACK),
            )
        except (LinneError, OSError) as error:
            reason = error.message if isinstance(error, LinneError) else error.strerror
            raise BundleError(f"bundle `{bundle.path}`: {reason}", hint=getattr(error, "hint", None)) from error
        spec = bundle.input
        if model.shape != (spec.channels, spec.height, spec.width):
            raise BundleError(f"bundle `{bundle.path}`: its export takes images of another size than the bundle")
        for note in model.notes:
            warnings.warn(note, RuntimeWarning, stacklevel=2)
        canaries_NK = np.array(export.canary_logits, dtype=np.float32)
        return cls(model.run, model.description, how.precision, canaries_NK, model.batch_size)

    def run(self, images_NCHW: Floats) -> Floats:
        """Return logits N x K."""
        if self.answer is None:
            raise RuntimeError("the backend is closed")
        return self.answer(images_NCHW)

    def close(self) -> None:
        """Let go of the network; LiteRT gives its memory back."""
        self.answer = None
