"""The ONNX Runtime backend: runs a bundle's `model.onnx`, and imports no framework."""

from __future__ import annotations

from typing import Self

from linne.bundle import GRAPH, Bundle
from linne.errors import BundleError, DeviceError, LinneError
from linne.graphs.session import GraphSession, provider_for, why_no_runtime
from linne.preprocess import Floats, pillow_resize


class OnnxRuntimeBackend:
    """A bundle's graph on one of ONNX Runtime's providers."""

    def __init__(self, session: GraphSession) -> None:
        self.session: GraphSession | None = session
        self.description = session.description
        self.resize = pillow_resize

    @classmethod
    def why_unavailable(cls) -> str | None:
        """Return why ONNX Runtime cannot be imported, or None."""
        return why_no_runtime()

    @classmethod
    def why_not(cls, bundle: Bundle) -> str | None:
        """Return that it holds weights, or None."""
        return None if bundle.network_file == GRAPH else f"it holds weights, `{bundle.network_file}`, and no graph"

    @classmethod
    def open(cls, bundle: Bundle, device: str, *, require_accelerator: bool = False, trust_code: bool = False) -> Self:
        """Return the graph on the provider for `device`; `trust_code` is ignored, a graph has none."""
        provider = provider_for(device, require_accelerator=require_accelerator)
        try:
            return cls(GraphSession(bundle.path / GRAPH, GRAPH, provider=provider))
        except DeviceError:
            raise
        except (LinneError, OSError) as error:
            reason = error.message if isinstance(error, LinneError) else error.strerror
            raise BundleError(f"bundle `{bundle.path}`: {reason}", hint=getattr(error, "hint", None)) from error

    def run(self, images_NCHW: Floats) -> Floats:
        """Return logits N x K."""
        if self.session is None:
            raise RuntimeError("the backend is closed")
        return self.session.run(images_NCHW)

    def close(self) -> None:
        """Let go of the graph; ONNX Runtime gives its memory back."""
        self.session = None
