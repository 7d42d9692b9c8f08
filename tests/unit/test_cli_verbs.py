"""The verbs on the command line, in process, on a small bundle that was really trained."""

import csv
import io
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from PIL import Image

import linne
from linne.cli import cli
from linne.errors import LinneError
from linne.recipe import Recipe, recipe_fields

SOURCE = "synthetic:classes=3,size=12,count=90"


def invoke(*words, **options):
    return CliRunner().invoke(cli, [str(word) for word in words], prog_name="linne", **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train once; the run folder, and what was said."""
    run = tmp_path_factory.mktemp("runs") / "small"
    ended = invoke("train", SOURCE, "--model", "mlp", "--epochs", 1, "--device", "cpu", "--output", run, "--json")
    assert ended.exit_code == 0, ended.output
    return run, ended


@pytest.fixture(scope="module")
def bundle(trained):
    return trained[0] / "bundle"


@pytest.fixture
def images(tmp_path):
    """Two images and a file that is none."""
    for name, grey in (("a.png", 20), ("b.png", 200)):
        Image.new("L", (12, 12), grey).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"not an image at all")
    return tmp_path


def test_train_keeps_stdout_for_the_result(trained):
    run, ended = trained
    result = json.loads(ended.stdout)
    assert result["run"] == str(run)
    assert result["bundle"] == str(run / "bundle")
    assert result["interrupted"] is False
    assert 0 <= result["evaluation"]["accuracy"] <= 1
    assert "device" in ended.stderr


def test_a_quiet_train_says_where_its_bundle_is_and_nothing_else(tmp_path):
    words = [
        "train",
        SOURCE,
        "--model",
        "mlp",
        "--epochs",
        1,
        "--device",
        "cpu",
        "--output",
        tmp_path / "run",
        "--quiet",
    ]
    ended = invoke(*words)
    assert (ended.stdout, ended.stderr, ended.exit_code) == (f"{tmp_path / 'run' / 'bundle'}\n", "", 0)


def test_train_takes_settings_of_any_section(tmp_path):
    ended = invoke(
        *("train", SOURCE, "--epochs", 1, "--device", "cpu", "--output", tmp_path / "run", "--quiet"),
        *("--set", "model.name=mlp", "--set", "optim.lr=0.03", "--set", "seed=5", "--set", "optim.epochs=1"),
    )
    assert ended.exit_code == 0, ended.output
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text("utf-8"))["recipe"]
    assert (recipe["model"]["name"], recipe["optim"]["lr"], recipe["seed"]) == ("mlp", 0.03, 5)


def test_the_same_command_twice_with_resume_auto_trains_once(tmp_path):
    words = ["train", SOURCE, "--model", "mlp", "--epochs", 1, "--device", "cpu", "--output", tmp_path / "run"]
    first, second = (invoke(*words, "--resume", "auto", "--json") for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0), second.output
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert "is finished: nothing is left to do" in second.stderr
    third = invoke("train", "--output", tmp_path / "run", "--resume", "--lr", 0.7)
    assert third.exit_code == 1
    assert f"error: this is not the run in `{tmp_path / 'run'}`: optim.lr was" in third.stderr
    assert "--allow-change optim.lr" in third.stderr


def test_resume_needs_a_folder_and_takes_nothing_but_auto(tmp_path):
    ended = invoke("train", SOURCE, "--resume")
    assert (ended.exit_code, "name its folder: --output DIR --resume" in ended.stderr) == (1, True)
    ended = invoke("train", "--resume", "digits", "--output", tmp_path)
    assert ended.exit_code == 2
    assert "`--resume`: `digits` is not `auto`; SOURCE comes before it" in ended.stderr
    ended = invoke("train", "--output", tmp_path / "none", "--resume")
    assert "there is no run in" in ended.stderr


def test_explain_prints_every_field_with_its_reason_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = invoke("train", SOURCE, "--epochs", 2, "--set", "optim.lr=0.05", "--explain")
    assert ended.exit_code == 0, ended.output
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in ended.stdout.splitlines()}
    assert list(rows) == list(recipe_fields())
    assert rows["optim.epochs"] == ["2", "given"]
    assert rows["optim.lr"] == ["0.05", "given"]
    assert rows["optim.optimizer"] == ["sgd", "learns fastest with the small network"]
    assert rows["optim.clip_norm"] == ["none", "default"]
    assert list(tmp_path.iterdir()) == []


def test_what_explain_prints_as_json_is_what_is_trained(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    explained = invoke("train", SOURCE, "--model", "mlp", "--epochs", 1, "--device", "cpu", "--explain", "--json")
    document = json.loads((trained[0] / "recipe.json").read_text())
    fields = Recipe.from_dict(document["recipe"]).to_fields()
    expected = {
        path: {"value": value, "reason": document["reasons"].get(path, "default")} for path, value in fields.items()
    }
    found = json.loads(explained.stdout)
    assert found["data.loader"].pop("reason").startswith("decoded images take")  # of what is free at the moment
    del expected["data.loader"]["reason"]
    assert found == json.loads(json.dumps(expected))


@pytest.mark.parametrize("option", ["--resume", "--measure-speed"])
def test_explain_goes_with_no_option_that_would_train(option, tmp_path):
    ended = invoke("train", SOURCE, "--output", tmp_path / "run", option, "--explain")
    assert ended.exit_code == 2
    assert f"`--explain` and `{option}` disagree" in ended.stderr


def test_an_output_folder_that_exists_is_refused(trained):
    run, _ = trained
    ended = invoke("train", SOURCE, "--model", "mlp", "--output", run)
    assert ended.exit_code == 1
    assert ended.stderr.startswith(f"error: the output folder `{run}` exists already\n\nhint: ")


def test_evaluate_prints_text_markdown_or_json(bundle):
    text, markdown = invoke("evaluate", bundle, SOURCE), invoke("evaluate", bundle, SOURCE, "--format", "markdown")
    asked, same = invoke("evaluate", bundle, SOURCE, "--json"), invoke("evaluate", bundle, SOURCE, "--format", "json")
    report = linne.evaluate(bundle, SOURCE)
    assert text.stdout == report.to_text().rstrip("\n") + "\n"
    assert markdown.stdout == report.to_markdown().rstrip("\n") + "\n"
    assert json.loads(asked.stdout) == json.loads(same.stdout) == report.to_dict()
    assert {"accuracy", "accuracy_interval", "num_examples", "loss", "top_k", "per_class", "calibration"} <= set(
        json.loads(asked.stdout)
    )


def test_evaluate_and_predict_with_mirror_images_answer_otherwise_and_say_so(bundle, images):
    with_both, plain = (linne.evaluate(bundle, SOURCE, tta=tta) for tta in ("flip", None))
    shown = invoke("evaluate", bundle, SOURCE, "--tta", "flip", "--json")
    assert json.loads(shown.stdout) == with_both.to_dict()
    assert (with_both.tta, plain.tta) == ("flip", None)
    assert with_both.loss != plain.loss
    flipped, once = (
        next(iter(linne.predict(bundle, images / "a.png", tta=tta, top=3))).probabilities for tta in ("flip", None)
    )
    assert flipped == pytest.approx(once, rel=1e-5)  # an image of one colour is its own mirror image


def test_evaluate_of_another_split_says_which(bundle):
    assert json.loads(invoke("evaluate", bundle, SOURCE, "--split", "val", "--json").stdout)["split"] == "val"


def test_predict_names_the_best_labels_of_each_image(bundle, images):
    ended = invoke("predict", bundle, images / "a.png", images / "b.png", "--top", 2, "--json")
    assert ended.exit_code == 0, ended.output
    rows = json.loads(ended.stdout)
    assert [row["file"] for row in rows] == [str(images / "a.png"), str(images / "b.png")]
    for row in rows:
        first, second = (p["probability"] for p in row["predictions"])
        assert 1 >= first >= second >= 0


def test_one_bad_image_is_a_row_and_exit_code_1_and_changes_no_neighbour(bundle, images):
    alone = json.loads(invoke("predict", bundle, images / "b.png", "--json").stdout)
    ended = invoke("predict", bundle, images / "a.png", images / "broken.png", images / "b.png", "--json")
    rows = json.loads(ended.stdout)
    assert set(rows[1]) == {"file", "error"}
    assert rows[1]["file"] == str(images / "broken.png")
    assert [p["label"] for p in rows[2]["predictions"]] == [p["label"] for p in alone[0]["predictions"]]
    together = [p["probability"] for p in rows[2]["predictions"]]
    # A batch of another size may be summed in another order.
    assert together == pytest.approx([p["probability"] for p in alone[0]["predictions"]], abs=1e-6)
    assert ended.stderr == "error: 1 of 3 images could not be predicted\n"
    assert ended.exit_code == 1


@pytest.mark.parametrize("style", ["text", "json", "jsonl", "csv"])
def test_the_error_of_a_bad_image_is_in_every_format(bundle, images, style):
    ended = invoke("predict", bundle, images / "broken.png", images / "a.png", "--format", style)
    error = json.loads(invoke("predict", bundle, images / "broken.png", "--json").stdout)[0]["error"]
    if style == "csv":
        assert next(csv.DictReader(io.StringIO(ended.stdout)))["error"] == error
    elif style == "text":
        assert ended.stdout.splitlines()[0].endswith(f"error: {error}")
    else:
        rows = json.loads(ended.stdout) if style == "json" else [json.loads(x) for x in ended.stdout.splitlines()]
        assert rows[0]["error"] == error
    assert ended.exit_code == 1


def test_predict_reads_one_image_from_stdin(bundle, images):
    ended = invoke("predict", bundle, "-", "--json", input=(images / "a.png").read_bytes())
    named = invoke("predict", bundle, images / "a.png", "--json")
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout)[0]["predictions"] == json.loads(named.stdout)[0]["predictions"]


def test_predict_without_a_bundle_says_so(tmp_path, images):
    ended = invoke("predict", tmp_path / "nothing", images / "a.png")
    assert ended.exit_code == 1
    assert ended.stderr.startswith("error: ")
    assert "nothing" in ended.stderr


def test_predict_with_an_input_that_is_not_there_prints_no_rows(bundle, images):
    ended = invoke("predict", bundle, images / "a.png", images / "gone.png", "--json")
    assert "gone.png" in ended.stdout + ended.stderr
    assert ended.exit_code == 1


@pytest.mark.long
def test_a_child_process_predicts_into_a_pipe(bundle, images):
    command = [sys.executable, "-m", "linne", "predict", bundle, images, "--format", "jsonl", "--top", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert len([json.loads(line) for line in ended.stdout.splitlines()]) == 3
    assert ended.stderr == "error: 1 of 3 images could not be predicted\n"


def test_models_lists_names_with_their_size():
    ended = invoke("models", "small")
    assert ended.exit_code == 0
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert lines[:2] == [["network", "parameters", "GMACs", "input"], ["small", "-", "-", "any", "size"]]
    names = [row["name"] for row in json.loads(invoke("models", "resnet18", "--json").stdout)]
    assert {"timm/resnet18", "torchvision/resnet18"} <= set(names)


def test_models_lists_published_weights_with_their_licence_and_says_where_none_is_stated():
    ended = invoke("models", "torchvision/resnet18", "--weights")
    assert ended.exit_code == 0
    head, row = (line.split("  ") for line in ended.stdout.splitlines())
    assert [text.strip() for text in head if text] == ["weights", "input", "classes", "size", "licence", "where"]
    assert "not stated" in [text.strip() for text in row]
    ended = invoke("models", "small", "--weights", "--json")
    assert all(row["licence"] != "unknown" for row in json.loads(ended.stdout))


def test_models_without_a_match_says_where_all_are_listed():
    ended = invoke("models", "zzz")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == "error: no model fits `zzz`\n\nhint: `linne models` lists them all\n"


def test_data_list_names_every_source():
    text, rows = invoke("data", "list").stdout, json.loads(invoke("data", "list", "--json").stdout)
    assert [line.split()[0] for line in text.splitlines()] == [row["name"] for row in rows]
    assert {"digits", "cifar10"} <= {row["name"] for row in rows}


def test_the_next_line_to_type_keeps_what_was_asked_for_and_can_be_typed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my photos"
    for label in ("ant", "bee"):
        (folder / label).mkdir(parents=True)
        for k in range(12):
            pixels = b"\0" * 90 if k < 9 else bytes([k * 20, len(label), ord(label[0])] * 30)
            (folder / label / f"p{k // 4}_{k}.ppm").write_bytes(b"P6 6 5 255\n" + pixels)
    words = ["data", "check", "my photos", "--group-by", r"(p\d+)_", "--quarantine", "my list.json", "--quiet"]
    with pytest.raises(SystemExit):
        cli.main(words)
    said = capsys.readouterr().err
    assert r"`linne train 'my photos' --group-by '(p\d+)_' --quarantine 'my list.json'` leaves out" in said
    with pytest.raises(SystemExit):
        cli.main(["data", "split", "my photos", "my splits.json"])
    assert "use it: `linne train 'my photos' --splits-file 'my splits.json'`" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [3, [1, 2], object()])
def test_what_is_no_source_is_refused_in_words(wrong):
    with pytest.raises(LinneError, match=r"the source is a \w+, expected a text or a `Source`"):
        linne.train(wrong)
