"""One training a fold, and what they say together: each image is answered by the network that did not learn from it."""

from __future__ import annotations

import csv
import io
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from linne import metrics
from linne.bundle_format import replace_file, to_json
from linne.errors import LinneError, RecipeError
from linne.host import prepare_for_torch
from linne.log import Narrator, Run
from linne.report import percent, percent_range
from linne.verbs import TrainResult, train

if TYPE_CHECKING:
    from linne.run_resume import Resume

FORMAT = 1
FOLDS = 5
"""Where nobody says how many."""
SUMMARY, TABLE, PREDICTIONS = "folds.json", "folds.md", "out-of-fold.csv"
"""What is written beside the runs; the first of them last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldResult:
    """What one fold's bundle makes of the images that were held out of its training. Fractions are 0-1."""

    fold: int
    """From 1."""
    run: str
    """Its run folder, beside the summary."""
    num_examples: int
    """Images that were read and answered."""
    num_right: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    """95 % (Wilson)."""
    test_accuracy: float | None
    """On the test split, as the run's own report has it; None for a source without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldsReport:
    """What all folds say together. Fractions are 0-1."""

    source: str
    folds: tuple[FoldResult, ...]
    mean: float
    """Of the folds' accuracies, each counting the same."""
    standard_deviation: float
    """Of the folds' accuracies, with n - 1."""
    accuracy: float
    """Out of fold: of all images, each answered once."""
    accuracy_interval: tuple[float, float]
    """95 % (Wilson). It holds what chance does to which images there are, not what it does to a training."""
    num_examples: int
    num_right: int
    skipped: tuple[str, ...]
    """Images that could not be read."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {"format": FORMAT, **asdict(self), "predictions": PREDICTIONS}

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return the table: (fold, images, accuracy, test accuracy), its head first and its totals last."""
        test = [fold.test_accuracy for fold in self.folds if fold.test_accuracy is not None]
        spread = f"{percent(self.mean)} +- {percent(self.standard_deviation)}"
        test_spread = f"{percent(statistics.mean(test))} +- {percent(_deviation(test))}" if test else "-"
        return [
            ("fold", "images", "accuracy", "on test"),
            *(
                (
                    str(fold.fold),
                    f"{fold.num_examples:,}",
                    percent(fold.accuracy),
                    "-" if fold.test_accuracy is None else percent(fold.test_accuracy),
                )
                for fold in self.folds
            ),
            ("mean +- sd", "", spread, test_spread),
            ("out of fold", f"{self.num_examples:,}", percent(self.accuracy), ""),
        ]

    def one_line(self) -> str:
        """Return the pooled accuracy with its interval."""
        return (
            f"out of fold {percent(self.accuracy)} right ({self.num_right:,} of {self.num_examples:,}; 95 % interval "
            f"{percent_range(*self.accuracy_interval)})"
        )

    def to_markdown(self) -> str:
        """Return the table and what it means."""
        head, *rows = [f"| {' | '.join(row)} |" for row in self.rows()]
        text = [f"# {len(self.folds)} folds of {self.source}", "", head, "|---|--:|--:|--:|", *rows, ""]
        text += [f"{self.one_line()[0].upper()}{self.one_line()[1:]}.", ""]
        text += ["Each image was answered by the network that did not learn from it. It had a part in choosing that "]
        text[-1] += "network's epoch, so expect a little less on new images."
        return "\n".join(text) + "\n"


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """What a cross-validation left behind."""

    folder: Path
    """Holds a run folder for each fold, `folds.json`, `folds.md` and `out-of-fold.csv`."""
    runs: tuple[TrainResult, ...]
    """Of the folds, in order, as far as they came."""
    report: FoldsReport | None
    """None when a signal ended it early."""

    @property
    def signal_number(self) -> int | None:
        """Of the signal that ended it early; None when it ran to its end."""
        return self.runs[-1].signal_number

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "folder": str(self.folder),
            "interrupted": self.signal_number is not None,
            "runs": [result.to_dict() for result in self.runs],
            "folds": None if self.report is None else self.report.to_dict(),
        }


