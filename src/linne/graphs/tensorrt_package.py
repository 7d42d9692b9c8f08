"""Whether TensorRT can be used: its package, the libraries of the package, the driver and the GPU."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from typing import Any

from linne.errors import LinneError
from linne.graphs.tensorrt_cuda import GpuFacts, look_for_gpu

MODULE = "tensorrt"
INSTALL = "pip install 'linne[tensorrt]'"
GUIDE = "docs/guides/backends.md#tensorrt"
OLDEST = 10
"""The first major version whose networks can be strongly typed, with bf16."""
LEAST_CAPABILITY = (7, 5)
"""Turing: what TensorRT 11 needs."""
BF16_CAPABILITY = (8, 0)
"""Ampere, the first with instructions for it."""
CUDA_MAJORS = range(11, 20)
"""Of which a wheel of TensorRT may be: `tensorrt-cu13-libs`."""


def why_no_tensorrt() -> str | None:
    """Return why TensorRT cannot be used on this machine, or None; the GPU is the first one."""
    if MODULE not in sys.modules and importlib.util.find_spec(MODULE) is None:
        return f"the package {MODULE} is not installed; {INSTALL}"
    found = look_for_gpu()
    if isinstance(found, str):
        return f"{found}; TensorRT runs on NVIDIA's GPUs alone"
    return why_not_for(found)


def why_not_for(gpu: GpuFacts) -> str | None:
    """Return why the installed TensorRT cannot be used with `gpu` and its driver, or None."""
    major = cuda_of_wheel()
    if major is not None and gpu.driver_cuda[0] < major:
        known = ".".join(map(str, gpu.driver_cuda))
        return (
            f"the installed tensorrt is for CUDA {major}, and the driver knows CUDA {known}; a newer driver, or "
            f"`pip uninstall tensorrt tensorrt-cu{major}` and `pip install tensorrt-cu{gpu.driver_cuda[0]}`"
        )
    try:
        version = version_of(the_tensorrt())
    except LinneError as error:
        return error.message
    if gpu.capability < LEAST_CAPABILITY and int(version.partition(".")[0]) >= 11:
        needed, found = dotted(LEAST_CAPABILITY), dotted(gpu.capability)
        return f"{gpu.name} has compute capability {found}, and TensorRT {version} needs {needed}"
    return None


def the_tensorrt() -> Any:
    """Return the module `tensorrt`.

    Raises:
        LinneError: it is not installed, lacks its libraries, is a placeholder or too old.
    """
    try:
        module = importlib.import_module(MODULE)
    except ModuleNotFoundError as error:
        if error.name == MODULE:
            raise LinneError(f"the package {MODULE} is not installed; {INSTALL}") from error
        raise LinneError(f"{MODULE} cannot be imported ({error}); {INSTALL}") from error
    except (ImportError, OSError) as error:
        # `libnvinfer.so.11: cannot open shared object file`: the libraries are a wheel of their own, which is fetched
        # from NVIDIA's server when it is installed.
        raise LinneError(f"{MODULE} is installed without its libraries ({error}); {INSTALL}") from error
    if not hasattr(module, "Builder"):
        raise LinneError(f"the module {MODULE} here is a placeholder without code; {INSTALL}")
    version = version_of(module)
    if int(version.partition(".")[0]) < OLDEST:
        raise LinneError(f"tensorrt {version} is older than {OLDEST}.0; {INSTALL}")
    return module


def version_of(module: Any) -> str:
    """Return the version of TensorRT, all of which an engine depends on: `11.4.0.106`."""
    return str(module.__version__)


def cuda_of_wheel() -> int | None:
    """Return the major version of CUDA that the installed wheel of TensorRT is for; None where no wheel says."""
    for major in reversed(CUDA_MAJORS):
        for part in ("libs", "bindings"):
            try:
                importlib.metadata.version(f"{MODULE}-cu{major}-{part}")
            except importlib.metadata.PackageNotFoundError:
                continue
            return major
    return None


def dotted(version: tuple[int, int]) -> str:
    """Return (7, 5) as `7.5`."""
    return ".".join(map(str, version))
