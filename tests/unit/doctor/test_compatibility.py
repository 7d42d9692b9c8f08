"""The tables answer what vendors publish, and unknown beyond."""

from __future__ import annotations

import csv
import datetime
import json
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linne.doctor.compatibility import (
    arch_in_wheel,
    cuda_and_driver,
    directml_row,
    driver_release,
    newest_cuda_for,
    products,
    rocm_and_driver,
    rocm_and_framework,
    rocm_of_driver,
    torch_and_directml,
    torch_and_torchvision,
    torch_index,
)

_DATA = files("linne.doctor").joinpath("data")


_TABLES = sorted(file.name for file in _DATA.iterdir() if file.name.endswith((".csv", ".json")))
_CITES = re.compile(r"https?://|[\w.-]+/[\w.-]+(@[0-9a-f]{7}|#\d+)|PyPI|docs", re.IGNORECASE)
"""What somebody can look up: an address, a commit, an issue, an index, documentation."""


def claims(table: object, dated: Mapping[str, Any] | None = None) -> Iterator[tuple[object, Mapping[str, Any] | None]]:
    """Yield every value of a table with the nearest object around it that names a source."""
    if isinstance(table, dict):
        dated = table if "source" in table else dated
        for key, value in table.items():
            if key not in ("source", "source_date"):
                yield from claims(value, dated)
    elif isinstance(table, list):
        for value in table:
            yield from claims(value, dated)
    else:
        yield table, dated


@pytest.mark.parametrize("name", _TABLES)
def test_every_claim_of_every_table_has_a_source_that_can_be_looked_up_and_a_date(name: str) -> None:
    text = _DATA.joinpath(name).read_text("utf-8")
    table = json.loads(text) if name.endswith(".json") else list(csv.DictReader(text.splitlines()))
    found = list(claims(table))
    assert len(found) >= 4
    for value, dated in found:
        assert dated is not None, f"{value!r} has no source"
        assert _CITES.search(dated["source"]), f"nothing of {dated['source']!r} can be looked up"
        day = dated["source_date"]
        assert datetime.date.fromisoformat(day if len(day) > 7 else f"{day}-01").year >= 2024, day


def test_a_claim_without_a_source_is_seen() -> None:
    assert [dated for _, dated in claims({"a": {"source": "x", "b": [1]}, "c": 2})] == [{"source": "x", "b": [1]}, None]


@pytest.mark.parametrize(
    ("rocm", "driver", "verdict"),
    [
        ("7.2.0", "30.30.0", "yes"),
        ("7.2.3", "6.16.13.30300400-2341068.24.04", "yes"),  # the package's name
        ("7.1.1", "6.16.6", "yes"),  # the module's own number
        ("6.4.0", "6.12.12", "yes"),
        ("6.2.4", "6.10.5", "yes"),
        ("6.3", "30.30.2", "yes"),  # only the driver's own table holds it
        ("7.14.0", "30.30.2", "unknown"),  # newer than the table
        ("10.1.0", "30.30.2", "unknown"),
        ("7.2.0", "6.14.0-35-generic", "unknown"),  # the kernel's own driver
        ("7.2.0", "7.0.14-17-pve", "unknown"),
        ("7.1.1", "6.16.6-061606-generic", "unknown"),  # a kernel with the number of a module
        ("7.2.0", None, "unknown"),
        ("7.2.0", "", "unknown"),
        (None, "30.30.0", "unknown"),
        ("7", "30.30.0", "unknown"),
        ("N/A", "N/A", "unknown"),
        ("5.7.1", "30.10", "unknown"),  # no rule compares the two lines of numbers
    ],
)
def test_rocm_and_a_driver_as_the_machine_names_it(rocm: str | None, driver: str | None, verdict: str) -> None:
    answer = rocm_and_driver(rocm, driver)
    assert answer.verdict == verdict
    assert answer.reason
    assert answer.source
    assert answer.source_date


@pytest.mark.parametrize(
    ("rocm", "driver", "verdict"),
    [
        ("6.0.2", "6.2.4", "yes"),
        ("5.7.1", "5.5", "yes"),
        ("6.3.0", "5.7.0", "no"),  # four releases apart
        ("5.3", "6.2", "no"),
        ("6.4.0", "5.7.0", "unknown"),  # since 6.4 the rule is a year, and the table has no dates of releases
    ],
)
def test_rocm_and_a_driver_by_its_release(rocm: str, driver: str, verdict: str) -> None:
    assert rocm_and_driver(rocm, driver, is_release=True).verdict == verdict


