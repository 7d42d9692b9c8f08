"""A graph opened with ONNX Runtime, on a provider that is known to be the one that runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linne.errors import DeviceError, LinneError
from linne.graphs.wire import require_whole
from linne.host import processes_here, usable_cores
from linne.preprocess import Floats, UInt8

INSTALL = "pip install 'linne[onnx]'"
CPU = "CPUExecutionProvider"
ERRORS_ONLY = 3
"""ONNX Runtime's level of what it writes to stderr; what goes wrong is raised as well."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider of ONNX Runtime."""

    name: str
    """As ONNX Runtime lists it."""
    options: Mapping[str, str]


PROVIDERS: Mapping[str, Provider] = {"cpu": Provider(CPU, {})}
"""By what `--device` calls it."""

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
        import onnxruntime  # noqa: F401
    except ImportError as error:
        return f"onnxruntime cannot be imported ({error}); {INSTALL}"
    return None


def provider_for(device: str, *, require_accelerator: bool = False) -> str:
    """Return the key of `PROVIDERS` for what `--device` says.

    Raises:
        DeviceError: there is none, or none but the CPU where an accelerator is required.
    """
    chosen = "cpu" if device == "auto" else device
    if chosen not in PROVIDERS:
        raise DeviceError(
            f"a graph runs on {', '.join(PROVIDERS)} by ONNX Runtime, not on `{device}`", hint="use --device cpu"
        )
    if require_accelerator and chosen == "cpu":
        raise DeviceError("an accelerator is required, and this graph would run on the CPU by ONNX Runtime")
    return chosen


class GraphSession:
    """An open graph of the form that bundles keep, or of any with one image input: a batch in, its outputs' first out.

    The same graph, machine and number of threads give the same numbers.
    """

    def __init__(
        self,
        graph: bytes | Path,
        name: str,
        *,
        provider: str = "cpu",
        num_threads: int | None = None,
        optimise: str = "all",
    ) -> None:
        """Open `graph`, called `name` in errors.

        Args:
            num_threads: of the CPU; None for this process's share of those it may use.
            optimise: a key of `OPTIMISATIONS`.

        Raises:
            LinneError: it cannot be read, keeps tensors in other files, or has operators that are not known.
            DeviceError: ONNX Runtime would run it on another provider than `provider`.
        """
        import onnxruntime

        data = graph.read_bytes() if isinstance(graph, Path) else graph
        require_whole(data, name)
        asked = PROVIDERS[provider]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.use_deterministic_compute = True
        options.intra_op_num_threads = num_threads or max(usable_cores() // processes_here(), 1)
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, OPTIMISATIONS[optimise])
        options.inter_op_num_threads = 1
        try:
            session: Any = onnxruntime.InferenceSession(
                data, options, providers=[(asked.name, dict(asked.options))], enable_fallback=False
            )
        except Exception as error:  # its own kinds, one for each status
            reason = str(error).strip().splitlines()[0][:300]
            raise LinneError(
                f"`{name}` cannot be opened by ONNX Runtime {onnxruntime.__version__}: {reason}"
            ) from error
        runs = session.get_providers()
        if not runs or runs[0] != asked.name:
            raise DeviceError(f"ONNX Runtime runs `{name}` with {', '.join(runs) or 'nothing'}, not with {asked.name}")
        self.name = name
        self.description = f"onnxruntime {onnxruntime.__version__} with {runs[0]}"
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
        if self.batch_size is None or len(images) == 0:
            return self._run(images)
        size = self.batch_size
        pieces = [images[start : start + size] for start in range(0, len(images), size)]
        missing = size - len(pieces[-1])
        pieces[-1] = np.concatenate([pieces[-1], np.zeros((missing, *images.shape[1:]), images.dtype)])
        return np.concatenate([self._run(piece) for piece in pieces])[: len(images)]

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
