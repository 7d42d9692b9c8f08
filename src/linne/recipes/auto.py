"""The values that nobody gave, chosen from the source and the device, each with its reason.

The numbers were found by measuring (docs/benchmarks/README.md) on digits, Fashion-MNIST and CIFAR-10; they are
starting points that train well, not optima.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from linne.recipe import DataConfig, Recipe
from linne.recipes.fine_tuning import choose_fine_tuning

LARGEST_NATIVE_SIDE = 96
"""Same-sized images up to this side are used as they are."""
PHOTO_SIDE = {"cpu": 64}
PHOTO_SIDE_ACCELERATOR = 128
PIXELS_WORTH_SHARING = 32_768
"""In a step of linne's own models; below this one thread is as fast as two (docs/benchmarks/training-step.md)."""
BUSY_SHARE = 0.15
"""Of the processor: when other programs use more, kernels that wait for each other spinning are slow."""
EPOCHS_TO_SHIFT = 6
"""Fewer epochs learn more from the images as they are."""
RESIDENT_SHARE = 0.25
"""Of the memory that is free: what decoded images may fill."""
RATES = {
    "sgd": (0.2, 5e-4, "usual for convolutional networks with SGD"),
    "adamw": (1e-3, 0.05, "usual with AdamW"),
    "adamw, pretrained": (1.5e-3, 0.05, "usual with AdamW"),
    "muon": (3e-3, 0.05, "as with AdamW, whose scale its updates are brought to"),
    "lamb": (1e-2, 0.02, "usual with LAMB"),
    "lion": (3e-4, 0.15, "lion's steps are larger: a third of AdamW's rate, three times its decay"),
    "sgd, schedule-free": (2.0, 5e-4, "usual for convolutional networks with SGD"),
    "adamw, schedule-free": (2.5e-3, 0.05, "usual with AdamW"),
}
"""Peak learning rate for a batch of 128, weight decay, and why that decay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """The facts that choices are made from."""

    source: str
    num_train: int
    num_val: int
    num_classes: int
    height: int
    """Of the source's images, or the median where sizes differ."""
    width: int
    same_size: bool
    channels: int
    mean: tuple[float, ...]
    """Measured on training pixels, one value a channel of the source, scaled to 0-1."""
    std: tuple[float, ...]
    device: str
    """What `--device` takes for it: `cpu`, `cuda:0`."""
    device_kind: str
    channels_last: bool
    """Whether convolutions gain from that layout on the device."""
    precision: str
    """The device's fastest arithmetic that trains as well as fp32."""
    others_share: float | None
    """Of the processor, what other programs use; None when unknown, or of no interest."""
    num_threads: int
    num_cores: int
    memory_bytes: int
    """Free for pixels and training together."""
    decode_threads: int = 1
    """The fewest that read and decode as fast as any number."""
    decode_rates: Mapping[int, float] = field(default_factory=dict)
    """Images a second by number of threads; empty when the images are pixels already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Designed:
    """What a pretrained architecture was designed for; the facts of `models.provider.InputDefaults` that matter."""

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    fixed_size: bool
    crop_mode: str = "center"


class Choices:
    """Values by field, with where each came from: given ones first, then the first reason that sets one."""

    def __init__(self, given: Mapping[str, Any], given_reasons: Mapping[str, str]) -> None:
        self.values = dict(given)
        self.reasons = dict(given_reasons)

    def set(self, path: str, value: Any, reason: str) -> Any:
        """Set `path` unless it is set, and return what it is now."""
        if path not in self.values:
            self.values[path] = value
            self.reasons[path] = reason
        return self.values[path]


def choose(
    task: Task, given: Mapping[str, Any], given_reasons: Mapping[str, str], designed: Designed | None
) -> tuple[Recipe, dict[str, str]]:
    """Return a complete recipe and the reason of every value in it that was chosen or given.

    `designed` describes the model that `given` names, when it was made for a certain input.
    """
    choices = Choices({"data.source": task.source, **given}, given_reasons)
    if choices.values.get("model.weights") is not None:
        choose_fine_tuning(choices, task, designed)
    _choose_input(choices, task, designed)
    _choose_optim(choices, task)
    _choose_augment(choices, task)
    _choose_device(choices, task)
    _choose_loader(choices, task)
    values = choices.values
    channels = values["data.channels"]
    base = Recipe(data=DataConfig(source=task.source, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels))
    return base.override(values), choices.reasons


def _choose_input(choices: Choices, task: Task, designed: Designed | None) -> None:
    model = choices.set(
        "model.name", "small", "our small convolutional network, sized by the input; --model names another"
    )
    size = f"{task.height} x {task.width}"
    if designed is None:
        if task.same_size and max(task.height, task.width) <= LARGEST_NATIVE_SIDE:
            height, width, why = task.height, task.width, f"the images are {size}"
        else:
            side = PHOTO_SIDE.get(task.device_kind, PHOTO_SIDE_ACCELERATOR)
            side = max(8, min(side, task.height, task.width))
            height = width = side
            why = f"images of about {size}, cut to a square; larger sees more and takes longer"
            if task.same_size and max(task.height, task.width) > 1.5 * min(task.height, task.width):
                scale = side / math.sqrt(task.height * task.width)
                height, width = max(8, round(task.height * scale)), max(8, round(task.width * scale))
                why = f"the shape of the images, {size}; larger sees more and takes longer"
        choices.set("data.channels", task.channels, "the images are grey" if task.channels == 1 else "colour images")
    else:
        height, width, why = designed.height, designed.width, f"what {model} was designed for"
        small = task.same_size and max(task.height, task.width) <= LARGEST_NATIVE_SIDE
        if small and not designed.fixed_size:
            height, width = max(task.height, 32), max(task.width, 32)
            why = f"the images are {size}" + ("" if min(task.height, task.width) >= 32 else ", enlarged to 32")
        choices.set("data.channels", 3, f"{model} takes colour; grey images are repeated")
        if choices.values["data.channels"] == len(designed.mean):
            choices.set("data.mean", designed.mean, f"what {model} was designed for")
            choices.set("data.std", designed.std, f"what {model} was designed for")
        if not small:
            choices.set("data.crop_pct", designed.crop_pct, f"what {model} was designed for")
            choices.set("data.crop_mode", designed.crop_mode, f"what {model} was designed for")
    height, width = choices.set("data.height", height, why), choices.set("data.width", width, why)
    if height != width:
        # timm before 1.0.31 ignores the filter for such sizes; bundles should answer the same there.
        choices.set("data.interpolation", "bilinear", "what every timm resizes with when height and width differ")
    elif designed is not None:
        choices.set("data.interpolation", designed.interpolation, f"what {model} was designed for")
    channels = choices.values["data.channels"]
    choices.set("data.mean", _to_channels(task.mean, channels), "measured on the training images")
    choices.set("data.std", _to_channels(task.std, channels), "measured on the training images")


def _to_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return values
    return values * channels if len(values) == 1 else (sum(values) / len(values),)


def _choose_optim(choices: Choices, task: Task) -> None:
    small = choices.values["model.name"] == "small"
    largest = 128 if task.device_kind == "cpu" else 512
    batch = min(largest, max(8, 2 ** round(math.log2(max(task.num_train / 20, 1)))))
    why = "large enough to keep the cores busy" if batch == largest else "about 20 steps an epoch for a small set"
    batch = choices.set("data.batch_size", batch, f"{task.num_train:,} training images: {why}")
    if batch > task.num_train:
        batch = choices.values["data.batch_size"] = task.num_train
        choices.reasons["data.batch_size"] = f"all {task.num_train:,} training images: there are no more"
    visits = 200_000 if task.device_kind == "cpu" else 1_000_000
    longest = 30 if task.num_train >= 1000 else 60  # a tiny set makes too few steps in 30
    epochs = min(longest, max(3, round(visits / task.num_train)))
    choices.set("optim.epochs", epochs, f"about {visits:,} images in all, at least 3 and at most {longest} epochs")
    epochs = choices.values["optim.epochs"]
    optimizer = choices.set(
        "optim.optimizer",
        "sgd" if small else "adamw",
        "learns fastest with the small network" if small else "trains every architecture without tuning",
    )
    schedule = choices.values.get("optim.schedule", "one-cycle")
    layered = choices.values.get("model.weights") and choices.values.get("optim.layer_decay")
    kind = "pretrained" if layered else schedule
    lr, decay, why_decay = RATES.get(f"{optimizer}, {kind}", RATES[optimizer])
    if optimizer == "sgd":
        choices.set("optim.lr", round(lr * batch / 128, 6), f"{lr:g} for a batch of 128, in proportion")
    else:
        scaled = float(f"{lr * math.sqrt(batch / 128):.2g}")
        choices.set("optim.lr", scaled, f"{lr:g} for a batch of 128, with the square root of the batch")
    choices.set("optim.weight_decay", decay, why_decay)
    if optimizer == "muon":
        choices.set("optim.momentum", 0.95, "usual with Muon")
    elif optimizer == "lion":
        choices.set("optim.beta2", 0.99, "Lion's own")
    choices.set("optim.schedule", schedule, "reaches most in few epochs")
    if schedule == "one-cycle":
        choices.set("optim.warmup_epochs", round(0.2 * epochs, 3), "a fifth of the epochs to reach the peak rate")
    elif schedule == "schedule-free":
        choices.set("optim.warmup_epochs", round(0.05 * epochs, 3), "its authors advise a short one")
    smoothing = 0.0 if choices.values["model.name"] == "mlp" else 0.1
    choices.set(
        "optim.label_smoothing", smoothing, "keeps a network from being too sure" if smoothing else "not needed"
    )


def _choose_augment(choices: Choices, task: Task) -> None:
    colour = task.channels == 3
    choices.set(
        "augment.flip",
        colour,
        "most things look the same mirrored; signs and text do not: --set augment.flip=false"
        if colour
        else "grey images are often digits or letters, which mirrored are others",
    )
    epochs = choices.values["optim.epochs"]
    side = min(choices.values["data.height"], choices.values["data.width"])
    shift = side // 16
    if side < 16:
        choices.set("augment.crop_padding", None, f"one of {side} pixels is too much to shift by")
    elif epochs < EPOCHS_TO_SHIFT:
        choices.set(
            "augment.crop_padding",
            None,
            f"an image is seen too seldom in {epochs} epoch{'s' if epochs > 1 else ''} to need shifted copies",
        )
    else:
        moved = f"shifts by up to {shift} pixel{'s' if shift > 1 else ''}, about a sixteenth of the side"
        choices.set("augment.crop_padding", shift, moved)


def _choose_device(choices: Choices, task: Task) -> None:
    choices.set("device.name", task.device, "found")
    convolutional = choices.values["model.name"] != "mlp"
    if task.precision != "fp32" and not convolutional:
        choices.set("device.precision", "fp32", "casting would take longer than this model's products save")
    elif task.precision != "fp32" and task.device_kind == "cpu" and not _cores_are_free(task):
        why = "bf16 would be faster on free cores; its kernels wait badly when other programs use them as well"
        choices.set("device.precision", "fp32", why)
    elif task.precision != "fp32":
        choices.set("device.precision", task.precision, "this device multiplies it faster, at the same accuracy")
    else:
        choices.set("device.precision", "fp32", "the fastest arithmetic that this device has")
    choices.set(
        "device.channels_last",
        convolutional and task.channels_last,
        _why_layout(convolutional, task.channels_last),
    )
    if task.device_kind == "cpu":
        _choose_threads(choices, task)


def _why_layout(convolutional: bool, gains: bool) -> str:
    if not convolutional:
        return "makes no difference to this model"
    return "convolutions run faster on it" if gains else "nobody has shown that this device gains from it"


def _cores_are_free(task: Task) -> bool:
    return task.others_share is not None and task.others_share < BUSY_SHARE


def _choose_threads(choices: Choices, task: Task) -> None:
    values = choices.values
    pixels = values["data.batch_size"] * values["data.height"] * values["data.width"]
    if values["model.name"] in ("lenet", "mlp", "small") and pixels < PIXELS_WORTH_SHARING:
        choices.set("device.num_threads", 1, "steps this small gain nothing from a second thread, and wait for it")
    else:
        choices.set("device.num_threads", task.num_threads, "torch's choice; the same number repeats to the bit")


def _choose_loader(choices: Choices, task: Task) -> None:
    values = choices.values
    size = values["data.height"] * values["data.width"] * values["data.channels"]
    needed, allowed = size * (task.num_train + task.num_val), int(RESIDENT_SHARE * task.memory_bytes)
    if values.get("augment.resized_crop_area") is not None:
        loader, why = "streaming", "random crops need the full image"
    elif needed <= allowed:
        loader, why = "resident", f"decoded images take {_size(needed)} of {_size(task.memory_bytes)} free"
    else:
        loader, why = (
            "streaming",
            f"decoded images would take {_size(needed)}; a quarter of the free memory is {_size(allowed)}",
        )
    if choices.set("data.loader", loader, why) == "streaming":
        choices.set("data.num_workers", task.decode_threads, _decoding_rates(task))
    limit = max(10, (task.num_train + task.num_val) // 100)
    choices.set("data.max_bad_images", limit, "one in a hundred, at least 10")
    steps = max(1, -(-task.num_train // values["data.batch_size"]))
    choices.set("log_every", min(50, max(1, steps // 10)), "about ten measurements an epoch")


def _decoding_rates(task: Task) -> str:
    if not task.decode_rates:
        return "the images are pixels already: one thread stays ahead"
    tried = [f"{n} thread{'s' if n > 1 else ''} {rate:,.0f}" for n, rate in task.decode_rates.items()]
    return f"images/s read and decoded by {', '.join(tried)}, of {task.num_cores} cores"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{max(num_bytes / 2**20, 0.1):.1f} MiB"
