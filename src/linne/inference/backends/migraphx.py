"""The MIGraphX backend: a bundle's graph or ONNX export, compiled for AMD's GPUs, or what was compiled before.

It imports no framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np

from linne.bundle import Bundle
from linne.errors import BundleError, DeviceError, LinneError, RecipeError
from linne.exports import Export, Precision, graph_of, has_export, has_graph, open_export, read_made_here
from linne.graphs.migraphx_compiled import CompiledFor
from linne.graphs.migraphx_program import MigraphxProgram, Target, installed_version, target_for, why_no_migraphx
from linne.inference.backends.base import Option, RunOptions
from linne.preprocess import Floats

KIND = "migraphx"
"""Of the export that holds a compiled program."""
FACT = "compiled_for"
"""Under which name the facts of such an export hold a `CompiledFor`."""
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

    def __init__(self, program: MigraphxProgram, how: str, canary_logits_NK: Floats | None = None) -> None:
        """Take a program, and what is to be said of it behind its description."""
        self.program: MigraphxProgram | None = program
        self.description = program.description + how
        self.batch_size: int | None = program.batch_size
        self.canary_logits_NK = canary_logits_NK

    @classmethod
    def why_unavailable(cls) -> str | None:
        """Return why there is no MIGraphX that can be used, or None; a GPU is looked for when one is opened."""
        return why_no_migraphx()

    @classmethod
    def why_not(cls, bundle: Bundle, precision: Precision = "fp32") -> str | None:
        """Return that there is nothing compiled and no graph to compile for this precision, or None."""
        needed = _precision_of_graph(precision)
        if has_export(bundle, KIND, precision) or has_graph(bundle, needed):
            return None
        return f"it has no ONNX export in {needed}: linne export {bundle.path} --to onnx --precision {needed}"

    @classmethod
    def open(cls, bundle: Bundle, how: RunOptions) -> Self:
        """Return the network for the device: a GPU for `auto` and `rocm`, MIGraphX's slow reference for `cpu`.

        It is what `linne export --to migraphx` compiled, where there is such an export and nothing else is asked for
        than it was made with; else the graph is compiled now.

        Raises:
            RecipeError: a number of threads is asked for, which MIGraphX cannot be told.
            DeviceError: the device cannot be used, or it is not what the export was compiled for.
            BundleError: the export was compiled by somebody else, and is not trusted.
        """
        target = target_for(how.device, require_accelerator=how.require_accelerator)
        if how.num_threads is not None:
            raise RecipeError(
                "MIGraphX cannot be told how many threads to take: neither its GPU target nor its reference has that",
                hint="leave --threads out; `taskset -c 0-3 linne ...` keeps any program to some cores",
            )
        precision = "" if how.precision == "fp32" else f" in {how.precision}"
        try:
            export = open_export(bundle, KIND, how.precision) if has_export(bundle, KIND, how.precision) else None
            if export is not None and _serves(CompiledFor.from_dict(export.facts.get(FACT)), how):
                program = _load(bundle, export, target, how)
                logits_NK = np.array(export.canary_logits, dtype=np.float32)
                return cls(program, f"{precision}, compiled before", logits_NK)
            graph = graph_of(bundle, _precision_of_graph(how.precision))
            program = MigraphxProgram.open(
                graph.path,
                str(graph.path.relative_to(bundle.path)),
                target=target,
                batch_size=batch_size_of(how, target),
                # The numbers of an int8 export are int8 already, with ranges that were measured as it was made.
                precision="fp32" if how.precision == "int8" else how.precision,
                exhaustive_tune=how.options.get("exhaustive_tune") == "true",
            )
        except (BundleError, DeviceError):
            raise
        except (LinneError, OSError) as error:
            reason = error.message if isinstance(error, LinneError) else error.strerror
            raise BundleError(f"bundle `{bundle.path}`: {reason}", hint=getattr(error, "hint", None)) from error
        return cls(program, precision, graph.canary_logits_NK)

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


def batch_size_of(how: RunOptions, target: Target) -> int:
    """Return how many images a graph is compiled for."""
    asked = how.options.get("batch_size", "auto")
    return BATCH_SIZES[target] if asked == "auto" else int(asked)


def _serves(compiled: CompiledFor, how: RunOptions) -> bool:
    """Return whether what was compiled is what the options ask for; they need not say anything."""
    asked = how.options.get("batch_size", "auto")
    same_size = asked == "auto" or int(asked) == compiled.batch_size
    return same_size and (how.options.get("exhaustive_tune") != "true" or compiled.exhaustive_tune)


def _load(bundle: Bundle, export: Export, target: Target, how: RunOptions) -> MigraphxProgram:
    """Return the program of an export, whose file was compared with its sha256.

    Raises:
        DeviceError: it is not for this target, this MIGraphX or this GPU.
        BundleError: it was not compiled here.
        LinneError: MIGraphX does not load it.
    """
    name = str(export.main_file.relative_to(bundle.path))
    on_cpu = " --device cpu" if target == "ref" else ""
    again = f"linne export {bundle.path} --to {KIND} --precision {export.precision}{on_cpu} --replace"
    compiled = CompiledFor.from_dict(export.facts.get(FACT))
    reason = compiled.why_not_here(installed_version() or "", target)
    if reason is not None:
        raise DeviceError(
            f"bundle `{bundle.path}`: `{name}` cannot be run here: {reason}",
            hint=f"{again}; or delete `{export.path}`: the graph is then compiled each time",
        )
    return MigraphxProgram.load(read_made_here(export, again), name, target=target)
