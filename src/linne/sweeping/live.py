"""What is seen while a sweep runs: one table of the best on a terminal, a line for each trial that ends elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from linne.log import Narrator, clock
from linne.sweeping.results import SweepReport
from linne.sweeping.words import cells, counts, heads, short_names

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

NUM_BEST = 8


class Display:
    """The progress of one sweep on stderr, while inside."""

    def __init__(self, *, quiet: bool, until: float | None) -> None:
        self._quiet = quiet
        self._until = until
        self._start = time.time()
        self._narrator = Narrator(quiet=quiet)
        self._live: Live | None = None
        self._known: set[str] | None = None

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, report: SweepReport) -> None:
        """Show how far the sweep is."""
        if self._live is not None:
            self._live.update(self._table(report), refresh=True)
        elif not self._quiet:
            self._lines(report)

    def _lines(self, report: SweepReport) -> None:
        ended = [t for t in (*report.trials, *report.repeats) if t.state not in ("waiting", "running")]
        if self._known is None:  # what an earlier call did is in the table at the end
            self._known = {trial.name for trial in ended}
            self._narrator.line("\n" + self._row(report, heads(report)))
        for trial in ended:
            if trial.name not in self._known:
                self._known.add(trial.name)
                row = cells(report, trial)
                if trial.repeats is not None:
                    row[0] = "again"
                self._narrator.line(self._row(report, row) + (" *" if trial is report.best else ""))

    def _row(self, report: SweepReport, row: list[str]) -> str:
        """Return a line whose columns fit the widest value that can come, since it is not known yet."""
        widths = [5, 12, 8, 5, 7, *(max(len(name), 9) for name in short_names(list(report.space)))]
        texts = [text.rjust(width) for text, width in zip(row, widths, strict=False)]
        return ("  " + "  ".join([*texts, row[-1]])).rstrip()

    def _table(self, report: SweepReport) -> Group:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for head in heads(report):
            table.add_column(head, justify="right" if head else "left", overflow="fold")
        running: list[Any] = [t for t in (*report.trials, *report.repeats) if t.state == "running"]
        for trial in report.ranked[:NUM_BEST]:
            table.add_row(*map(Text, cells(report, trial)), style="bold" if trial is report.best else None)
        for trial in running:
            table.add_row(*map(Text, cells(report, trial)), style="dim")
        gone = f"{counts(report)}; {clock(time.time() - self._start)} gone"
        if self._until is not None:
            gone += f", {clock(max(0.0, self._until - time.time()))} left at most"
        return Group(Text(gone), table)
