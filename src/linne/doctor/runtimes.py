"""The inference runtimes and TensorFlow: which device really computes, each tried in a child of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from linne.child import Heard, first_event, listen
from linne.doctor.gpu import AMD, INTEL, NVIDIA, Gpu
from linne.doctor.report import Check, Section, Status
from linne.doctor.tiny_model import EXPECTED, is_right

if TYPE_CHECKING:
    from linne.doctor.machine import Machine

TITLE = "Inference runtimes"
_LIMIT_S = 60.0
_ELSE = "use another device, or install the libraries that this one needs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """A runtime, the child that tries it, and what to say of it."""

    name: str
    probe: str
    """The module of the child, which keeps to `linne.doctor.probe`."""
    why: str
    again: str
    """What installs it anew, where it cannot be imported."""
    absent: str | None = ""
    """What to say where it is not installed: empty, its name among others'; None, nothing."""
    install: str = ""
    """What installs it, where its absence is said alone."""
    uses: Mapping[str, str] = field(default_factory=dict)
    """The vendors whose GPU it would list, each with what to do where it does not."""
    without_devices: Status = "bad"
    """What it is worth where it lists no device at all."""
    system: str = ""
    """The one operating system that it is for; empty: any."""


RUNTIMES = (
    Runtime(
        name="ONNX Runtime",
        probe="linne.doctor.probe_onnx_runtime",
        why="ONNX Runtime lists what it was built with, and computes on the CPU in place of what does not load",
        again="pip uninstall onnxruntime onnxruntime-gpu\npip install onnxruntime",
        absent="not installed; PyTorch serves without it",
        install="pip install onnxruntime",
    ),
    Runtime(
        name="ONNX Runtime plugin",
        probe="linne.doctor.probe_onnx_plugins",
        why="a plugin registers on any machine, and computes only where it offers a device",
        again='pip install --upgrade "onnxruntime>=1.23"',
        absent=None,
    ),
    Runtime(
        name="Windows ML",
        probe="linne.doctor.probe_windows_ml",
        why="Windows keeps ONNX Runtime's providers for the hardware that it has, and updates them",
        again='pip install --force-reinstall "windowsml[with-ort]"',
        absent="not installed; it brings the provider for this machine's GPU or NPU to ONNX Runtime",
        install='pip install "windowsml[with-ort]"',
        without_devices="note",
        system="Windows",
    ),
    Runtime(
        name="OpenVINO",
        probe="linne.doctor.probe_openvino",
        why="a device that OpenVINO lists may still not compile a model",
        again="pip install --force-reinstall openvino",
        uses={INTEL: "sudo apt install intel-opencl-icd, or Intel's driver: https://docs.openvino.ai/"},
    ),
    Runtime(
        name="MIGraphX",
        probe="linne.doctor.probe_migraphx",
        why="a MIGraphX that is installed may still find no GPU, or another ROCm than it was built for",
        again="install it again with ROCm: https://rocm.docs.amd.com/projects/AMDMIGraphX",
    ),
    Runtime(
        name="TensorFlow",
        probe="linne.doctor.probe_tensorflow",
        why="TensorFlow computes on the CPU without a word where it finds no GPU, or no library for it",
        again="pip install --upgrade --force-reinstall tensorflow",
        uses={
            NVIDIA: 'pip install "tensorflow[and-cuda]"; on Windows, inside WSL',
            AMD: "https://rocm.docs.amd.com/projects/install-on-linux/en/latest/install/3rd-party/tensorflow-install.html",
        },
    ),
)
"""In the order of use. One probe and one row a runtime; what is said of a device is `judge`'s, the same for all."""


def runtimes_section(
    machine: Machine,
    gpus: Sequence[Gpu] = (),
    *,
    runtimes: Sequence[Runtime] = RUNTIMES,
    limit_s: float = _LIMIT_S,
) -> Section:
    """Return a check of each runtime that is installed and of each of its devices; `limit_s` is for one of them."""
    checks: list[Check] = []
    absent: list[str] = []
    for runtime in runtimes:
        if runtime.system not in ("", machine.system):
            continue
        command = machine.child(runtime.probe)
        heard = listen(command, environ=machine.environ, limit_s=limit_s)
        listed, missing = first_event(heard, "runtime"), first_event(heard, "missing")
        if listed is None and missing is not None:
            absent += _named(runtime, missing)
            checks += _absent(runtime)
            continue
        if listed is None:
            checks.append(_broken(runtime, heard))
            continue
        checks.append(_listed(runtime, machine, listed, gpus))
        for device in _texts(listed.get("devices")):
            # The child that listed the devices has tried its own one already.
            own = device == listed.get("own")
            words = (*command, "--device", device)
            tried = heard if own else listen(words, environ=machine.environ, limit_s=limit_s)
            checks.append(judge(runtime, device, tried, own=own))
    if absent:
        found = f"not installed, and not needed by linne: {', '.join(absent)}"
        checks.append(Check(name="Other runtimes", status="note", found=found))
    return Section(title=TITLE, checks=tuple(checks))


