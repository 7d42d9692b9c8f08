"""The ONNX Runtime backend: runs a bundle's graph, its own or an export, and imports no framework."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np

from linne.bundle import Bundle, canary_batch
from linne.errors import BundleError, DeviceError, LinneError
from linne.exports import GraphFile, Precision, graph_of, has_graph, listed_graph
from linne.graphs.kept import LEAST_BYTES, MOST_BYTES, KeptGraph
from linne.graphs.session import GraphSession, open_session, why_no_runtime
from linne.host import accelerator_files
from linne.inference.backends.base import Option, RunOptions
from linne.preprocess import Floats


class OnnxRuntimeBackend:
    """A bundle's graph on one of ONNX Runtime's providers."""

    PRECISIONS: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8")
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "optimise": Option(("all", "extended", "basic", "none"), "how far ONNX Runtime may rewrite the graph"),
        "spinning": Option(
            ("true", "false"),
            "threads wait busily for work: quick where no other program needs the cores",
            tried=("false",),
        ),
    }

    def __init__(self, session: GraphSession, canary_logits_NK: Floats | None = None) -> None:
        self.session: GraphSession | None = session
        self.description = session.description
        self.batch_size: int | None = session.batch_size
        self.canary_logits_NK = canary_logits_NK

    @classmethod
    def why_unavailable(cls) -> str | None:
        """Return why ONNX Runtime cannot be imported, or None."""
        return why_no_runtime()

    @classmethod
    def why_not(cls, bundle: Bundle, precision: Precision = "fp32") -> str | None:
        """Return that there is no graph in this precision, or None."""
        if has_graph(bundle, precision):
            return None
        return f"it has no ONNX export in {precision}: linne export {bundle.path} --to onnx --precision {precision}"

    @classmethod
    def open(cls, bundle: Bundle, how: RunOptions) -> Self:
        """Return the graph on the provider for the device; a graph has no code to trust.

        Warns of nodes that the provider leaves to the CPU, and of accelerators that `auto` could not use.
        """
        graph = listed_graph(bundle, how.precision)
        try:
            session = _session(bundle, graph, how)
        except DeviceError:
            raise
        except (LinneError, OSError) as error:
            reason = error.message if isinstance(error, LinneError) else error.strerror
            raise BundleError(f"bundle `{bundle.path}`: {reason}", hint=getattr(error, "hint", None)) from error
        for note in session.notes:
            warnings.warn(note, RuntimeWarning, stacklevel=2)
        return cls(session, graph.canary_logits_NK)

    def run(self, images_NCHW: Floats) -> Floats:
        """Return logits N x K."""
        if self.session is None:
            raise RuntimeError("the backend is closed")
        return self.session.run(images_NCHW)

    def close(self) -> None:
        """Let go of the graph; ONNX Runtime gives its memory back."""
        self.session = None


def _session(bundle: Bundle, graph: GraphFile, how: RunOptions) -> GraphSession:
    """Return the open graph: on the CPU as ONNX Runtime rewrote it before, where that was kept and is worth it."""
    import onnxruntime

    optimise = how.options.get("optimise", "all")
    open_it = functools.partial(
        open_session,
        name=str(graph.path.relative_to(bundle.path)),
        device=how.device,
        precision=how.precision,
        require_accelerator=how.require_accelerator,
        num_threads=how.num_threads,
        spinning=how.options.get("spinning", "true") == "true",
    )
    keep = KeptGraph(graph.sha256, bundle.ahead)
    on_cpu = how.device == "cpu" or (how.device == "auto" and not accelerator_files())
    worth_it = on_cpu and optimise == "all" and LEAST_BYTES <= graph.path.stat().st_size <= MOST_BYTES
    if worth_it and (kept := keep.find(onnxruntime.__version__)) is not None:
        with contextlib.suppress(LinneError):  # then the graph itself is opened
            return open_it(kept, optimise="none")
    checked = graph_of(bundle, how.precision)
    if worth_it:
        # A full disk, or no place to write to: then nothing is kept. What is wrong with the graph comes up again below.
        with contextlib.suppress(LinneError, OSError), keep.written(onnxruntime.__version__) as path:
            session = open_it(checked.path, optimise=optimise, write_to=path)
            image_NCHW = canary_batch(bundle.input)[:1]
            if not np.array_equal(open_it(path, optimise="none").run(image_NCHW), session.run(image_NCHW)):
                raise LinneError("what would be kept answers otherwise")
            return session
    return open_it(checked.path, optimise=optimise)
