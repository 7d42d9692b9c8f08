"""A check as one HTML page: the verdict, each finding with its images, and a contact sheet of each class."""

from __future__ import annotations

import html
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from linne.checking.report import NOTE, CheckReport, Example, Finding, Group
from linne.data.images.decode import reduced
from linne.data.names import counted, printable
from linne.data.source import Source, Split
from linne.errors import ImageError, SourceError
from linne.page_style import FOOTER, data_uri, document, escaped

_GROUPS, _COPIES = 24, 6
"""Groups shown of a finding, and images of a group."""
_SHEET_IMAGES, _SHEET_MOST, _SHEET_LEAST = 800, 10, 4
"""Images on all contact sheets together, some 4 kB each, and on one."""
_THUMBNAIL = 112
_STYLE = """<style>
h3 i, summary i { font: 600 12px/1 system-ui, sans-serif; padding: 3px 8px; border-radius: 9px; margin-right: 8px;
  background: var(--panel); color: var(--muted); vertical-align: 2px; }
h3 i.stop { background: var(--wrong); color: var(--card); }
h3 i.warning { background: var(--warn); color: var(--ink); box-shadow: inset 0 0 0 1px var(--warn-line); }
.note summary { font-weight: 600; color: inherit; margin-top: 10px; }
.groups { display: flex; flex-wrap: wrap; gap: 14px; margin: 10px 0 20px; }
.groups > div { border: 1px solid var(--line); border-radius: 8px; padding: 8px; max-width: 100%; }
.row { display: flex; flex-wrap: wrap; gap: 8px; margin: 0; padding: 0; list-style: none; }
.row li { width: 104px; font-size: 13px; line-height: 1.3; }
.row .frame { border: 0; border-radius: 6px; } .row .frame.none { color: var(--muted); font-size: 12px; }
.sheet li { width: 84px; } .sheet .frame { border-radius: 4px; }
.row b, .row li > span { display: block; } .row b { font-weight: 600; }
.verdict { font-size: 24px; font-weight: 650; line-height: 1.25; max-width: none; }
.verdict.is-stop { color: var(--wrong); } .verdict.is-clean { color: var(--right); }
</style>"""


def write_page(path: Path, report: CheckReport, source: Source) -> None:
    """Write the page about `report` on `source` to `path`; an earlier page of linne's is replaced.

    Raises:
        SourceError: something else is there, or it cannot be written.
    """
    check_replaceable(path)
    text = render(report, source)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SourceError(f"`{printable(path)}` cannot be written: {(error.strerror or str(error)).lower()}") from error


def check_replaceable(path: Path) -> None:
    """Raise unless a page can be written to `path`: nothing is there, or a page that linne wrote.

    Raises:
        SourceError: it cannot.
    """
    if os.path.lexists(path):
        ours = path.is_file() and not path.is_symlink() and FOOTER.encode() in path.read_bytes()[-8192:]
        if not ours:
            raise SourceError(f"`{printable(path)}` is there already, and no page of linne's", hint="name a new file")
    elif not path.absolute().parent.is_dir():
        raise SourceError(f"no folder `{printable(path.parent)}` to write `{printable(path.name)}` to")


def render(report: CheckReport, source: Source) -> str:
    """Return the page as one HTML document, with every image it shows inside."""
    sections = [
        ("findings", "What was found", "".join(_finding(finding, source) for finding in report.findings)),
        ("classes", "Classes", _classes(report)),
        ("images", "A look at each class", _sheets(report, source)),
        ("source", "How the source was read", "".join(f"<p>{escaped(note)}</p>" for note in report.notes)),
    ]
    subtitle = f"Checked by linne in {report.seconds:.1f} s; fingerprint {report.fingerprint[:12]}"
    return document(
        f"Check of {report.source}", subtitle, _STYLE + _lead(report), [each for each in sections if each[2]]
    )


def _lead(report: CheckReport) -> str:
    tiles = [("images", f"{report.num_images:,}"), ("classes", f"{len(report.labels):,}")]
    tiles += [(name, f"{sum(counts):,}") for name, counts in report.counts.items()]
    boxes = "".join(
        f"<div><strong>{escaped(value)}</strong><span>{escaped(name)}</span></div>" for name, value in tiles
    )
    facts = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in report.about)
    verdict = f'<p class="verdict is-{report.severity or "clean"}">{escaped(report.verdict)}</p>'
    return f'<section id="verdict">{verdict}<div class="tiles">{boxes}</div><dl>{facts}</dl></section>'


