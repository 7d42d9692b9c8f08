"""The child that tries TensorFlow: `python -m linne.doctor.probe_tensorflow [--device GPU:0]`.

Its import alone ends the process on processors that lack what it was compiled for. On a device it multiplies and
convolves, as the convolution needs a library of its own (cuDNN, MIOpen) that is often the one that does not fit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from linne.child import said_of, say
from linne.doctor.probe import asked_device, load, try_device
from linne.doctor.tiny_model import EXPECTED, WEIGHTS, as_numbers, tiny_input

CPU = "CPU:0"
IMAGE = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
KERNEL = ((1, 0), (0, 2))


def main(words: Sequence[str] | None = None) -> int:
    """Report the devices that TensorFlow lists and what its CPU does, or what the device asked for does."""
    device = asked_device(words, "multiply and convolve with TensorFlow")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # by default it takes all memory of every GPU
    library = load("tensorflow")
    if library is None:
        return 0
    try:
        built = dict(library.sysconfig.get_build_info())
        versions = {key: str(built[key]) for key in ("cuda_version", "cudnn_version", "rocm_version") if key in built}
        # PhysicalDevice(name='/physical_device:GPU:0', device_type='GPU')
        names = [str(listed.name).rpartition("device:")[2] for listed in library.config.list_physical_devices()]
        devices = [name for name in names if not name.startswith("XLA_")]
        own = CPU if CPU in devices else None
        version, kinds = str(library.__version__), (("CUDA", "cuda_version"), ("ROCm", "rocm_version"))
        built_for = [f"{kind} {versions[key]}" for kind, key in kinds if key in versions]
        found = f"{version}, built for {', '.join(built_for) or 'CPUs'}, with {', '.join(devices) or 'no device'}"
        say("runtime", found=found, version=version, devices=devices, own=own, built=versions)
        library.config.set_soft_device_placement(False)  # else it may compute on the CPU without a word
    except Exception as error:
        say("broken", reason=said_of(error))
        return 0
    tried = device or own
    if tried is not None:
        try_device(tried, lambda facts: _compute(library, tried, facts))
    return 0


def _compute(library: Any, device: str, facts: dict[str, Any]) -> None:
    facts["expected"] = [*EXPECTED, *as_numbers(_convolved())]
    with library.device(device):
        product = library.nn.relu(library.matmul(library.constant(tiny_input()), library.constant(WEIGHTS, "float32")))
        image = library.reshape(library.constant(IMAGE, "float32"), (1, 3, 3, 1))
        kernel = library.reshape(library.constant(KERNEL, "float32"), (2, 2, 1, 1))
        convolved = library.nn.conv2d(image, kernel, strides=1, padding="VALID")
    where = [str(tensor.device).rpartition("device:")[2] for tensor in (product, convolved)]
    facts["computes"] = sorted(where, key=lambda name: name == device)  # whoever else does comes first
    facts["result"] = as_numbers(product.numpy()) + as_numbers(convolved.numpy())


def _convolved() -> Any:
    windows = np.lib.stride_tricks.sliding_window_view(np.array(IMAGE, np.float64), (2, 2))
    return np.einsum("yxij,ij->yx", windows, np.array(KERNEL, np.float64))


if __name__ == "__main__":
    sys.exit(main())
