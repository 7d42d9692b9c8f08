"""Images in, labels and probabilities out, after the bundle has proved that it still answers as it did.

Knows no runtime: a backend from `linne.inference.backends` does the arithmetic.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from linne.bundle import Bundle, open_bundle
from linne.data.images.decode import decode_file, read_file, to_input
from linne.errors import BundleError, ImageError, LinneError
from linne.hash_ahead import HashAhead
from linne.inference.backends import choose_backend, load_backend
from linne.inference.backends.base import Backend, RunOptions, require_known
from linne.inference.seen import SeenImages
from linne.inference.views import views_of
from linne.metrics import softmax
from linne.preprocess import Floats, UInt8, normalise, resize_and_crop
from linne.recipe import Views
from linne.tuned import GOALS, Choice, Goal, choice_for

CANARY_TOLERANCE = 1e-3
"""Largest difference of a canary's logits in fp32, as a share of the largest logit of all canaries.

Measured on MobileNetV2 with ImageNet weights: other thread counts, batch sizes, kernels and float64 differ by at most
1.6e-6; a mean off by 0.005, the smallest fault tried, by 4.9e-3; another interpolation by 0.12.
"""

ROUGH_TOLERANCE = 0.2
"""The same where numbers are rounded in other ways from device to device.

What rounding does to the answers is for `linne verify` to say, on real images. This is what is left to find for a few
generated pictures, in which no network is sure of anything: that the runtime computes something else altogether.
"""

DECODING_THREADS = 4
BATCH_IMAGES = 64
"""Images at once, unless something else was found to be faster."""

Image = Path | str | tuple[str, bytes]
"""A file, or what to call an image and the content of its file."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one image: labels by falling probability, or the reason why there is none."""

    file: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    """Of all the bundle's labels they sum to 1; these are the largest."""
    error: str | None = None
    logits: tuple[float, ...] = ()
    """Of the same labels: what probabilities are the softmax of."""

    def first(self, count: int) -> Prediction:
        """Return the same with `count` labels at most."""
        first = slice(count)
        return replace(
            self, labels=self.labels[first], probabilities=self.probabilities[first], logits=self.logits[first]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return {"file", "predictions": [{"label", "probability", "logit"}]} or {"file", "error"}."""
        if self.error is not None:
            return {"file": self.file, "error": self.error}
        rows = zip(self.labels, self.probabilities, self.logits, strict=True)
        return {"file": self.file, "predictions": [{"label": a, "probability": b, "logit": c} for a, b, c in rows]}


@dataclass(frozen=True, slots=True)
class CanaryGap:
    """How far the answer to a canary is from the one it had."""

    file: str
    expected: str
    """The label it had."""
    answer: str
    gap: float
    """The largest difference of its logits, as a share of the largest logit of all canaries; may be NaN."""


class Predictor:
    """A bundle with its network loaded."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        backend_name: str,
        reason: str,
        tta: Views | None = None,
        how: RunOptions | None = None,
    ) -> None:
        self.bundle = bundle
        self.how = how or RunOptions()
        self.labels = bundle.labels
        self.backend = backend
        self.backend_name = backend_name
        self.reason = reason
        """Why this backend."""
        self.batch_size = BATCH_IMAGES
        """Images at once, where `predict_files` is not told."""
        self.notes: tuple[str, ...] = ()
        """What a person should know of how it runs: that a tuned way is taken, or why one is not."""
        self.tta = tta
        """Test-time augmentation: the views over which answers are means, as `inference.views` lists them."""

    @classmethod
    def open(
        cls,
        bundle: Bundle | Path | str,
        *,
        backend: str = "auto",
        how: RunOptions | None = None,
        tta: Views | None = None,
        goal: Goal | None = None,
        ahead: HashAhead | None = None,
    ) -> Predictor:
        """Return a predictor that has just reproduced the bundle's canaries.

        With a `goal`, `auto` takes what `linne tune` found for it on this machine; else what computes in fp32. `ahead`
        is as `open_bundle` takes it.

        Raises:
            BundleError: the bundle cannot be trusted, or answers its canaries differently.
            DeviceError, LinneError: the device or the backend cannot be used, or not in that precision.
        """
        how = how or RunOptions()
        if not isinstance(bundle, Bundle):
            bundle = open_bundle(bundle, ahead=ahead)
        choice, passed_over = _tuned(bundle, how, goal) if goal is not None and backend == "auto" else (None, None)
        if choice is not None:
            backend = choice.backend
            how = replace(how, precision=choice.precision, num_threads=choice.threads, options=choice.options)
        name, backend_class, reason = choose_backend(backend, bundle, how.precision, how.device)
        require_known(name, backend_class, how)
        if choice is not None:
            reason = f"tuned for {choice.goal} on {str(choice.measured.get('created', 'a day unknown'))[:10]}"
        predictor = cls(bundle, backend_class.open(bundle, how), name, reason, tta, how)
        predictor.notes = () if passed_over is None else (passed_over,)
        if reason.startswith("not "):  # a better backend is passed over
            predictor.notes += (f"runs on {predictor.backend.description}: {reason}",)
        if choice is not None:
            predictor.notes = (f"runs on {predictor.backend.description}, {reason}",)
            predictor.batch_size = choice.batch if choice.goal == "throughput" else BATCH_IMAGES
        predictor.check_canaries()
        return predictor

    def check_canaries(self) -> None:
        """Raise BundleError unless the canaries get the logits they had, within `canary_tolerance`."""
        worst = self.worst_canary()
        if worst.gap <= self.canary_tolerance:
            return
        raise BundleError(
            f"bundle `{self.bundle.path}` does not answer as it did when it was written: `{worst.file}` gives "
            f"`{worst.answer}`, expected `{worst.expected}`; logits differ by {worst.gap:.2g} of their size, "
            f"allowed {self.canary_tolerance:g}",
            hint=f"its weights, labels or input settings belong to another model, or {self.backend.description} "
            "computes something else; try --device cpu",
        )

    @property
    def canary_tolerance(self) -> float:
        """How far logits of canaries may be off, as a share of the largest of all."""
        return CANARY_TOLERANCE if self.how.precision == "fp32" else ROUGH_TOLERANCE

    def worst_canary(self) -> CanaryGap:
        """Return the canary, decoded from its file, whose logits differ most from those it had.

        Finds another channel order, mean, size, resize or crop, exchanged labels, and weights that were changed by
        enough to matter. Does not find what the four images do not touch: decoding of JPEG, or a weight that
        is multiplied by zero in each of them.

        Raises:
            BundleError: a canary cannot be read, or the model gives another number of logits.
        """
        canaries = self.bundle.canaries
        try:
            images = [decode_file(self.bundle.path / canary.file, self.bundle.input.channels) for canary in canaries]
        except ImageError as error:
            raise BundleError(f"bundle `{self.bundle.path}`: {error.message}") from error
        found_NK = self._run([resize_and_crop(image, self.bundle.input) for image in images])
        # An export answers as it did when it was made; how far that is from the bundle, `linne verify` says.
        written_NK = self.backend.canary_logits_NK
        expected_NK = np.array([canary.logits for canary in canaries]) if written_NK is None else written_NK
        if found_NK.shape != expected_NK.shape:
            raise BundleError(f"bundle `{self.bundle.path}`: its model gives {found_NK.shape[1:]} logits an image")
        scale = max(float(np.abs(expected_NK).max()), np.finfo(np.float32).tiny)
        gap_N = np.abs(found_NK - expected_NK).max(axis=1) / scale
        worst = int(np.argmax(gap_N))  # NaN counts as the largest
        canary, answer = canaries[worst], self.labels[int(np.argmax(found_NK[worst]))]
        return CanaryGap(canary.file, canary.label, answer, float(gap_N[worst]))

    def logits(self, images: Sequence[UInt8] | UInt8, batch_size: int = 256) -> Floats:
        """Return logits N x K of uint8 images H x W x C, of any sizes, with the bundle's number of channels."""
        spec = self.bundle.input
        batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
        rows = [self.logits_of_cropped([resize_and_crop(image, spec) for image in batch]) for batch in batches]
        return np.concatenate(rows) if rows else np.zeros((0, len(self.labels)), np.float32)

    def logits_of_cropped(self, images: Sequence[UInt8] | UInt8) -> Floats:
        """Return logits N x K of one batch of images of the bundle's input size, as `decode.to_input` gives them.

        Over several views of an image they are the logarithm of the mean of probabilities, whose softmax it is. The
        mean of logits would let one view that is very sure outweigh the others.
        """
        if self.tta is None:
            return self._run(images)
        views = views_of(np.stack(list(images)), self.tta)
        mean_NK = sum(weight * softmax(self._run(seen_NHWC)) for weight, seen_NHWC in views)
        return np.log(np.maximum(mean_NK, np.finfo(np.float64).tiny)).astype(np.float32)

    def _run(self, images: Sequence[UInt8] | UInt8) -> Floats:
        return self.backend.run(normalise(np.stack(list(images)), self.bundle.input))

    def predict_files(
        self, images: Iterable[Image], *, top: int = 5, batch_size: int | None = None, seen: SeenImages | None = None
    ) -> Iterator[Prediction]:
        """Yield one prediction an image, in order; an image that cannot be read gets a row that says why.

        Takes `batch_size` images at a time from `images`, and the next as many while these are answered; it keeps no
        more of them, at the model's size. With a `batch_size` of 1 each is answered before the next is taken. What the
        model sees of each goes to `seen`, if it is given.
        """
        batch_size = self.batch_size if batch_size is None else batch_size
        if top < 1 or batch_size < 1:
            raise LinneError(f"top is {top} and batch_size {batch_size}, expected 1 or more")
        return self._predict(iter(images), top, batch_size, seen)

    def _predict(
        self, images: Iterator[Image], top: int, batch_size: int, seen: SeenImages | None
    ) -> Iterator[Prediction]:
        with ThreadPoolExecutor(DECODING_THREADS) as pool:

            def ahead() -> tuple[list[Image], list[Future[UInt8 | str]]]:
                batch = list(itertools.islice(images, batch_size))
                return batch, [pool.submit(self._read, image) for image in batch]

            batch, waiting = ahead()
            while batch:
                read = [future.result() for future in waiting]
                # Decoders and kernels both release Python's lock, so that the next images are read meanwhile.
                following = ahead() if batch_size > 1 else None
                good = [pixels for pixels in read if not isinstance(pixels, str)]
                answers = iter(self.logits_of_cropped(good)) if good else iter(())
                for image, pixels in zip(batch, read, strict=True):
                    if isinstance(pixels, str):
                        yield Prediction(_name(image), (), (), error=pixels)
                    else:
                        if seen is not None:
                            seen.add(_name(image), pixels)
                        yield self._prediction(_name(image), next(answers), top)
                batch, waiting = following or ahead()

    def _read(self, image: Image) -> UInt8 | str:
        """Return the pixels at the model's size, or why there are none."""
        try:
            data = image[1] if isinstance(image, tuple) else read_file(image)
            return to_input(data, self.bundle.input, name=_name(image))
        except ImageError as error:
            return error.message

    def _prediction(self, name: str, logits_K: Floats, top: int) -> Prediction:
        probabilities_K = softmax(logits_K[None])[0]
        if not np.isfinite(probabilities_K).all():
            return Prediction(name, (), (), error="the model's answer is not a number")
        best = np.argsort(-probabilities_K, kind="stable")[:top]
        return Prediction(
            name,
            tuple(self.labels[k] for k in best),
            tuple(float(probabilities_K[k]) for k in best),
            logits=tuple(float(logits_K[k]) for k in best),
        )


def _tuned(bundle: Bundle, how: RunOptions, goal: Goal) -> tuple[Choice | None, str | None]:
    """Return what was tuned for `goal`, or else for the other one, that can be run here; and why none is taken."""
    passed_over = None
    for wanted in sorted(GOALS, key=lambda other: other != goal):
        choice, why = choice_for(bundle, how.device, wanted)
        if choice is not None:
            backend = load_backend(choice.backend)
            why = backend.why_unavailable() or backend.why_not(bundle, choice.precision)
            if why is None:
                return choice, None
            why = f"what was tuned, {choice.backend} in {choice.precision}, cannot be used: {why}"
        passed_over = passed_over or why
    return None, passed_over


def _name(image: Image) -> str:
    return image[0] if isinstance(image, tuple) else str(image)
