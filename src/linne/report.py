"""What an evaluation found, as plain data: to and from JSON, to Markdown, to a terminal, to one line.

Nothing is computed here but how a number is written; `linne.evaluation` fills the report in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from linne.errors import LinneError

MANY_CLASSES = 30
"""Up to here a table names every class; beyond, the worst and the best."""
NUM_WORST, NUM_BEST = 10, 5
NUM_PAIRS, NUM_MISTAKES, NUM_SKIPPED = 10, 5, 5
"""Rows of the shorter lists in a text; the JSON holds more."""
ALSO_SEEN = {"flip": ", with their mirror images", "crops": ", with their mirror images and shifted copies"}
"""Beside an image itself, by test-time augmentation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassResult:
    """One class. A score with nothing to divide by is 0: see `count` and `num_predicted`."""

    label: str
    precision: float
    """Of the images given this name, the share that have it."""
    recall: float
    """Of the images that have this name, the share that got it."""
    f1: float
    """The harmonic mean of precision and recall."""
    accuracy: float
    """The accuracy over this class's own images: the same number as `recall`, under the name others look for."""
    count: int
    """Images that have this name."""
    num_predicted: int
    """Images given this name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfusedPair:
    """`count` images of `label` were taken for `predicted`: `fraction` of all images of `label`."""

    label: str
    predicted: str
    count: int
    fraction: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """One image with a wrong answer."""

    name: str
    label: str
    predicted: str
    probability: float
    """What the model gave to `predicted`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationBin:
    """The answers given with a probability in (low, high]; the means are None when there are none."""

    low: float
    high: float
    count: int
    confidence: float | None
    """Mean probability given to the predicted class."""
    accuracy: float | None
    """Share of them that were right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Whether 90 % sure means right nine times in ten."""

    ece: float
    """Expected calibration error."""
    mean_confidence: float
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalReport:
    """How a bundle did on one split of a source. Fractions are 0-1, classes in the bundle's order."""

    accuracy: float
    accuracy_interval: tuple[float, float]
    """95 % (Wilson)."""
    num_examples: int
    """Images that were read and answered."""
    loss: float
    """Mean cross-entropy in nats."""
    top_k: Mapping[str, float]
    """{"5": fraction whose label is among the five most probable}, for k below the number of classes."""
    macro: Mapping[str, float]
    """Plain means over the classes that have images: `precision`, `recall`, `f1`."""
    per_class: tuple[ClassResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Counts: row = label, column = predicted class."""
    calibration: Calibration
    most_confused: tuple[ConfusedPair, ...]
    worst_mistakes: tuple[Mistake, ...]
    """Wrong answers, the surest first."""
    skipped: tuple[str, ...]
    """Images that could not be read; they count neither as right nor as wrong."""
    source: str
    split: str
    bundle: str
    labels: tuple[str, ...]
    tta: str | None
    """Test-time augmentation: `flip` or `crops` where answers are means over several views."""

    @property
    def num_right(self) -> int:
        """Images whose most probable class is their label."""
        return sum(row[k] for k, row in enumerate(self.confusion))

    @property
    def also_seen(self) -> str:
        """What was seen of the images beside themselves, as the clause after them; "" for nothing."""
        return "" if self.tta is None else ALSO_SEEN[self.tta]

    @property
    def num_skipped(self) -> int:
        """Images that could not be read."""
        return len(self.skipped)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, which `from_dict` reads back exactly."""
        return {
            "source": self.source,
            "split": self.split,
            "bundle": self.bundle,
            "tta": self.tta,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "num_examples": self.num_examples,
            "num_skipped": self.num_skipped,
            "skipped": list(self.skipped),
            "loss": self.loss,
            "top_k": dict(self.top_k),
            "macro": dict(self.macro),
            "calibration": {**asdict(self.calibration), "bins": [asdict(b) for b in self.calibration.bins]},
            "labels": list(self.labels),
            "per_class": [asdict(row) for row in self.per_class],
            "most_confused": [asdict(pair) for pair in self.most_confused],
            "worst_mistakes": [asdict(mistake) for mistake in self.worst_mistakes],
            "confusion": [list(row) for row in self.confusion],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvalReport:
        """Return the report that `to_dict` wrote.

        Raises:
            LinneError: a field is missing, unknown or of another shape.
        """
        try:
            fields = dict(values)
            num_skipped = fields.pop("num_skipped")
            calibration = dict(fields.pop("calibration"))
            bins = tuple(CalibrationBin(**b) for b in calibration.pop("bins"))
            report = cls(
                accuracy_interval=_pair(fields.pop("accuracy_interval")),
                per_class=tuple(ClassResult(**row) for row in fields.pop("per_class")),
                confusion=tuple(tuple(row) for row in fields.pop("confusion")),
                calibration=Calibration(bins=bins, **calibration),
                most_confused=tuple(ConfusedPair(**pair) for pair in fields.pop("most_confused")),
                worst_mistakes=tuple(Mistake(**mistake) for mistake in fields.pop("worst_mistakes")),
                skipped=tuple(fields.pop("skipped")),
                labels=tuple(fields.pop("labels")),
                **fields,
            )
            if num_skipped != report.num_skipped:
                raise ValueError(f"num_skipped is {num_skipped}, but {report.num_skipped} are named")
        except KeyError as error:
            raise LinneError(f"not an evaluation report: it has no `{error.args[0]}`") from error
        except (TypeError, ValueError) as error:
            raise LinneError(f"not an evaluation report: {error}") from error
        return report

    def one_line(self) -> str:
        """Return the result in one sentence without a full stop."""
        low, high = self.accuracy_interval
        return (
            f"{percent(self.accuracy)} right of {self.num_examples:,} {self.split} images{self.also_seen} "
            f"(95 % interval {percent_range(low, high)})"
        )

    def summary(self) -> list[tuple[str, str]]:
        """Return the other single numbers as (name, value), in the order to read them."""
        return [
            ("loss", f"{self.loss:.4f}"),
            *((f"top-{k}", percent(value)) for k, value in self.top_k.items()),
            ("macro F1", percent(self.macro["f1"])),
            ("calibration error", percent(self.calibration.ece)),
        ]

    def class_tables(self) -> list[tuple[str, list[ClassResult]]]:
        """Return (title, rows): every class in order or, of many, the worst and the best by recall."""
        if len(self.per_class) <= MANY_CLASSES:
            return [("per class", list(self.per_class))]
        tested = sorted((row for row in self.per_class if row.count), key=lambda row: (row.recall, row.f1))
        num = len(self.per_class)
        titles = f"worst {NUM_WORST} of {num:,} classes (the JSON has all)", f"best {NUM_BEST} of {num:,} classes"
        return [(titles[0], tested[:NUM_WORST]), (titles[1], tested[NUM_WORST:][: -NUM_BEST - 1 : -1])]

    def to_text(self, width: int = 80) -> str:
        """Return what a terminal `width` columns wide shows: one headline line, then aligned tables."""
        return _to_text(self, width)

    def to_markdown(self) -> str:
        """Return the result as GitHub-flavoured Markdown that starts at heading level 2."""
        return _to_markdown(self)


def percent(fraction: float, digits: int = 1) -> str:
    """Return "98.4 %". All and nothing are said only when meant: just below 1 is ">99.9 %", just above 0 "<0.1 %"."""
    text, smallest = f"{100 * fraction:.{digits}f}", 10.0**-digits
    if text == f"{100:.{digits}f}":
        return "100 %" if fraction >= 1 else f">{100 - smallest:.{digits}f} %"
    if text == f"{0:.{digits}f}":
        return "0 %" if fraction <= 0 else f"<{smallest:.{digits}f} %"
    return f"{text} %"


def percent_range(low: float, high: float) -> str:
    """Return "96.5 to 99.2 %"."""
    return f"{percent(low).removesuffix(' %')} to {percent(high)}"


def class_cells(row: ClassResult) -> list[str]:
    """Return count, precision, recall and F1 as written in tables; a dash where nothing was there to divide by."""
    return [
        f"{row.count:,}",
        percent(row.precision) if row.num_predicted else "-",
        percent(row.recall) if row.count else "-",
        percent(row.f1) if row.count or row.num_predicted else "-",
    ]


CLASS_COLUMNS = ("class", "images", "precision", "recall", "F1")


def shorten(text: str, length: int) -> str:
    """Return `text` in at most `length` characters, its middle left out: names often differ at the end."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 3
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def printable(text: str) -> str:
    """Return `text` without what would move a terminal's cursor or change its colours."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def escape_markdown(text: str) -> str:
    """Return `text` so that it stands in a Markdown table as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", printable(text))


def code_markdown(text: str) -> str:
    """Return `text` in backticks."""
    return f"`{printable(text).replace('`', chr(39))}`"


def _pair(values: Sequence[float]) -> tuple[float, float]:
    low, high = values
    return low, high


def _to_text(report: EvalReport, width: int) -> str:
    blocks = [report.one_line(), _wrapped([f"{name} {value}" for name, value in report.summary()], width)]
    if report.skipped:
        blocks.append(f"{_skipped_sentence(report)}: {', '.join(map(printable, report.skipped[:NUM_SKIPPED]))}")
    for title, rows in report.class_tables():
        cells = [[printable(row.label), *class_cells(row)] for row in rows]
        blocks.append(_table(title, [CLASS_COLUMNS, *cells], "lrrrr", width))
    if report.most_confused:
        pairs = [
            [f"{printable(p.label)}", printable(p.predicted), f"{p.count:,}", percent(p.fraction)]
            for p in report.most_confused[:NUM_PAIRS]
        ]
        blocks.append(_table("most confused", [["class", "taken for", "times", "share"], *pairs], "llrr", width))
    if report.worst_mistakes:
        mistakes = [
            [printable(m.name), printable(m.label), printable(m.predicted), percent(m.probability)]
            for m in report.worst_mistakes[:NUM_MISTAKES]
        ]
        blocks.append(_table("surest mistakes", [["image", "is", "taken for", "sure"], *mistakes], "lllr", width))
    return "\n\n".join(blocks)


def _to_markdown(report: EvalReport) -> str:
    num_right = f"{report.num_right:,} of {report.num_examples:,}"
    blocks = [
        f"## {percent(report.accuracy)} right on {report.split}",
        f"{num_right} images; 95 % interval {percent_range(*report.accuracy_interval)}. "
        f"Bundle {code_markdown(report.bundle)}, source {code_markdown(report.source)}.",
        "\n".join(["| measure | value |", "|---|--:|", *(f"| {name} | {value} |" for name, value in report.summary())]),
    ]
    if report.skipped:
        blocks.append(f"{_skipped_sentence(report)}: {', '.join(map(code_markdown, report.skipped[:NUM_SKIPPED]))}.")
    for title, rows in report.class_tables():
        lines = [f"| {escape_markdown(row.label)} | {' | '.join(class_cells(row))} |" for row in rows]
        head = f"| {' | '.join(CLASS_COLUMNS)} |"
        blocks.append("\n".join([f"### {title.capitalize()}", "", head, "|---|--:|--:|--:|--:|", *lines]))
    if report.most_confused:
        pairs = [
            f"| {escape_markdown(p.label)} | {escape_markdown(p.predicted)} | {p.count:,} | {percent(p.fraction)} |"
            for p in report.most_confused[:NUM_PAIRS]
        ]
        head = "| class | taken for | times | share |"
        blocks.append("\n".join(["### Most confused", "", head, "|---|---|--:|--:|", *pairs]))
    return "\n\n".join(blocks) + "\n"


def _skipped_sentence(report: EvalReport) -> str:
    if report.num_skipped == 1:
        return "1 image could not be read and is left out"
    more = f", the first {NUM_SKIPPED}" if report.num_skipped > NUM_SKIPPED else ""
    return f"{report.num_skipped:,} images could not be read and are left out{more}"


def _wrapped(items: Sequence[str], width: int) -> str:
    lines = [items[0]]
    for item in items[1:]:
        if len(lines[-1]) + 3 + len(item) <= width:
            lines[-1] += f"   {item}"
        else:
            lines.append(item)
    return "\n".join(lines)


def _table(title: str, rows: Sequence[Sequence[str]], align: str, width: int) -> str:
    """Return `rows`, the first of them headings, under `title`; `align` has one of `l` and `r` a column."""
    from rich.cells import cell_len, set_cell_size  # knows that some characters are two columns wide

    columns = [list(column) for column in zip(*rows, strict=True)]
    widths = [max(map(cell_len, column)) for column in columns]
    room = max(width, 40) - 2 * len(columns)
    texts = [k for k, side in enumerate(align) if side == "l"]
    while sum(widths) > room and max(widths[k] for k in texts) > 8:
        widths[max(texts, key=widths.__getitem__)] -= 1
    lines = [title]
    for cells in zip(*columns, strict=True):
        line = ""
        for cell, size, side in zip(cells, widths, align, strict=True):
            text = cell if cell_len(cell) <= size else shorten(cell, size)
            padding = " " * (size - cell_len(text))
            line += f"  {padding}{text}" if side == "r" else f"  {set_cell_size(text, size)}"
        lines.append(line.rstrip())
    return "\n".join(lines)
