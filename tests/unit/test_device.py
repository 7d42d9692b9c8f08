"""Picking a device: asked-for ones are used or refused, never replaced."""

from __future__ import annotations

import pytest
import torch

from linne.device import KINDS, Device
from linne.errors import DeviceError


def test_the_cpu_is_always_there():
    device = Device.pick("cpu")
    assert (device.kind, device.torch_device, device.reason) == ("cpu", "cpu", "asked for")
    assert device.precision in ("fp32", "bf16")
    assert device.memory_bytes() > 2**20


def test_auto_says_why():
    device = Device.pick("auto")
    expected = "first accelerator found" if device.kind != "cpu" else "no accelerator found by torch"
    assert device.reason == expected


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cpu"])
def test_an_accelerator_that_is_not_there_is_refused_and_not_replaced(kind):
    usable = {"cuda": torch.cuda.is_available(), "rocm": bool(torch.version.hip) and torch.cuda.is_available()}
    usable |= {"mps": torch.backends.mps.is_available(), "xpu": torch.xpu.is_available()}
    if usable[kind]:
        assert Device.pick(kind).kind in (kind, "rocm")
        return
    with pytest.raises(DeviceError) as caught:
        Device.pick(kind)
    assert f"device `{kind}` cannot be used: " in caught.value.message
    assert caught.value.hint == "use --device cpu to train without it"


@pytest.mark.parametrize("text", ["gpu", "cuda:x", "cpu:one", "", "CUDA"])
def test_a_name_that_is_no_device_is_refused(text):
    with pytest.raises(DeviceError, match=f"no device `{text}`"):
        Device.pick(text)


def test_a_second_cpu_does_not_exist():
    with pytest.raises(DeviceError, match="device `cpu:1` does not exist: 1 found"):
        Device.pick("cpu:1")


def test_autocast_in_bf16_computes_in_bf16_and_fp32_changes_nothing():
    device = Device.pick("cpu")
    matrix = torch.ones(2, 2)
    with device.autocast("bf16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with device.autocast("fp32"):
        assert (matrix @ matrix).dtype == torch.float32


def test_the_same_seed_draws_the_same_numbers():
    device = Device.pick("cpu")
    with device.repeatable(3):
        first = torch.rand(4)
    with device.repeatable(3):
        assert torch.equal(torch.rand(4), first)


def test_the_number_of_threads_is_given_back():
    before = torch.get_num_threads()
    with Device.pick("cpu").repeatable(0, before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
