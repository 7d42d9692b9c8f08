"""What a sweep says it found."""

import html
from dataclasses import replace
from pathlib import Path

import pytest

from linne.sweeping.results import SweepReport, Trial, to_repeat
from linne.sweeping.words import repeats_text, sentences, to_text


def trial(number, accuracy=None, state="finished", **more):
    loss = None if accuracy is None else 1 - accuracy
    values = {
        "val_accuracy": accuracy,
        "val_loss": loss,
        "kept_epoch": 3,
        "seconds": 5.0,
        "settings": {"optim.lr": 0.1},
    }
    return Trial(number=number, name=f"trial-{number:04d}", state=state, **{**values, **more})


def report(*trials, **more):
    values = {
        "folder": Path("sweeps/x"),
        "source": "digits",
        "objective": "val_accuracy",
        "num_trials": len(trials),
        "space": {"optim.lr": "0.01..1:log"},
        "trials": trials,
        "repeats": (),
        "automatic": 1,
        "num_val": 136,
    }
    return SweepReport(**{**values, **more})


def test_the_best_is_the_highest_accuracy_or_the_lowest_loss_and_of_equals_the_earlier():
    found = report(trial(1, 0.9), trial(2, 0.95), trial(3, 0.95), trial(4, 0.99, state="pruned"))
    assert [each.number for each in found.ranked] == [2, 3, 1]
    by_loss = replace(found, objective="val_loss", trials=(trial(1, 0.9, val_loss=0.01), trial(2, 0.95)))
    assert by_loss.best.number == 1


def test_a_gain_within_chance_is_called_that():
    said = sentences(report(trial(1, 0.985), trial(2, 0.992)))
    assert said[0] == "Best: trial 2 with 99.20 % of val images right. The recipe as it was (trial 1) has 98.50 %."
    assert said[1].startswith("Chance alone moves such an accuracy by 1.2")
    assert "2 of 2 finished trials are that near to the highest. --seeds 5" in said[1]


def test_when_nothing_is_better_that_is_said():
    assert "nothing that was tried is better" in sentences(report(trial(1, 0.95), trial(2, 0.9)))[0]


@pytest.mark.parametrize(("tta", "also"), [(None, ""), ("flip", ", with their mirror images")])
def test_the_best_trials_test_says_what_was_seen(tta, also):
    test = {"accuracy": 0.985, "accuracy_interval": [0.97, 0.99], "num_examples": 450, "tta": tta}
    assert sentences(report(trial(1, 0.985), test=test))[-1] == (
        f"Trial 1 has 98.5 % right of 450 test images{also} (95 % interval 97.0 to 99.0 %), which chose nothing."
    )


def test_a_failed_trial_is_listed_with_its_message():
    text = to_text(report(trial(1, 0.9), trial(2, state="failed", message="no memory")))
    assert "2 of 2 trials (1 finished, 1 failed)" in text
    assert "trial 2 failed: no memory" in text


def test_a_sweep_without_a_finished_trial_says_so():
    assert "No trial has finished" in to_text(report(trial(1, state="failed", message="x")))


def test_the_best_three_and_the_recipe_as_it_was_are_repeated():
    ranked = report(*(trial(n, 0.9 + n / 100) for n in range(1, 7))).ranked
    assert to_repeat(ranked, 1) == [6, 5, 4, 1]
    assert to_repeat(ranked, 6) == [6, 5, 4]
    assert to_repeat(ranked, None) == [6, 5, 4]
    assert to_repeat(ranked, 9) == [6, 5, 4], "one that failed is not held against the others"


@pytest.mark.parametrize(
    ("accuracies", "verdict"), [((0.95, 0.951, 0.949), "more than luck"), ((0.91, 0.95, 0.90), "which may be luck")]
)
def test_repeats_tell_luck_from_gain(accuracies, verdict):
    repeats = [trial(n, value, repeats=2, seed=n) for n, value in enumerate(accuracies, start=1)]
    repeats += [trial(n + 3, value, repeats=1, seed=n) for n, value in enumerate((0.90, 0.902, 0.898), start=1)]
    lines = repeats_text(report(trial(1, 0.9), trial(2, 0.96), repeats=tuple(repeats)))
    assert verdict in " ".join(lines)
    assert any("the recipe as it was" in line for line in lines)


def test_repeats_have_the_mean_and_the_spread_of_their_seeds():
    repeats = tuple(trial(n, value, repeats=1, seed=n) for n, value in enumerate((0.8, 0.9), start=1))
    (found,) = report(trial(1, 0.9), repeats=repeats).repeated
    assert found.mean == pytest.approx(0.85)
    assert found.spread == pytest.approx(0.0707, abs=1e-4), "with n - 1"


def test_the_best_of_repeated_recipes_is_that_with_the_best_mean_and_not_the_luckiest():
    again = [(2, 1, 0.90), (2, 2, 0.91), (1, 1, 0.94), (1, 2, 0.95), (3, 1, 0.99)]
    repeats = tuple(trial(n, value, repeats=of, seed=seed) for n, (of, seed, value) in enumerate(again, start=1))
    found = report(trial(1, 0.95), trial(2, 0.99), trial(3, 0.96), repeats=repeats)
    assert found.ranked[0].number == 2
    assert found.best.number == 1, "trial 3 was repeated once only"
    assert sentences(found)[0] == "Best: trial 1, by its mean val_accuracy of 94.50 % over 2 other seeds."


def test_when_most_are_within_chance_of_each_other_nothing_is_said_to_have_decided():
    near = report(*(trial(n, 0.99) for n in range(1, 13)))
    assert near.num_near == 12
    far = report(*(trial(n, 0.5 + n / 30) for n in range(1, 13)))
    assert far.num_near < 6


def test_the_page_escapes_what_a_training_said(tmp_path):
    pytest.importorskip("matplotlib", reason="the page has figures")
    from linne.sweeping.page import write_page

    bad = "<script>alert(1)</script>"
    page = write_page(report(trial(1, 0.9), trial(2, state="failed", message=bad), folder=tmp_path)).read_text()
    assert bad not in page
    assert html.escape(bad) in page
    assert (tmp_path / "plots" / "slices.png").stat().st_size > 1000
    assert "linne train --recipe" in page
