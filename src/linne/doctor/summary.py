"""What the checks come to: what training would do on this machine, and the one thing to do first."""

from __future__ import annotations

from collections.abc import Sequence

from linne.doctor.gpu import Gpu, best_gpu
from linne.doctor.proof import TITLE as PROOF
from linne.doctor.report import Check, Section, Summary
from linne.doctor.torch_build import NAME as TORCH

_CAUSES = ("Accelerators", "Packages")
"""Sections whose warnings may be why a proof fails."""


def summarise(sections: Sequence[Section], gpus: Sequence[Gpu]) -> Summary:
    """Return the state in a sentence, which claims nothing that was not computed, and the check to begin with."""
    torch = next((check for section in sections for check in section.checks if check.name == TORCH), None)
    tried = [check for section in sections if section.title == PROOF for check in section.checks]
    proofs = [check for check in tried if check.details.get("verdict")]
    return Summary(state=_state(torch, proofs, gpus), first=_first(sections, torch, tried, gpus))


def _state(torch: Check | None, proofs: Sequence[Check], gpus: Sequence[Gpu]) -> str:
    gpu = best_gpu(gpus)
    named = f"{gpu.vendor} GPU{f' ({gpu.name})' if gpu.name else ''}" if gpu else ""
    if _no_torch(torch):
        there = f", neither on its {named} nor on the CPU" if gpu else ""
        return f"Nothing can be trained on this machine yet{there}: PyTorch is not installed."
    if not proofs:
        return "Nothing was computed, because of `--quick`: whether training works here is not known."
    proof = proofs[0]
    verdict, device = proof.details["verdict"], proof.details.get("device")
    if verdict not in ("works", "slow"):
        return _cannot(proof)
    if proof.details.get("kind") == "cpu":
        if gpu is not None and device != "cpu":
            return f"Training would run on the CPU, and not on this machine's {named}."
        why = ", as no GPU was found" if gpu is None and device == "auto" else ""
        return f"Training runs on the CPU{why}. What it computes is right."
    hardware, kind = proof.details.get("hardware"), proof.details.get("kind")
    wrong = [check.details["dtype"] for check in proofs if check.details["verdict"] == "wrong"]
    computes = f"right in fp32 and wrong in {' and '.join(wrong)}" if wrong else "right"
    slow = ", and slower than it should" if verdict == "slow" else ""
    return f"Training runs on {hardware}{slow}. What it computes is {computes}.{_others(gpus, str(kind), str(device))}"


def _others(gpus: Sequence[Gpu], kind: str, device: str) -> str:
    """Return how the other GPUs are proved, where only the first of many was."""
    alike = {"cuda": "NVIDIA", "rocm": "AMD", "xpu": "Intel"}
    count = sum(gpu.vendor == alike.get(kind) for gpu in gpus)
    if count < 2 or device != "auto":
        return ""
    return f" Of {count} GPUs the first was tried; for the next: `linne doctor --device {kind}:1`."


def _cannot(proof: Check) -> str:
    device = proof.details.get("device")
    device = "the accelerator" if device == "auto" else f"`{device}`"
    on = proof.details.get("hardware") or device
    match proof.details["verdict"]:
        case "wrong":
            return f"Training on {on} would go wrong, as it computes wrong numbers."
        case "absent":
            return f"Training with {device} is refused, as torch cannot use it."
        case "fails":
            return f"Training on {on} fails."
        case _:
            return "Whether training works here is not known."


def _first(
    sections: Sequence[Section], torch: Check | None, tried: Sequence[Check], gpus: Sequence[Gpu]
) -> Check | None:
    """Return the check whose fix comes first: causes before effects, as sections and checks stand in that order.

    What warns of the accelerator or the packages comes before a proof that fails or is on the CPU, since it may be why.
    """
    if _no_torch(torch):
        return torch
    at = next((i for i, section in enumerate(sections) if section.title == PROOF), len(sections))
    before, after = ([c for s in part for c in s.checks] for part in (sections[:at], sections[at + 1 :]))
    causes = [check for section in sections if section.title in _CAUSES for check in section.checks]
    idle = bool(gpus) and any(check.details.get("kind") == "cpu" for check in tried)
    astray = idle or any(check.status == "bad" for check in tried)
    ways = (
        [check for check in before if check.status == "bad"],
        [check for check in causes if check.status == "warning" and astray],
        [check for check in (*tried, *after) if check.status == "bad"],
        [check for check in (*before, *tried, *after) if check.status == "warning"],
        # The build of torch that nobody was warned of.
        [torch] if torch is not None and idle else [],
    )
    return next((check for way in ways for check in way if check.fix), None)


def _no_torch(torch: Check | None) -> bool:
    return torch is not None and torch.details.get("version", "") is None
