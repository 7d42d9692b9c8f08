"""A bundle under the doctor: its files, its answers here, and whether its recipe could be followed here."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import linne
from linne.bundle import write_bundle
from linne.canary import canary_images
from linne.child import Heard
from linne.doctor.machine import Machine
from linne.doctor.replay import bundle_section, judge_answers
from linne.doctor.report import Check, Section
from linne.inference.backends.null import null_weights, write_null_bundle
from linne.preprocess import InputSpec

LABELS = ("cat", "dog", "owl")
SPEC = InputSpec(channels=3, height=6, width=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), crop_pct=0.75)
ON_CPU = {"recipe": {"device": {"name": "cpu", "precision": "fp32"}}, "created": "2026-11-27T22:15:57+00:00"}


def proved(verdict="works", status="good", device="auto", torch_device="cpu", dtype="fp32"):
    """Return a proof's section with one device in it."""
    details = {"verdict": verdict, "device": device, "torch_device": torch_device, "dtype": dtype, "kind": "cpu"}
    return Section(title="Proof", checks=(Check(name="x", status=status, found=f"{verdict}: y", details=details),))


def examined(folder, devices=("auto",), quick=False, proof=None, **options):
    """Return the checks of a bundle by name."""
    machine = Machine(root=Path(folder).parent, path=(), environ=dict(os.environ), system="Linux")
    section = bundle_section(machine, folder, devices, quick, proof or proved(), **options)
    json.dumps([check.to_dict() for check in section.checks])
    return {check.name: check for check in section.checks}


def heard(*events, end="done", how="exit code 0", said=""):
    reports = tuple({"linne": name, **facts} for name, facts in events)
    return Heard(end=end, how=how, events=reports, said=said, seconds=1.0)


def test_a_bundle_that_answers_as_it_did_says_by_how_much_it_is_off(tmp_path):
    write_null_bundle(tmp_path / "b", LABELS, SPEC, provenance=ON_CPU)
    checks = examined(tmp_path / "b")
    assert {name: check.status for name, check in checks.items()} == {
        "Files": "good",
        "Answers of null on auto": "good",
        "Recipe": "good",
    }
    assert checks["Files"].found == (
        f"`{tmp_path / 'b'}`: 7 files of 0.0 MiB are as listed, by size and sha256; null/linear with 3 labels, of "
        "2026-11-27T22:15:57+00:00"
    )
    answers = checks["Answers of null on auto"]
    assert answers.found.startswith("as when it was written, by null (one linear layer, numpy): off by ")
    assert answers.found.endswith(" of the largest logit, 0.001 allowed")
    assert 0 <= answers.details["gap"] < 1e-6
    assert checks["Recipe"].found == "trained on cpu in fp32, which works here"


def test_a_bundle_whose_weights_are_another_models_is_bad_and_shows_an_answer(tmp_path):
    # Whole by its checksums: what is wrong shows only in its answers.
    settings = SPEC.to_dict()
    write_bundle(
        tmp_path / "b",
        labels=LABELS,
        input=SPEC,
        model={"provider": "null", "name": "linear", "num_classes": 3},
        weights=null_weights(3, SPEC, seed=1),
        config={"label_names": list(LABELS), "pretrained_cfg": {"mean": settings["mean"]}},
        canary_logits_NK=np.tile(np.array([[0.0, 0.0, 9.0]], np.float32), (len(canary_images(SPEC)), 1)),
        metrics={},
        provenance={},
    )
    checks = examined(tmp_path / "b", ("cpu", "auto", "cpu"))
    assert [name for name in checks if name.startswith("Answers")] == [
        "Answers of null on cpu",
        "Answers of null on auto",
    ]
    answers = checks["Answers of null on cpu"]
    assert answers.status == "bad"
    assert answers.found.startswith("others than when it was written, by null (one linear layer, numpy): off by 0.9")
    assert answers.found.endswith("in place of `owl`")
    assert answers.fix.startswith("update the driver and the backend")
    assert checks["Recipe"].status == "note"


@pytest.mark.parametrize("name", ["model.safetensors", "canaries/0.png", "config.json"])
def test_a_bundle_that_was_damaged_is_bad_and_nothing_of_it_is_run(tmp_path, name):
    write_null_bundle(tmp_path / "b", LABELS, SPEC)
    (tmp_path / "b" / name).write_bytes((tmp_path / "b" / name).read_bytes() + b"x")
    [check] = examined(tmp_path / "b", command=("nothing that may run",)).values()
    assert (check.name, check.status) == ("Files", "bad")
    assert f"`{name}` is too long" in check.found
    assert check.fix == "copy or download it again, or train again; nothing in it was used"


