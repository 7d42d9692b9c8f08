from __future__ import annotations

import dataclasses
import json

import pytest

from linne.errors import LinneError
from linne.report import (
    Calibration,
    CalibrationBin,
    ClassResult,
    ConfusedPair,
    EvalReport,
    Mistake,
    percent,
    percent_range,
    shorten,
)


def class_result(label, recall=0.9, count=10, num_predicted=10):
    return ClassResult(
        label=label,
        precision=recall,
        recall=recall,
        f1=recall,
        accuracy=recall,
        count=count,
        num_predicted=num_predicted,
    )


def report(**changes):
    values = {
        "accuracy": 442 / 450,
        "accuracy_interval": (0.9653, 0.9910),
        "num_examples": 450,
        "loss": 0.0612,
        "top_k": {"3": 0.998, "5": 1.0},
        "macro": {"precision": 0.982, "recall": 0.981, "f1": 0.9815},
        "per_class": (class_result("zero", 1.0), class_result("one", 0.97), class_result("never", 0.0, 0, 0)),
        "confusion": ((220, 3, 0), (5, 222, 0), (0, 0, 0)),
        "calibration": Calibration(
            ece=0.0113,
            mean_confidence=0.989,
            bins=(
                CalibrationBin(low=0.0, high=0.5, count=0, confidence=None, accuracy=None),
                CalibrationBin(low=0.5, high=1.0, count=450, confidence=0.989, accuracy=442 / 450),
            ),
        ),
        "most_confused": (ConfusedPair(label="one", predicted="zero", count=5, fraction=5 / 227),),
        "worst_mistakes": (Mistake(name="one/7.png", label="one", predicted="zero", probability=0.9995),),
        "skipped": (),
        "source": "digits",
        "split": "test",
        "bundle": "runs/digits-1/bundle",
        "labels": ("zero", "one", "never"),
        "tta": None,
    }
    return EvalReport(**(values | changes))


def many_classes(num):
    rows = tuple(class_result(f"class {k:04}", recall=k / num) for k in range(num))
    return report(per_class=rows, labels=tuple(row.label for row in rows))


def test_a_report_comes_back_from_json_exactly_as_it_was():
    original = report(accuracy=1 / 3, loss=0.1 + 0.2, skipped=("a.jpg", "b.jpg"))
    assert EvalReport.from_dict(json.loads(json.dumps(original.to_dict(), allow_nan=False))) == original


def test_the_json_has_the_keys_that_users_are_promised():
    values = report(skipped=("a.jpg",)).to_dict()
    promised = "accuracy accuracy_interval num_examples loss top_k per_class calibration"
    assert set(promised.split()) <= set(values)
    assert values["num_skipped"] == 1
    assert values["accuracy_interval"] == [0.9653, 0.9910]
    assert {"label", "precision", "recall", "f1", "accuracy", "count"} <= set(values["per_class"][0])
    assert {"ece", "bins"} <= set(values["calibration"])


def test_a_report_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        report().accuracy = 1.0


@pytest.mark.parametrize("key", list(report().to_dict()))
def test_a_report_without_a_field_is_refused_and_the_field_named(key):
    values = report().to_dict()
    del values[key]
    with pytest.raises(LinneError, match=f"not an evaluation report: .*{key}"):
        EvalReport.from_dict(values)


def test_a_report_whose_counts_disagree_is_refused():
    values = report().to_dict() | {"num_skipped": 4}
    with pytest.raises(LinneError, match="not an evaluation report: num_skipped is 4, but 0 are named"):
        EvalReport.from_dict(values)


def test_one_line_says_the_result():
    assert report().one_line() == "98.2 % right of 450 test images (95 % interval 96.5 to 99.1 %)"


def test_the_headline_says_that_mirror_images_were_seen_too():
    assert report(tta="flip").one_line().startswith("98.2 % right of 450 test images, with their mirror images (95 %")


def test_the_headline_says_that_shifted_copies_were_seen_too():
    assert report(tta="crops").one_line() == (
        "98.2 % right of 450 test images, with their mirror images and shifted copies (95 % interval 96.5 to 99.1 %)"
    )


