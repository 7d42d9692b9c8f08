"""What `linne train` refuses before it makes anything, and how it says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import linne
from linne.errors import LinneError, RecipeError

SYNTHETIC = "synthetic:classes=3,size=12,count=120"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ({"model": "smal"}, "no model `smal`", "did you mean `small`?"),
        ({"overrides": {"optim.lrr": 1}}, "no recipe field `optim.lrr`", "did you mean `optim.lr`?"),
        ({"overrides": {"optim.lr": "fast"}}, "optim.lr is `fast`, expected a number", None),
        ({"lr": 0.1, "overrides": {"optim.lr": 0.2}}, "optim.lr is given twice: as 0.1 and as 0.2", None),
        ({"epochs": 0}, "optim.epochs is 0, expected 1 or more", None),
        ({"device": "cuda:7"}, "device `cuda:7`", None),
        ({"device": "gpu"}, "no device `gpu`", None),
        ({"recipe": "quik"}, "no recipe `quik`", "did you mean `quick`?"),
        ({"recipe": "gone.py:fn"}, "no recipe file `gone.py`", None),
        ({"recipe": "gone.py"}, "`gone.py` names a file and no function in it", "use gone.py:FUNCTION"),
        ({"batch_size": 0}, "data.batch_size is 0, expected 1 or more", None),
        ({"batch_size": -3, "model": "mlp"}, "data.batch_size is -3, expected 1 or more", None),
        ({"seed": 2**64}, "seed is 18446744073709551616, expected 0 to", None),
        ({"overrides": {"data.height": "99999999"}}, "data.height is 99999999, expected 1 to 8192", None),
        ({"overrides": {"data.source": "digits"}}, "data.source is given twice", None),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_made(arguments, message, hint):
    with pytest.raises(LinneError) as caught:
        linne.train(SYNTHETIC, quiet=True, **arguments)
    assert message in caught.value.message
    if hint:
        assert caught.value.hint == hint
    assert not Path("runs").exists()


def test_a_fault_in_the_users_recipe_is_called_theirs():
    Path("mine.py").write_text("def bad():\n    return 1 / 0\n")
    with pytest.raises(RecipeError, match=r"recipe `mine.py:bad` failed: ZeroDivisionError"):
        linne.train(SYNTHETIC, recipe="mine.py:bad", quiet=True)
    Path("mine.py").write_text("def bad(:\n")
    with pytest.raises(RecipeError, match=r"the recipe file `mine.py` cannot be run: SyntaxError"):
        linne.train(SYNTHETIC, recipe="mine.py:bad", quiet=True)


def test_no_source_is_an_error_that_says_what_to_type():
    with pytest.raises(RecipeError, match="no source to learn from") as caught:
        linne.train(quiet=True)
    assert "linne train digits" in caught.value.hint


def test_a_batch_of_one_image_that_a_network_cannot_learn_from_is_refused_with_what_to_type():
    with pytest.raises(RecipeError, match="`small` cannot learn from a batch of one image") as caught:
        linne.train("synthetic:classes=2,size=8,count=60", batch_size=1, output="run", quiet=True)
    assert caught.value.hint == "use --batch-size 2 or more"
    assert not Path("run").exists()


@pytest.mark.parametrize("package", ["torch", "matplotlib"])
def test_a_missing_package_is_named_with_the_command_that_installs_it_before_anything_is_made(package):
    program = f"import sys; sys.modules[{package!r}] = None; from linne.cli import main; main(['train', 'digits'])"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert child.returncode == 1
    assert f"error: training needs `{package}`, which is not installed" in child.stderr
    assert "hint: pip install 'linne[train]'" in child.stderr
    assert not Path("runs").exists()


@pytest.mark.long
def test_a_label_that_the_terminal_cannot_write_does_not_lose_the_answer():
    for label, grey in (("\u72ac", 40), ("cat", 200)):
        Path("photos", label).mkdir(parents=True)
        for index in range(8):
            Image.new("L", (8, 8), grey + index).save(Path("photos", label, f"{index}.png"))
    result = linne.train("photos", model="mlp", epochs=1, quiet=True)
    words = [sys.executable, "-m", "linne", "predict", str(result.bundle), "photos/cat/0.png"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    child = subprocess.run(words, capture_output=True, check=False, env=environment)
    assert child.returncode == 0, child.stderr
    assert b"\\u72ac" in child.stdout


@pytest.mark.long
def test_schedule_free_without_its_package_is_refused_before_anything_is_made():
    words = ["train", "digits", "--set", "optim.schedule=schedule-free"]
    program = f"import sys; sys.modules['schedulefree'] = None; from linne.cli import main; main({words})"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert child.returncode == 1
    said = "error: optim.schedule=schedule-free needs the package `schedulefree`, which is not installed"
    assert said in child.stderr
    assert "hint: pip install 'linne[schedule-free]'" in child.stderr
    assert not Path("runs").exists()


def test_a_teacher_with_other_labels_is_refused_before_anything_is_made():
    linne.train(SYNTHETIC, model="mlp", epochs=1, output="teacher", quiet=True)
    with pytest.raises(RecipeError) as caught:
        linne.train("digits", output="run", overrides={"distill.bundle": "teacher/bundle"}, quiet=True)
    assert caught.value.message.startswith("the teacher `teacher/bundle` has 3 labels and digits 10: its label `")
    assert caught.value.hint == "a teacher answers with the same labels in the same order"
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("model", "start", "size", "refused"),
    [
        ("mlp", 0.75, "12 x 12", "8 x 8"),
        ("small", 0.2, "12 x 12", "4 x 4"),
        ("timm/vit_tiny_patch16_224", 0.5, "32 x 32", "28 x 28"),
    ],
)
def test_a_network_that_does_not_take_every_size_of_training_is_refused_before_anything_is_made(
    model, start, size, refused
):
    overrides = {"augment.size_start": start, "data.height": int(size[:2]), "data.width": int(size[:2])}
    with pytest.raises(RecipeError) as caught:
        linne.train(SYNTHETIC, model=model, overrides=overrides, quiet=True)
    assert caught.value.message == (
        f"`{model}` takes {size} pixels and not {refused}, and augment.size_start={start:g} trains on both"
    )
    assert caught.value.hint == (
        "use --set augment.size_start=none, or a larger share where the network takes other sizes"
    )
    assert not Path("runs").exists()


def test_muon_on_a_network_without_hidden_layers_leaves_nothing_behind():
    with pytest.raises(RecipeError, match="this network has none"):
        linne.train(SYNTHETIC, model="mlp", overrides={"optim.optimizer": "muon"}, output="run", quiet=True)
    assert not Path("run").exists()