def test_a_folder_that_is_no_bundle_is_bad_and_says_what_to_give(tmp_path):
    [missing] = examined(tmp_path / "nowhere").values()
    assert missing.found == f"no bundle at `{tmp_path / 'nowhere'}`: there is no such folder"
    assert missing.fix == "give the folder that `linne train` names at its end"
    (tmp_path / "run").mkdir()
    [empty] = examined(tmp_path / "run").values()
    assert (empty.status, empty.fix) == ("bad", "`linne train` writes bundles")


def test_a_quick_look_checks_the_files_and_starts_nothing(tmp_path):
    write_null_bundle(tmp_path / "b", LABELS, SPEC)
    checks = examined(tmp_path / "b", quick=True, command=("nothing that may run",))
    assert {name: check.status for name, check in checks.items()} == {"Files": "good", "Answers": "note"}
    assert checks["Answers"].fix == f"linne doctor {tmp_path / 'b'}"


def test_a_network_without_any_backend_to_run_it_is_bad(tmp_path):
    write_null_bundle(tmp_path / "b", LABELS, SPEC)
    script = tmp_path / "probe.py"
    script.write_text('print(\'{"linne": "unavailable", "reason": "torch cannot be imported"}\')', "utf-8")
    checks = examined(tmp_path / "b", command=(sys.executable, str(script)))
    assert (checks["Answers of null"].status, checks["Answers of null"].found) == (
        "bad",
        "cannot be used here: torch cannot be imported",
    )


def test_a_child_that_crashes_refuses_or_answers_no_number_is_bad():
    crashed = judge_answers("x", heard(end="crashed", how="ended by SIGSEGV", said="Memory fault"))
    assert (crashed.status, crashed.found) == (
        "bad",
        "none: the child ended without a word (ended by SIGSEGV, `Memory fault`)",
    )
    refused = judge_answers("x", heard(("refused", {"reason": "device `cuda` cannot be used", "hint": None})))
    assert (refused.status, refused.found, refused.fix) == (
        "bad",
        "none: device `cuda` cannot be used",
        "use `--device cpu`",
    )
    for gap in (None, "0", [], True):
        facts = {"gap": gap, "tolerance": 1e-3, "on": "torch", "file": "c", "answer": "a", "expected": "b"}
        check = judge_answers("x", heard(("replayed", facts)))
        assert check.status == "bad"
        assert "off by what is no number" in check.found


@pytest.mark.parametrize(
    ("verdict", "status", "said"),
    [
        ("works", "good", "which works here"),
        ("absent", "note", "which here absent: y"),  # trained on a GPU, used on a CPU
        ("wrong", "bad", "which here wrong: y"),
        ("fails", "warning", "which here fails: y"),
        ("slow", "warning", "which here slow: y"),
    ],
)
def test_the_recipes_device_is_not_proved_twice(tmp_path, verdict, status, said):
    provenance = {"recipe": {"device": {"name": "cuda", "precision": "bf16"}}}
    write_null_bundle(tmp_path / "b", LABELS, SPEC, provenance=provenance)
    # Every `--device auto` has its torch device; a recipe says `cuda` or `cuda:0` of one and the same.
    recipe = examined(tmp_path / "b", proof=proved(verdict, torch_device="cuda:0", dtype="bf16"))["Recipe"]
    assert recipe.status == status
    assert recipe.found == f"trained on cuda in bf16, {said}"
    assert recipe.details == {"device": "cuda", "precision": "bf16", "verdict": verdict}


@pytest.mark.long
def test_a_recipes_device_that_was_not_proved_is_looked_for(tmp_path):
    pytest.importorskip("torch")
    provenance = {"recipe": {"device": {"name": "cuda:99", "precision": "fp32"}}}
    write_null_bundle(tmp_path / "b", LABELS, SPEC, provenance=provenance)
    recipe = examined(tmp_path / "b")["Recipe"]
    assert recipe.status == "note"
    assert recipe.found.startswith("trained on cuda:99 in fp32, which here absent: device `cuda:99` ")
    assert recipe.fix == "to train it again here, say `--device` and `--set device.precision`"


@pytest.mark.parametrize(
    "provenance", [{}, {"recipe": None}, {"recipe": []}, {"recipe": {"device": "cpu"}}, {"recipe": {"device": {}}}]
)
def test_a_bundle_without_a_recipe_is_a_note(tmp_path, provenance):
    write_null_bundle(tmp_path / "b", LABELS, SPEC, provenance=provenance)
    assert examined(tmp_path / "b", devices=())["Recipe"].status == "note"


@pytest.mark.slow
def test_a_bundle_that_was_just_trained_answers_by_torch_on_this_cpu(tmp_path):
    pytest.importorskip("torch")
    linne.train("digits", epochs=1, device="cpu", output=tmp_path / "run")
    checks = examined(tmp_path / "run" / "bundle", ("cpu",))
    assert {name: check.status for name, check in checks.items()} == {
        "Files": "good",
        "Answers of torch on cpu": "good",
        "Recipe": "good",
    }
    assert checks["Answers of torch on cpu"].details["gap"] < 1e-5