def _finding(finding: Finding, source: Source) -> str:
    groups = finding.groups[:_GROUPS]
    if groups and all(len(group.examples) == 1 for group in groups):
        shown = _row((_figure(group.examples[0], source, group.note) for group in groups), "row")
    else:
        shown = f'<div class="groups">{"".join(_copies(group, source) for group in groups)}</div>' if groups else ""
    more = len(finding.groups) - len(groups)
    rest = f'<p class="muted small">and {more:,} more; <code>--json</code> names all</p>' if more > 0 else ""
    advice = f'<p class="muted">{_with_code(finding.advice)}</p>' if finding.advice else ""
    mark = f'<i class="{finding.severity}">{finding.severity}</i>'
    head, inside = f"{mark}{escaped(finding.title)}", f"{advice}{shown}{rest}"
    if finding.severity == NOTE and inside:  # folded, or a dozen notes would hide the classes below
        return f'<details class="note"><summary>{head}</summary>{inside}</details>'
    return f"<h3>{head}</h3>{inside}"


def _with_code(text: str) -> str:
    """Return a sentence of linne's, with what it has in backticks as code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escaped(text))


def _copies(group: Group, source: Source) -> str:
    """Return one group of copies, those from different splits or classes first."""
    first = {(example.split, example.label): example for example in reversed(group.examples)}
    ordered = [*first.values(), *(example for example in group.examples if example not in first.values())]
    more = len(ordered) - _COPIES
    rest = f'<p class="muted small">and {more:,} more</p>' if more > 0 else ""
    return f"<div>{_row((_figure(example, source) for example in ordered[:_COPIES]), 'row')}{rest}</div>"


def _row(figures: Iterator[str], style: str) -> str:
    return f'<ul class="{style}">{"".join(figures)}</ul>'


def _figure(example: Example, source: Source, note: str = "") -> str:
    said = f"<span>{escaped(note)}</span>" if note else ""
    return (
        f'<li title="{escaped(example.name)}">{_picture(source.splits[example.split], example.position, source)}'
        f'<b>{escaped(example.label)}</b><span class="muted">{escaped(example.split)}</span> {said}'
        f'<div class="name">{escaped(example.name)}</div></li>'
    )


def _picture(split: Split, position: int, source: Source) -> str:
    """Return an image at the size it is shown, or that it cannot be."""
    try:
        content, kind, pixelated = _thumbnail(split, position, source)
    except ImageError:
        return '<div class="frame none">no picture</div>'
    style = ' class="pixels"' if pixelated else ""
    return f'<div class="frame"><img{style} src="{data_uri(kind, content)}" alt="" loading="lazy"></div>'


def _thumbnail(split: Split, position: int, source: Source) -> tuple[bytes, str, bool]:
    """Return an encoded thumbnail that fits a square, its format, and whether its pixels should be seen."""
    stored = split.load(position)
    if isinstance(stored, bytes):
        side = 2 * _THUMBNAIL  # a JPEG at an eighth, where that is enough
        stored, _ = reduced(stored, source.channels, lambda height, width: (side, side))
    image = Image.fromarray(stored[..., 0] if stored.shape[2] == 1 else stored)
    pixelated = max(image.size) <= _THUMBNAIL // 2
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    content = io.BytesIO()
    image.save(content, "PNG" if pixelated else "JPEG", quality=80)
    return content.getvalue(), "png" if pixelated else "jpeg", pixelated


def _classes(report: CheckReport) -> str:
    heads = "".join(f'<th class="n">{escaped(name)}</th>' for name in report.counts)
    most = max(max(counts) for counts in report.counts.values()) or 1
    rows = []
    for k, label in enumerate(report.labels):
        cells = "".join(
            f'<td data-v="{counts[k]}" class="n bar" style="--w:{counts[k] / most:.1%}">{counts[k]:,}</td>'
            for counts in report.counts.values()
        )
        rows.append(f'<tr><td data-v="{escaped(label)}">{escaped(label)}</td>{cells}</tr>')
    tall = " tall" if len(rows) > 25 else ""
    return (
        f'<div class="scroll{tall}"><table class="sortable"><thead><tr><th>class</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _sheets(report: CheckReport, source: Source) -> str:
    """Return up to ten training images of each class, spread over it; of a thousand classes, four of every fifth."""
    train = source.splits["train"]
    each = max(_SHEET_LEAST, min(_SHEET_MOST, _SHEET_IMAGES // len(report.labels)))
    chosen = np.unique(
        np.linspace(0, len(report.labels) - 1, min(len(report.labels), _SHEET_IMAGES // each)).astype(int)
    )
    blocks = []
    for label in chosen.tolist():
        positions = np.flatnonzero(train.labels_N == label)
        spread = positions[np.unique(np.linspace(0, len(positions) - 1, min(each, len(positions))).astype(int))]
        figures = (f"<li>{_picture(train, position, source)}</li>" for position in spread.tolist())
        blocks.append(f"<h3>{escaped(report.labels[label])}</h3>{_row(figures, 'row sheet')}")
    said = f"Training images, evenly chosen: {each} a class at most."
    if len(chosen) < len(report.labels):
        said += f" {len(chosen)} of {counted(len(report.labels), 'class', 'classes')} are shown."
    return f'<p class="muted">{html.escape(said)}</p>{"".join(blocks)}'
