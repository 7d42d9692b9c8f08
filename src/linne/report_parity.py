"""How one way to run a bundle compares with its reference, as plain data: to JSON, to a terminal, to one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from linne.report import percent, printable, shorten

NUM_CHANGED = 5
"""Images with another answer that are named to a person."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """One image that got another label."""

    name: str
    reference: str
    answer: str
    gap: float
    """The largest difference of its logits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityReport:
    """What came out of running the same images through a bundle's reference and through a candidate."""

    bundle: str
    candidate: str
    """`onnxruntime int8 on cpu`: what was asked for, by which results are kept."""
    description: str
    """What really ran."""
    reference: str
    """What it is compared with."""
    examples: str
    """What images, for people."""
    num_images: int
    num_skipped: int
    """Images that could not be read; they count for nothing."""
    canary_gap: float
    """From the answers that the bundle recorded: the largest difference, as a share of their largest logit."""
    worst_gap: float
    """The largest difference of a logit."""
    mean_gap: float
    """The mean over images of the largest difference of each."""
    largest_logit: float
    """Of the reference, whatever its sign."""
    num_agree: int
    """Images with the same first label."""
    reference_accuracy: float | None
    """None where the images have no labels."""
    accuracy: float | None
    drop_interval: tuple[float, float] | None
    """95 % interval of the reference's accuracy less the candidate's (Agresti and Min, for pairs)."""
    max_gap: float | None
    """What `worst_gap` was allowed; None where only answers count."""
    max_drop: float
    """What of the accuracy could be lost, as a fraction; without labels, what share of answers could change."""
    changed: tuple[Changed, ...]
    """Images with another label, the largest gap first."""
    problems: tuple[str, ...]
    """Why it did not pass, a sentence each."""
    diverges: str | None = None
    """Where in the network the two part, as far as it can be told."""

    @property
    def passed(self) -> bool:
        """Whether nothing was found against it."""
        return not self.problems

    @property
    def agreement(self) -> float:
        """The share of images with the same first label."""
        return self.num_agree / self.num_images

    @property
    def drop(self) -> float | None:
        """The accuracy that is lost, as a fraction; below 0 where the candidate is better."""
        if self.accuracy is None or self.reference_accuracy is None:
            return None
        return self.reference_accuracy - self.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        fields = asdict(self)
        fields["drop_interval"] = None if self.drop_interval is None else list(self.drop_interval)
        fields["changed"] = [asdict(item) for item in self.changed]
        fields["problems"] = list(self.problems)
        return {**fields, "passed": self.passed, "agreement": self.agreement, "drop": self.drop}

    def kept(self) -> Mapping[str, Any]:
        """Return what stays with the bundle: numbers and the verdict, without the single images."""
        names = ("num_images", "worst_gap", "mean_gap", "reference_accuracy", "accuracy", "max_drop")
        kept = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.drop_interval is not None:
            kept["drop_interval"] = list(self.drop_interval)
        return {
            "passed": self.passed,
            "ran": self.description,
            "on": self.examples,
            "agreement": self.agreement,
            **kept,
        }

    def row(self) -> list[str]:
        """Return the cells of one line of a table with `COLUMNS`."""
        drop = "-" if self.drop is None else f"{100 * self.drop:+.2f}"
        return [
            "passed" if self.passed else "FAILED",
            self.candidate,
            f"{self.num_agree:,} of {self.num_images:,}",
            drop,
            f"{self.worst_gap:.2g}",
            f"{self.mean_gap:.2g}",
        ]

    def details(self) -> list[str]:
        """Return what a person should know beyond the row: what ran, intervals, changed images, problems."""
        lines = [f"{self.candidate}: {self.description}, against {self.reference}"]
        if self.drop is not None and self.drop_interval is not None and self.accuracy is not None:
            low, high = (100 * value for value in self.drop_interval)
            lines.append(
                f"  {percent(self.accuracy, 2)} right, {percent(self.reference_accuracy or 0, 2)} by the reference: "
                f"{100 * self.drop:+.2f} points lost (95 % interval {low:+.2f} to {high:+.2f}), "
                f"{100 * self.max_drop:g} allowed"
            )
            if self.passed and high > 100 * self.max_drop and self.num_agree < self.num_images:
                lines.append("  so few images cannot show that no more is lost")
        if self.num_skipped:
            lines.append(f"  {self.num_skipped:,} images could not be read and are left out")
        for item in self.changed[:NUM_CHANGED]:
            name = shorten(printable(item.name), 60)
            answers = f"`{printable(item.reference)}` became `{printable(item.answer)}`"
            lines.append(f"  {name}: {answers}, logits {item.gap:.2g} apart")
        if len(self.changed) > NUM_CHANGED:
            lines.append(f"  and {len(self.changed) - NUM_CHANGED:,} more with another label (--json has them)")
        lines += [f"  {problem}" for problem in self.problems]
        if self.diverges is not None:
            lines.append(f"  {self.diverges}")
        return lines


COLUMNS = ("verdict", "candidate", "same label", "points lost", "worst gap", "mean gap")