def test_the_text_starts_with_the_headline_and_aligns_its_columns():
    lines = report().to_text().splitlines()
    assert lines[0] == report().one_line()
    assert lines[2] == "loss 0.0612   top-3 99.8 %   top-5 100 %   macro F1 98.2 %"
    assert lines[3] == "calibration error 1.1 %"
    table = lines[lines.index("per class") + 1 :][:4]
    assert table == [
        "  class  images  precision  recall      F1",
        "  zero       10      100 %   100 %   100 %",
        "  one        10     97.0 %  97.0 %  97.0 %",
        "  never       0          -       -       -",
    ]
    assert "  one    zero           5  2.2 %" in lines
    assert "  one/7.png  one  zero       >99.9 %" in lines


def test_a_thousand_classes_are_shown_as_the_worst_ten_and_the_best_five():
    text = many_classes(1000).to_text()
    assert "worst 10 of 1,000 classes (the JSON has all)" in text
    assert "best 5 of 1,000 classes" in text
    shown = [line.split()[1] for line in text.splitlines() if line.startswith("  class 0")]
    assert shown == [f"{k:04}" for k in [*range(10), 999, 998, 997, 996, 995]]
    assert len(many_classes(1000).to_dict()["per_class"]) == 1000


def test_of_many_classes_those_without_images_are_neither_worst_nor_best():
    rows = tuple(class_result(f"c{k:02}", recall=0.0, count=0) for k in range(90))
    rows += tuple(class_result(f"d{k:02}", recall=0.5 + k / 100) for k in range(12))
    tables = report(per_class=rows).class_tables()
    assert [row.label for row in tables[0][1]] == [f"d{k:02}" for k in range(10)]
    assert [row.label for row in tables[1][1]] == ["d11", "d10"]


@pytest.mark.parametrize("width", [48, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width):
    long = "a very long class name that goes on and on and then some more of it"
    wide = "東京スカイツリーの写真がたくさん入っているフォルダーの名前"
    rows = (class_result(long), class_result(wide), class_result("c"))
    text = report(
        per_class=rows,
        most_confused=(ConfusedPair(label=long, predicted=wide, count=5, fraction=0.5),),
        worst_mistakes=(Mistake(name=long * 2, label=wide, predicted=long, probability=0.7),),
    ).to_text(width)
    from rich.cells import cell_len

    tables = text.split("\n\n")[1:]
    assert max(cell_len(line) for table in tables for line in table.splitlines()) <= width


def test_class_names_cannot_send_commands_to_the_terminal():
    text = report(per_class=(class_result("\x1b[2Jgone\rover"),)).to_text()
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\ufffd[2Jgone\ufffdover" in text


def test_skipped_images_are_counted_and_named():
    names = tuple(f"bad{k}.jpg" for k in range(7))
    assert "1 image could not be read and is left out: bad0.jpg" in report(skipped=names[:1]).to_text()
    text = report(skipped=names).to_text()
    assert "7 images could not be read and are left out, the first 5: bad0.jpg, bad1.jpg" in text
    assert "bad5.jpg" not in text


def test_markdown_has_the_result_the_tables_and_no_name_that_breaks_them():
    markdown = report(per_class=(class_result("a|b<script>*"),), bundle="runs/a`b").to_markdown()
    assert markdown.startswith("## 98.2 % right on test\n")
    assert "442 of 450 images; 95 % interval 96.5 to 99.1 %. Bundle `runs/a'b`, source `digits`." in markdown
    assert r"| a\|b\<script\>\* | 10 | 90.0 % | 90.0 % | 90.0 % |" in markdown
    assert "| one | zero | 5 | 2.2 % |" in markdown


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(1.0, "100 %"), (0.99999, ">99.9 %"), (0.984, "98.4 %"), (0.0004, "<0.1 %"), (0.0, "0 %"), (0.5, "50.0 %")],
)
def test_all_and_nothing_are_said_only_when_meant(fraction, text):
    assert percent(fraction) == text


def test_a_range_of_percents_names_the_unit_once():
    assert percent_range(0.965, 1.0) == "96.5 to 100 %"


def test_long_names_keep_both_ends():
    assert shorten("tabby", 12) == "tabby"
    assert shorten("holiday_photos_0017", 12) == "holiday_…017"
    assert len(shorten("x" * 50, 12)) == 12
