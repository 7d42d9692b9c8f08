"""Operators that a device leaves to the CPU are counted by name, in the words that torch's backends use."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from linne.device import Device
from linne.device.fallbacks import Fallbacks, without_a_kernel
from linne.errors import DeviceError

CPU = Device.pick("cpu")
MPS = replace(CPU, kind="mps", torch_type="mps", name="Apple GPU")
SAID = {
    "aten::lerp.Scalar_out": "The operator 'aten::lerp.Scalar_out' is not currently supported on the DML backend and "
    "will fall back to run on the CPU. This may have performance implications. (Triggered at dml.cc:17.)",
    "aten::bitwise_left_shift.Tensor_out": "CAUTION: The operator 'aten::bitwise_left_shift.Tensor_out' is not "
    "currently supported on the NPU backend and will fall back to run on the CPU. This may have",
    "aten::linalg_qr": "The operator 'aten::linalg_qr on the XPU backend is falling back to run on the CPU.",
    "aten::dot": "The operator 'aten::doton the XPU backend and will fall back to run on the CPU.",
    "an operator that torch does not name": "Aten Op fallback from XPU to CPU happends. This may have performance "
    "implications. If need debug the fallback ops please set environment variable `PYTORCH_DEBUG_XPU_FALLBACK=1` ",
}
"""What each backend says, copied from their sources and from reports of users, with the operator in it."""


@pytest.mark.parametrize(("operator", "text"), SAID.items(), ids=list(SAID))
def test_every_backends_words_are_understood(operator, text):
    fallbacks = Fallbacks(MPS)
    with fallbacks.watch():
        warnings.warn(text, UserWarning, stacklevel=1)
    assert fallbacks.counts == {operator: 1}


def test_every_time_counts_and_the_line_names_the_most_frequent_first():
    fallbacks = Fallbacks(MPS)
    with fallbacks.watch():
        for _ in range(3):
            warnings.warn(SAID["aten::linalg_qr"], UserWarning, stacklevel=1)
        warnings.warn(SAID["aten::dot"], UserWarning, stacklevel=1)
    assert fallbacks.in_words() == "`mps:0` left operators to the CPU: aten::linalg_qr (3 times), aten::dot (1 times)"


def test_a_warning_of_something_else_goes_where_it_went_before():
    fallbacks = Fallbacks(MPS)
    with pytest.warns(UserWarning, match="^the weather is bad$"), fallbacks.watch():
        warnings.warn("the weather is bad", UserWarning, stacklevel=1)
    assert fallbacks.in_words() is None


def test_torch_is_told_to_repeat_itself_only_while_a_device_is_watched():
    before = torch.is_warn_always_enabled()
    with Fallbacks(MPS).watch():
        assert torch.is_warn_always_enabled()
    with Fallbacks(CPU).watch():
        assert torch.is_warn_always_enabled() == before
    assert torch.is_warn_always_enabled() == before


def test_a_fallback_is_an_error_where_an_accelerator_is_required_and_names_the_operator():
    allowed, refused = Fallbacks(MPS), Fallbacks(MPS, allowed=False)
    for fallbacks in (allowed, refused):
        fallbacks.check()
        fallbacks.add(["aten::roll"])
    allowed.check()
    with pytest.raises(DeviceError, match=r"`mps:0` left operators to the CPU: aten::roll .* accelerator is required"):
        refused.check()


def test_the_dispatcher_is_asked_only_of_backends_with_a_general_fallback():
    assert without_a_kernel([torch.ops.aten.add.Tensor], CPU) == []
    assert without_a_kernel([torch.ops.aten.add.Tensor], replace(CPU, kind="dml", torch_type="privateuseone")) == []
