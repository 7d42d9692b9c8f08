"""torch-directml 0.2.5.dev240914, by signature; `FAKE_DIRECTML` says in which state the machine is.

works: one device, simulated. no-library: Linux outside WSL, where importing fails. no-adapter: DirectX 12 is there and
finds no GPU it likes; every question raises, whatever the docstrings say. empty: no GPU at all.
tests/unit/test_fake_directml.py compares it with the real package where that is installed.
"""

from __future__ import annotations

import atexit
import json
import os
from pathlib import Path

import torch
from torch._C import default_generator

STATE = os.environ.get("FAKE_DIRECTML", "works")
UNKNOWN_ERROR = "Unknown error -2147467262"  # E_NOINTERFACE

if STATE == "no-library":
    raise OSError("libd3d12.so: cannot open shared object file: No such file or directory")


def _count() -> int:
    if STATE == "no-adapter":
        raise RuntimeError(UNKNOWN_ERROR)
    return 1 if STATE == "works" else 0


def is_available() -> bool:
    """Return whether there is a device."""
    return _count() > 0


def device_count() -> int:
    """Return the number of devices."""
    return _count()


def device_name(device_id) -> str:
    """Return the name of a device, empty when there is none of that number."""
    return "Simulated GPU" if 0 <= device_id < device_count() else ""


def default_device() -> int:
    """Return the number of the default device; the one function that never raises."""
    return 0


def device(device_id=None) -> str:
    """Return torch's device; the annotation is the real package's."""
    num_devices = device_count()
    if device_id is None:
        return torch.device("privateuseone", default_device())
    if 0 <= device_id < num_devices:
        return torch.device("privateuseone", device_id)
    raise Exception(f"Invalid device_id argument supplied {device_id}. device_id must be in range [0, {num_devices}).")


def disable_tiled_resources(is_disabled):
    """Do nothing."""


def has_float64_support(device_id=default_device()):  # noqa: B008
    """Return whether the device computes in double precision."""
    _count()
    return os.environ.get("FAKE_DIRECTML_FLOAT64") == "1"


def gpu_memory(device_id=default_device(), mb_per_tile=1):  # noqa: B008
    """Return the share of each tile of the device's memory that is in use."""
    return [0.0] * (1024 // mb_per_tile * _count())


def multi_head_attention(query, key, value, embed_dim, num_heads, past_key, past_value, mask_opt=None):
    """Raise: linne has no use for it."""
    raise NotImplementedError


def mlp_phi2(input, weight1, weight2, bias1=None, bias2=None):  # noqa: A002
    """Raise: linne has no use for it."""
    raise NotImplementedError


def mlp_llama(input, weight1, weight2, weight3, bias1=None, bias2=None, bias3=None):  # noqa: A002
    """Raise: linne has no use for it."""
    raise NotImplementedError


def mlp_phi3(input, weight1, weight2, bias1=None, bias2=None):  # noqa: A002
    """Raise: linne has no use for it."""
    raise NotImplementedError


def rmsnorm(input, weight, eps):  # noqa: A002
    """Raise: linne has no use for it."""
    raise NotImplementedError


def apply_rotary_position_emb(query, key, cos, sin, min_input_pos, sequence_length, embed_dim):
    """Raise: linne has no use for it."""
    raise NotImplementedError


class PrivateUse1Module:
    """What is `torch.privateuseone`: no synchronize, no memory statistics, no stream, no event."""

    is_available = staticmethod(is_available)
    device_count = staticmethod(device_count)
    device_name = staticmethod(device_name)
    default_device = staticmethod(default_device)
    device = staticmethod(device)
    disable_tiled_resources = staticmethod(disable_tiled_resources)
    has_float64_support = staticmethod(has_float64_support)
    gpu_memory = staticmethod(gpu_memory)

    @staticmethod
    def is_autocast_enabled():
        return False

    @staticmethod
    def get_autocast_dtype():
        return torch.float16

    @staticmethod
    def set_autocast_enabled(enable):
        pass

    @staticmethod
    def set_autocast_dtype(dtype):
        pass

    @staticmethod
    def get_amp_supported_dtype():
        return [torch.float16]

    @staticmethod
    def _is_in_bad_fork():
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        default_generator.manual_seed(seed)  # the device draws from the host's generator

    def _dml(self, dev=None, non_blocking=False, **kwargs):
        raise NotImplementedError


if STATE == "works":
    from fakes import device as simulation
    from fakes import dml

    simulation.install("privateuseone", PrivateUse1Module, dml.rules(float64=has_float64_support()))
    if "FAKE_DEVICE_TRACE" in os.environ:
        trace = Path(os.environ["FAKE_DEVICE_TRACE"])
        atexit.register(lambda: trace.write_text(json.dumps(simulation.TRACE.to_dict())))
