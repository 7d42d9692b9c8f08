"""Two thousand damaged copies of every capture: whatever a parser is given, it raises nothing and makes nothing up."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from machines import amd, nvidia, others
from machines.children import PROBES
from test_tools import FACTS

from linne.child import Heard, events_in
from linne.doctor.gpu import Gpu
from linne.doctor.proof import judge
from linne.doctor.runtimes import RUNTIMES
from linne.doctor.runtimes import judge as judge_runtime
from linne.doctor.sysfs import as_int, as_size, kfd_gpu, properties
from linne.doctor.tools import nvidia_smi, system_profiler, windows_adapters, xpu_smi

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
ROUNDS = 2000
LONGEST = 4000
"""Of a text that is damaged: a whole record and more of every capture."""
ODD = (
    *("{", "}", "[", "]", '"', "N/A", "-1", "null", "1e999", ":", "²", "0x", "nan", " ", "\n", "\0", "\x1b[31m"),
    *("9" * 400, "[" * 300, chr(0xD800), '{"linne": "end"}'),
)


def topology(text: str) -> tuple[Gpu, ...]:
    """Return the GPUs of a whole captured topology, all its files in one text."""
    nodes = re.split(r"^== .*nodes/\d+/properties\n", text, flags=re.MULTILINE)
    found = (kfd_gpu(properties(node), [properties(node)], "capture") for node in nodes)
    return tuple(gpu for gpu in found if gpu)


def proved(text: str) -> None:
    """Judge what a battery would have said, however it ended."""
    for end in ("done", "crashed"):
        finding = judge(Heard(end=end, how="so", events=events_in(text), said="", seconds=1), "fp32")  # type: ignore[arg-type]
        assert finding.verdict in ("works", "slow", "wrong", "fails", "absent", "unknown")


def tried(text: str) -> None:
    """Judge what a runtime's probe would have said."""
    check = judge_runtime(RUNTIMES[0], "CUDA", Heard(end="done", how="so", events=events_in(text), said="", seconds=1))
    assert check.status in ("good", "warning", "bad")


def sysfs(text: str) -> tuple[Gpu, ...]:
    """Return a GPU of the values that a device's folder holds."""
    values = dict(re.findall(r"^== (\S+)\n(.*)", text, re.MULTILINE))
    device, size = as_int(values.get("device")), as_size(values.get("mem_info_vram_total"))
    return (Gpu(vendor="AMD", device=device, memory_bytes=size),)


def case(name: str) -> tuple[str, Callable[[str], object]]:
    parsers = {"kfd": topology, "sysfs": sysfs}
    return (CAPTURES / name).read_text("utf-8"), parsers.get(name.partition("_")[0], events_in)


CASES: Mapping[str, tuple[str, Callable[[str], object]]] = {
    **{name: ((CAPTURES / name).read_text("utf-8"), parse) for name, (parse, _, _) in FACTS.items()},
    **{
        file.name: case(file.name)
        for file in CAPTURES.iterdir()
        if file.name not in FACTS and file.name != "SOURCES.md"
    },
    "nvidia-smi": (nvidia.OLD_DRIVER.tools["nvidia-smi"][nvidia.ASKED].stdout, nvidia_smi),
    "xpu-smi": (others.INTEL_ARC.tools["xpu-smi"]["discovery -j"].stdout, xpu_smi),
    "system_profiler": (others.MAC_SMI, system_profiler),
    "powershell.exe": (others.DIRECTML.tools["powershell.exe"][others.ASKED].stdout, windows_adapters),
    "the battery": (amd.MI210_PAIR.children["-m linne.doctor.battery --device auto --dtype bf16"].stdout, proved),
    "a runtime": (nvidia.H200_GOOD.children[f"{PROBES} --device CUDAExecutionProvider"].stdout, tried),
}


def damaged(text: str, chance: random.Random) -> str:
    """Return a part of a text with one to six wounds: odd characters, holes, repeated parts, an early end."""
    start = chance.choice((0, chance.randrange(max(len(text) - LONGEST, 1))))
    text = text[start : start + LONGEST]
    for _ in range(chance.randint(1, 6)):
        at, length = chance.randrange(len(text) + 1), chance.choice((0, 1, 8, 200))
        match chance.randrange(8):
            case 0:
                text = text[:at]
            case 1:
                text = text[: at + length] + text[at:]
            case _:
                text = text[:at] + chance.choice(ODD) + text[at + length :]
    return text


@pytest.mark.parametrize("name", CASES)
def test_two_thousand_damaged_copies_of_a_capture_raise_nothing(name: str) -> None:
    text, parse = CASES[name]
    chance = random.Random(zlib.crc32(name.encode()))
    for _ in range(ROUNDS):
        for gpu in (found for found in parse(damaged(text, chance)) or () if isinstance(found, Gpu)):  # type: ignore[attr-defined]
            assert gpu.memory_bytes is None or 0 < gpu.memory_bytes < 2**63
            assert gpu.name is None or gpu.name.isprintable()
            assert gpu.arch is None or re.fullmatch(r"gfx[0-9a-f]{3,6}|sm_\d{2,3}", gpu.arch)


@pytest.mark.parametrize("name", sorted(name for name in CASES if name.startswith("kfd_")))
def test_a_topology_cut_short_says_nothing_that_the_whole_does_not(name: str) -> None:
    text = CASES[name][0]
    whole = {(gpu.arch, gpu.bus_id) for gpu in topology(text)} | {(None, None)}
    for part in range(20):
        # A file of the kernel's is read whole or not at all: it may miss lines, and not parts of them.
        cut = text[: len(text) * part // 20].rpartition("\n")[0]
        for gpu in topology(cut):
            assert gpu.arch in {arch for arch, _ in whole}
            assert gpu.bus_id in {bus_id for _, bus_id in whole} | {"0000:00:00.0"}


NOISE = sorted(file.name for file in CAPTURES.glob("ort_*")) + sorted(file.name for file in CAPTURES.glob("torch_*"))


@pytest.mark.parametrize("name", NOISE)
def test_reports_are_heard_among_what_libraries_print(name: str) -> None:
    reports = amd.MI210_PAIR.children["-m linne.doctor.battery --device auto --dtype bf16"].stdout.splitlines()
    noise = (CAPTURES / name).read_text("utf-8").splitlines()
    assert events_in("\n".join(noise)) == ()
    heard = events_in("\n".join(reports))
    beside = [(noise[i % len(noise)], report) for i, report in enumerate(reports)]
    assert events_in("\n".join(f"{printed}\n{report}" for printed, report in beside)) == heard
    # Without the end of its line, noise stands before a report.
    assert events_in("\n".join(f"{printed}{report}" for printed, report in beside)) == heard
