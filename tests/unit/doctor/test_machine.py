"""The machine record: tools that misbehave are answers, never exceptions."""

import os
import stat

import pytest

from linne.doctor.machine import Machine, group_number

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the fake tools are shell scripts")


def _machine(folder, script):
    tool = folder / "tool"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return Machine(root=folder, path=(folder,), environ={"PATH": os.defpath}, system="Linux")


def test_a_tool_that_is_not_there_is_none(tmp_path):
    assert Machine(root=tmp_path, path=(tmp_path,)).run("tool") is None
    assert Machine(root=tmp_path, path=()).run("sh") is None


def test_a_tool_gives_its_exit_code_and_both_streams_whatever_their_bytes(tmp_path):
    ran = _machine(tmp_path, "printf 'a\\377b'; echo oops >&2; exit 255").run("tool")
    assert (ran.code, ran.stdout, ran.stderr) == (255, "a\N{REPLACEMENT CHARACTER}b", "oops\n")


def test_a_tool_that_hangs_is_stopped_with_what_it_started_and_keeps_what_it_said(tmp_path):
    ran = _machine(tmp_path, "echo first; sleep 60 & wait").run("tool", timeout_s=0.3)
    assert (ran.code, ran.stdout, ran.stderr) == (None, "first\n", "stopped after 0.3 s")


def test_a_tool_that_prints_without_end_is_stopped_at_four_mebibytes(tmp_path):
    ran = _machine(tmp_path, "exec yes").run("tool")
    assert ran.code is None
    assert len(ran.stdout) == 4 << 20
    assert ran.stderr == "stopped: printed more than 4 MiB"


def test_a_tool_that_cannot_start_says_why(tmp_path):
    machine = _machine(tmp_path, "")
    (tmp_path / "tool").write_bytes(b"\x7fELF no program")
    ran = machine.run("tool")
    assert ran.code is None
    assert ran.stderr.startswith("did not start: ")


def test_children_are_started_by_the_python_of_the_machine(tmp_path):
    assert Machine(root=tmp_path, python=("py", "-3")).child("linne.doctor.battery") == (
        *("py", "-3", "-m"),
        "linne.doctor.battery",
    )


def test_a_node_belongs_to_a_group_and_what_is_not_there_to_none(tmp_path):
    assert group_number(tmp_path) == tmp_path.stat().st_gid
    assert group_number(tmp_path / "missing") is None


def test_a_file_is_read_up_to_a_limit(tmp_path):
    (tmp_path / "long").write_text("abcdef")
    assert Machine(root=tmp_path).read_text("/long", 3) == "abc"


def test_files_that_cannot_be_read_are_none(tmp_path):
    machine = Machine(root=tmp_path)
    (tmp_path / "odd").write_bytes(b" \xff1\n")
    assert machine.read_text("/odd") == "\N{REPLACEMENT CHARACTER}1"
    assert machine.read_text("missing") is None
    assert machine.read_text("nul\0byte") is None
    assert machine.read_text("") is None
