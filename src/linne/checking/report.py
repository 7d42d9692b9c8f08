"""What a check found, as plain data: to a dict, to text. Computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linne.data.names import counted, listed

STOP, WARNING, NOTE = "stop", "warning", "note"
SEVERITIES = (STOP, WARNING, NOTE)
_GROUPS_SHOWN = 3
_NAMES_SHOWN = 4
_CLASSES_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Example:
    """One image, and how to get it again: its place in a split."""

    name: str
    label: str
    split: str
    position: int

    def to_dict(self) -> dict[str, Any]:
        """Return name, label and split."""
        return {"name": self.name, "label": self.label, "split": self.split}


@dataclass(frozen=True, slots=True)
class Group:
    """Images that belong together: copies of each other, or a single one."""

    examples: tuple[Example, ...]
    note: str = ""
    """What is particular about it: why it cannot be read, how dark it is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of thing that was found."""

    kind: str
    """A word that programs can rely on: `unreadable`, `leak`."""
    severity: str
    """`stop`: training now would waste time or give a false score; `warning`: look first; `note`: good to know."""
    title: str
    advice: str = ""
    groups: tuple[Group, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything, with every image by name."""
        groups = [
            {
                "images": [example.to_dict() for example in group.examples],
                **({"note": group.note} if group.note else {}),
            }
            for group in self.groups
        ]
        return {
            "kind": self.kind,
            "severity": self.severity,
            "title": self.title,
            "advice": self.advice,
            "groups": groups,
        }

    def lines(self) -> list[str]:
        """Return the first groups in words, how many more there are, and the advice; a note in one line or two."""
        said = [_in_words(group) for group in self.groups[:_GROUPS_SHOWN]]
        more = len(self.groups) - _GROUPS_SHOWN
        if more > 0:
            said.append(f"and {more:,} more")
        if self.severity == NOTE and said:
            said = [", ".join(said)]
        return [*said, *([self.advice] if self.advice else [])]


def _in_words(group: Group) -> str:
    split = {example.split for example in group.examples}
    label = {example.label for example in group.examples}
    names = []
    for example in group.examples:
        about = [example.split] * (len(split) > 1) + [f"`{example.label}`"] * (len(label) > 1)
        names.append(f"{example.name} ({', '.join(about)})" if about else example.name)
    text = " = ".join(names[:_NAMES_SHOWN])
    if len(names) > _NAMES_SHOWN:
        text += f" = {len(names) - _NAMES_SHOWN:,} more"
    return f"{text}: {group.note}" if group.note else text


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """Everything that `linne data check` says about a source."""

    source: str
    fingerprint: str
    labels: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    """For each split, the number of images of each label."""
    about: tuple[tuple[str, str], ...]
    """Facts in words: sizes, formats, brightness."""
    notes: tuple[str, ...]
    """What opening the source decided and passed over."""
    findings: tuple[Finding, ...]
    """The worst first."""
    quarantine: Mapping[str, str]
    """Images better left out, and why."""
    seconds: float

    @property
    def num_images(self) -> int:
        return sum(map(sum, self.counts.values()))

    @property
    def severity(self) -> str | None:
        """The worst severity among the findings, None without one that matters."""
        return next((each for each in (STOP, WARNING) if self.number(each)), None)

    def number(self, severity: str) -> int:
        """Return how many findings have this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One sentence: whether to train on this."""
        if self.severity == STOP:
            titles = "; ".join(finding.title for finding in self.findings if finding.severity == STOP)
            return f"stop, mend this first: {titles}"
        if self.severity == WARNING:
            return f"can be trained on; {counted(self.number(WARNING), 'warning')} to look at first"
        return "nothing found that stands in the way of training"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values; nothing is shortened."""
        return {
            "source": self.source,
            "fingerprint": self.fingerprint,
            "verdict": self.verdict,
            "severity": self.severity,
            "num_images": self.num_images,
            "labels": list(self.labels),
            "splits": {name: dict(zip(self.labels, counts, strict=True)) for name, counts in self.counts.items()},
            "about": dict(self.about),
            "notes": list(self.notes),
            "findings": [finding.to_dict() for finding in self.findings],
            "quarantine": dict(self.quarantine),
            "seconds": round(self.seconds, 2),
        }

    def to_text(self) -> str:
        """Return the report for a terminal: what there is, what was found, the verdict."""
        splits = ", ".join(f"{name} {sum(counts):,}" for name, counts in self.counts.items())
        classes = counted(len(self.labels), "class", "classes")
        lines = [f"{self.source}: {counted(self.num_images, 'image')} of {classes} ({splits})"]
        width = max((len(name) for name, _ in self.about), default=0)
        lines += [f"  {name:{width}}  {value}" for name, value in self.about]
        lines += [f"  {note}" for note in self.notes]
        lines += ["", *self._class_lines()]
        before = ""
        for finding in self.findings:
            lines += [""] * (before != NOTE)  # notes stand together
            before = finding.severity
            lines += [f"{finding.severity:7}  {finding.title}", *(f"         {line}" for line in finding.lines())]
        lines += ["", f"verdict: {self.verdict}"]
        return "\n".join(lines)

    def _class_lines(self) -> list[str]:
        """Return a table of images by class and split; of many classes, the largest and the smallest."""
        rows = [(label, [counts[k] for counts in self.counts.values()]) for k, label in enumerate(self.labels)]
        left_out = 0
        if len(rows) > _CLASSES_SHOWN:
            rows.sort(key=lambda row: -sum(row[1]))
            half, left_out = _CLASSES_SHOWN // 2, len(rows) - _CLASSES_SHOWN
            rows = [*rows[:half], *rows[-half:]]
        width = max(len("class"), *(len(row[0]) for row in rows))
        lines = ["  ".join([f"  {'class':{width}}", *(f"{name:>9}" for name in self.counts)])]
        lines += ["  ".join([f"  {row[0]:{width}}", *(f"{count:>9,}" for count in row[1])]) for row in rows]
        if left_out:
            lines.insert(1 + _CLASSES_SHOWN // 2, f"  ... {left_out:,} classes of sizes between")
        return lines


def named(names: Sequence[str]) -> str:
    """Return up to five names in backticks."""
    return listed(names, 5)
