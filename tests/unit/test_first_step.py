"""The first step on a device is compared with the CPU's: rounding passes, a wrong kernel does not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from linne.device import Device
from linne.errors import CheckFailed
from linne.recipe import DataConfig, DeviceConfig, ModelConfig, Recipe
from linne.training.first_step import PassedChecks, check_first_step, check_key

CPU = Device.pick("cpu")
RECIPE = Recipe(data=DataConfig(source="digits"), device=DeviceConfig(precision="bf16"))


class OnDevice(nn.Module):
    """What a faulty kernel does: it changes values where the device computes in fp32, and only there.

    The device's pass runs inside `full_precision`, the CPU's outside, and the two are told apart by that.
    """

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def forward(self, values):
        return values if torch.backends.cudnn.allow_tf32 else self.fault(values)


def network(fault=lambda values: values):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        OnDevice(fault),
        nn.Flatten(),
        nn.Linear(288, 10),
    )


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.randn(16, 1, 8, 8), torch.arange(16) % 10


def test_a_device_that_rounds_as_the_cpu_does_passes_in_both_precisions(batch):
    check = check_first_step(network(), *batch, RECIPE, CPU)
    assert check.wrong is None
    assert list(check.errors) == ["fp32", "bf16", "fp32 with batch statistics", "bf16 with batch statistics"]
    assert check.errors["fp32"] < 1e-5 < check.errors["bf16"]
    assert check.in_words().startswith("first step agrees with the CPU's (fp32 off by ")


@pytest.mark.parametrize(
    "fault",
    [
        lambda v: v * 1.001,
        lambda v: v.roll(1, 0),
        lambda v: v.half().to(v.dtype),
        lambda v: v * torch.nan,
        torch.zeros_like,
    ],
    ids=["a thousandth off", "images exchanged", "half precision", "not a number", "nothing"],
)
def test_a_kernel_that_is_wrong_by_more_than_rounding_is_refused(batch, fault):
    with pytest.raises(CheckFailed) as caught:
        check_first_step(network(fault), *batch, RECIPE, CPU)
    assert caught.value.message.startswith(
        "`cpu` (CPU) computes a first training step in fp32 that differs from the CPU's"
    )
    assert (
        caught.value.hint
        == "`linne doctor --device cpu` says which operation is wrong; --no-device-check trains all the same"
    )


def test_the_gradient_that_is_farthest_off_is_named(batch):
    class WrongBackward(torch.autograd.Function):
        @staticmethod
        def forward(context, values):
            return values.clone()

        @staticmethod
        def backward(context, gradient):
            return 2 * gradient

    with pytest.raises(CheckFailed, match=r"the gradient of `0\.weight`"):
        check_first_step(network(WrongBackward.apply), *batch, RECIPE, CPU)


def test_the_check_changes_neither_the_model_nor_the_random_numbers(batch):
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_first_step(model, *batch, RECIPE, CPU)
    assert torch.equal(torch.rand(3), expected)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_check_that_passed_is_remembered_for_this_device_model_and_torch_alone(tmp_path):
    passed, key = PassedChecks(tmp_path / "cache" / "checks.json"), check_key(RECIPE, CPU)
    assert passed.find(key) is None
    passed.add(key, ("aten::roll",))
    assert PassedChecks(passed.file).find(key) == ("aten::roll",)
    newer = replace(CPU, hardware=replace(CPU.hardware, driver="999.1"))
    others = [
        check_key(RECIPE, newer),
        check_key(replace(RECIPE, model=ModelConfig(name="mlp")), CPU),
        check_key(replace(RECIPE, model=ModelConfig(blur_pool=True)), CPU),
        check_key(replace(RECIPE, device=DeviceConfig(precision="fp32")), CPU),
    ]
    assert len({key, *others}) == 5
    assert [passed.find(other) for other in others] == [None] * 4


@pytest.mark.parametrize("text", ["", "{", "[1]", json.dumps({"key": 5})], ids=["empty", "cut", "a list", "no list"])
def test_a_damaged_memory_means_that_the_check_is_done_again(tmp_path, text):
    file = tmp_path / "checks.json"
    file.write_text(text)
    passed = PassedChecks(file)
    assert passed.find("key") is None
    passed.add("key", ())
    assert passed.find("key") == ()


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    passed = PassedChecks(tmp_path / "file" / "checks.json")
    passed.add("key", ())
    assert passed.find("key") is None
