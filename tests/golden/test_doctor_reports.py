"""The doctor's reports on whole machines, as they are read: they change only with a reason."""

import os
from pathlib import Path

import pytest
from machines import MACHINES, report
from machines.children import OPERATIONS

GOLDEN = Path(__file__).parent / "doctor"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the programs of these machines are shell scripts")


@pytest.mark.parametrize("name", MACHINES)
def test_the_report_reads_as_it_was_approved(name, tmp_path):
    approved = (GOLDEN / f"{name}.txt").read_text("utf-8")
    assert report(name, tmp_path) == approved, (
        "read the difference as a stranger would; where it is meant: scripts/write_doctor_reports"
    )


def test_every_golden_report_has_its_machine():
    assert {file.stem for file in GOLDEN.iterdir()} == set(MACHINES)


def test_every_machine_is_told_apart_by_its_title():
    assert len({spec.title for spec in MACHINES.values()}) == len(MACHINES)


def test_the_machines_report_the_operations_that_the_battery_computes():
    battery = pytest.importorskip("linne.doctor.battery", reason="the battery needs torch")
    assert ("copy both ways", *battery.OPERATIONS) == OPERATIONS