def cross_validate(
    source: str | None = None,
    *,
    folds: int | None = None,
    output: str | Path | None = None,
    recipe: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    resume: Resume = False,
    quiet: bool = False,
    **options: Any,
) -> CrossValidation:
    """Train one run for each fold of `source`, in folders of their own, and return what they say together.

    What the first fold's run chooses for itself is the recipe of all. Each run is what `linne.train` makes of
    `data.folds` and `data.fold`; a `time_budget` is that of each.

    Args:
        source: A named set, `folder:DIR` or a path; without it, the recipe's.
        folds: How many; 5 unless the run that is gone on with says otherwise.
        output: The folder of the run folders `fold-1`, `fold-2`, ...; `runs/SOURCE-K-folds-k` without it.
        recipe, overrides, quiet: As for `linne.train`.
        resume: Go on with the first fold in `output` that is not finished; "auto" begins where there is none.
        options: All else that `linne.train` takes.

    Raises:
        LinneError: something given cannot be used; the message says what and what to do.
        CheckFailed: a loss stopped being a number.
    """
    prepare_for_torch()
    from linne.training.distributed import find

    asked_for = folds or (overrides or {}).get("data.folds") or FOLDS
    if find().size > 1:
        raise LinneError(
            "the folds are trained one after the other by one process, and several were started",
            hint=f"train each by itself: --set data.folds={asked_for} --set data.fold=1",
        )
    if (overrides or {}).get("data.fold") is not None:
        raise RecipeError("data.fold names one fold, and all are asked for", hint="leave it out, or use `linne.train`")
    if source is not None and not isinstance(source, str):
        raise LinneError(
            f"the source is a {type(source).__name__}, whose splits are made already; expected a text",
            hint="make a source of each fold's arrays with `linne.from_arrays(..., val=...)`, and train it",
        )
    given = {**(overrides or {})}
    stated = given.pop("data.folds", folds)
    folder, folds = _place(source, recipe, given, stated if folds is None else folds, output, resume)
    narrator, results = Narrator(quiet=quiet), list[TrainResult]()
    asked = {**options, "recipe": recipe, "source": source}
    for fold in range(1, folds + 1):
        narrator.line(f"{'' if fold == 1 else chr(10)}fold {fold} of {folds}")
        result = _train_fold(folder, fold, folds, asked, given, resume, quiet=quiet)
        results.append(result)
        if result.interrupted:
            narrator.line(f"to go on: linne train --output {shlex.quote(str(folder))} --resume")
            return CrossValidation(folder, tuple(results), None)
    report = _conclude(folder, results, trust_code=asked.get("trust_code", False))
    _say(report, folder, narrator)
    return CrossValidation(folder, tuple(results), report)


def is_cross_validation(folder: str | Path | None) -> bool:
    """Return whether a cross-validation was begun in `folder`."""
    return folder is not None and (Path(folder) / _name(1) / "recipe.json").is_file()


def _name(fold: int) -> str:
    return f"fold-{fold}"


def _place(
    source: str | None,
    recipe: str | None,
    overrides: Mapping[str, Any],
    folds: int | None,
    output: str | Path | None,
    resume: Resume,
) -> tuple[Path, int]:
    """Return the folder of the runs, made where it is new, and how many there are to be."""
    from linne.planning import collect, source_in_names
    from linne.recipe import parse_value
    from linne.recipes import read_run

    number: int = parse_value("data.folds", FOLDS if folds is None else folds)
    if resume and output is None:
        raise LinneError("nothing says which runs to go on with", hint="name their folder: --output DIR --resume")
    if output is not None and resume and is_cross_validation(output):
        was = read_run(Path(output) / _name(1) / "recipe.json")["recipe"]["data"]["folds"]
        if folds is not None and number != was:
            raise RecipeError(f"`{output}` holds {was} folds, and {number} are asked for", hint=f"use --folds {was}")
        return Path(output), was
    if resume and resume != "auto":
        raise LinneError(
            f"there are no folds in `{output}` to go on with", hint="`--resume auto` begins where there are none"
        )
    given, _ = collect(source, recipe, {}, overrides)
    run = Run.create(output, f"{source_in_names(given['data.source'])}-{number}-folds")
    return run.path, number


def _train_fold(
    folder: Path,
    fold: int,
    folds: int,
    asked: Mapping[str, Any],
    overrides: Mapping[str, Any],
    resume: Resume,
    *,
    quiet: bool,
) -> TrainResult:
    """Train a fold, go on with it, or return what it was when it is finished."""
    path, first = folder / _name(fold), folder / _name(1) / "recipe.json"
    fixed = {"data.folds": folds, "data.fold": fold}
    if fold == 1 or (path / "recipe.json").is_file():
        again: Resume = "auto" if resume else False
        return train(**asked, output=path, overrides={**overrides, **fixed}, resume=again, quiet=quiet)
    names = ("require_accelerator", "device_check", "stuck_after", "trust_code")
    guards = {name: asked[name] for name in names if name in asked}
    same = {**fixed, "optim.shortened": None}  # a budget is kept by each fold's own clock
    return train(recipe=str(first), output=path, overrides=same, quiet=quiet, **guards)


