"""Three levels of repeating: what each asks of torch, gives back, and promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from linne.device import Device
from linne.device.capabilities import no
from linne.device.repeating import promise, repeating_kernels
from linne.errors import RecipeError
from linne.planning import check_device
from linne.recipe import DataConfig, DeviceConfig, Recipe

CPU = Device.pick("cpu")
GPU = replace(CPU, kind="cuda", torch_type="cuda")
OTHER = replace(GPU, kind="mps", can=replace(CPU.can, deterministic=no("torch promises none there")))


def flags():
    cudnn = torch.backends.cudnn
    return cudnn.benchmark, cudnn.deterministic, torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("level", "inside"),
    [("seeded", (True, False, False)), ("repeatable", (False, True, False)), ("strict", (False, True, True))],
)
def test_a_level_chooses_kernels_inside_and_gives_the_process_back_as_it_was(level, inside):
    before = flags()
    with repeating_kernels(level):
        assert flags() == inside
    assert flags() == before


def test_strict_refuses_an_operation_that_does_not_repeat():
    values, places = torch.rand(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.long)
    F.max_unpool2d(values, places, 2)
    with repeating_kernels("strict"), pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
        F.max_unpool2d(values, places, 2)
    F.max_unpool2d(values, places, 2)


@pytest.mark.parametrize(
    ("level", "device", "threads", "promised"),
    [
        ("repeatable", CPU, 2, "bit for bit on this machine, with 2 threads"),
        ("strict", CPU, 1, "bit for bit on this machine, with 1 thread"),
        ("repeatable", CPU, None, "bit for bit on this machine, with torch's number of threads"),
        ("strict", GPU, None, "bit for bit on this machine: an operation without a kernel that repeats is an error"),
        ("repeatable", GPU, None, "the same kernels; those of torch that add in no fixed order may differ"),
        ("repeatable", OTHER, None, "seeded, and perhaps not to the bit: torch promises none there"),
        ("seeded", CPU, 2, "the same order, augmentation and first weights; kernels may differ"),
    ],
)
def test_what_is_promised_depends_on_the_level_and_the_device(level, device, threads, promised):
    assert promise(level, device, threads).startswith(promised)


def test_strict_is_refused_where_torch_promises_nothing():
    recipe = Recipe(data=DataConfig(source="digits"), device=DeviceConfig(determinism="strict"))
    check_device(recipe, GPU)
    with pytest.raises(
        RecipeError, match="`mps:0` cannot train strictly the same twice: torch promises none"
    ) as caught:
        check_device(recipe, OTHER)
    assert caught.value.hint == "use --set device.determinism=repeatable"
