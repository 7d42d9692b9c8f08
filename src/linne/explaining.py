"""What a training would do, without doing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from linne.host import prepare_for_torch

if TYPE_CHECKING:
    from linne.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Explanation:
    """A complete recipe with the reason of each value."""

    recipe: Recipe
    reasons: Mapping[str, str]
    """Why a field has its value, by dotted path; fields that nobody chose are not in it."""
    notes: tuple[str, ...]
    """What to know about the source."""

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (field, value as it is typed after `--set`, reason) of every field, sections in order."""
        from linne.run_facts import value_text

        fields = self.recipe.to_fields().items()
        return [(path, value_text(value), self.reasons.get(path, "default")) for path, value in fields]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return {"optim.lr": {"value": 0.2, "reason": "..."}, ...} of JSON-ready values, for every field."""
        return {
            path: {
                "value": list(value) if isinstance(value, tuple) else value,
                "reason": self.reasons.get(path, "default"),
            }
            for path, value in self.recipe.to_fields().items()
        }


def explain(
    source: str | None,
    *,
    recipe: str | None = None,
    flags: Mapping[str, Any],
    overrides: Mapping[str, Any],
    require_accelerator: bool = False,
    trust_code: bool = False,
    say: Callable[[str], None],
) -> Explanation:
    """Return what `linne.train` would train with these arguments; makes no run folder and trains nothing.

    A time budget is measured, with a network that is thrown away; `say` is called with a line before.

    Raises:
        LinneError: something given cannot be used; the message says what and what to do.
    """
    prepare_for_torch()
    from linne.planning import plan_anew

    plan = plan_anew(
        source,
        recipe,
        flags,
        overrides,
        require_accelerator=require_accelerator,
        trust_code=trust_code,
        fetch_weights=False,
        say=say,
    )
    return Explanation(plan.recipe, plan.reasons, plan.source.notes)
