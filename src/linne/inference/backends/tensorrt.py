"""The TensorRT backend: compiles a bundle's graph for NVIDIA's GPUs, or takes the engine that an export holds."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from linne.bundle import Bundle
from linne.errors import BundleError, DeviceError, LinneError, RecipeError
from linne.exports import Export, Precision, graph_of, has_export, has_graph, open_export, read_made_here
from linne.graphs.tensorrt_cuda import Gpu
from linne.graphs.tensorrt_engine import LEVEL, TensorRtEngine, build_plan
from linne.graphs.tensorrt_int8 import around_zero
from linne.graphs.tensorrt_package import (
    BF16_CAPABILITY,
    dotted,
    the_tensorrt,
    version_of,
    why_no_tensorrt,
    why_not_for,
)
from linne.host import cache_folder
from linne.inference.backends.base import Option, RunOptions
from linne.preprocess import Floats

KIND = "tensorrt"
BATCH_SIZE = 64
"""The most images at once by default: what the predictor takes at a time."""
NOTABLE_S = 2.0
"""Of compiling, from which on it is said how to save it."""


class TensorRtBackend:
    """A bundle's graph compiled by TensorRT, for any number of images up to one: more go in pieces."""

    PRECISIONS: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16", "int8")
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "batch_size": Option(
            ("auto", "1", "2", "4", "8", "16", "32", "64", "128", "256"),
            "the most images at once, for which kernels are chosen; auto is 64",
            tried=("1", "256"),
            tried_on="gpu",
        ),
        "level": Option(
            ("3", "0", "1", "2", "4", "5"),
            "how long TensorRT looks for kernels as it compiles",
            tried=("5",),
            tried_on="gpu",
        ),
        "cuda_graph": Option(
            ("false", "true"),
            "launch all kernels of a batch at once: quicker for few images",
            tried=("true",),
            tried_on="gpu",
        ),
    }

    def __init__(self, engine: TensorRtEngine, precision: Precision, canary_logits_NK: Floats | None = None) -> None:
        self.engine: TensorRtEngine | None = engine
        how = "" if precision == "fp32" else f" in {precision}"
        self.description = f"{engine.description}{how}, {engine.num_layers} layers"
        self.batch_size: int | None = engine.batch_size if engine.fixed else None
        self.canary_logits_NK = canary_logits_NK

    @classmethod
    def why_unavailable(cls) -> str | None:
        """Return why there is no TensorRT that can be used on the first GPU, or None."""
        return why_no_tensorrt()

    @classmethod
    def why_not(cls, bundle: Bundle, precision: Precision = "fp32") -> str | None:
        """Return that there is no graph to compile in this precision, or None; an engine alone is not enough."""
        if has_graph(bundle, precision):
            return None
        return f"it has no ONNX export in {precision}: linne export {bundle.path} --to onnx --precision {precision}"

    @classmethod
    def open(cls, bundle: Bundle, how: RunOptions) -> Self:
        """Return the network on the GPU: the engine of an export where it fits, or one compiled now.

        Warns why an export is not taken, and how to keep what took long to compile.

        Raises:
            RecipeError: a number of threads is asked for, which TensorRT cannot be told.
        """
        if how.num_threads is not None:
            raise RecipeError("TensorRT takes no number of threads", hint="leave --threads out")
        tensorrt, gpu = open_gpu(how.device, how.precision)
        try:
            plan, name, canaries_NK = plan_for(bundle, how, tensorrt, gpu)
            engine = TensorRtEngine(tensorrt, gpu, plan, name, cuda_graph=how.options.get("cuda_graph") == "true")
        except BaseException as error:
            gpu.close()
            if not isinstance(error, (LinneError, OSError)) or isinstance(error, (DeviceError, BundleError)):
                raise
            reason = error.message if isinstance(error, LinneError) else error.strerror
            raise BundleError(f"bundle `{bundle.path}`: {reason}", hint=getattr(error, "hint", None)) from error
        return cls(engine, how.precision, canaries_NK)

    def run(self, images_NCHW: Floats) -> Floats:
        """Return logits N x K."""
        if self.engine is None:
            raise RuntimeError("the backend is closed")
        return self.engine.run(images_NCHW)

    def close(self) -> None:
        """Give the GPU's memory back."""
        if self.engine is not None:
            self.engine.close()
        self.engine = None


