"""What the doctor found: checks in sections, as text for people and as a stable record for programs.

The record (`to_dict`, `linne doctor --json`) holds, in format 1:

- `format`: 1; `linne`: the version that wrote it; `created`: when, ISO 8601 in UTC;
- `worst`: the worst status of all checks; `exit_code`: 3 where it is `bad`, else 0;
- `summary`: `{state, first}`: what training would do here in one sentence, and the name of the check whose fix comes
  first, null where there is nothing to mend;
- `sections`: a list of `{title, checks}`; a check is `{name, status, found, why, fix, details}`, where `details` holds
  facts whose keys are the check's own and may grow.

Keys are only ever added within a format; a removed or changed one makes the next format.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Status = Literal["good", "note", "warning", "bad", "unknown"]

_WORST_FIRST: tuple[Status, ...] = ("bad", "warning", "unknown", "note", "good")
"""`unknown` is worse than `note`: something that was asked could not be answered."""

_STATUS_WIDTH = max(len(status) for status in get_args(Status))
_TEXT_WIDTH = 100
_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One line of the report: what was looked at, what was found, and what to do.

    `found` is a clause, `why` says why it matters, `fix` is the exact next command or step, empty where nothing is to
    be done, and `details` holds JSON-ready facts.
    """

    name: str
    status: Status
    found: str
    why: str = ""
    fix: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON-ready values."""
        return {
            "name": self.name,
            "status": self.status,
            "found": self.found,
            "why": self.why,
            "fix": self.fix,
            "details": dict(self.details),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Checks of one subject."""

    title: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What the checks come to: the state in a sentence, and the check whose fix comes first; None where none does."""

    state: str
    first: Check | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-ready values."""
        return {"state": self.state, "first": self.first.name if self.first else None}

    def to_text(self) -> str:
        """Return the summary for people, each command on a line of its own."""
        lines = ["Summary", "-------", *_wrapped(self.state, "")]
        if self.first is not None:
            # A finding's first clause says what is wrong; the numbers after it are above.
            lines += _wrapped(f"First, `{self.first.name}`: {self.first.found.split('; ')[0]}", "", "  ")
            lines += ["    " + line for line in self.first.fix.splitlines()]
            lines.append("Then run `linne doctor` again.")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorReport:
    """All the doctor found, what it comes to, the version of linne that found it, and when (ISO 8601 in UTC)."""

    sections: tuple[Section, ...]
    summary: Summary
    version: str
    created: str

    def checks(self) -> Iterator[Check]:
        """Yield the checks of all sections in order."""
        for section in self.sections:
            yield from section.checks

    @property
    def worst(self) -> Status:
        """Return the worst status of all checks; `good` where there is none."""
        found = {check.status for check in self.checks()}
        return next((status for status in _WORST_FIRST if status in found), "good")

    @property
    def exit_code(self) -> int:
        """Return 3 where something is bad, else 0: warnings and unknowns do not stop a script."""
        return 3 if self.worst == "bad" else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the record that the module's docstring describes."""
        return {
            "format": _FORMAT,
            "linne": self.version,
            "created": self.created,
            "worst": self.worst,
            "exit_code": self.exit_code,
            "summary": self.summary.to_dict(),
            "sections": [
                {"title": section.title, "checks": [check.to_dict() for check in section.checks]}
                for section in self.sections
            ],
        }

    def to_text(self) -> str:
        """Return the report for people: a block a section, aligned, each fix under its check, a summary at the end."""
        blocks = [_section_text(section) for section in self.sections]
        return "\n\n".join([*blocks, self._summary_text()]) + "\n"

    def _summary_text(self) -> str:
        found = [check.status for check in self.checks()]
        counts = ", ".join(f"{found.count(status)} {status}" for status in _WORST_FIRST if status in found)
        return f"{self.summary.to_text()}\n\n{len(found)} checks: {counts or 'none'}"


def _section_text(section: Section) -> str:
    width = max((len(check.name) for check in section.checks), default=0)
    lines = [section.title, "-" * len(section.title)]
    above = Check(name="", status="good", found="")
    for check in section.checks:
        start = f"{check.status:<{_STATUS_WIDTH}}  {check.name:<{width}}  "
        quiet = check.status in ("good", "note")
        if not quiet and (check.status, check.found) == (above.status, above.found):
            lines.append(f"{start}the same")
            continue
        # A long name leaves the text at least 40 columns, so that no line is a ladder of single words.
        lines += _wrapped(check.found, start)
        # What is well needs no reason on the screen; the record keeps it. Nor does one need to be read twice.
        if check.why and not quiet and check.why != above.why:
            lines += _wrapped(check.why, " " * (_STATUS_WIDTH + 2) + "why: ")
        # Where nothing is to be mended, what to type is an offer.
        if check.fix and (quiet or check.fix != above.fix):
            lines += _fix_lines(check.fix, "tip" if quiet else "fix")
        above = check
    return "\n".join(lines)


def _fix_lines(fix: str, label: str) -> list[str]:
    """Return the fix line by line and unwrapped: a command that is broken in two cannot be copied."""
    first, *rest = fix.splitlines()
    start = " " * (_STATUS_WIDTH + 2) + f"{label}: "
    return [start + first, *(" " * len(start) + line for line in rest)]


def _wrapped(text: str, start: str, later: str | None = None) -> list[str]:
    later = " " * len(start) if later is None else later
    lines = textwrap.wrap(text, max(_TEXT_WIDTH - len(start), 40), break_long_words=False, break_on_hyphens=False) or [
        ""
    ]
    return [(start + lines[0]).rstrip(), *(later + line for line in lines[1:])]