def _conclude(folder: Path, results: Sequence[TrainResult], *, trust_code: bool) -> FoldsReport:
    """Have each fold's bundle answer the images that were held out of its training, and write what all came to.

    Raises:
        LinneError: an image is in two folds, because the source has changed between them.
    """
    from linne.bundle import open_bundle
    from linne.evaluation import evaluate
    from linne.inference.backends.base import RunOptions
    from linne.inference.predictor import Predictor
    from linne.trained_on import as_in_training

    found, answers, skipped, name_of_source = list[FoldResult](), dict[str, _Answer](), list[str](), ""
    for fold, result in enumerate(results, start=1):
        bundle = open_bundle(result.run / "bundle")
        recipe = bundle.provenance["recipe"]
        source = as_in_training(bundle, recipe["data"]["source"], None)
        how = RunOptions(device=recipe["device"]["name"], trust_code=trust_code)
        predictor = Predictor.open(bundle, how=how)
        report, outcomes = evaluate(predictor, source, "val")
        predicted_N, sure_N = metrics.predict(outcomes.logits_NK), metrics.confidences(outcomes.logits_NK)
        for n, position in enumerate(outcomes.positions_N.tolist()):
            name = source.splits["val"].example_name(position)
            if name in answers:
                raise LinneError(
                    f"`{name}` is held out in folds {answers[name].fold} and {fold}: the source has changed meanwhile",
                    hint="train anew in another folder: --output DIR",
                )
            label, answer = (report.labels[k] for k in (outcomes.labels_N[n], predicted_N[n]))
            answers[name] = _Answer(name, label, answer, float(sure_N[n]), fold)
        test = None if result.report is None or result.report.split != "test" else result.report.accuracy
        found.append(_fold_result(fold, result.run, report.num_right, report.num_examples, test))
        skipped += report.skipped
        name_of_source = source.name
    report_of_all = summarise(name_of_source, found, skipped)
    _write(folder, report_of_all, list(answers.values()))
    return report_of_all


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a network says of one image that it did not learn from."""

    image: str
    label: str
    predicted: str
    probability: float
    """What it gave to `predicted`."""
    fold: int


def _fold_result(fold: int, run: Path, num_right: int, num_examples: int, test: float | None) -> FoldResult:
    return FoldResult(
        fold=fold,
        run=run.name,
        num_examples=num_examples,
        num_right=num_right,
        accuracy=num_right / num_examples,
        accuracy_interval=metrics.wilson_interval(num_right, num_examples),
        test_accuracy=test,
    )


def summarise(source: str, folds: Sequence[FoldResult], skipped: Sequence[str]) -> FoldsReport:
    """Return what `folds` of `source`, two or more, come to together."""
    accuracies = [fold.accuracy for fold in folds]
    num_right, num_examples = sum(fold.num_right for fold in folds), sum(fold.num_examples for fold in folds)
    return FoldsReport(
        source=source,
        folds=tuple(folds),
        mean=statistics.mean(accuracies),
        standard_deviation=_deviation(accuracies),
        accuracy=num_right / num_examples,
        accuracy_interval=metrics.wilson_interval(num_right, num_examples),
        num_examples=num_examples,
        num_right=num_right,
        skipped=tuple(skipped),
    )


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _write(folder: Path, report: FoldsReport, answers: Sequence[_Answer]) -> None:
    """Write the answers, what is most worth a look on top: the surest wrong ones, then the least sure right ones."""
    wrong_N = np.array([answer.label != answer.predicted for answer in answers])
    sure_N = np.array([answer.probability for answer in answers])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "label", "predicted", "probability", "fold"))
    for n in np.lexsort((np.where(wrong_N, -sure_N, sure_N), ~wrong_N)):
        answer = answers[n]
        writer.writerow((answer.image, answer.label, answer.predicted, repr(round(answer.probability, 6)), answer.fold))
    replace_file(folder / PREDICTIONS, text.getvalue().encode(errors="surrogateescape"))
    replace_file(folder / TABLE, report.to_markdown().encode())
    replace_file(folder / SUMMARY, to_json(report.to_dict(), SUMMARY))


def _say(report: FoldsReport, folder: Path, narrator: Narrator) -> None:
    narrator.line()
    narrator.table(report.rows(), "")
    narrator.line()
    narrator.line(report.one_line())
    narrator.table([("folds", str(folder)), ("answers", str(folder / PREDICTIONS))], "")