def judge(runtime: Runtime, device: str, heard: Heard, *, own: bool = False) -> Check:
    """Return the check of one device: it computes, leaves some to another, is replaced, fails or is wrong.

    One that does not run is `bad` where it is the runtime's own, which needs no accelerator; others may be listed
    without having been installed whole, which is no fault of the machine's.
    """
    opened = first_event(heard, "session")
    facts: dict[str, Any] = {"end": heard.end, "how": heard.how, "said": heard.said, **(opened or {})}
    facts.pop("linne", None)
    status: Status = "bad" if own else "warning"
    text, fix = "", runtime.again if own else _ELSE
    if opened is None:
        said = f", `{heard.said}`" if heard.said else ""
        text = f"does not open: the child ended without a word ({heard.how}{said})"
    else:
        computes, raised = _texts(opened.get("computes")), opened.get("raised")
        expected = opened.get("expected", list(EXPECTED))
        if opened.get("offers") == []:
            text = "registers, but offers no device on this machine"
            fix = "nothing to do where the machine has no hardware for it; else install that hardware's driver"
        elif not computes or opened.get("result") is None:
            wrote = f"; it wrote `{heard.said}`" if heard.said and heard.said not in str(raised) else ""
            text = f"does not run: `{raised}`{wrote}"
        elif not _is(device, computes[0]):
            text = f"does not load; {_short(computes[0])} computes in its place"
        elif not is_right(opened.get("result"), expected):
            status, text = "bad", f"computes wrong: {opened.get('result')}, not {_plainly(expected)}"
            fix = f"do not serve with it; update {runtime.name} and the driver"
        elif opened.get("strict") is False:
            text = f"loads, but leaves operations to the CPU: `{raised}`"
        else:
            precision = opened.get("precision")
            own_choice = f", in {precision} by its own choice" if precision in ("bf16", "f16") else ""
            status, text, fix = "good", f"computes, and right{own_choice}", ""
    name = f"{runtime.name}: {_short(device)}"
    return Check(name=name, status=status, found=text, why=runtime.why, fix=fix, details=facts)


def _listed(runtime: Runtime, machine: Machine, listed: Mapping[str, Any], gpus: Sequence[Gpu]) -> Check:
    """Return the check of the runtime itself, and whether it sees the GPU that it is for."""
    devices = _texts(listed.get("devices"))
    found, fix = str(listed.get("found")), str(listed.get("fix", ""))
    status: Status = "good" if devices else runtime.without_devices
    there = {gpu.vendor for gpu in gpus}
    unseen = next((vendor for vendor in runtime.uses if vendor in there), None)
    if unseen is not None and not any(device.startswith("GPU") for device in devices):
        found += f"; it does not see the GPU of {unseen}"
        fix = runtime.uses[unseen]
        # A processor of AMD's or Intel's often holds a small GPU that nobody means to compute on.
        meant = unseen == NVIDIA or (unseen == AMD and machine.exists("dev/kfd"))
        status = "warning" if meant else "note"
    facts = {key: value for key, value in listed.items() if key != "linne"}
    return Check(name=runtime.name, status=status, found=found, why=runtime.why, fix=fix, details=facts)


def _broken(runtime: Runtime, heard: Heard) -> Check:
    broken = first_event(heard, "broken")
    said = f", `{heard.said}`" if heard.said else ""
    found, fix = f"gives no answer when it is imported ({heard.how}{said})", runtime.again
    if broken is not None:
        found = f"cannot be imported: `{broken.get('reason')}`"
    elif "SIGILL" in heard.how or "AVX" in heard.said:
        fix = "it was compiled for newer processors than this one: use another machine, or a build for this one"
    facts = {"end": heard.end, "how": heard.how, "said": heard.said}
    return Check(name=runtime.name, status="bad", found=found, why=runtime.why, fix=fix, details=facts)


def _absent(runtime: Runtime) -> list[Check]:
    """Return the note on a runtime that is not installed and of use to linne."""
    if not runtime.absent:
        return []
    return [Check(name=runtime.name, status="note", found=runtime.absent, why=runtime.why, fix=runtime.install)]


def _named(runtime: Runtime, missing: Mapping[str, Any]) -> list[str]:
    """Return the name of a runtime that is not installed, to stand among others'."""
    if runtime.absent != "":
        return []
    reason = str(missing.get("reason"))
    return [f"{runtime.name} ({reason})" if "placeholder" in reason else runtime.name]


def _is(device: str, computes: str) -> bool:
    """Return whether who computed is who was asked: OpenVINO's `GPU` is `GPU.0`."""
    return computes == device or computes.startswith(f"{device}.")


def _short(device: str) -> str:
    return device.removesuffix("ExecutionProvider").removeprefix("onnxruntime_ep_")


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _plainly(expected: object) -> str:
    """Return numbers without a point where they are whole."""
    numbers = expected if isinstance(expected, list) else []
    return f"[{', '.join(f'{number:g}' for number in numbers if isinstance(number, float))}]"
