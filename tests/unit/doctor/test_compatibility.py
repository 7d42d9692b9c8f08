"""The tables answer what vendors publish, and unknown beyond."""

from __future__ import annotations

import csv
import json
import re
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linne.doctor.compatibility import (
    arch_in_wheel,
    cuda_and_driver,
    directml_row,
    driver_release,
    products,
    rocm_and_driver,
    rocm_and_framework,
    torch_and_torchvision,
)

_DATA = files("linne.doctor").joinpath("data")


@pytest.mark.parametrize(
    ("name", "least"),
    [("rocm_frameworks.csv", 25), ("gfx_targets.csv", 25), ("torch_builds.csv", 12), ("torch_directml.csv", 8)],
)
def test_every_row_of_a_table_has_a_source_and_a_date(name: str, least: int) -> None:
    rows = list(csv.DictReader(_DATA.joinpath(name).read_text("utf-8").splitlines()))
    assert len(rows) >= least
    for row in rows:
        assert row["source"], row
        assert re.fullmatch(r"20\d\d-\d\d(-\d\d)?", row["source_date"]), row


@pytest.mark.parametrize("name", ["amdgpu_driver.json", "packages.json"])
def test_every_table_in_json_has_a_source_and_a_date(name: str) -> None:
    whole = json.loads(_DATA.joinpath(name).read_text("utf-8"))
    tables = [whole, *whole["module_versions"].values()] if name == "amdgpu_driver.json" else list(whole.values())
    for table in tables:
        assert table["source"], table
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", table["source_date"]), table


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
