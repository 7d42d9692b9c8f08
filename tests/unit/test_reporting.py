from __future__ import annotations

import base64
import hashlib
import html.parser
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from linne.bundle import Bundle
from linne.data import open_source
from linne.data.source import Source, Split
from linne.errors import ImageError, LinneError
from linne.evaluation import evaluate
from linne.inference.backends.null import write_null_bundle
from linne.inference.predictor import Predictor
from linne.preprocess import InputSpec
from linne.recipe import DataConfig, Recipe
from linne.report import EvalReport
from linne.reporting import write_run_report
from linne.run_facts import (
    bytes_in_words,
    command_line,
    curves_note,
    data_advice,
    duration,
    facts,
    headline,
    read_run,
    usage,
)

EPOCHS = [
    {"event": "step", "step": 5, "epoch": 0.5, "loss": 2.0, "lr": 0.1, "images_per_second": 900.0, "seconds": 1.0},
    {
        "event": "epoch",
        "epoch": 1,
        "step": 10,
        "train_loss": 1.5,
        "val_loss": 1.4,
        "val_accuracy": 0.5,
        "best": True,
        "seconds": 2.0,
    },
    {
        "event": "epoch",
        "epoch": 2,
        "step": 20,
        "train_loss": 1.0,
        "val_loss": 1.1,
        "val_accuracy": 0.75,
        "best": True,
        "seconds": 4.0,
    },
]
FINISHED = {"event": "end", "seconds": 4.5, "epochs": 2, "best_epoch": 2, "reason": "finished"}


