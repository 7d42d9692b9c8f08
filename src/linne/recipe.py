"""A run as plain data: frozen sections of fields, each with a value that can be written, read and changed.

A `Recipe` is complete: nothing in it means "choose for me" (that is `linne.recipes`' work), and `None` means off.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from linne.errors import RecipeError, suggest
from linne.recipe_augment import AugmentConfig
from linne.recipe_model import DistillConfig, ModelConfig
from linne.recipe_optim import OptimConfig
from linne.recipe_values import LIMITS, check_fraction, check_limit, check_limits, convert, describe

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "DeviceConfig",
    "DistillConfig",
    "ModelConfig",
    "OptimConfig",
    "Recipe",
    "parse_value",
    "recipe_fields",
]

Loader = Literal["resident", "streaming"]
Precision = Literal["fp32", "bf16", "fp16"]
Parallel = Literal["ddp", "fsdp"]
Balance = Literal["class", "root"]
Views = Literal["flip", "crops"]
Determinism = Literal["seeded", "repeatable", "strict"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
CropMode = Literal["center", "squash"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which examples, at which size, in which batches."""

    source: str
    """What to learn from, as typed: `digits`, `folder:DIR`, a path."""
    batch_size: int = 128
    height: int = 32
    """Pixels the model sees."""
    width: int = 32
    channels: int = 3
    """1 for grey, 3 for RGB."""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Of pixels scaled to 0-1, one value a channel."""
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    interpolation: Interpolation = "bicubic"
    crop_pct: float = 1.0
    """Images are resized to (height, width) / crop_pct before the centre crop."""
    crop_mode: CropMode = "center"
    """`center` keeps an image's shape and cuts what overhangs; `squash` stretches it, so that all of it is seen."""
    val_fraction: float | None = 0.1
    """Share of the training examples held out to choose the epoch, when the source has no validation split.

    None trains on all of them and keeps the last epoch.
    """
    test_fraction: float = 0.15
    """Share held out for the final test, when the source has no test split."""
    split_seed: int = 0
    """Decides who is held out; separate from `seed`, so that runs with other seeds are tested on the same examples."""
    group_by: str | None = None
    """A column of a list, or a regular expression with one group over names: what it gives alike is never parted."""
    folds: int | None = None
    """Cut train into so many folds and validate on one, instead of on `val_fraction`."""
    fold: int | None = None
    """Which fold validates, from 1."""
    splits_file: str | None = None
    """Splits written by `linne data split` or by a run, to use instead of making new ones."""
    quarantine: str | None = None
    """A list of examples to leave out, as `linne data check --quarantine` writes it."""
    balance: Balance | None = None
    """Draw an epoch's images so that each `class` is seen equally often, or by the `root` of its size."""
    repeats: int | None = None
    """How often an image is in its batch, augmented in other ways; an epoch sees as many images fewer."""
    loader: Loader = "resident"
    """`resident` decodes the set once and keeps it in memory; `streaming` decodes as it goes."""
    num_workers: int = 0
    """Threads of the streaming loader that read and decode ahead; 0 decodes a batch when it is asked for."""
    cache: bool = True
    """Keep decoded pixels on disk for the next run, where decoding them took long."""
    max_bad_images: int = 100
    """Unreadable images tolerated before training refuses to go on."""

    def __post_init__(self) -> None:
        check_limits(self, "data.")
        if self.channels not in (1, 3):
            raise RecipeError(f"data.channels is {self.channels}, expected 1 (grey) or 3 (RGB)")
        if not len(self.mean) == len(self.std) == self.channels:
            raise RecipeError(
                f"data.mean has {len(self.mean)} and data.std {len(self.std)} values for {self.channels} channels"
            )
        if min(self.std) <= 0:
            raise RecipeError(f"data.std is {self.std}, expected values above 0")
        if not 0.1 <= self.crop_pct <= 1:
            raise RecipeError(f"data.crop_pct is {self.crop_pct:g}, expected 0.1 to 1")
        if self.val_fraction is not None:
            check_fraction("data.val_fraction", self.val_fraction)
        check_fraction("data.test_fraction", self.test_fraction)
        for name in ("group_by", "folds"):
            if self.splits_file is not None and getattr(self, name) is not None:
                raise RecipeError(
                    f"data.splits_file says who trains, and data.{name} would make other splits",
                    hint="leave one of them out, or write a new file: linne data split SOURCE FILE --group-by ...",
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceConfig:
    """Where it runs, and in which arithmetic."""

    name: str = "cpu"
    """`cpu`, `cuda`, `cuda:1`, `rocm`, `xpu`, `npu`, `mps`, `dml`, or the name of a backend from outside torch."""
    precision: Precision = "fp32"
    """`bf16` and `fp16` train in mixed precision."""
    channels_last: bool = False
    micro_batch: int | None = None
    """Images computed at once, their gradients added up; None is the whole batch, halved when memory is short."""
    compile: bool = False
    """Let `torch.compile` build the network: minutes of compiling, then faster steps."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""
    determinism: Determinism = "repeatable"
    """How exactly the run repeats: `seeded` (fastest kernels), `repeatable` or `strict` (others are an error)."""
    parallel: Parallel = "ddp"
    """Several processes: `ddp` gives each all weights, `fsdp` a part of each, for networks beyond one's memory."""
    num_threads: int | None = None
    """CPU threads; None leaves torch's own choice. Results repeat bit for bit only with the same number."""

    def __post_init__(self) -> None:
        check_limits(self, "device.")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """What a run writes down to go on from; changes nothing that is learnt."""

    every_steps: int | None = None
    """Steps between two checkpoints."""
    every_minutes: float | None = 10.0
    """Minutes between two checkpoints. One is written at the end of an epoch as well, at most every half minute."""
    keep: int | None = 2
    """How many of the newest stay on disk; each holds the best epoch's weights too. None writes none at all."""
    keep_after: bool = False
    """Keep them when the run is finished, to train on with more epochs."""

    def __post_init__(self) -> None:
        check_limits(self, "checkpoint.")
        if self.every_minutes is not None and not self.every_minutes > 0:
            raise RecipeError(f"checkpoint.every_minutes is {self.every_minutes:g}, expected more than 0, or none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides a run's result."""

    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    seed: int = 0
    log_every: int = 50
    """Steps between two measurements of loss and rate."""
    log_samples: bool = False
    """Write which images each step learnt from to samples.jsonl, by their position in the training split."""
    tta: Views | None = None
    """How the test at the end looks at an image: with its mirror image (`flip`), or shifted as well (`crops`)."""

    def __post_init__(self) -> None:
        check_limits(self, "")
        self._check_sizes()
        self._check_mixout()
        if self.augment.resized_crop_area is not None and self.data.loader == "resident":
            raise RecipeError(
                "augment.resized_crop_area needs the streaming loader: the resident one keeps no full images",
                hint="use --set data.loader=streaming, or --set augment.resized_crop_area=none",
            )
        if self.tta is not None and not self.augment.flip:
            raise RecipeError(
                f"tta={self.tta} looks at mirror images, and with augment.flip=false the network has seen none",
                hint="use --set augment.flip=true, or --set tta=none",
            )
        if self.optim.sam_rho is not None and self.device.precision == "fp16":
            raise RecipeError(
                "optim.sam_rho takes two gradients a step, and device.precision=fp16 scales one of them",
                hint="use --set device.precision=bf16, or --set optim.sam_rho=none",
            )
        if self.optim.nonfinite == "rewind" and self.checkpoint.keep is None:
            raise RecipeError(
                "optim.nonfinite=rewind goes back to a checkpoint, and checkpoint.keep=none leaves none",
                hint="use --set checkpoint.keep=2, or --set optim.nonfinite=raise",
            )
        averaged = self.optim.average_epochs is not None or self.optim.schedule == "schedule-free"
        if self.model.keep_statistics and averaged:
            raise RecipeError(
                "model.keep_statistics holds the batch norms' statistics, and averaged weights need others",
                hint="use --set model.keep_statistics=false, or average all the time: --set optim.ema_decay=0.99",
            )
        if self.optim.schedule == "plateau" and self.data.val_fraction is None:
            raise RecipeError(
                "optim.schedule=plateau reads the validation loss, and data.val_fraction=none leaves none",
                hint="use --set data.val_fraction=0.1, or --set optim.schedule=cosine",
            )
        for name in ("class_balance", "logit_adjustment"):
            if self.data.balance is not None and getattr(self.optim, name) is not None:
                raise RecipeError(
                    f"data.balance and optim.{name} both make up for the sizes of classes: together they overdo it",
                    hint=f"use --set data.balance=none, or --set optim.{name}=none",
                )
        if self.optim.patience is not None and self.data.val_fraction is None:
            raise RecipeError(
                "optim.patience waits for a higher validation accuracy, and data.val_fraction=none leaves none",
                hint="use --set data.val_fraction=0.1, or --set optim.patience=none",
            )

    def _check_sizes(self) -> None:
        """Refuse what training on smaller images does not go with."""
        tuned = self.augment.size_tune_epochs
        if self.augment.size_start is not None and self.device.compile:
            raise RecipeError(
                "augment.size_start changes the size of the images, and device.compile=true builds for one",
                hint="use --set device.compile=false, or --set augment.size_start=none",
            )
        if tuned is not None and tuned >= self.optim.epochs:
            raise RecipeError(
                f"augment.size_tune_epochs is {tuned}, expected fewer than the {self.optim.epochs} epochs of training"
            )
        if tuned is not None and self.model.freeze is not None:
            raise RecipeError(
                "augment.size_tune_epochs and model.freeze both say which layers learn",
                hint="leave one of them out: --set model.freeze=none",
            )

    def _check_mixout(self) -> None:
        """Refuse what mixing pretrained weights in does not go with."""
        if self.model.mixout and self.optim.sam_rho is not None:
            raise RecipeError(
                "model.mixout and optim.sam_rho both move the weights before a gradient is taken",
                hint="use --set optim.sam_rho=none, or --set model.mixout=0",
            )

    def override(self, changes: Mapping[str, Any]) -> Recipe:
        """Return a copy with `changes` such as {"optim.lr": 0.1}; texts are read by `parse_value`.

        Raises:
            RecipeError: no such field, or a value of the wrong kind or range.
        """
        sections: dict[str, dict[str, Any]] = {}
        top: dict[str, Any] = {}
        for path, value in changes.items():
            parsed = parse_value(path, value)
            section, _, name = path.rpartition(".")
            (sections.setdefault(section, {}) if section else top)[name] = parsed
        for section, values in sections.items():
            top[section] = dataclasses.replace(getattr(self, section), **values)
        return dataclasses.replace(self, **top)

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts of JSON-ready values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    def to_fields(self) -> dict[str, Any]:
        """Return every field's value by its dotted path."""
        sections = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            path: getattr(sections[path.partition(".")[0]], path.partition(".")[2]) if "." in path else sections[path]
            for path in recipe_fields()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Return the recipe written by `to_dict`; fields that are not there keep their defaults.

        Raises:
            RecipeError: an unknown field, or a value of the wrong kind or range.
        """
        flat = _flatten(values)
        if "data.source" not in flat:
            raise RecipeError("the recipe names no `data.source`")
        base = cls(data=DataConfig(source=parse_value("data.source", flat["data.source"])))
        return base.override(flat)


@cache
def recipe_fields() -> dict[str, Any]:
    """Return the type of every field by its dotted path, in order: {"data.source": str, ...}."""
    fields: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(Recipe).items():
        if dataclasses.is_dataclass(kind):
            fields.update({f"{name}.{k}": v for k, v in typing.get_type_hints(kind).items()})
        else:
            fields[name] = kind
    return fields


def parse_value(path: str, value: Any) -> Any:
    """Return `value` as the type of field `path`; a text such as "0.1", "none", "true" or "0.5,0.5,0.5" is read.

    Raises:
        RecipeError: no such field, or not a value of its type.
    """
    fields = recipe_fields()
    if path not in fields:
        raise RecipeError(
            f"no recipe field `{path}`",
            hint=suggest(path, fields) or "`linne train --help` and docs/reference/recipe.md list the fields",
        )
    kind = fields[path]
    try:
        parsed = convert(kind, value)
    except (TypeError, ValueError, OverflowError):
        raise RecipeError(f"{path} is `{value}`, expected {describe(kind)}") from None
    if path in LIMITS:
        check_limit(path, parsed)
    return parsed


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
