"""The MIGraphX backend: compiles a bundle's graph, its own or an export, for AMD's GPUs, and imports no framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from linne.bundle import Bundle
from linne.errors import BundleError, DeviceError, LinneError, RecipeError
from linne.exports import Precision, graph_of, has_graph
from linne.graphs.migraphx_program import MigraphxProgram, Target, target_for, why_no_migraphx
from linne.inference.backends.base import Option, RunOptions
from linne.preprocess import Floats

BATCH_SIZES: Mapping[Target, int] = {"gpu": 32, "ref": 1}
"""By default. The reference gains nothing from more images at once, and loses what fills up the last batch."""


class MigraphxBackend:
    """A bundle's graph compiled by MIGraphX, for one number of images at once: the last ones are filled up."""

    PRECISIONS: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16", "int8")
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "batch_size": Option(
            ("auto", "1", "2", "4", "8", "16", "32", "64", "128", "256"),
            "how many images it is compiled for; auto is 32 on a GPU and 1 on the CPU",
            tried=("1", "8"),
            tried_on="amd",
        ),
        "exhaustive_tune": Option(("false", "true"), "try every kernel on the GPU, which can take hours"),
    }

    def __init__(self, program: MigraphxProgram, precision: Precision, canary_logits_NK: Floats | None = None) -> None:
        self.program: MigraphxProgram | None = program
        self.description = program.description + ("" if precision == "fp32" else f" in {precision}")
        self.canary_logits_NK = canary_logits_NK

    @classmethod
    def why_unavailable(cls) -> str | None:
        """Return why there is no MIGraphX that can be used, or None; a GPU is looked for when one is opened."""
        return why_no_migraphx()

    @classmethod
    def why_not(cls, bundle: Bundle, precision: Precision = "fp32") -> str | None:
        """Return that there is no graph to compile for this precision, or None."""
        needed = _precision_of_graph(precision)
        if has_graph(bundle, needed):
            return None
        return f"it has no ONNX export in {needed}: linne export {bundle.path} --to onnx --precision {needed}"

    @classmethod
    def open(cls, bundle: Bundle, how: RunOptions) -> Self:
        """Return the graph compiled for the device: a GPU for `auto` and `rocm`, MIGraphX's slow reference for `cpu`.

        Raises:
            RecipeError: a number of threads is asked for, which MIGraphX cannot be told.
        """
        target = target_for(how.device, require_accelerator=how.require_accelerator)
        if how.num_threads is not None:
            raise RecipeError("MIGraphX takes no number of threads", hint="leave --threads out")
        asked = how.options.get("batch_size", "auto")
        graph = graph_of(bundle, _precision_of_graph(how.precision))
        try:
            program = MigraphxProgram.open(
                graph.path,
                str(graph.path.relative_to(bundle.path)),
                target=target,
                batch_size=BATCH_SIZES[target] if asked == "auto" else int(asked),
                # The numbers of an int8 export are int8 already, with ranges that were measured as it was made.
                precision="fp32" if how.precision == "int8" else how.precision,
                exhaustive_tune=how.options.get("exhaustive_tune") == "true",
            )
        except DeviceError:
            raise
        except (LinneError, OSError) as error:
            reason = error.message if isinstance(error, LinneError) else error.strerror
            raise BundleError(f"bundle `{bundle.path}`: {reason}", hint=getattr(error, "hint", None)) from error
        return cls(program, how.precision, graph.canary_logits_NK)

    def run(self, images_NCHW: Floats) -> Floats:
        """Return logits N x K."""
        if self.program is None:
            raise RuntimeError("the backend is closed")
        return self.program.run(images_NCHW)

    def close(self) -> None:
        """Let go of the program; MIGraphX gives its memory back."""
        if self.program is not None:
            self.program.close()
        self.program = None


def _precision_of_graph(precision: Precision) -> Precision:
    """Return the precision of the export that is compiled: MIGraphX makes fp16 and bf16 of fp32 itself."""
    return "int8" if precision == "int8" else "fp32"
