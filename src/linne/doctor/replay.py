"""Whether a bundle is whole, answers here as it did when it was written, and could be trained here as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.bundle import Bundle, open_bundle
from linne.child import Heard, first_event, listen
from linne.doctor.proof import Finding, Verdict, judge
from linne.doctor.report import Check, Section, Status
from linne.errors import BundleError
from linne.host import accelerator_files
from linne.inference.backends import BACKENDS, NEVER_AUTO, load_backend

if TYPE_CHECKING:
    from linne.doctor.machine import Machine

RUN_GRAPHS = ("onnxruntime", "openvino")
PROBE = "linne.doctor.probe_bundle"
TITLE = "Bundle"
_WHY = "another library, driver or device may compute something else than what was measured when it was trained"
_LIMIT_S = 240.0
_RECIPE_STATUS: Mapping[Verdict, Status] = {
    "works": "good",
    "slow": "warning",
    "wrong": "bad",
    "fails": "warning",
    "absent": "note",  # trained on a GPU, used on a CPU: the canaries say whether it may be
    "unknown": "unknown",
}


def bundle_section(
    machine: Machine,
    folder: Path | str,
    devices: Sequence[str],
    quick: bool,
    proof: Section,
    *,
    trust_code: bool = False,
    command: Sequence[str] | None = None,
    limit_s: float = _LIMIT_S,
) -> Section:
    """Return a check of the bundle's files, of its answers by each backend on each device, and of its recipe.

    `proof` is what was proved of the devices, so that the recipe's is not proved twice; `trust_code` lets the child run
    the Python that the bundle names. `command` stands in for it in tests, and `limit_s` is its time.
    """
    try:
        bundle = open_bundle(folder)
    except BundleError as error:
        found, fix = error.message, error.hint or "give the folder that `linne train` names at its end"
        why = "nothing in a bundle that is not whole is used"
        return Section(title=TITLE, checks=(Check(name="Files", status="bad", found=found, why=why, fix=fix),))
    checks = [_files(bundle)]
    if quick:
        text = "not replayed, because of `--quick`"
        checks.append(Check(name="Answers", status="note", found=text, fix=f"linne doctor {folder}"))
        return Section(title=TITLE, checks=tuple(checks))
    words = (*(command or machine.child(PROBE)), *(("--trust-code",) if trust_code else ()))
    checks += _answers(machine, bundle, devices, words, limit_s)
    checks.append(_recipe(machine, bundle, proof))
    return Section(title=TITLE, checks=tuple(checks))


def _files(bundle: Bundle) -> Check:
    size = sum(int(entry["size_bytes"]) for entry in bundle.files.values())
    created = str(bundle.provenance.get("created", "a day it does not say"))
    found = (
        f"`{bundle.path}`: {len(bundle.files)} files of {size / 2**20:,.1f} MiB are as listed, by size and sha256; "
        f"{bundle.model.get('provider')}/{bundle.model.get('name')} with {len(bundle.labels)} labels, of {created}"
    )
    return Check(name="Files", status="good", found=found, details={"path": str(bundle.path), "size_bytes": size})


def _answers(
    machine: Machine, bundle: Bundle, devices: Sequence[str], command: Sequence[str], limit_s: float
) -> list[Check]:
    """Return a check for each backend and device; a backend that cannot be used here is bad where no other can."""
    backends = [name for name in BACKENDS if load_backend(name).why_not(bundle) is None]
    backends = [name for name in backends if name in NEVER_AUTO] or backends
    # Torch's devices are not those of what runs graphs, which says itself what it takes where there is more than a CPU.
    of_graphs = ["cpu", "auto"] if accelerator_files(machine.root) else ["cpu"]
    checks: list[Check] = []
    unavailable: list[tuple[str, str]] = []
    for backend in backends:
        for device in of_graphs if backend in RUN_GRAPHS else dict.fromkeys(devices):
            words = (*command, str(bundle.path), "--backend", backend, "--device", device)
            heard = listen(words, environ=machine.environ, limit_s=limit_s)
            missing = first_event(heard, "unavailable")
            if missing is not None:
                unavailable.append((backend, str(missing.get("reason"))))
                break
            checks.append(judge_answers(f"Answers of {backend} on {device}", heard))
    for backend, reason in unavailable:
        status: Status = "note" if checks else "bad"
        fix = "" if checks else "install what it names, or a bundle's other backends"
        found = f"cannot be used here: {reason}"
        checks.append(Check(name=f"Answers of {backend}", status=status, found=found, why=_WHY, fix=fix))
    return checks


def judge_answers(name: str, heard: Heard) -> Check:
    """Return the check of what one child replayed: the same answers, others, or none."""
    replayed, refused = first_event(heard, "replayed"), first_event(heard, "refused")
    details: dict[str, Any] = {"end": heard.end, "how": heard.how, "said": heard.said}
    details |= {key: value for key, value in (replayed or refused or {}).items() if key != "linne"}
    if replayed is None:
        said = f", `{heard.said}`" if heard.said else ""
        found = f"none: the child ended without a word ({heard.how}{said})"
        fix = f"python -m {PROBE} --help shows how to try by hand"
        if refused is not None:
            found, fix = f"none: {refused.get('reason')}", str(refused.get("hint") or "use `--device cpu`")
        return Check(name=name, status="bad", found=found, why=_WHY, fix=fix, details=details)
    gap, tolerance = replayed.get("gap"), replayed.get("tolerance")
    limits = isinstance(gap, float) and isinstance(tolerance, float)
    if limits and gap <= tolerance:  # type: ignore[operator]  # both are numbers
        found = f"as when it was written, by {replayed.get('on')}: off by {gap:.2g} of the largest logit, "
        return Check(name=name, status="good", found=f"{found}{tolerance:g} allowed", why=_WHY, details=details)
    how_far = f"{gap:.2g} of the largest logit, {tolerance:g} allowed" if limits else "what is no number"
    return Check(
        name=name,
        status="bad",
        found=f"others than when it was written, by {replayed.get('on')}: off by {how_far}; "
        f"`{replayed.get('file')}` is `{replayed.get('answer')}` in place of `{replayed.get('expected')}`",
        why=_WHY,
        fix="update the driver and the backend, or use `--device cpu`; where the CPU differs too, train again",
        details=details,
    )


def _recipe(machine: Machine, bundle: Bundle, proof: Section) -> Check:
    """Return whether the device and the precision of the bundle's recipe can be computed with here."""
    name, recipe = "Recipe", bundle.provenance.get("recipe")
    asked = recipe.get("device") if isinstance(recipe, Mapping) else None
    device, dtype = (asked.get("name"), asked.get("precision")) if isinstance(asked, Mapping) else (None, None)
    if not isinstance(device, str) or not isinstance(dtype, str):
        return Check(name=name, status="note", found="it names no device and precision that it was trained with")
    proved = next((check for check in proof.checks if _is_of(check, device, dtype)), None)
    if proved is not None:
        verdict, text, fix = proved.details["verdict"], proved.found, proved.fix
    else:
        words = (*machine.child("linne.doctor.battery"), "--device", device, "--dtype", dtype, "--rate-seconds", "0")
        finding: Finding = judge(listen(words, environ=machine.environ, limit_s=_LIMIT_S), dtype)
        verdict, text, fix = finding.verdict, finding.text, finding.fix
    return Check(
        name=name,
        status=_RECIPE_STATUS[verdict],
        found=f"trained on {device} in {dtype}, which {'works here' if verdict == 'works' else f'here {text}'}",
        why="training it again with the same recipe needs that device and precision",
        fix="to train it again here, say `--device` and `--set device.precision`" if verdict == "absent" else fix,
        details={"device": device, "precision": dtype, "verdict": verdict},
    )


def _is_of(check: Check, device: str, dtype: str) -> bool:
    """Return whether the proof tried this very device and dtype, under whatever name."""
    names = [check.details.get(key) for key in ("device", "address", "torch_device")]
    return check.details.get("dtype") == dtype and (device in names or f"{device}:0" in names)
