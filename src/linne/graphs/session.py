"""A graph opened with ONNX Runtime, on a provider that is known to be the one that runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linne.errors import DeviceError, LinneError
from linne.graphs.opening import open_checked, session_options, share_of
from linne.graphs.pieces import run_in_pieces
from linne.graphs.providers import Target, automatic, require_built_in, target_for
from linne.graphs.wire import require_whole
from linne.host import accelerator_files, processes_here, usable_cores
from linne.preprocess import Floats, UInt8

INSTALL = "pip install 'linne[onnx]'"

OPTIMISATIONS: Mapping[str, str] = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}
"""ONNX Runtime's names for how far it may rewrite a graph."""


def why_no_runtime() -> str | None:
    """Return why ONNX Runtime cannot be imported, or None."""
    try:
        import onnxruntime
    except ImportError as error:
        return f"onnxruntime cannot be imported ({error}); {INSTALL}"
    if not hasattr(onnxruntime, "InferenceSession"):
        # An empty folder of that name imports as well: what is left of two packages that overwrote each other.
        return f"the package onnxruntime has no InferenceSession: pip uninstall -y onnxruntime; {INSTALL}"
    return None


def open_session(
    graph: bytes | Path,
    name: str,
    *,
    device: str = "auto",
    precision: str = "fp32",
    require_accelerator: bool = False,
    num_threads: int | None = None,
    optimise: str = "all",
    spinning: bool = True,
    write_to: Path | None = None,
    root: Path = Path("/"),
) -> GraphSession:
    """Return `graph`, called `name` in errors, on what `--device` says; arguments are those of `GraphSession`.

    `auto` takes the first accelerator that opens the graph, else the CPU; why not those before is in its `notes`.
    `root` is where device files are looked for: without one no accelerator is tried.

    Raises:
        LinneError, DeviceError: as `GraphSession`; or an accelerator is required, and none can be used.
    """
    import onnxruntime

    how: dict[str, Any] = {
        "num_threads": num_threads,
        "optimise": optimise,
        "spinning": spinning,
        "write_to": write_to,
    }
    if device != "auto":
        target = target_for(device, precision)
        return GraphSession(graph, name, target=target, require_accelerator=require_accelerator, **how)
    passed_over = []
    for candidate in automatic(onnxruntime.get_available_providers(), accelerator_files(root)):
        try:
            target = target_for(candidate, precision)
            return GraphSession(graph, name, target=target, require_accelerator=require_accelerator, **how)
        except DeviceError as error:
            passed_over.append(f"not {candidate}: {error.message}")
    if require_accelerator:
        why = "; ".join(passed_over) or "no accelerator is found that this onnxruntime was built for"
        raise DeviceError(
            f"an accelerator is required, and this graph would run on the CPU by ONNX Runtime: {why}",
            hint="name the one that there is, as in --device cuda; `linne doctor` says what is missing",
        )
    session = GraphSession(graph, name, **how)
    session.notes = tuple(f"`{name}` runs on the CPU, {why}" for why in passed_over)
    return session


class GraphSession:
    """An open graph of the form that bundles keep, or of any with one image input: a batch in, its outputs' first out.

    The same graph, machine and number of threads give the same numbers.
    """

    def __init__(
        self,
        graph: bytes | Path,
        name: str,
        *,
        target: Target | None = None,
        require_accelerator: bool = False,
        num_threads: int | None = None,
        optimise: str = "all",
        spinning: bool = True,
        write_to: Path | None = None,
    ) -> None:
        """Open `graph`, called `name` in errors.

        Args:
            target: where; None for the CPU.
            require_accelerator: whether no node of it may run on the CPU.
            num_threads: of the CPU; None for this process's share of those it may use.
            optimise: a key of `OPTIMISATIONS`.
            spinning: whether threads wait busily for the next piece of work.
            write_to: where ONNX Runtime writes the graph as it rewrote it.

        Raises:
            LinneError: it cannot be read, keeps tensors in other files, or has operators that are not known.
            DeviceError: ONNX Runtime would run it on another provider than the target's.
        """
        import onnxruntime

        require_whole(graph, name)
        target = target or target_for("cpu")
        require_built_in(target, onnxruntime)
        if require_accelerator and target.provider.no_accelerator is not None:
            raise DeviceError(
                f"an accelerator is required, and `--device {target.device}` {target.provider.no_accelerator}"
            )
        threads = num_threads or max(usable_cores() // processes_here(), 1)
        options = session_options(onnxruntime, target, require_accelerator, threads)
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, OPTIMISATIONS[optimise])
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
        if write_to is not None:
            options.optimized_model_filepath = str(write_to)
        session = open_checked(onnxruntime, graph, name, target, options, threads)
        self.name = name
        share, self.notes = share_of(session, name, target)
        """Of what a person should know: which accelerator is not used, and how much of the graph the CPU computes."""
        self.description = f"onnxruntime {onnxruntime.__version__} with {target.provider.name}{share}"
        self._session = session
        self._input = session.get_inputs()[0]
        first = self._input.shape[0] if self._input.shape else None
        self.batch_size: int | None = first if isinstance(first, int) else None
        """How many images it takes at once; None for any number."""

    def run(self, images: Floats | UInt8) -> Floats:
        """Return the first output for a batch of images; in pieces where the graph's batch size is fixed.

        Raises:
            LinneError: ONNX Runtime fails on it.
        """
        return self._run(images) if self.batch_size is None else run_in_pieces(self._run, images, self.batch_size)

    def run_all(self, images: Floats) -> dict[str, NDArray[Any]]:
        """Return every output of the graph by name, for a batch that it takes at once.

        Raises:
            LinneError: ONNX Runtime fails on it.
        """
        given = images
        if self.batch_size is not None and len(images) < self.batch_size:
            missing = self.batch_size - len(images)
            given = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
        names = [item.name for item in self._session.get_outputs()]
        return dict(zip(names, self._outputs(given), strict=True))

    def _run(self, images: Floats | UInt8) -> Floats:
        return np.asarray(self._outputs(images)[0], dtype=np.float32)

    def _outputs(self, images: Floats | UInt8) -> list[NDArray[Any]]:
        try:
            outputs: list[NDArray[Any]] = self._session.run(None, {self._input.name: images})
        except Exception as error:  # its own kinds, one for each status
            reason = str(error).strip().splitlines()[0][:300]
            raise LinneError(f"`{self.name}` fails in ONNX Runtime: {reason}") from error
        return outputs
