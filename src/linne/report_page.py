"""A run as one HTML page that needs nothing but itself: images inside, no outside fonts, scripts or styles.

Every text that comes from a user (class and file names, paths, commands) goes through `escaped`.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linne.page_style import data_uri, document, escaped
from linne.report import CLASS_COLUMNS, ClassResult, EvalReport, class_cells, percent, percent_range
from linne.run_facts import Headline

NUM_NAMED_SKIPPED = 20
TALL_TABLE_ROWS = 25


@dataclass(frozen=True, slots=True)
class Tile:
    """One image with its answer."""

    image: bytes
    kind: str
    """`png` or `jpeg`."""
    pixelated: bool
    """Whether it is so small that its pixels should be seen."""
    name: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True, slots=True)
class Picture:
    """One figure as PNG, for light pages and for dark ones."""

    light: bytes
    dark: bytes
    alt: str
    shape: str
    """`wide` or `square`: how it behaves on a narrow screen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Everything `render_page` shows."""

    title: str
    subtitle: str
    headline: Headline
    numbers: Sequence[tuple[str, str]]
    facts: Sequence[tuple[str, str]]
    curves_note: str
    pictures: Mapping[str, Picture]
    """By name: `curves`, `confusion`, `reliability`."""
    predictions: Sequence[Tile]
    mistakes: Sequence[Tile]
    report: EvalReport | None
    recipe: Sequence[tuple[str, str, str]]
    environment: Sequence[tuple[str, str]]
    usage: Sequence[tuple[str, str]]


def render_page(page: Page) -> str:
    """Return the page as one HTML document."""
    sections = [
        ("trained", "What was trained", _definitions(page.facts)),
        ("curves", "How training went", _curves(page)),
        ("classes", "Class by class", _classes(page.report)),
        ("confusion", "What is taken for what", _confusion(page)),
        ("answers", "A look at the answers", _predictions(page)),
        ("mistakes", "The surest mistakes", _mistakes(page)),
        ("calibration", "Can its probabilities be believed?", _calibration(page)),
        ("recipe", "The recipe, and why", _recipe(page.recipe)),
        ("environment", "Environment", _definitions(page.environment, code=True)),
        ("use", "Use it", _usage(page.usage)),
    ]
    shown = [section for section in sections if section[2]]
    return document(page.title, page.subtitle, _hero(page), shown)


def _hero(page: Page) -> str:
    head = page.headline
    parts = []
    if head.warning:
        parts.append(f'<section class="warning">{escaped(head.warning)}</section>')
    words = f'<p class="what">{escaped(head.what)}</p>' + "".join(f"<p>{escaped(line)}</p>" for line in head.sentences)
    number = ""
    if head.fraction is not None:
        number = f'<div class="number">{percent(head.fraction).removesuffix(" %")}<small>&nbsp;%</small></div>'
    tiles = "".join(
        f"<div><strong>{escaped(value)}</strong><span>{escaped(name)}</span></div>" for name, value in page.numbers
    )
    inside = f'<div class="hero">{number}<div>{words}</div>{_scale(page)}</div>'
    parts.append(f'<section id="result">{inside}{f"<div class=tiles>{tiles}</div>" if tiles else ""}</section>')
    return "".join(parts)


def _scale(page: Page) -> str:
    """Return the accuracy and its interval on a line from 0 to 100 %, with what guessing would reach."""
    fraction, interval, report = page.headline.fraction, page.headline.interval, page.report
    if fraction is None or interval is None or report is None:
        return ""
    low, high = interval
    guess = max(row.count for row in report.per_class) / report.num_examples
    alt = f"{percent(fraction)} right, 95 % interval {percent_range(low, high)}, on a scale from 0 to 100 %"
    return (
        f'<div class="scale"><div class="track" role="img" aria-label="{escaped(alt)}">'
        f'<u style="left:{guess:.3%}" title="always the most frequent class: {escaped(percent(guess))}"></u>'
        f'<i style="left:{low:.3%};width:{high - low:.3%}"></i><b style="left:{fraction:.3%}"></b></div>'
        '<div class="ends"><span>0 %</span><span>thin line: always the most frequent class; band: 95 % interval</span>'
        "<span>100 %</span></div></div>"
    )


def _picture(page: Page, name: str) -> str:
    picture = page.pictures.get(name)
    return "" if picture is None else picture_html(picture)


def picture_html(picture: Picture) -> str:
    """Return a figure that is light or dark as the page is."""
    light, dark = (data_uri("png", content) for content in (picture.light, picture.dark))
    return (
        f'<div class="scroll"><figure class="{picture.shape}"><picture>'
        f'<source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="{escaped(picture.alt)}"{_size(picture.light)}></picture></figure></div>'
    )


def _curves(page: Page) -> str:
    picture = _picture(page, "curves")
    note = f'<p class="muted small">{escaped(page.curves_note)}</p>' if picture and page.curves_note else ""
    return picture + note


def _size(png: bytes) -> str:
    """Return the width and height attributes of a PNG drawn at 1.6 pixels a page pixel (160 dots an inch)."""
    width, height = (int.from_bytes(png[k : k + 4], "big") for k in (16, 20))  # the IHDR chunk comes first
    return f' width="{width * 100 // 160}" height="{height * 100 // 160}"'


def _definitions(rows: Sequence[tuple[str, str]], *, code: bool = False) -> str:
    """Return a list of names and values; a name that comes again is not repeated."""
    start, end = ("<code>", "</code>") if code else ("", "")
    parts = []
    for k, (name, value) in enumerate(rows):
        term = "" if k and rows[k - 1][0] == name else escaped(name)
        parts.append(f"<dt>{term}</dt><dd>{start}{escaped(value)}{end}</dd>")
    return f"<dl>{''.join(parts)}</dl>"


def _classes(report: EvalReport | None) -> str:
    if report is None:
        return ""
    rows = "".join(map(_class_row, report.per_class))
    heads = "".join(f"<th{' class=n' if k else ''}>{name}</th>" for k, name in enumerate(CLASS_COLUMNS))
    tall = " tall" if len(report.per_class) > TALL_TABLE_ROWS else ""
    return (
        '<p class="muted small">Precision: of the images given this name, the share that have it. Recall: of the '
        "images that have this name, the share that got it, which is also called the accuracy of the class. "
        f'F1: their harmonic mean.</p><div class="scroll{tall}"><table class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _class_row(row: ClassResult) -> str:
    values = (row.count, row.precision, row.recall, row.f1)
    cells = f'<td data-v="{escaped(row.label)}">{escaped(row.label)}</td>'
    for k, (value, text) in enumerate(zip(values, class_cells(row), strict=True)):
        bar = f' bar" style="--w:{value:.1%}' if k and text != "-" else ""
        cells += f'<td data-v="{value}" class="n{bar}">{html.escape(text)}</td>'
    return f"<tr>{cells}</tr>"


def _confusion(page: Page) -> str:
    report = page.report
    if report is None:
        return ""
    pairs = "".join(
        f'<tr><td>{escaped(p.label)}</td><td>{escaped(p.predicted)}</td><td class="n">{p.count:,}</td>'
        f'<td class="n">{html.escape(percent(p.fraction))}</td></tr>'
        for p in report.most_confused[:10]
    )
    table = (
        '<h3>Most confused</h3><div class="scroll"><table><thead><tr><th>true class</th><th>taken for</th>'
        f'<th class="n">times</th><th class="n">of its images</th></tr></thead><tbody>{pairs}</tbody></table></div>'
    )
    return _picture(page, "confusion") + (table if pairs else "<p>Nothing was confused.</p>")


def _predictions(page: Page) -> str:
    if not page.predictions or page.report is None:
        return ""
    num_right = sum(tile.label == tile.predicted for tile in page.predictions)
    words = (
        f"{len(page.predictions)} of the {page.report.num_examples:,} {page.report.split} images, evenly chosen: "
        f"{num_right} right (blue), {len(page.predictions) - num_right} wrong (orange, with the true name)."
    )
    return f'<p class="muted">{words}</p>{_grid(page.predictions, names=False)}{_skipped(page.report)}'


def _mistakes(page: Page) -> str:
    if page.report is None:
        return ""
    if not page.mistakes:
        return "<p>There is none.</p>" if page.report.num_right == page.report.num_examples else ""
    words = "Wrong answers with the highest probability. Look here first: some are hard, some are labelled wrongly."
    return f'<p class="muted">{words}</p>{_grid(page.mistakes, names=True)}'


def _grid(tiles: Sequence[Tile], *, names: bool) -> str:
    return f'<ul class="grid">{"".join(_tile(tile, names) for tile in tiles)}</ul>'


def _tile(tile: Tile, name: bool) -> str:
    right = tile.label == tile.predicted
    pixels = ' class="pixels"' if tile.pixelated else ""
    share = html.escape(percent(tile.probability, 0).replace(" ", "\N{NO-BREAK SPACE}"))
    truth = "" if right else f'<div class="truth">is {escaped(tile.label)}</div>'
    file = f'<div class="name">{escaped(tile.name)}</div>' if name else ""
    return (
        f'<li class="{"right" if right else "wrong"}" title="{escaped(tile.name)}"><div class="frame">'
        f'<img{pixels} src="{data_uri(tile.kind, tile.image)}" alt="{escaped(tile.name)}" loading="lazy"></div>'
        f'<div class="answer"><b>{escaped(tile.predicted)}</b><span>{share}</span></div>{truth}{file}</li>'
    )


def _skipped(report: EvalReport) -> str:
    if not report.skipped:
        return ""
    names = ", ".join(escaped(name) for name in report.skipped[:NUM_NAMED_SKIPPED])
    more = f" and {report.num_skipped - NUM_NAMED_SKIPPED:,} more" if report.num_skipped > NUM_NAMED_SKIPPED else ""
    return f'<p class="small">Left out because they could not be read ({report.num_skipped:,}): {names}{more}.</p>'


def _calibration(page: Page) -> str:
    if page.report is None:
        return ""
    says, right = page.report.calibration.mean_confidence, page.report.accuracy
    lean = "about as sure as it should be"
    if abs(says - right) > 0.02:
        lean = "surer than it should be" if says > right else "less sure than it should be"
    words = (
        f"On average it is {percent(says)} sure and {percent(right)} right: {lean}. A dot on the dashed line means "
        "that answers given with 80 % are right eight times in ten; the lines through the dots are 95 % intervals, "
        "long where there are few images."
    )
    return f'<p class="muted">{html.escape(words)}</p>{_picture(page, "reliability")}'


def _recipe(rows: Sequence[tuple[str, str, str]]) -> str:
    def table(chosen: Sequence[tuple[str, str, str]]) -> str:
        lines = "".join(
            f"<tr><td><code>{escaped(field)}</code></td><td><code>{escaped(value)}</code></td>"
            f'<td class="muted">{escaped(reason)}</td></tr>'
            for field, value, reason in chosen
        )
        heads = "<thead><tr><th>field</th><th>value</th><th>why</th></tr></thead>"
        return f'<div class="scroll"><table>{heads}<tbody>{lines}</tbody></table></div>'

    told = [row for row in rows if row[2] != "default"]
    untold = [row for row in rows if row[2] == "default"]
    rest = f"<details><summary>{len(untold)} fields at their defaults</summary>{table(untold)}</details>"
    return (table(told) if told else "") + (rest if untold else "")


def _usage(uses: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<p>{escaped(what)}</p><pre>{html.escape(code)}</pre>" for what, code in uses)
