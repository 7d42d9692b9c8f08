"""The doctor's report: its record is stable and its text is readable."""

from __future__ import annotations

import json

import pytest

from linne.doctor.report import Check, DoctorReport, Section, Status


def _report(*statuses: Status) -> DoctorReport:
    checks = tuple(Check(name=f"check {i}", status=status, found="something") for i, status in enumerate(statuses))
    return DoctorReport(
        sections=(Section(title="Things", checks=checks),), version="1.2.3", created="2026-11-21T10:00:00Z"
    )


@pytest.mark.parametrize(
    ("statuses", "worst", "code"),
    [
        ((), "good", 0),
        (("good", "good"), "good", 0),
        (("good", "note"), "note", 0),
        (("note", "unknown"), "unknown", 0),
        (("unknown", "warning", "good"), "warning", 0),
        (("warning", "bad", "unknown"), "bad", 3),
    ],
)
def test_only_something_bad_makes_the_exit_code_three(statuses: tuple[Status, ...], worst: Status, code: int) -> None:
    report = _report(*statuses)
    assert (report.worst, report.exit_code) == (worst, code)


def test_the_record_has_the_documented_keys_and_is_json() -> None:
    check = Check(name="Memory", status="warning", found="1 GiB", why="w", fix="f", details={"bytes": 2**30})
    section = Section(title="System", checks=(check,))
    report = DoctorReport(sections=(section,), version="1.2.3", created="2026-11-21T10:00:00Z")
    assert json.loads(json.dumps(report.to_dict())) == {
        "format": 1,
        "linne": "1.2.3",
        "created": "2026-11-21T10:00:00Z",
        "worst": "warning",
        "exit_code": 0,
        "sections": [
            {
                "title": "System",
                "checks": [
                    {
                        "name": "Memory",
                        "status": "warning",
                        "found": "1 GiB",
                        "why": "w",
                        "fix": "f",
                        "details": {"bytes": 2**30},
                    }
                ],
            }
        ],
    }


def test_the_text_is_aligned_with_each_fix_under_its_check() -> None:
    checks = (
        Check(name="Memory", status="good", found="8 GiB", why="not shown where all is well"),
        Check(
            name="Open files",
            status="warning",
            found="64 allowed",
            why="each worker needs some",
            fix="ulimit -n 4096\nexit",
        ),
    )
    report = DoctorReport(sections=(Section(title="System", checks=checks),), version="1", created="now")
    assert report.to_text() == (
        "System\n"
        "------\n"
        "good     Memory      8 GiB\n"
        "warning  Open files  64 allowed\n"
        "         why: each worker needs some\n"
        "         fix: ulimit -n 4096\n"
        "              exit\n"
        "\n"
        "2 checks: 1 warning, 1 good. nothing is broken for certain; the warnings are worth a look.\n"
    )


def test_what_to_type_is_a_tip_where_nothing_is_wrong() -> None:
    check = Check(name="x", status="note", found="works", why="not shown", fix="pip install y")
    text = DoctorReport(sections=(Section(title="T", checks=(check,)),), version="1", created="now").to_text()
    assert "note     x  works\n         tip: pip install y\n" in text


def test_long_findings_are_wrapped_and_commands_are_not() -> None:
    command = "pip install --index-url https://example.org/whl " + " ".join(["torch"] * 40)
    check = Check(name="x", status="bad", found="many words " * 30, fix=command)
    lines = (
        DoctorReport(sections=(Section(title="T", checks=(check,)),), version="1", created="now").to_text().splitlines()
    )
    assert all(len(line) <= 100 for line in lines if "fix:" not in line)
    assert f"         fix: {command}" in lines
    assert lines[3].startswith(" " * 12 + "many"), "later lines begin under the first"


def test_a_report_of_nothing_still_reads() -> None:
    assert _report().to_text() == "Things\n------\n\n0 checks: none. nothing wrong was found.\n"
