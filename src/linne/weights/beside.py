"""What the files beside a model's weights say: its labels, how pixels are prepared, and the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from linne.preprocess import InputSpec


@dataclass(frozen=True, slots=True)
class Beside:
    """What was said; None where it was not."""

    labels: tuple[str, ...] | None = None
    input: InputSpec | None = None
    model: str | None = None


def read_beside(folder: Path) -> Beside:
    """Return what `config.json` and `preprocessor_config.json` in `folder` say."""
    return Beside()