def test_a_module_number_that_looks_like_a_release_is_not_taken_for_one() -> None:
    # 6.2.4 is the module of ROCm 5.7's driver; read as release 6.2.4 it would pass with ROCm 6.4.
    assert driver_release("6.2.4") is None
    assert rocm_and_driver("6.4.0", "6.2.4").verdict == "unknown"


@pytest.mark.parametrize(
    ("rocm", "framework", "version", "verdict"),
    [
        ("7.2.3", "torch", "2.9.1", "yes"),
        ("7.2.2", "torch", "2.8.0", "yes"),  # a row of two releases
        ("7.0", "torch", "2.6.0+rocm7.0", "yes"),  # all rows of 7.0
        ("7.2.53210-364a905cc", "torch", "2.9.1", "yes"),  # as HIP says it
        ("7.2.0", "torch", "2.15.0", "unknown"),  # newer than the row
        ("7.2.0", "torch", "2.4.1", "no"),
        ("6.4.3", "tensorflow", "2.17.1", "yes"),
        ("7.1.1", "migraphx", "2.14.0", "yes"),
        ("7.1.1", "migraphx", "2.12.0", "no"),
        ("7.2.0", "onnxruntime", "1.23.2", "yes"),
        ("5.7.1", "torch", "2.0.1", "yes"),
        ("5.7.1", "jax", "0.4.0", "unknown"),  # the older table has no column for it
        ("7.14.0", "torch", "2.12.0", "unknown"),
        ("4.5.0", "torch", "1.10.0", "unknown"),
        ("7.2.0", "verl", "1.0", "unknown"),
        (None, "torch", "2.9.1", "unknown"),
        ("7.2.0", "torch", "unknown", "unknown"),
    ],
)
def test_rocm_and_a_framework(rocm: str | None, framework: str, version: str, verdict: str) -> None:
    assert rocm_and_framework(rocm, framework, version).verdict == verdict


def test_an_answer_names_what_goes_together_and_where_it_is_written() -> None:
    answer = rocm_and_framework("7.2.0", "torch", "2.4.1")
    assert answer.goes_with == ("2.9.1", "2.8.0", "2.7.1")
    assert answer.source_date == "2026-01-21"
    assert answer.reason == "AMD does not list torch 2.4.1 with ROCm 7.2.0"
    assert rocm_and_framework("10.2.0", "torch", "2.12").reason == "ROCm 10.2.0 is newer than the table"


@pytest.mark.parametrize(
    ("arch", "listed", "verdict"),
    [
        ("gfx90a:sramecc+:xnack-", ["gfx908", "gfx90a"], "yes"),
        ("gfx1103", ["gfx1100", "gfx1101", "gfx1102"], "no"),
        ("gfx1103", ["gfx11-generic"], "yes"),
        ("gfx1200", ["gfx11-generic"], "no"),
        ("sm_89", ["sm_75", "sm_80", "sm_86", "sm_90"], "yes"),  # 8.6 runs on 8.9
        ("sm_61", ["sm_75", "sm_80"], "no"),
        ("sm_120", ["sm_80", "sm_90", "compute_90"], "yes"),  # through PTX
        ("sm_120", ["sm_80", "sm_90"], "no"),
        ("sm_100", ["sm_90a"], "no"),
        ("sm_90", ["sm_90a"], "yes"),
        ("sm_86", ["sm_89"], "no"),
        ("gfx90a", ["sm_90"], "no"),
        ("gfx90a", [], "unknown"),
        (None, ["sm_90"], "unknown"),
        ("apple-m3", ["sm_90"], "unknown"),
    ],
)
def test_a_gpu_and_the_list_of_a_wheel(arch: str | None, listed: list[str], verdict: str) -> None:
    assert arch_in_wheel(arch, listed).verdict == verdict


def test_an_architecture_is_named_with_its_products() -> None:
    assert "MI300X" in products("gfx942")
    assert products("gfx1") == ""
    assert arch_in_wheel("gfx1103", ["gfx1100"]).reason.startswith("the wheel has no code for gfx1103 (AMD Ryzen")