def write_run(folder, rows=(*EPOCHS, FINISHED), source="synthetic", labels=("a",), **recipe):
    folder.mkdir(parents=True)
    document = {
        "format": 1,
        "linne": "0.1.0",
        "command": ["/opt/bin/linne", "train", source, "--epochs", "2"],
        "recipe": Recipe(data=DataConfig(source=source, batch_size=48, height=16, width=16)).override(recipe).to_dict(),
        "reasons": {"data.batch_size": "a third of 144 <images>", "data.source": "given"},
        "device": "cpu (CPU, 1 thread)",
        "source": {
            "name": source,
            "fingerprint": "ab" * 32,
            "labels": list(labels),
            "counts": {"train": 144, "val": 16, "test": 40},
            "notes": ["40 examples held out"],
        },
    }
    (folder / "recipe.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A bundle, with what it answers to the test split of a small source."""
    source = open_source("synthetic:classes=4,size=16,count=160")
    spec = InputSpec(channels=3, height=16, width=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    bundle = write_null_bundle(tmp_path_factory.mktemp("made") / "bundle", source.labels, spec)
    report, outcomes = evaluate(Predictor.open(bundle, backend="null"), source)
    return bundle, report, outcomes, source.splits["test"]


def write(folder, evaluated):
    bundle, report, outcomes, split = evaluated
    return write_run_report(folder, bundle=bundle, report=report, outcomes=outcomes, split=split)


class Reader(html.parser.HTMLParser):
    """Checks that tags close in order, and keeps text, tags and attributes."""

    VOID = frozenset({"meta", "img", "source", "br", "!doctype"})

    def __init__(self, page):
        super().__init__()
        self.open, self.words, self.attributes, self.tags = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def read(path):
    return Reader(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, evaluated):
    """A run folder with its report; to be looked at only."""
    run = write_run(
        tmp_path_factory.mktemp("runs") / "synthetic-1", **{"optim.label_smoothing": 0.1, "augment.flip": True}
    )
    assert write(run, evaluated) == run / "report.html"
    return run


@pytest.fixture(scope="module")
def page_text(finished):
    return (finished / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(page_text):
    return Reader(page_text)


def test_a_finished_run_gets_its_page_its_markdown_its_plots_and_its_numbers(finished, evaluated):
    assert {plot.name for plot in (finished / "plots").iterdir()} == {
        "curves.png",
        "confusion.png",
        "predictions.png",
        "worst.png",
        "reliability.png",
    }
    assert EvalReport.from_dict(json.loads((finished / "evaluation.json").read_text())) == evaluated[1]
    assert (finished / "report.md").read_text().startswith("# synthetic-1\n")


def test_the_page_tells_the_story_in_order(page):
    parts = [
        "synthetic-1",
        "of 24 test images are named right",
        "None of them was used to train or to choose the epoch.",
        "95 % interval",
        "What was trained",
        "2 epochs in 4.5 s, 900 images/s, weights of epoch 2 kept",
        "40 examples held out",
        "How training went",
        "Class by class",
        "What is taken for what",
        "A look at the answers",
        "The surest mistakes",
        "Can its probabilities be believed?",
        "The recipe, and why",
        "a third of 144 <images>",
        "fields at their defaults",
        "Environment",
        "linne train synthetic --epochs 2",
        "Use it",
        "linne predict",
        "linne train --recipe",
    ]
    positions = [page.text.find(part) for part in parts]
    assert -1 not in positions, parts[positions.index(-1)]
    assert positions == sorted(positions)


def test_the_page_needs_nothing_from_outside(page, page_text):
    places = [value for _, name, value in page.attributes if name in ("src", "srcset", "href", "action", "data")]
    assert len(places) > 30
    assert all(re.match(r"data:image/(png|jpeg);base64,|#", place) for place in places)
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page_text)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "url(" not in text


def test_every_image_in_the_page_opens(page_text):
    images = re.findall(r"data:image/(png|jpeg);base64,([A-Za-z0-9+/=]+)", page_text)
    for kind, content in images:
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            image.load()
            assert image.format == kind.upper()


def test_the_only_script_that_may_run_is_the_one_that_sorts_tables(page_text):
    (script,) = re.findall(r"<script>(.*?)</script>", page_text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page_text


def test_the_page_follows_light_and_dark(page):
    assert page.tags.count("picture") == 3
    assert [value for tag, name, value in page.attributes if tag == "source" and name == "media"] == [
        "(prefers-color-scheme: dark)"
    ] * 3


def test_names_from_a_user_are_shown_and_never_obeyed(tmp_path):
    evil = "<script>alert(1)</script>\"><img src=x onerror=alert(1)>'a&amp;\x00\x1b[2J"
    labels = (evil, f"{evil} too")
    spec = InputSpec(channels=3, height=16, width=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    source = open_source("synthetic:classes=2,size=16,count=80")
    bundle = write_null_bundle(tmp_path / "bundle", ("plain", "other"), spec)

    class NamedStore:
        array = source.splits["test"].store.array

        def __len__(self):
            return len(self.array)

        def load(self, index):
            return self.array[index]

        def name(self, index):
            return f"{evil}/{index}.png"

    test = replace(source.splits["test"], store=NamedStore())
    named = replace(source, labels=("plain", "other"), splits={"test": test})
    report, outcomes = evaluate(Predictor.open(bundle, backend="null"), named)
    renamed = json.loads(
        json.dumps(report.to_dict()).replace('"plain"', json.dumps(evil)).replace('"other"', json.dumps(labels[1]))
    )
    run = write_run(tmp_path / "run", source=evil)
    path = write_run_report(run, bundle=bundle, report=EvalReport.from_dict(renamed), outcomes=outcomes, split=test)
    page = read(path)
    assert page.tags.count("script") == 1
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith("data:") for tag, name, value in page.attributes if tag == "img" and name == "src")
    shown = "".join(c if c.isprintable() else "\ufffd" for c in evil)
    assert shown in page.text


def test_losses_that_are_comparable_are_not_explained(tmp_path):
    # `augment.rand_magnitude` has a value that does nothing without `augment.policy`.
    assert curves_note(read_run(write_run(tmp_path / "plain"))) == ""
    mixed = write_run(tmp_path / "mixed", **{"augment.mixup_alpha": 0.2})
    assert curves_note(read_run(mixed)).startswith(
        "The train loss is taken with augmented images, the val loss without"
    )


def test_a_training_loss_of_another_kind_is_pointed_out_beside_the_curves(tmp_path):
    fields = {"optim.label_smoothing": 0.1, "optim.loss": "focal", "optim.class_balance": 0.99}
    note = curves_note(read_run(write_run(tmp_path / "run", **fields)))
    assert note.startswith("The train loss is taken with label smoothing, focal loss and class weights, the val loss")


def test_without_validation_there_is_no_loss_to_compare_with(tmp_path):
    rows = [{k: v for k, v in row.items() if not k.startswith("val_")} for row in EPOCHS]
    run = write_run(tmp_path / "run", rows=[*rows, FINISHED], **{"optim.label_smoothing": 0.1})
    assert curves_note(read_run(run)) == ""


def test_a_run_without_anything_held_out_says_that_nothing_is_known(tmp_path, evaluated):
    rows = [{k: v for k, v in row.items() if not k.startswith("val_")} for row in EPOCHS]
    run = write_run(tmp_path / "run", rows=[*rows, FINISHED])
    page = read(write_run_report(run, bundle=evaluated[0], report=None, outcomes=None, split=None))
    assert "No images were held out, so nothing says how good this classifier is." in page.text
    assert "Class by class" not in page.text
    assert not (run / "evaluation.json").exists()
    assert [plot.name for plot in (run / "plots").iterdir()] == ["curves.png"]


def test_a_result_on_validation_images_says_that_they_chose_the_epoch(tmp_path, evaluated):
    head = headline(read_run(write_run(tmp_path / "run")), replace(evaluated[1], split="val"))
    assert head.what == "of 24 val images are named right"
    assert head.sentences[0].startswith("These images chose the epoch that was kept, so expect a little less on new")


def test_a_result_over_several_views_says_so_and_how_to_measure_it_again(tmp_path, evaluated):
    bundle, report, _, _ = evaluated
    run = read_run(write_run(tmp_path / "run", **{"augment.flip": True, "tta": "crops"}))
    assert headline(run, replace(report, tta="crops")).what == (
        "of 24 test images, with their mirror images and shifted copies, are named right"
    )
    commands = [code for _, code in usage(run, bundle)]
    assert f"linne evaluate {bundle.path} synthetic --tta crops" in commands
    assert all("--tta" not in code for _, code in usage(read_run(write_run(tmp_path / "other")), bundle))


def test_an_interrupted_run_says_so_and_shows_what_there_is(tmp_path, evaluated):
    end = FINISHED | {"reason": "interrupted", "epochs": 2}
    run = write_run(tmp_path / "run", rows=[*EPOCHS, end], **{"optim.epochs": 9})
    page = read(write_run_report(run, bundle=evaluated[0], report=None, outcomes=None, split=None))
    assert "Training was interrupted after 2 of 9 epochs. The weights of epoch 2 were kept." in page.text
    assert "75.0 % of the val images were named right after epoch 2" in page.text
    assert "There is no test result." in page.text
    assert "linne predict" in page.text


def test_a_run_interrupted_before_its_first_epoch_has_no_result_and_no_bundle(tmp_path):
    end = FINISHED | {"reason": "interrupted", "epochs": 0, "best_epoch": None}
    run = write_run(tmp_path / "run", rows=[EPOCHS[0], end])
    page = read(write_run_report(run, bundle=None, report=None, outcomes=None, split=None))
    assert "No epoch was finished, so there is no result." in page.text
    assert "linne predict" not in page.text
    assert "linne train --recipe" in page.text


def test_a_diverged_run_says_what_to_try(tmp_path, evaluated):
    run = write_run(tmp_path / "run", rows=[*EPOCHS, FINISHED | {"reason": "diverged"}])
    page = read(write_run_report(run, bundle=evaluated[0], report=None, outcomes=None, split=None))
    assert "the loss was no longer a number. The weights of epoch 2 were kept. Try a lower learning rate." in page.text


def test_a_run_that_was_killed_in_the_middle_of_a_line_can_be_reported(tmp_path, evaluated):
    run = write_run(tmp_path / "run", rows=EPOCHS)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"event": "step", "st')
    page = read(write_run_report(run, bundle=evaluated[0], report=None, outcomes=None, split=None))
    assert "Training ended after 2 of 10 epochs without a word why." in page.text


def test_a_run_without_measurements_can_be_reported(tmp_path, evaluated):
    run = write_run(tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    page = read(write(run, evaluated))
    assert "of 24 test images are named right" in page.text
    assert "How training went" not in page.text


def test_what_an_earlier_report_wrote_does_not_stay(tmp_path, evaluated):
    run = write_run(tmp_path / "run")
    write(run, evaluated)
    write_run_report(run, bundle=evaluated[0], report=None, outcomes=None, split=None)
    assert [plot.name for plot in (run / "plots").iterdir()] == ["curves.png"]
    assert not (run / "evaluation.json").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(LinneError) as caught:
        write_run_report(tmp_path, bundle=None, report=None, outcomes=None, split=None)
    assert caught.value.message == f"`{tmp_path}` is no run folder: its recipe.json cannot be read"
    assert caught.value.hint == "`linne train` writes one under runs/"


def test_the_train_loss_is_explained_where_it_is_not_comparable(page):
    assert "The train loss is taken with label smoothing and augmented images, the val loss without" in page.text


def test_links_in_the_markdown_lead_to_plots_that_are_there(finished):
    links = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (finished / "report.md").read_text())
    assert len(links) == 5
    assert all((finished / link).is_file() for link in links)


def test_evaluation_json_has_one_line_a_key(finished):
    text = (finished / "evaluation.json").read_text()
    assert len(text.splitlines()) == len(json.loads(text)) + 2


def perfect(evaluated):
    """The same evaluation with every answer right."""
    bundle, report, outcomes, split = evaluated
    labels_N = outcomes.logits_NK.argmax(axis=1)
    counts = np.zeros((4, 4), dtype=int)
    np.add.at(counts, (labels_N, labels_N), 1)
    right = replace(
        report,
        accuracy=1.0,
        accuracy_interval=(0.86, 1.0),
        confusion=tuple(map(tuple, counts.tolist())),
        most_confused=(),
        worst_mistakes=(),
    )
    return bundle, right, replace(outcomes, labels_N=labels_N), split


def test_a_faultless_result_has_no_mistakes_to_show(tmp_path, evaluated):
    run = write_run(tmp_path / "run")
    page = read(write(run, perfect(evaluated)))
    assert "100 % of 24 test images are named right" in page.text
    assert "Nothing was confused." in page.text
    assert "There is none." in page.text
    assert not (run / "plots" / "worst.png").exists()


def test_images_that_vanished_since_the_evaluation_are_left_out_of_the_grids(tmp_path, evaluated):
    bundle, report, outcomes, split = evaluated

    class GoneStore:
        array = None

        def __len__(self):
            return len(split.store)

        def load(self, index):
            if index % 2:
                raise ImageError(f"`{index}` is gone")
            return split.store.load(index)

        def name(self, index):
            return split.store.name(index)

    run = write_run(tmp_path / "run")
    gone = replace(split, store=GoneStore())
    page = read(write_run_report(run, bundle=bundle, report=report, outcomes=outcomes, split=gone))
    num_there = int((split.indices_N % 2 == 0).sum())
    assert f"{num_there} of the 24 test images, evenly chosen" in page.text


def test_skipped_images_are_named_on_the_page(tmp_path, evaluated):
    bundle, report, outcomes, split = evaluated
    skipped = replace(report, skipped=tuple(f"bad{k}.jpg" for k in range(23)))
    page = read(
        write_run_report(write_run(tmp_path / "run"), bundle=bundle, report=skipped, outcomes=outcomes, split=split)
    )
    assert "Left out because they could not be read (23): bad0.jpg, bad1.jpg" in page.text
    assert "bad19.jpg and 3 more." in page.text


def test_photographs_become_thumbnails(tmp_path):
    big = np.random.default_rng(0).integers(0, 255, (6, 600, 400, 3), dtype=np.uint8)

    class PhotoStore:
        array = None

        def __len__(self):
            return len(big)

        def load(self, index):
            return big[index]

        def name(self, index):
            return f"{index}.jpg"

    split = Split("test", PhotoStore(), np.arange(6), np.zeros(6, dtype=np.int64))
    source = Source("folder:p", ("a", "b"), {"test": split}, "0" * 64, 3, (600, 400), same_size=True)
    spec = InputSpec(channels=3, height=16, width=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    bundle: Bundle = write_null_bundle(tmp_path / "bundle", ("a", "b"), spec)
    report, outcomes = evaluate(Predictor.open(bundle, backend="null"), source)
    run = write_run(tmp_path / "run")
    text = write_run_report(run, bundle=bundle, report=report, outcomes=outcomes, split=split).read_text()
    (first, *_) = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", text)
    with Image.open(io.BytesIO(base64.b64decode(first))) as image:
        assert image.size == (149, 224)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.96, "1 min 0 s"), (125, "2 min 5 s"), (7320, "2 h 2 min")],
)
def test_durations_are_said_in_words(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(("size", "words"), [(312_344, "312 kB"), (44_600_000, "44.6 MB"), (1.2e9, "1.20 GB")])
def test_sizes_are_said_in_words(size, words):
    assert bytes_in_words(int(size)) == words


def test_a_run_started_as_a_module_shows_a_command_that_can_be_typed(tmp_path):
    run = write_run(tmp_path / "run")
    document = json.loads((run / "recipe.json").read_text())
    document["command"] = ["/site-packages/linne/__main__.py", "train", "my photos"]
    (run / "recipe.json").write_text(json.dumps(document))
    assert command_line(read_run(run)) == "python -m linne train 'my photos'"


def waited(folder, *shares, **recipe):
    """Return a run whose epochs waited for data for these shares of their time."""
    rows = [{"event": "epoch", "epoch": n, "seconds": n, "data_wait": share} for n, share in enumerate(shares, 1)]
    return read_run(write_run(folder, rows=rows, **recipe))


STREAMED = {"data.loader": "streaming", "data.num_workers": 4}


def test_training_that_waits_for_data_says_for_how_long_and_what_to_do(tmp_path):
    run = waited(tmp_path / "run", 0.4, 0.28, **STREAMED)
    said = "waiting for data 34.0 % of the time: `linne data pack` it, or --set data.num_workers=7"
    assert data_advice(run, num_cores=16) == said
    assert data_advice(run, num_cores=6) == said.replace("=7", "=6")
    assert data_advice(run, num_cores=4) == "waiting for data 34.0 % of the time: `linne data pack` it"
    assert dict(facts(run, None))["data"].startswith("waiting for data 34.0 % of the time")


def test_a_set_that_was_streamed_by_choice_may_as_well_be_held_in_memory(tmp_path):
    told = "waiting for data 34.0 % of the time: `linne data pack` it, or --set data.loader=resident where "
    run = waited(tmp_path / "run", 0.34, **STREAMED)
    chosen = replace(run, reasons={"data.loader": "given"})
    assert data_advice(chosen, num_cores=4) == f"{told}123 kB of memory are free"  # 160 images of 16 x 16 x 3
    forced = replace(run, reasons={"data.loader": "decoded images would take 9 GiB"})
    assert "resident" not in (data_advice(forced) or "")
    cropped = waited(tmp_path / "cropped", 0.34, **STREAMED, **{"augment.resized_crop_area": 0.5})
    assert "resident" not in (data_advice(replace(cropped, reasons={"data.loader": "given"})) or "")


def test_a_little_waiting_is_told_without_advice(tmp_path):
    run = waited(tmp_path / "run", 0.004, **STREAMED)
    assert data_advice(run) is None
    assert dict(facts(run, None))["data"] == "decoded ahead by 4 threads; waited for 0.4 % of the time"


def test_images_in_memory_need_no_packing_however_long_their_batches_take(tmp_path):
    run = waited(tmp_path / "run", 0.5)
    assert data_advice(run) is None
    assert dict(facts(run, None))["data"] == "held in memory; making batches took 50.0 % of the time"


def test_a_run_of_an_earlier_version_says_nothing_about_waiting(tmp_path):
    assert "data" not in dict(facts(read_run(write_run(tmp_path / "run")), None))


def test_going_back_to_a_checkpoint_is_told_with_what_became_of_the_learning_rate(tmp_path):
    rows = [{"event": "rewind", "step": 8, "to_step": 7, "lr_factor": 0.5 ** (n + 1)} for n in range(2)]
    for number, said in ((1, "once since a loss or gradient was no number, learning rate x 0.5"), (2, "2 times since")):
        write_run(tmp_path / str(number), [*EPOCHS, *rows[:number], FINISHED])
        assert f"went back {said}" in dict(facts(read_run(tmp_path / str(number)), None))["training"]
