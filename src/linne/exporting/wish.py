"""What is asked of an export, what its maker gives back, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from linne.errors import RecipeError, suggest
from linne.exporting.agreement import Agreement
from linne.exports import Export, Precision
from linne.preprocess import Floats

Exporter = Literal["auto", "dynamo", "script"]
EXPORTERS: tuple[Exporter, ...] = get_args(Exporter)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """How an export is to be. What a target has no use for it refuses, rather than ignore it."""

    precision: Precision = "fp32"
    pixels: bool = False
    """Whether it takes uint8 N x H x W x C and scales them itself."""
    exporter: Exporter = "auto"
    """Which of torch's two writers of ONNX; `auto` tries both, and keeps the first that verifies."""
    opset: int | None = None
    """ONNX's operator set; None for the usual one."""
    trust_code: bool = False
    """Whether the Python file may be run that a bundle of the user's own network names."""

    def __post_init__(self) -> None:
        if self.exporter not in EXPORTERS:
            raise RecipeError(
                f"no exporter `{self.exporter}`",
                hint=suggest(self.exporter, EXPORTERS) or f"use {', '.join(EXPORTERS)}",
            )

    def require_plain(self, kind: str) -> None:
        """Raise RecipeError for what only `--to onnx` can do."""
        if self.precision != "fp32":
            raise RecipeError(
                f"`{kind}` is exported in fp32, not in {self.precision}",
                hint="torch computes in half where it is run: `model.half()`, or autocast; or use --to onnx",
            )
        given = {
            "--bake-preprocessing": self.pixels,
            "--exporter": self.exporter != "auto",
            "--opset": self.opset is not None,
        }
        for option, said in given.items():
            if said:
                raise RecipeError(f"`{option}` goes with `--to onnx`, not with `{kind}`")


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What a target made: its files, still in memory, and how they answered."""

    files: Mapping[str, bytes]
    main: str
    """The file that a runtime is given."""
    canary_logits_NK: Floats
    agreement: Agreement
    """How the files themselves, opened again, compare with the bundle; it has no problem."""
    facts: Mapping[str, Any]
    """How it was made, for `export.json`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """An export that was written and verified."""

    export: Export
    agreement: Agreement
    seconds: float
    """To make and to verify it."""

    @property
    def size_bytes(self) -> int:
        """Of its files."""
        return sum(entry["size_bytes"] for entry in self.export.files.values())

    def line(self) -> str:
        """Return what a person wants to know, in one line."""
        return f"{self.export.name}: {self.size_bytes / 1e6:.1f} MB, {self.seconds:.0f} s"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "path": str(self.export.main_file),
            "kind": self.export.kind,
            "precision": self.export.precision,
            "size_bytes": self.size_bytes,
            "seconds": round(self.seconds, 2),
            "agreement": self.agreement.to_dict(),
            "facts": dict(self.export.facts),
        }
