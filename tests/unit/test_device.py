"""Picking a device: asked-for ones are used or refused, never replaced; and what the records say of each kind."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch

from linne.device import KINDS, Device
from linne.device.capabilities import fact, unknown
from linne.device.kinds import private_use
from linne.device.picking import why_unusable
from linne.errors import DeviceError, RecipeError
from linne.planning import check_device
from linne.recipe import DataConfig, DeviceConfig, OptimConfig, Recipe


def test_the_cpu_is_always_there():
    device = Device.pick("cpu")
    assert (device.kind, device.torch_device, device.reason) == ("cpu", "cpu", "asked for")
    assert device.precision in ("fp32", "bf16")
    assert device.memory_bytes() > 2**20
    assert not device.is_accelerator


def test_auto_says_why():
    device = Device.pick("auto")
    expected = "first accelerator found" if device.is_accelerator else "no accelerator found by torch"
    assert device.reason.startswith(expected)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cpu"])
def test_an_accelerator_that_is_not_there_is_refused_and_not_replaced(kind):
    if why_unusable(kind) is None:
        assert Device.pick(kind).kind in (kind, "rocm")
        return
    with pytest.raises(DeviceError) as caught:
        Device.pick(kind)
    assert f"device `{kind}` cannot be used: " in caught.value.message
    assert caught.value.hint.endswith("; or --device cpu")


@pytest.mark.parametrize("text", ["gpu", "cuda:x", "cpu:one", "", "CUDA", "cuda:²", "privateuseone"])
def test_a_name_that_is_no_device_is_refused(text):
    with pytest.raises(DeviceError, match=f"no device `{text}`"):
        Device.pick(text)


def test_a_second_cpu_does_not_exist():
    with pytest.raises(DeviceError, match="device `cpu:1` does not exist: 1 found") as caught:
        Device.pick("cpu:1")
    assert caught.value.hint == "use --device cpu:0"


def test_a_record_can_be_written_down():
    written = json.loads(json.dumps(Device.pick("cpu").to_dict()))
    assert written["address"] == "cpu"
    assert written["can"]["dtypes"]["fp32"] == {"answer": "yes", "evidence": "every processor has it"}
    assert all(
        found["answer"] in ("yes", "no", "unknown") and found["evidence"]
        for found in written["can"].values()
        if isinstance(found, dict) and "answer" in found
    )


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


def test_without_fused_and_foreach_kernels_an_optimiser_is_told_to_use_neither():
    device = Device.pick("cpu")
    neither = replace(device.can, fused=unknown("this test"), foreach=fact(False, "this test"))
    assert replace(device, can=neither).optimizer_speed == {"fused": False, "foreach": False}
    assert replace(device, can=replace(neither, foreach=fact(True, ""))).optimizer_speed == {
        "fused": False,
        "foreach": True,
    }


@pytest.mark.parametrize(
    ("wanted", "lacks", "message"),
    [
        (
            DeviceConfig(precision="fp16"),
            {"grad_scaler": unknown("nothing says so")},
            "cannot train in fp16: it needs a",
        ),
        (
            DeviceConfig(precision="bf16"),
            {"autocast": fact(False, "a test")},
            "cannot train in bf16: it needs autocast",
        ),
        (DeviceConfig(compile=True), {"compile_backends": ()}, "torch.compile builds nothing that is known to work"),
    ],
    ids=lambda value: "",
)
def test_a_recipe_that_asks_more_than_the_device_can_is_refused(wanted, lacks, message):
    device = Device.pick("cpu")
    recipe = Recipe(data=DataConfig(source="digits"), device=wanted)
    check_device(recipe, replace(device, can=replace(device.can, grad_scaler=fact(True, ""))))
    with pytest.raises(RecipeError, match=message) as caught:
        check_device(recipe, replace(device, can=replace(device.can, **lacks)))
    assert caught.value.hint.startswith("use --set device.")


def test_muon_is_refused_where_nothing_holds_bf16_and_not_where_it_is_merely_slow():
    device = Device.pick("cpu")
    recipe = Recipe(data=DataConfig(source="digits"), optim=OptimConfig(optimizer="muon"))
    slow = replace(device.can, dtypes={**device.can.dtypes, "bf16": fact(False, "emulated")})
    check_device(recipe, replace(device, can=replace(slow, autocast=fact(True, "a test"))))
    with pytest.raises(RecipeError) as caught:
        check_device(recipe, replace(device, can=replace(slow, autocast=fact(False, "a test"))))
    assert caught.value.message == "`cpu` cannot train with Muon, which multiplies matrices in bf16: emulated"
    assert caught.value.hint == "use --set optim.optimizer=adamw"


class Gpu:
    """`torch.cuda` as it answers for one GPU of a kind that this machine need not have."""

    def __init__(self, name, capability, gfx=None):
        self.name, self.capability = name, capability
        self.properties = SimpleNamespace(total_memory=64 * 2**30, **({} if gfx is None else {"gcnArchName": gfx}))

    def install(self, monkeypatch, *, hip=None, cuda=None, count=1):
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        for name, answer in {
            "is_available": lambda: True,
            "device_count": lambda: count,
            "get_device_name": lambda index: self.name,
            "get_device_capability": lambda index: self.capability,
            "get_device_properties": lambda index: self.properties,
        }.items():
            monkeypatch.setattr(torch.cuda, name, answer)


def test_an_nvidia_gpu_is_judged_by_its_compute_capability(monkeypatch):
    Gpu("NVIDIA A100", (8, 0)).install(monkeypatch, cuda="12.8", count=2)
    device = Device.pick("auto")
    assert (device.kind, device.address, device.torch_device) == ("cuda", "cuda:0", "cuda:0")
    assert device.reason == "first accelerator found; the first of 2: cuda:0 to cuda:1"
    assert (device.hardware.architecture, device.hardware.runtime) == ("sm_80", "CUDA 12.8")
    assert device.precision == "bf16"
    Gpu("Tesla T4", (7, 5)).install(monkeypatch, cuda="12.8")
    older = Device.pick("cuda")
    assert older.precision == "fp32"
    assert older.can.dtypes["bf16"].evidence == "compute capability 7.5"
    with pytest.raises(DeviceError, match="device `cuda:1` does not exist: 1 found"):
        Device.pick("cuda:1")


@pytest.mark.parametrize(
    ("gfx", "precision"),
    [
        ("gfx90a:sramecc+:xnack-", "bf16"),
        ("gfx942", "bf16"),
        ("gfx1100", "bf16"),
        ("gfx906", "fp32"),
        ("gfx1030", "fp32"),
    ],
)
def test_an_amd_gpu_is_judged_by_its_architecture_and_never_by_a_capability_number(monkeypatch, gfx, precision):
    Gpu("AMD GPU", (9, 0), gfx).install(monkeypatch, hip="6.4.43482")
    device = Device.pick("auto")
    assert (device.kind, device.address, device.torch_device) == ("rocm", "rocm:0", "cuda:0")
    assert device.hardware.architecture == gfx.partition(":")[0]
    assert device.precision == precision
    assert not device.can.channels_last.holds  # MIOpen transposes unless told otherwise
    monkeypatch.setenv("PYTORCH_MIOPEN_SUGGEST_NHWC", "1")
    assert Device.pick("rocm").can.channels_last.holds


def test_torchs_own_name_for_rocm_is_understood_and_nvidia_is_not_promised(monkeypatch):
    Gpu("AMD Instinct MI300X", (9, 4), "gfx942").install(monkeypatch, hip="7.1")
    device = Device.pick("cuda:0")
    assert (device.kind, device.reason) == ("rocm", "asked for; torch calls ROCm cuda")


def test_an_overridden_architecture_is_in_the_record(monkeypatch):
    Gpu("AMD Radeon RX 6700 XT", (10, 3), "gfx1030").install(monkeypatch, hip="6.4")
    monkeypatch.setenv("HSA_OVERRIDE_GFX_VERSION", "10.3.0")
    assert Device.pick("rocm").hardware.notes == ("HSA_OVERRIDE_GFX_VERSION=10.3.0: it may be another processor",)


def test_an_intel_gpu_without_double_precision_scales_no_loss(monkeypatch):
    properties = SimpleNamespace(
        has_bfloat16_conversions=True,
        has_fp64=False,
        has_fp16=True,
        total_memory=16 * 2**30,
        driver_version="1.6.33578",
    )
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 1)
    monkeypatch.setattr(torch.xpu, "get_device_name", lambda index: "Intel(R) Arc(TM) A770 Graphics")
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda index: properties)
    device = Device.pick("xpu")
    assert (device.precision, device.hardware.driver) == ("bf16", "1.6.33578")
    assert not device.can.grad_scaler.holds
    assert device.can.dtypes["fp64"].evidence == "has_fp64 is False"


def test_a_package_that_raises_anything_is_a_reason_and_not_the_end(monkeypatch):
    class Broken(ModuleType):
        def is_available(self):
            raise RuntimeError("Unknown error -2147467262")

    broken = Broken("torch_directml")
    broken.__spec__ = SimpleNamespace(name="torch_directml")
    monkeypatch.setitem(sys.modules, "torch_directml", broken)
    with pytest.raises(DeviceError) as caught:
        Device.pick("dml")
    assert caught.value.message == (
        "device `dml` cannot be used: asking for it fails with RuntimeError: Unknown error -2147467262"
    )


def test_no_backend_from_outside_is_seen_where_none_is_loaded():
    assert private_use.registered_name() is None
    assert private_use.why_unusable() == "no backend from outside torch is loaded"


def test_a_device_is_seeded_and_selected_through_torchs_module_for_its_kind_where_that_can(monkeypatch):
    told = []
    module = SimpleNamespace(
        manual_seed=lambda n: told.append(("seed", n)), set_device=lambda n: told.append(("on", n))
    )
    monkeypatch.setattr(torch, "strange", module, raising=False)
    device = replace(Device.pick("cpu"), kind="strange", torch_type="strange", index=2)
    device.seed(7)
    device.select()
    assert told == [("seed", 7), ("on", 2)]
    monkeypatch.setattr(torch, "strange", SimpleNamespace())
    device.seed(7)
    device.select()
    before = torch.get_rng_state()
    Device.pick("cpu").seed(7)
    Device.pick("cpu").select()
    assert torch.equal(torch.get_rng_state(), before), "the CPU's generator is torch's, which is not touched"
    assert len(told) == 2
