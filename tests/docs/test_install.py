"""README, guide, Dockerfile, extras and the doctor's tables say the same of every kind of device."""

import csv
import re
import tomllib
from importlib.resources import files

import pytest

from linne.device import KINDS
from linne.doctor.compatibility import directml_row


@pytest.fixture(scope="module")
def guide(repository):
    return repository.joinpath("docs/guides/install.md").read_text("utf-8")


@pytest.fixture(scope="module")
def readme(repository):
    return repository.joinpath("README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def builds():
    table = files("linne.doctor").joinpath("data", "torch_builds.csv").read_text("utf-8")
    return list(csv.DictReader(table.splitlines()))


def kinds_in_table(text):
    """Return the devices that the rows of a page's table about hardware end with."""
    return re.findall(r"^\|.*\| `--device (\w+)` \|$", text, re.MULTILINE)


def test_readme_guide_and_table_name_the_kinds_of_device_that_there_are(readme, guide, builds):
    named = {"README": set(kinds_in_table(readme)), "guide": set(kinds_in_table(guide))}
    named["torch_builds.csv"] = {build["kind"] for build in builds}
    assert named == {place: set(KINDS) for place in named}
    assert len(kinds_in_table(readme)) == len(set(kinds_in_table(readme)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_device_has_an_installation_that_ends_with_the_doctor(guide, kind):
    assert kind in kinds_in_table(guide)
    assert re.search(rf"^linne doctor --device {kind}$", guide, re.MULTILINE)


def test_every_index_of_packages_in_the_docs_and_the_doctor_is_in_the_table(repository, builds):
    known = {build["index"] for build in builds}
    named = set()
    for path in ("README.md", "docs/guides/install.md", "docker/Dockerfile", "src/linne/doctor/packages.py"):
        text = repository.joinpath(path).read_text("utf-8")
        named |= set(re.findall(r"https://(?:download\.pytorch\.org|[\w.]*repo\.amd\.com)/[\w./-]*[\w/]", text))
    assert len(named) >= 5
    assert named <= known


def test_every_link_to_a_heading_leads_to_one(repository):
    broken, seen = [], 0
    for page in [repository / "README.md", *sorted((repository / "docs").rglob("*.md"))]:
        for target, heading in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", page.read_text("utf-8")):
            seen += 1
            other = page.parent / target if target else page
            if heading not in anchors(other.read_text("utf-8")):
                broken.append(f"{page.relative_to(repository)} -> {target}#{heading}")
    assert seen >= 10
    assert not broken


def anchors(text):
    """Return what headings are called in links: lower case, without marks, words joined by hyphens."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_directml_extra_pins_what_the_table_says_and_is_no_part_of_all(repository):
    extras = tomllib.loads(repository.joinpath("pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    pins = dict(re.fullmatch(r"([\w-]+)==([\w.]+)", item).groups() for item in extras["directml"] if "==" in item)
    row = directml_row(pins["torch-directml"])
    assert row is not None
    assert pins == {"torch-directml": row["torch_directml"], "torch": row["torch"], "torchvision": row["torchvision"]}
    assert not any("directml" in item for item in extras["all"])


def test_every_extra_is_in_the_guide(repository, guide):
    extras = tomllib.loads(repository.joinpath("pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert not [name for name in extras if f"| `{name}` |" not in guide]
