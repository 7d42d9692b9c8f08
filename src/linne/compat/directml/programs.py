"""The samples' programs as data: flags with their defaults, networks, and where they keep files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from linne.errors import LinneError, suggest

HOME = Path("cv")
"""The folder of data and checkpoints, below the current one."""
DATASETS = ("all", "cifar10", "pennfudanped")
MODELS = (
    "squeezenet1_0",
    "squeezenet1_1",
    "resnet18",
    "resnet50",
    "alexnet",
    "vgg16",
    "densenet161",
    "inception_v3",
    "googlenet",
    "shufflenet_v2_x1_0",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "mnasnet1_0",
)
CI_MODELS = tuple(name for name in MODELS if name not in ("resnet50", "squeezenet1_1"))
"""What `--ci_train` tries in turn."""

AUXILIARY: Mapping[str, tuple[float, ...]] = {"inception_v3": (0.4,), "googlenet": (0.3, 0.3)}
"""What the losses of the auxiliary classifiers weigh, for the networks that have them while they train."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One folder of the samples, which holds `train.py`, `test.py` and `predict.py`."""

    model: str | None
    """Without `--model`; None where it has to be said."""
    fixed: bool
    """Whether it has no `--model`."""
    prints_options: tuple[str, ...]
    """The programs that begin with a line of their options."""


SAMPLES: Mapping[str, Sample] = {
    "torchvision_classification": Sample("squeezenet1_0", False, ("train", "test", "predict")),
    "classification": Sample(None, False, ("train",)),
    "resnet50": Sample("resnet50", True, ()),
    "squeezenet": Sample("squeezenet1_1", True, ()),
}


def _typed(programs: str, about: str, **more: str) -> dict[str, Any]:
    """Return what the command line has to know of a field: which programs take it, and what it is for."""
    return {"programs": programs.split(), "about": about, **more}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is typed: the samples' flags under their names, then those that are linne's."""

    path: str = field(
        default="cifar-10-python",
        metadata=_typed("train test", "The folder with CIFAR-10's binary files; relative to cv/data."),
    )
    batch_size: int = field(default=32, metadata=_typed("train test", "Images a step."))
    epochs: int = field(default=50, metadata=_typed("train", "Passes over the training images."))
    learning_rate: float = field(default=0.001, metadata=_typed("train", "Of SGD."))
    momentum: float = field(default=0.9, metadata=_typed("train", "Of SGD."))
    weight_decay: float = field(default=0.0001, metadata=_typed("train", "Of SGD."))
    device: str = field(
        default="dml", metadata=_typed("train test predict", "dml, cuda, cpu, or another that linne knows.")
    )
    model: str | None = field(
        default=None,
        metadata=_typed("train test predict", "One of sixteen networks of torchvision; without it by --sample."),
    )
    image: Path | None = field(default=None, metadata=_typed("predict", "The image."))
    save_model: bool = field(default=False, metadata=_typed("train", "Keep the weights of the best epoch."))
    trace: bool = field(
        default=False,
        metadata=_typed("train test", "Profile one batch, and print what its operators took.", optional="value"),
    )
    ci_train: bool = field(
        default=False, metadata=_typed("train", "One batch with each of fourteen networks.", optional="value")
    )
    sample: str = field(
        default="torchvision_classification",
        metadata=_typed(
            "train test predict",
            "Which folder of the samples to be: it decides the network without --model, and whether the first line "
            "shows the options.",
            ours="yes",
        ),
    )
    seed: int = field(
        default=0,
        metadata=_typed("train test predict", "Decides weights, order and crops; the samples have none.", ours="yes"),
    )
    trace_file: Path | None = field(
        default=None,
        metadata=_typed("train test", "With --trace: write a Chrome trace as well.", ours="yes"),
    )
    faithful: bool = field(
        default=False,
        metadata=_typed("train test predict", "Compute with the samples' faults, to compare.", ours="yes"),
    )

    @property
    def network(self) -> str:
        """The network that is meant.

        Raises:
            LinneError: there is none of that name, none was said, or another than the sample's own.
        """
        sample = SAMPLES[self.sample]
        name = self.model or sample.model
        if name is None:
            raise LinneError("`--model` is missing", hint=f"use one of {', '.join(MODELS)}")
        if sample.fixed and name != sample.model:
            raise LinneError(
                f"the sample `{self.sample}` has no model but `{sample.model}`, found `{name}`",
                hint=f"type --model {name} without --sample {self.sample}",
            )
        if name not in MODELS:
            hint = suggest(name, MODELS) or f"use one of {', '.join(MODELS)}"
            raise LinneError(f"model `{name}` is not supported yet", hint=hint)
        return name

    def check(self) -> None:
        """Raise LinneError where a number cannot be meant."""
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise LinneError(f"`--{name}` is {getattr(self, name)}, expected at least 1")
        if self.learning_rate < 0 or self.momentum < 0 or self.weight_decay < 0:
            raise LinneError("`--learning_rate`, `--momentum` and `--weight_decay` are never below 0")
        if self.ci_train and self.sample != "torchvision_classification":
            raise LinneError(f"the sample `{self.sample}` has no `--ci_train`", hint="leave out --sample")
        if self.trace_file is not None and not self.trace:
            raise LinneError("`--trace_file` goes with `--trace`", hint="type --trace as well, or leave it out")

    def line(self, program: str) -> str:
        """Return the line of options that `program` begins with, sorted by name as the samples' pages show it.

        argparse itself sorts on Python 3.8 only, and from 3.9 on keeps the order in which a program adds them.
        """
        known = {flag.name for flag in flags(program) if not flag.metadata.get("ours")}
        if self.sample != "torchvision_classification":
            known -= {"ci_train"}
        values = {name: getattr(self, name) for name in sorted(known)}
        values |= {"model": self.network} | ({"image": str(self.image)} if "image" in values else {})
        return str(argparse.Namespace(**values))


def flags(program: str) -> list[Any]:
    """Return the fields of `Options` that `program` takes."""
    return [flag for flag in fields(Options) if program in flag.metadata["programs"]]


def data_folder(path: str) -> Path:
    """Return where `--path` leads: `cv/data/PATH`, or PATH itself where it is absolute; always absolute."""
    return (HOME / "data" / path).absolute()


def checkpoint_path(model: str, device: str, system: str = os.name) -> Path:
    """Return `cv/checkpoints/MODEL/DEVICE/checkpoint.pth`, for torch's name of the device.

    DirectML's is `dml`. `cuda:0` is `cuda-0` on Windows (`system` is "nt"), whose folders have no colons.
    """
    folder = "dml" if device.startswith("privateuseone") else device
    return HOME / "checkpoints" / model / (folder.replace(":", "-") if system == "nt" else folder) / "checkpoint.pth"


def image_size(model: str) -> int:
    """Return the side of the square that the network sees."""
    return 299 if model == "inception_v3" else 224