def open_gpu(device: str, precision: Precision) -> tuple[Any, Gpu]:
    """Return the module tensorrt and the GPU for what `--device` says.

    Raises:
        DeviceError: there is no such GPU, or TensorRT or the precision cannot be used with it.
    """
    word, _, number = device.partition(":")
    if word not in ("auto", "cuda") or (number and (word == "auto" or not number.isdecimal())):
        raise DeviceError(f"TensorRT runs on NVIDIA's GPUs, not on `{device}`", hint="use --device cuda, or cuda:1")
    gpu = Gpu(int(number or 0))
    try:
        if (reason := why_not_for(gpu.facts)) is not None:
            raise DeviceError(f"TensorRT cannot be used: {reason}")
        if precision == "bf16" and gpu.facts.capability < BF16_CAPABILITY:
            raise DeviceError(
                f"{gpu.facts.name} has no instructions for bf16: its compute capability is "
                f"{dotted(gpu.facts.capability)}, expected {dotted(BF16_CAPABILITY)}",
                hint="use --precision fp16",
            )
        return the_tensorrt(), gpu
    except BaseException:
        gpu.close()
        raise


def plan_for(bundle: Bundle, how: RunOptions, tensorrt: Any, gpu: Gpu) -> tuple[bytes, str, Floats | None]:
    """Return a plan, its name, and what it answered to the canaries when it was made, where that is known."""
    if has_export(bundle, KIND, how.precision):
        export = open_export(bundle, KIND, how.precision)
        name = str(export.main_file.relative_to(bundle.path))
        reason = why_not_export(export, how, made_with(tensorrt, gpu))
        if reason is None:
            logits_NK = np.array(export.canary_logits, dtype=np.float32)
            again = f"linne export {bundle.path} --to {KIND} --precision {how.precision} --replace"
            return read_made_here(export, again), name, logits_NK
        warnings.warn(f"`{name}` is not used, {reason}; compiling again", RuntimeWarning, stacklevel=4)
    started = time.perf_counter()
    plan, name, logits = compiled(bundle, how, tensorrt, gpu)
    seconds = time.perf_counter() - started
    if seconds > NOTABLE_S:
        keep = f"linne export {bundle.path} --to {KIND} --precision {how.precision}"
        warnings.warn(
            f"TensorRT compiled `{name}` in {seconds:.0f} s; to keep it: {keep}", RuntimeWarning, stacklevel=4
        )
    return plan, name, logits


def compiled(bundle: Bundle, how: RunOptions, tensorrt: Any, gpu: Gpu) -> tuple[bytes, str, Floats | None]:
    """Return the plan of the bundle's graph in a precision, the graph's name, and what it answered to the canaries."""
    graph = graph_of(bundle, how.precision)
    name = str(graph.path.relative_to(bundle.path))
    content = graph.path.read_bytes()
    if how.precision == "int8":
        content = around_zero(content, name)
    size, level = settings(how)
    # One file for each version and GPU: TensorRT takes no other's.
    timings = cache_folder() / "tensorrt" / re.sub(r"\W+", "-", " ".join(made_with(tensorrt, gpu).values()))
    plan = build_plan(tensorrt, gpu, content, name, batch_size=size, level=level, timings=timings)
    return plan, name, graph.canary_logits_NK


def settings(how: RunOptions) -> tuple[int, int]:
    """Return the most images at once, and the builder's level."""
    size = how.options.get("batch_size", "auto")
    return BATCH_SIZE if size == "auto" else int(size), int(how.options.get("level", LEVEL))


def made_with(tensorrt: Any, gpu: Gpu) -> dict[str, str]:
    """Return what a plan is tied to, for an export's facts."""
    return {
        "tensorrt": version_of(tensorrt),
        "gpu": gpu.facts.name,
        "compute_capability": dotted(gpu.facts.capability),
    }


def why_not_export(export: Export, how: RunOptions, here: Mapping[str, str]) -> str | None:
    """Return why the engine in `export` is not for this machine, or not what is asked for; None where it fits."""
    for key, value in here.items():
        made = export.facts.get(key)
        if made != value:
            said = made if isinstance(made, str) and made.isprintable() else "something else"
            return f"it was made with {said}, and here is {value}"
    for option, asked in zip(("batch_size", "level"), settings(how), strict=True):
        number = export.facts.get(option)
        if how.options.get(option, "auto") != "auto" and number != asked:
            found = number if isinstance(number, int) else "something else"
            return f"its {option} is {found}, and {asked} is asked for"
    return None
