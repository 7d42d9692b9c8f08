"""A sweep in words and columns, the same on the terminal and on its page."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Sequence

from linne.log import clock
from linne.report import ALSO_SEEN, percent
from linne.sweeping.results import SweepReport, Trial
from linne.sweeping.space import shown

NUM_SHOWN = 10
WIDTH = 100
PAGE = "sweep.html"
Rows = list[list[str]]


def short_names(paths: Sequence[str]) -> list[str]:
    """Return the fields' names without their section, where that leaves no doubt."""
    ends = [path.rpartition(".")[2] for path in paths]
    return [end if ends.count(end) == 1 else path for end, path in zip(ends, paths, strict=True)]


def heads(report: SweepReport) -> list[str]:
    """Return the heads of the columns of `cells`."""
    return ["trial", "val accuracy", "val loss", "epoch", "time", *short_names(list(report.space)), ""]


def cells(report: SweepReport, trial: Trial) -> list[str]:
    """Return what stands in a trial's row."""
    accuracy = "-" if trial.val_accuracy is None else f"{100 * trial.val_accuracy:.2f} %"
    loss = "-" if trial.val_loss is None else f"{trial.val_loss:.4f}"
    epoch, note = "-" if trial.kept_epoch is None else str(trial.kept_epoch), remark(report, trial)
    if trial.state == "running":
        accuracy = loss = "-"
        if trial.latest is not None and report.objective == "val_accuracy":
            accuracy = f"{100 * trial.latest:.2f} %"
        elif trial.latest is not None:
            loss = f"{trial.latest:.4f}"
        epoch = str(trial.epochs)
    values = [shown(trial.settings[path]) if path in trial.settings else "-" for path in report.space]
    return [
        str(trial.number),
        accuracy,
        loss,
        epoch,
        "-" if trial.seconds is None else clock(trial.seconds),
        *values,
        note,
    ]


def remark(report: SweepReport, trial: Trial) -> str:
    """Return what there is to say about a trial beside its numbers."""
    said = {
        "running": "running",
        "pruned": f"ended after epoch {trial.epochs}, behind the others",
        "failed": f"failed: {trial.message}",
        "diverged": "the loss was no longer a number",
        "interrupted": "cut off, tried again",
        "lost": "its worker was gone, tried again",
    }.get(trial.state)
    notes = [said] if said else []
    if trial.again is not None:
        notes.append(f"trial {trial.again} again")
    if trial.repeats is not None:
        notes.append(f"trial {trial.repeats} with seed {trial.seed}")
    elif trial.number == report.automatic:
        notes.append("the recipe as it was")
    return "; ".join(notes)


