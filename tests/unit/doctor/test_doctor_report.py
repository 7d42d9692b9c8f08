"""The doctor's report: its record is stable and its text is readable."""

from __future__ import annotations

import json

import pytest

from linne.doctor.report import Check, DoctorReport, Section, Status, Summary


def _report(*statuses: Status) -> DoctorReport:
    return _of(*(Check(name=f"check {i}", status=status, found="something") for i, status in enumerate(statuses)))


def _of(*checks: Check, title: str = "Things", first: Check | None = None) -> DoctorReport:
    sections, summary = (Section(title=title, checks=checks),), Summary(state="It trains.", first=first)
    return DoctorReport(sections=sections, summary=summary, version="1.2.3", created="2026-11-21T10:00:00Z")


END = "\n\nSummary\n-------\nIt trains.\n\n"


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
    report = _of(check, title="System", first=check)
    assert json.loads(json.dumps(report.to_dict())) == {
        "format": 1,
        "linne": "1.2.3",
        "created": "2026-11-21T10:00:00Z",
        "worst": "warning",
        "exit_code": 0,
        "summary": {"state": "It trains.", "first": "Memory"},
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
    assert _of(*checks, title="System").to_text() == (
        "System\n"
        "------\n"
        "good     Memory      8 GiB\n"
        "warning  Open files  64 allowed\n"
        "         why: each worker needs some\n"
        "         fix: ulimit -n 4096\n"
        "              exit" + END + "2 checks: 1 warning, 1 good\n"
    )


def test_what_to_type_is_a_tip_where_nothing_is_wrong() -> None:
    check = Check(name="x", status="note", found="works", why="not shown", fix="pip install y")
    assert "note     x  works\n         tip: pip install y\n" in _of(check).to_text()


def test_long_findings_are_wrapped_and_commands_are_not() -> None:
    command = "pip install --index-url https://example.org/whl " + " ".join(["torch"] * 40)
    lines = _of(Check(name="x", status="bad", found="many words " * 30, fix=command)).to_text().splitlines()
    assert all(len(line) <= 100 for line in lines if "fix:" not in line)
    assert f"         fix: {command}" in lines
    assert lines[3].startswith(" " * 12 + "many"), "later lines begin under the first"


def test_what_stands_above_is_not_said_again() -> None:
    crash = {"status": "bad", "found": "crashes", "why": "it ends", "fix": "update"}
    other = {"status": "bad", "found": "hangs", "why": "it ends", "fix": "update"}
    checks = [Check(name=name, **facts) for name, facts in (("a", crash), ("b", crash), ("c", other))]  # type: ignore[arg-type]
    assert (
        _of(*checks)
        .to_text()
        .startswith(
            "Things\n------\n"
            "bad      a  crashes\n         why: it ends\n         fix: update\n"
            "bad      b  the same\n"
            "bad      c  hangs\n\n"
        )
    )


def test_good_news_is_said_as_often_as_there_is_some() -> None:
    checks = [Check(name=name, status="good", found="works", fix="pip list") for name in "ab"]
    assert _of(*checks).to_text().count("works\n         tip: pip list\n") == 2


def test_the_summary_ends_with_the_one_thing_to_do_first() -> None:
    fix = "sudo ubuntu-drivers install\nsudo reboot"
    check = Check(name="NVIDIA driver", status="bad", found="not loaded; much more of it", fix=fix)
    assert (
        _of(check, first=check)
        .to_text()
        .endswith(
            "Summary\n-------\nIt trains.\nFirst, `NVIDIA driver`: not loaded\n"
            "    sudo ubuntu-drivers install\n    sudo reboot\nThen run `linne doctor` again.\n\n1 checks: 1 bad\n"
        )
    )


def test_a_report_of_nothing_still_reads() -> None:
    assert _report().to_text() == f"Things\n------{END}0 checks: none\n"
