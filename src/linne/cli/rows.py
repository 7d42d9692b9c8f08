"""Predictions as lines: text for people, json, jsonl and csv for programs; each line as soon as it is known."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from linne.cli.console import aligned, to_json

if TYPE_CHECKING:
    from linne.inference.predictor import Prediction


def as_text(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Return one line a file where one label is asked for, else the file and its labels below it."""
    width = 0
    for prediction in predictions:
        scores = list(zip(prediction.labels, prediction.probabilities, strict=True))
        width = max(width, len(prediction.file) + 1)
        name = f"{prediction.file}:"
        if prediction.error is not None:
            yield f"{name:{width}}  error: {prediction.error}"
        elif len(scores) == 1:
            yield f"{name:{width}}  {scores[0][0]}  {_percent(scores[0][1])}"
        else:
            rows = aligned([(label, f"{_percent(probability):>7}") for label, probability in scores])
            yield "\n  ".join([name, *rows.splitlines()])


def as_json(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Return one JSON list, a row a line."""
    mark = "["
    for prediction in predictions:
        yield f"{mark} {to_json(prediction.to_dict())}"
        mark = ","
    yield "]" if mark == "," else "[]"


def as_jsonl(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Return one JSON object a line."""
    return (to_json(prediction.to_dict()) for prediction in predictions)


def as_csv(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Return a header, then one line a label: file, rank from 1, label, probability, error."""
    yield _csv_line("file", "rank", "label", "probability", "error")
    for prediction in predictions:
        if prediction.error is not None:
            yield _csv_line(prediction.file, "", "", "", prediction.error)
        scores = zip(prediction.labels, prediction.probabilities, strict=True)
        for rank, (label, probability) in enumerate(scores, start=1):
            yield _csv_line(prediction.file, rank, label, repr(probability), "")


FORMATS: dict[str, Callable[[Iterable[Prediction]], Iterator[str]]] = {
    "text": as_text,
    "json": as_json,
    "jsonl": as_jsonl,
    "csv": as_csv,
}


def _csv_line(*cells: object) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"
