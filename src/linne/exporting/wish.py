"""What is asked of an export, what its maker gives back, and what is told of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from linne.errors import RecipeError, suggest
from linne.exporting.agreement import Agreement
from linne.exports import Export, Precision
from linne.preprocess import Floats
from linne.verifying import MAX_DROP

if TYPE_CHECKING:
    from linne.data.source import Source

Exporter = Literal["auto", "dynamo", "script"]
EXPORTERS: tuple[Exporter, ...] = get_args(Exporter)
NUM_IMAGES = 500
"""To measure ranges on, unless something else is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8:
    """What int8 may cost, and on which images that is found out."""

    source: Source
    """Whose training split ranges are measured on, and whose validation split decides."""
    num_images: int = NUM_IMAGES
    max_drop: float = MAX_DROP["int8"]
    """Of the accuracy, as a fraction."""
    keep_float: tuple[str, ...] = ()
    """Names of layers that stay in float, or patterns."""
    seed: int = 0
    """Of the draw of images."""

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise RecipeError(f"calibration_images is {self.num_images}, expected 1 or more")
        if not 0 <= self.max_drop <= 1:
            raise RecipeError(f"max_drop is {self.max_drop:g}, expected a fraction from 0 to 1")


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
    int8: Int8 | None = None
    """In int8, where it cannot be None."""
    device: str = "auto"
    """For which it is compiled, where that is done; as `--device` of what runs it."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What the backend that runs it can be told, by name, where that is settled as it is compiled."""

    def __post_init__(self) -> None:
        if self.exporter not in EXPORTERS:
            raise RecipeError(
                f"no exporter `{self.exporter}`",
                hint=suggest(self.exporter, EXPORTERS) or f"use {', '.join(EXPORTERS)}",
            )

    @property
    def for_int8(self) -> Int8:
        """What is asked of int8.

        Raises:
            RecipeError: nothing is.
        """
        if self.int8 is None:
            raise RecipeError("int8 needs images to measure ranges on")
        return self.int8

    def require_plain(self, kind: str, precisions: Sequence[str] = ("fp32",)) -> None:
        """Raise RecipeError for what only `--to onnx` can do, and for other precisions than `kind` has."""
        if self.precision not in precisions:
            known = " and ".join([", ".join(precisions[:-1]), precisions[-1]] if precisions[1:] else precisions)
            raise RecipeError(
                f"`{kind}` is exported in {known}, not in {self.precision}",
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


OPTIONS = {
    "source": "--calibrate",
    "num_images": "--calibration-images",
    "max_drop": "--max-drop",
    "keep_float": "--keep-float",
}
"""What int8 alone can be told, as it is typed."""


def require_int8(precision: str, asked: Collection[str]) -> None:
    """Raise RecipeError where what is for int8 alone, keys of `OPTIONS`, is asked of another precision."""
    if precision != "int8":
        for name in asked:
            raise RecipeError(f"`{OPTIONS[name]}` goes with `--precision int8`, not with {precision}")


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
