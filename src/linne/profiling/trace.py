"""A trace: its numbers, its record by torch's profiler, and the folder that keeps both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.bundle_format import replace_file, to_json
from linne.profiling.advice import Advice, advice_text, advise
from linne.profiling.summary import TraceSummary, to_text

if TYPE_CHECKING:
    from torch.profiler import profile

RECORD, TABLE, SUMMARY, PAGE = "trace.json", "operators.txt", "summary.json", "trace.md"


@dataclass(frozen=True, slots=True)
class TraceResult:
    """What a trace found, and where its files are."""

    folder: Path
    """Holds trace.json, operators.txt, summary.json and trace.md."""
    summary: TraceSummary
    table: str
    """Torch's table of all operators, as in operators.txt."""

    @property
    def advice(self) -> tuple[Advice, ...]:
        """What could make it faster, the most promising first; none where nothing stands out."""
        return advise(self.summary)

    def to_text(self) -> str:
        """Return what a terminal shows: pace, parts, operators, and advice."""
        return f"{to_text(self.summary)}\n{advice_text(self.summary)}"

    def where_to_look(self) -> str:
        """Return one line on how to look at the record."""
        return f"open {self.folder / RECORD} at https://ui.perfetto.dev (nothing is uploaded) or in chrome://tracing"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, as in summary.json."""
        return _document(self.folder, self.summary, self.advice)


def save_trace(folder: Path, summary: TraceSummary, recorded: profile, facts: Mapping[str, Any]) -> TraceResult:
    """Write a trace into `folder` and return it; `facts` go into summary.json as well."""
    from linne.profiling.operators import table

    result = TraceResult(folder, summary, table(recorded))
    recorded.export_chrome_trace(str(folder / RECORD))
    replace_file(folder / TABLE, result.table.encode())
    page = f"# Trace of {summary.subject}\n\n```text\n{result.to_text()}```\n\n{result.where_to_look()}\n"
    replace_file(folder / PAGE, page.encode())
    replace_file(folder / SUMMARY, to_json({**result.to_dict(), **facts}, SUMMARY))
    return result


def _document(folder: Path, summary: TraceSummary, advice: tuple[Advice, ...]) -> dict[str, Any]:
    told = [{"text": piece.text, "change": piece.change, "stake": piece.stake} for piece in advice]
    return {"folder": str(folder), **summary.to_dict(), "advice": told}
