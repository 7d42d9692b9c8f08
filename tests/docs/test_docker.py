"""The Dockerfile, as far as it can be read without an engine; docs/guides/install.md says how it was tried."""

import csv
import re
import shutil
import subprocess
from importlib.resources import files

import pytest

from linne.doctor.compatibility import cuda_and_driver


@pytest.fixture(scope="module")
def steps(repository):
    """The instructions of the Dockerfile: a word and what follows it, with continued lines joined."""
    text = repository.joinpath("docker/Dockerfile").read_text("utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = [line.strip() for line in re.sub(r"\\\n", "", lines).splitlines() if line.strip()]
    return [tuple(line.split(maxsplit=1)) for line in found]


@pytest.fixture(scope="module")
def indexes(steps):
    """The index that torch comes from, by the accelerator of its stage."""
    found, stage = {}, ""
    for word, rest in steps:
        if word == "FROM":
            stage = rest.rpartition("AS system-")[2]
        elif word == "ARG" and rest.startswith("TORCH_INDEX="):
            found[stage] = rest.partition("=")[2]
    return found


def test_each_accelerator_takes_torch_from_an_index_that_the_table_has_for_linux(indexes):
    table = files("linne.doctor").joinpath("data", "torch_builds.csv").read_text("utf-8")
    rows = [row for row in csv.DictReader(table.splitlines()) if "Linux" in row["system"]]
    assert set(indexes) == {"cpu", "cuda", "rocm", "xpu"}
    for accelerator, index in indexes.items():
        assert index in {row["index"] for row in rows if row["kind"] == accelerator}


def test_the_doctor_knows_the_driver_that_the_cuda_image_needs(indexes):
    tag = re.search(r"/cu(\d+)(\d)$", indexes["cuda"])
    assert cuda_and_driver(f"{tag[1]}.{tag[2]}", "1.0").goes_with == (">=580",)


def test_the_guide_builds_and_checks_every_image(repository, indexes):
    guide = repository.joinpath("docs/guides/install.md").read_text("utf-8")
    built = set(re.findall(r"--build-arg ACCELERATOR=(\w+) -t linne:\1 \.", guide))
    assert built | {"cpu"} == set(indexes)
    assert "docker build -f docker/Dockerfile -t linne:cpu ." in guide
    assert not [name for name in built if not re.search(rf"linne:{name} doctor --device {name}$", guide, re.MULTILINE)]


def test_what_is_copied_exists_and_is_all_that_the_context_holds(repository, steps):
    copied = {source for word, rest in steps if word == "COPY" for source in rest.split()[:-1]}
    assert not [source for source in copied if not (repository / source).exists()]
    ignored = [line for line in repository.joinpath(".dockerignore").read_text("utf-8").splitlines() if line[:1] != "#"]
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_no_base_moves_to_another_release_by_itself(steps):
    bases = [rest.split()[0] for word, rest in steps if word == "FROM"]
    assert bases[-1] == "system-${ACCELERATOR}"
    assert not [base for base in bases[:-1] if not re.fullmatch(r"[a-z]+:(?!latest)[\w.-]+", base)]


def test_every_argument_is_used_and_every_variable_is_given_a_value(steps):
    given = {"PATH"}
    for word, rest in steps:
        if word == "ARG":
            given.add(rest.partition("=")[0])
        elif word == "ENV":
            given |= set(re.findall(r"(\w+)=", rest))
    used = set(re.findall(r"\$\{?([A-Z_]+)\b", " ".join(rest for word, rest in steps if word != "ARG")))
    arguments = {rest.partition("=")[0] for word, rest in steps if word == "ARG"}
    assert arguments <= used <= given


def test_the_image_runs_as_a_user_who_may_write_where_it_works(steps):
    last = dict(steps)  # the last of each
    assert last["USER"] not in ("root", "0")
    assert f"useradd --uid 10001 --create-home {last['USER']} " in last["RUN"]
    assert last["WORKDIR"] in re.search(r"chmod 1777 (.*)", last["RUN"])[1].split()


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no sh here to read the steps")
def test_every_step_is_a_shell_command_that_sh_can_read(steps):
    commands = [re.sub(r"^(--\S+\s+)+", "", rest) for word, rest in steps if word == "RUN"]
    assert len(commands) >= 5
    for command in commands:
        ended = subprocess.run(["sh", "-n", "-c", command], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
