"""The whole doctor: what it says of machines without its hardware, and through the command line."""

import json

import pytest

import linne
from linne.cli import cli
from linne.doctor import Machine, examine
from linne.inference.backends.null import write_null_bundle
from linne.preprocess import InputSpec


def run(capsys, *words):
    with pytest.raises(SystemExit) as left:
        cli.main(["doctor", *words])
    return left.value.code or 0, capsys.readouterr()


def test_a_quick_look_says_what_was_not_tried(capsys):
    code, said = run(capsys, "--quick")
    assert code in (0, 3), "3 where this very machine has something bad"
    for title in ("System", "Packages", "Accelerators", "Proof: computed and compared"):
        assert f"\n{title}\n" in f"\n{said.out}"
    assert "not tried, because of `--quick`" in said.out
    assert said.err == ""


def test_the_record_for_programs_has_every_check_with_its_status(capsys):
    code, said = run(capsys, "--quick", "--json")
    record = json.loads(said.out)
    assert record["format"] == 1
    assert record["linne"] == linne.__version__
    assert record["exit_code"] == code
    checks = [check for section in record["sections"] for check in section["checks"]]
    assert {"name", "status", "found", "why", "fix", "details"} == set(checks[0])
    assert {check["status"] for check in checks} <= {"good", "note", "warning", "bad", "unknown"}


def test_a_bundle_is_looked_at_as_well_and_a_damaged_one_ends_with_exit_code_3(capsys, tmp_path):
    bundle = write_null_bundle(
        tmp_path / "b", ("cat", "dog"), InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,))
    )
    _, said = run(capsys, "--quick", "--json", str(bundle.path))
    assert json.loads(said.out)["sections"][-1]["title"] == "Bundle"
    (bundle.path / "README.md").write_text("another", "utf-8")
    code, said = run(capsys, "--quick", str(bundle.path))
    assert code == 3
    assert "`README.md`" in said.out


def test_an_empty_machine_is_examined_without_an_error(tmp_path):
    machine = Machine(root=tmp_path, path=(), environ={}, system="Linux")
    report = examine(machine, quick=True)
    assert report.sections[0].title == "System"
    assert "none found" in report.to_text()


@pytest.mark.long
def test_a_device_that_is_not_there_is_bad_and_says_why():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has what the test needs to lack")
    report = examine(devices=("cuda",))
    proof = next(section for section in report.sections if section.title.startswith("Proof"))
    assert proof.checks[0].status == "bad"
    assert "absent" in proof.checks[0].found
    assert report.exit_code == 3


def test_the_doctor_imports_no_framework(python):
    code = "import sys, linne; linne.examine(quick=True); print(*{name.partition('.')[0] for name in sys.modules})"
    ended = python("-c", code)
    assert ended.returncode == 0, ended.stderr
    assert not {"torch", "torchvision", "timm", "transformers", "tensorflow"} & set(ended.stdout.split())
