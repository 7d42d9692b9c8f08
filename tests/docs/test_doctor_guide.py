"""What the guide shows of the doctor's reports is what the reports say."""

import re

import pytest


@pytest.fixture(scope="module")
def excerpts(repository):
    """The shown parts of reports, by the report that each says it is from."""
    guide = repository.joinpath("docs/guides/doctor.md").read_text("utf-8")
    return re.findall(r"^<!-- from (\S+) -->\n```console\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)


def test_the_guide_shows_three_reports_and_no_other(excerpts, repository):
    guide = repository.joinpath("docs/guides/doctor.md").read_text("utf-8")
    assert len(excerpts) == guide.count("```console") == 3


def test_every_excerpt_stands_in_its_report_word_for_word_and_in_order(excerpts, repository):
    for name, shown in excerpts:
        report, at = repository.joinpath(name).read_text("utf-8"), 0
        for part in re.split(r"^\.\.\.\n", shown, flags=re.MULTILINE):
            found = report.find(part, at)
            assert found >= 0, f"{name} does not say:\n{part}"
            assert found == 0 or report[found - 1] == "\n", "from the start of a line"
            at = found + len(part)