def aligned(rows: Rows, indent: str = "  ") -> list[str]:
    """Return `rows` as lines: columns to the right, the last, of remarks, to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (indent + "  ".join([*(c.rjust(w) for c, w in zip(row[:-1], widths, strict=False)), row[-1]])).rstrip()
        for row in rows
    ]


def counts(report: SweepReport) -> str:
    """Return how the trials ended, in a clause."""
    states = Counter[str](trial.state for trial in report.trials)
    words = {
        "finished": "finished",
        "pruned": "ended early",
        "diverged": "diverged",
        "failed": "failed",
        "running": "running",
    }
    told = ", ".join(f"{states[state]} {word}" for state, word in words.items() if states[state])
    return f"{report.num_done} of {report.num_trials} trials" + (f" ({told})" if told else "")


def to_text(report: SweepReport) -> str:
    """Return the whole sweep for a terminal: the best trials, what to believe of them, and what to type next."""
    lines = [f"sweep of {report.source}: {counts(report)}"]
    if report.stopped:
        lines.append(report.stopped)
    ranked = report.ranked
    if ranked:
        first = ranked[:NUM_SHOWN]
        first += [trial for trial in ranked[NUM_SHOWN:] if trial.number == report.automatic]
        lines += ["", *aligned([heads(report), *(cells(report, trial) for trial in first)])]
        if len(ranked) > len(first):
            lines.append(f"  and {len(ranked) - len(first)} more, on the page")
    failed = [trial for trial in report.trials if trial.state == "failed"]
    lines += ["", *(f"trial {trial.number} failed: {trial.message}" for trial in failed)] if failed else []
    lines.append("")
    lines += [line for said in sentences(report) for line in textwrap.wrap(said, WIDTH)]
    lines += repeats_text(report)
    if uses := usage(report):
        lines += ["", *(f"{name:<7} {text}" for name, text in uses)]
    return "\n".join(lines)


def sentences(report: SweepReport) -> list[str]:
    """Return what the numbers say, and what they do not."""
    best = report.best
    if best is None:
        return ["No trial has finished, so there is nothing to choose from."]
    said = [f"Best: trial {best.number} with {_value(report, best)}.{_against(report, best)}"]
    if report.repeated:
        found = next(each for each in report.repeated if each.number == best.number)
        mean = _number(report, found.mean)
        said = [
            f"Best: trial {best.number}, by its mean {report.objective} of {mean} over {len(found.values)} other seeds."
        ]
    error = report.standard_error
    if error is not None and report.objective == "val_accuracy":
        said.append(
            f"Chance alone moves such an accuracy by {100 * error:.2f} points (one standard error, "
            f"{report.num_val:,} images); {report.num_near} of {len(report.ranked)} finished trials are that near to "
            "the highest."
            + (
                ""
                if report.repeats or report.num_near < 2
                else " --seeds 5 repeats the best few, to tell luck from gain."
            )
        )
    if report.importance:
        said.append("What decided: " + ", ".join(f"{p} {100 * s:.0f} %" for p, s in report.importance.items()) + ".")
    if report.test is not None:
        low, high = report.test["accuracy_interval"]
        images = f"{report.test['num_examples']:,} test images{ALSO_SEEN.get(report.test['tta'], '')}"
        said.append(
            f"Trial {best.number} has {percent(report.test['accuracy'])} right of {images} (95 % interval "
            f"{100 * low:.1f} to {100 * high:.1f} %), which chose nothing."
        )
    return said


def _value(report: SweepReport, trial: Trial) -> str:
    if report.objective == "val_loss":
        return f"a val loss of {trial.val_loss:.4f}"
    return f"{100 * (trial.val_accuracy or 0):.2f} % of val images right"


def _against(report: SweepReport, best: Trial) -> str:
    before = next((t for t in report.trials if t.number == report.automatic and t.state == "finished"), None)
    if before is None:
        return ""
    if before is best:
        return " That is the recipe as it was: nothing that was tried is better."
    value = f"{before.val_loss:.4f}" if report.objective == "val_loss" else f"{100 * (before.val_accuracy or 0):.2f} %"
    return f" The recipe as it was (trial {before.number}) has {value}."


def repeats_rows(report: SweepReport) -> Rows:
    """Return a row a repeated recipe, with heads: what other seeds make of it."""
    rows = [["trial", "seeds", "mean", "spread", "lowest", "highest", ""]]
    for each in report.repeated:
        texts = [_number(report, v) for v in (each.mean, each.spread, min(each.values), max(each.values))]
        note = "the recipe as it was" if each.number == report.automatic else ""
        rows.append([str(each.number), str(len(each.values)), *texts, note])
    return rows


def _number(report: SweepReport, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if report.objective == "val_loss" else f"{100 * value:.2f} %"


def repeats_text(report: SweepReport) -> list[str]:
    """Return the table of repeats and what it says."""
    if not report.repeated:
        return []
    title = f"Trained again with other seeds than the one that chose them ({report.objective}):"
    verdict = textwrap.wrap(repeats_verdict(report), WIDTH)
    return ["", title, "", *aligned(repeats_rows(report)), "", *verdict]


def repeats_verdict(report: SweepReport) -> str:
    """Return whether the best recipe is better than the one as it was, as far as the repeats can tell."""
    found = {each.number: each for each in report.repeated}
    first = report.repeated[0]
    before = found.get(report.automatic or 0)
    if before is None or first.spread is None or before.spread is None:
        return f"Trial {first.number} has the best mean."
    if first.number == before.number:
        return "None of them is better than the recipe as it was."
    gain = abs(first.mean - before.mean)
    error = (first.spread**2 / len(first.values) + before.spread**2 / len(before.values)) ** 0.5
    unit = 1 if report.objective == "val_loss" else 100
    points = "" if report.objective == "val_loss" else " points"
    words = f"{unit * gain:.4g}{points} better than the recipe as it was, with a standard error of {unit * error:.4g}"
    verdict = "more than luck" if gain > 2 * error else "which may be luck"
    return f"Trial {first.number} is on average {words}: {verdict}."


def usage(report: SweepReport) -> list[tuple[str, str]]:
    """Return where things are and what to type next, by name."""
    best, folder = report.best, report.folder
    rows = []
    if best is not None:
        rows.append(("bundle", str(folder / best.name / "bundle")))
        rows.append(("again", shlex.join(["linne", "train", "--recipe", str(folder / best.name / "recipe.json")])))
    if report.num_done < report.num_trials:
        rows.append(("go on", shlex.join(["linne", "sweep", str(folder)])))
    if (folder / PAGE).is_file():
        rows.append(("page", str(folder / PAGE)))
    return rows
