"""The state of a machine in a sentence, and the one thing to do first, from checks alone."""

from __future__ import annotations

from typing import Any

import pytest

from linne.doctor.gpu import AMD, NVIDIA, Gpu
from linne.doctor.proof import TITLE
from linne.doctor.report import Check, Section, Status, Summary
from linne.doctor.summary import summarise

H200 = Gpu(vendor=NVIDIA, name="NVIDIA H200")
MI210 = Gpu(vendor=AMD, name="AMD Instinct MI210")


def proved(
    verdict: str, dtype: str = "fp32", *, device: str = "auto", kind: str | None = "cuda", name: str = "H200"
) -> Check:
    status: dict[str, Status] = {"works": "good", "slow": "warning", "unknown": "unknown"}
    details = {"verdict": verdict, "dtype": dtype, "device": device, "kind": kind, "hardware": name if kind else None}
    return Check(
        name=f"{device} {dtype}", status=status.get(verdict, "bad"), found=verdict, fix="mend", details=details
    )


def told(name: str, status: Status, fix: str = "mend", **details: Any) -> Check:
    return Check(name=name, status=status, found="found", fix=fix, details=details)


def summary(*proofs: Check, gpus: tuple[Gpu, ...] = (), **others: tuple[Check, ...]) -> Summary:
    torch = Check(name="PyTorch", status="good", found="2.15.0", details={"version": "2.15.0"})
    packages = others.get("packages", ())
    if not any(check.name == "PyTorch" for check in packages):
        packages = (torch, *packages)
    sections = (
        Section(title="System", checks=others.get("system", ())),
        Section(title="Accelerators", checks=others.get("accelerators", ())),
        Section(title="Packages", checks=packages),
        Section(title=TITLE, checks=proofs),
        Section(title="Inference runtimes", checks=others.get("runtimes", ())),
    )
    return summarise(sections, gpus)


CPU_PROOF = proved("works", kind="cpu", name="CPU")


@pytest.mark.parametrize(
    ("proofs", "gpus", "state"),
    [
        ([proved("works")], (H200,), "Training runs on H200. What it computes is right."),
        ([proved("slow")], (H200,), "Training runs on H200, and slower than it should. What it computes is right."),
        (
            [proved("works"), proved("wrong", "bf16"), proved("wrong", "fp16")],
            (H200,),
            "Training runs on H200. What it computes is right in fp32 and wrong in bf16 and fp16.",
        ),
        ([proved("wrong")], (H200,), "Training on H200 would go wrong, as it computes wrong numbers."),
        ([proved("fails")], (H200,), "Training on H200 fails."),
        ([proved("fails", kind=None)], (H200,), "Training on the accelerator fails."),
        (
            [proved("absent", device="cuda:1", kind=None)],
            (H200,),
            "Training with `cuda:1` is refused, as torch cannot use it.",
        ),
        ([proved("unknown", kind=None)], (), "Whether training works here is not known."),
        ([CPU_PROOF], (), "Training runs on the CPU, as no GPU was found. What it computes is right."),
        ([CPU_PROOF], (H200,), "Training would run on the CPU, and not on this machine's NVIDIA GPU (NVIDIA H200)."),
        (
            [proved("works", device="cpu", kind="cpu", name="CPU")],
            (H200,),
            "Training runs on the CPU. What it computes is right.",
        ),
        (
            [proved("works", kind="rocm", name="MI210")],
            (MI210, MI210, H200),
            "Training runs on MI210. What it computes is right. Of 2 GPUs the first was tried; for the next: "
            "`linne doctor --device rocm:1`.",
        ),
        ([], (H200,), "Nothing was computed, because of `--quick`: whether training works here is not known."),
    ],
)
def test_the_state_claims_what_was_computed_and_no_more(proofs: list[Check], gpus: tuple[Gpu, ...], state: str) -> None:
    assert summary(*proofs, gpus=gpus).state == state


def test_without_torch_nothing_can_be_trained_and_torch_comes_first() -> None:
    torch = told("PyTorch", "note", "pip install torch", version=None)
    both = summary(proved("unknown", kind=None), gpus=(H200,), packages=(torch,), runtimes=(told("ONNX", "bad"),))
    assert both.state == (
        "Nothing can be trained on this machine yet, neither on its NVIDIA GPU (NVIDIA H200) nor on the CPU: "
        "PyTorch is not installed."
    )
    assert both.first == torch
    assert summary(packages=(torch,)).state == "Nothing can be trained on this machine yet: PyTorch is not installed."


def first(*proofs: Check, **others: Any) -> str | None:
    check = summary(*proofs, **others).first
    return check.name if check else None


def test_causes_come_before_effects() -> None:
    driver, pair, full = told("driver", "bad"), told("pair", "bad"), told("disk", "bad")
    assert first(proved("fails"), accelerators=(driver,), packages=(pair,)) == "driver"
    assert first(proved("fails"), packages=(pair,)) == "pair"
    assert first(proved("fails"), packages=(pair,), system=(full,)) == "disk"
    assert first(proved("fails")) == "auto fp32"
    assert first(proved("works"), runtimes=(told("ONNX", "bad"),)) == "ONNX"
    assert first(proved("fails"), runtimes=(told("ONNX", "bad"),)) == "auto fp32"


def test_a_warning_of_the_accelerator_comes_before_the_proof_that_fails_and_not_before_another_fault() -> None:
    override = told("override", "warning")
    assert first(proved("fails"), accelerators=(override,)) == "override"
    assert first(proved("fails"), accelerators=(override,), packages=(told("pair", "bad"),)) == "pair"
    assert first(proved("works"), accelerators=(override,), runtimes=(told("ONNX", "bad"),)) == "ONNX"
    assert first(proved("fails"), system=(told("memory", "warning"),)) == "auto fp32"


def test_what_keeps_the_device_from_computing_comes_before_its_proof() -> None:
    wheel = told("GPU architecture in this wheel", "bad")
    assert first(wheel, proved("fails")) == "GPU architecture in this wheel"


def test_a_check_without_a_fix_is_never_the_first() -> None:
    assert first(proved("works"), accelerators=(told("tool", "bad", fix=""), told("other", "warning"))) == "other"
    assert first(proved("works"), accelerators=(told("x", "note"), told("y", "unknown"))) is None


def test_where_a_gpu_lies_idle_what_hides_it_comes_before_other_warnings() -> None:
    hidden, memory = told("hidden", "warning"), told("memory", "warning")
    assert first(CPU_PROOF, gpus=(H200,), system=(memory,), accelerators=(hidden,)) == "hidden"
    assert first(CPU_PROOF, system=(memory,), accelerators=(hidden,)) == "memory"


def test_where_a_gpu_lies_idle_without_a_fault_the_build_of_torch_comes_first() -> None:
    torch = told("PyTorch", "note", "pip install torch", version="2.15.0+cpu")
    assert first(CPU_PROOF, gpus=(MI210,), packages=(torch,)) == "PyTorch"
    assert first(CPU_PROOF, packages=(torch,)) is None
