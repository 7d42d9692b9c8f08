"""A sweep as one HTML page that needs nothing but itself, with its figures beside it as PNG."""

from __future__ import annotations

import html
import json
from pathlib import Path

from linne.figure_style import DARK, LIGHT, png
from linne.page_style import document, escaped
from linne.report import percent
from linne.report_page import Picture, picture_html
from linne.sweeping import plots
from linne.sweeping.folder import write_whole
from linne.sweeping.results import SweepReport, Trial
from linne.sweeping.words import PAGE, cells, counts, heads, repeats_rows, repeats_verdict, sentences, usage

RESULT = "result.json"


def write_page(report: SweepReport) -> Path:
    """Write `sweep.html`, `result.json` and the plots into the sweep's folder, and return the page's path.

    Raises:
        LinneError: the disk is full.
    """
    folder = report.folder
    write_whole(folder / RESULT, json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    pictures = {}
    for name, draw, alt in (
        ("history", plots.plot_history, "what each trial reached"),
        ("slices", plots.plot_slices, "what trials reached by the value of each field"),
    ):
        light, dark = draw(report, theme=LIGHT), draw(report, theme=DARK)
        if light is not None and dark is not None:
            pictures[name] = Picture(png(light), png(dark), alt, "wide")
            (folder / "plots").mkdir(exist_ok=True)
            (folder / "plots" / f"{name}.png").write_bytes(pictures[name].light)
    path = folder / PAGE
    write_whole(path, render(report, pictures))
    return path


def render(report: SweepReport, pictures: dict[str, Picture]) -> str:
    """Return the page as one HTML document."""
    drawn = {name: picture_html(picture) for name, picture in pictures.items()}
    note = (
        '<p class="muted small">The large dot is the best trial, the ring the recipe as it was. Fields were changed '
        "together: a field that looks good alone may have been lucky in its company.</p>"
    )
    sections = [
        ("best", "The best trials", _trials(report, report.ranked[:10])),
        ("history", "One trial after the other", drawn.get("history", "")),
        ("fields", "Field by field", drawn["slices"] + note + _importance(report) if "slices" in drawn else ""),
        ("seeds", "Luck or gain?", _repeats(report)),
        ("trials", "All trials", _trials(report, report.trials)),
        ("use", "Use it", _usage(report)),
    ]
    title = f"Sweep {report.folder.resolve().name}"
    shown = [section for section in sections if section[2]]
    return document(title, f"{counts(report)} of {report.source}", _lead(report), shown)


def _lead(report: SweepReport) -> str:
    best = report.best
    stopped = f'<section class="warning">{escaped(report.stopped)}</section>' if report.stopped else ""
    first, *rest = sentences(report)
    words = f'<p class="what">{escaped(first)}</p>' + "".join(f"<p>{escaped(line)}</p>" for line in rest)
    number, means = "", {each.number: each.mean for each in report.repeated}
    if best is not None and report.objective == "val_accuracy" and best.val_accuracy is not None:
        shown = percent(means.get(best.number, best.val_accuracy)).removesuffix(" %")
        number = f'<div class="number">{shown}<small>&nbsp;%</small></div>'
    return f'{stopped}<section id="result"><div class="hero">{number}<div>{words}</div></div></section>'


def _trials(report: SweepReport, trials: list[Trial] | tuple[Trial, ...]) -> str:
    if not trials:
        return ""
    names = [*heads(report)[:-1], "remark"]
    kinds = ["n"] * 5 + ["n" if ".." in typed else "" for typed in report.space.values()] + ["muted"]
    row = "".join(f'<th class="{kind}">{escaped(name)}</th>' for name, kind in zip(names, kinds, strict=True))
    rows = []
    for trial in trials:
        keys = _keys(report, trial)
        texts = cells(report, trial)
        tds = "".join(
            f'<td class="{kind}" data-v="{escaped(key)}">{escaped(text)}</td>'
            for text, key, kind in zip(texts, keys, kinds, strict=True)
        )
        rows.append(f"<tr>{tds}</tr>")
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{row}</tr></thead><tbody>{"".join(rows)}'
        "</tbody></table></div>"
    )


def _keys(report: SweepReport, trial: Trial) -> list[str]:
    """Return what each cell of a trial's row is sorted by: numbers, with the missing before all others."""
    numbers = [trial.number, trial.val_accuracy, trial.val_loss, trial.kept_epoch, trial.seconds]
    texts = cells(report, trial)
    drawn = [
        str(trial.settings.get(path, -1)) if ".." in typed else text
        for (path, typed), text in zip(report.space.items(), texts[5:-1], strict=True)
    ]
    return [*("-1" if n is None else str(n) for n in numbers), *drawn, texts[-1]]


def _importance(report: SweepReport) -> str:
    if not report.importance:
        return ""
    rows = "".join(
        f"<tr><td><code>{escaped(path)}</code></td>"
        f'<td class="n bar" style="--w:{share:.1%}">{100 * share:.0f} %</td></tr>'
        for path, share in report.importance.items()
    )
    words = (
        "How much of the difference between good and other trials each field explains (PED-ANOVA, Watanabe et al. "
        "2023); with few trials a rough guess."
    )
    table = f'<table><thead><tr><th>field</th><th class="n">share</th></tr></thead><tbody>{rows}</tbody></table>'
    return f'<h3>What decided</h3><p class="muted small">{words}</p><div class="scroll">{table}</div>'


def _repeats(report: SweepReport) -> str:
    if not report.repeated:
        return ""
    first, *rows = repeats_rows(report)
    head = "".join(f'<th class="{"n" if name else ""}">{escaped(name)}</th>' for name in first)
    body = "".join(
        "<tr>" + "".join(f'<td class="n">{escaped(text)}</td>' for text in row[:-1]) + f"<td>{row[-1]}</td></tr>"
        for row in rows
    )
    words = (
        f"The best of many is partly the luckiest. These were trained again with seeds that did not choose them; the "
        f"spread is the standard deviation of {escaped(report.objective)}."
    )
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f'<p class="muted">{words}</p>{table}<p>{escaped(repeats_verdict(report))}</p>'


def _usage(report: SweepReport) -> str:
    explained = {
        "bundle": "The best trial's classifier",
        "again": "Train the best recipe again, to the bit on the same machine",
        "go on": "Continue, here or on a machine that shares the folder",
    }
    rows = [(explained[name], text) for name, text in usage(report) if name in explained]
    return "".join(f"<p>{escaped(what)}</p><pre>{html.escape(text)}</pre>" for what, text in rows)