@pytest.mark.parametrize(
    ("cuda", "driver", "verdict"),
    [
        ("13.2", "580.65.06", "yes"),
        ("13.2", "575.57.08", "no"),
        ("12.8", "525.60.13", "yes"),
        ("11.8", "418.87", "no"),
        ("99.0", "580.0", "unknown"),
        (None, "580.0", "unknown"),
        ("12.8", None, "unknown"),
    ],
)
def test_cuda_and_the_nvidia_driver(cuda: str | None, driver: str | None, verdict: str) -> None:
    assert cuda_and_driver(cuda, driver).verdict == verdict


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [("580.95", "13"), ("575.57", "12"), ("525.60", "12"), ("470.1", "11"), ("390.1", ""), (None, "")],
)
def test_the_newest_cuda_that_a_driver_runs(driver: str | None, cuda: str) -> None:
    assert newest_cuda_for(driver) == cuda


@pytest.mark.parametrize(
    ("kind", "system", "word", "index"),
    [
        ("cpu", "Linux", "", "https://download.pytorch.org/whl/cpu"),
        ("cpu", "macOS", "", "PyPI"),
        ("cuda", "Linux", "", "PyPI"),
        ("cuda", "Windows", "cu12", "https://download.pytorch.org/whl/cu126"),
        ("rocm", "Windows", "amd.com", "https://stable.repo.amd.com/rocm/whl-next/"),
        ("rocm", "macOS", "", None),
        ("tpu", "Linux", "", None),
    ],
)
def test_where_the_builds_of_torch_are(kind: str, system: str, word: str, index: str | None) -> None:
    assert torch_index(kind, system, word) == index


def test_every_index_that_has_code_for_a_gpu_of_amd_is_among_the_builds() -> None:
    table = json.loads(_DATA.joinpath("installing.json").read_text("utf-8"))["pytorch_rocm"]["gfx_by_index"]
    assert {name: bool(torch_index("rocm", "Linux", name)) for name in table} == dict.fromkeys(table, True)
    assert {gfx for targets in table.values() for gfx in targets if not products(gfx)} == set()


def test_what_goes_with_a_driver_of_amd() -> None:
    assert rocm_of_driver("6.12.12") == ("6.1", "6.2", "6.3", "6.4", "7.0")
    assert rocm_of_driver("6.8.0-60-generic") == ()
    assert rocm_of_driver(None) == ()


@pytest.mark.parametrize(
    ("torch", "directml", "verdict"),
    [
        ("2.4.1+cpu", "0.2.5.dev240914", "yes"),
        ("2.4.0", "0.2.5.dev240914", "no"),
        (None, "0.2.5.dev240914", "no"),
        ("2.4.1", "9", "unknown"),
    ],
)
def test_torch_and_directml(torch: str | None, directml: str, verdict: str) -> None:
    answer = torch_and_directml(torch, directml)
    assert (answer.verdict, answer.source_date) == (verdict, "2026-11-21")


@pytest.mark.parametrize(
    ("torch", "torchvision", "verdict"),
    [
        ("2.4.1", "0.19.1", "yes"),
        ("2.8.0+cpu", "0.23.0+cpu", "yes"),
        ("2.8.0", "0.22.1", "no"),
        ("2.10.0", "0.25.0", "yes"),
        ("2.15.0+cu132", "0.29.2+cu132", "yes"),
        ("2.99.0", "0.29.2", "unknown"),
        ("2.8.0", None, "unknown"),
    ],
)
def test_torch_and_torchvision(torch: str, torchvision: str | None, verdict: str) -> None:
    assert torch_and_torchvision(torch, torchvision).verdict == verdict


def test_the_plugin_of_directml_goes_with_one_torch() -> None:
    row = directml_row("0.2.5.dev240914")
    assert row is not None
    assert (row["torch"], row["torchvision"], row["pythons"]) == ("2.4.1", "0.19.1", "3.8 to 3.12")
    assert directml_row("0.2.5") is None


_VERSIONS = st.one_of(st.none(), st.text(max_size=20), st.from_regex(r"[0-9]{0,9}(\.[0-9x]{0,9}){0,4}[-+a-z0-9.]{0,9}"))


@settings(max_examples=200, deadline=None)
@given(first=_VERSIONS, second=_VERSIONS)
def test_no_text_for_a_version_raises(first: str | None, second: str | None) -> None:
    answers = [
        rocm_and_driver(first, second),
        rocm_and_driver(first, second, is_release=True),
        rocm_and_framework(first, "torch", second),
        cuda_and_driver(first, second),
        torch_and_torchvision(first, second),
        arch_in_wheel(first, [second or ""]),
    ]
    assert {answer.verdict for answer in answers} <= {"yes", "no", "unknown"}
    assert all(answer.reason for answer in answers)
