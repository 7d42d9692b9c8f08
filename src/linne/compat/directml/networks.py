"""The samples' networks: torchvision's, for ten classes, with what a file of weights holds where there is one."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from linne.compat.directml.lines import Say
from linne.compat.directml.programs import AUXILIARY, HOME, Options, checkpoint_path
from linne.device import Device
from linne.errors import LinneError
from linne.weights import read_weights
from linne.weights.reading import file_sha256
from linne.weights.torch_files import save_torch

NUM_CLASSES = 10
_OF = "sha256 of checkpoint.pth"


@dataclass(frozen=True, slots=True)
class Start:
    """A network to begin with, on the CPU."""

    network: nn.Module
    path: Path
    """Where its checkpoint belongs."""
    found: bool
    """Whether its weights are from there."""


def start(options: Options, device: Device, note: Say) -> Start:
    """Return the network of `options`, with the weights of its checkpoint where there is one, as the samples do.

    Raises:
        LinneError: the checkpoint is damaged, holds more than tensors, or is of another network.
    """
    model = options.network
    path = checkpoint_path(model, device.torch_device)
    network = build(model)
    file = next((file for file in (path, path.with_suffix(".safetensors")) if file.is_file()), None)
    if file is not None:
        load(network, file, model)
        note(f"weights from `{file}`")
    elif (plain := path.parent.with_name("cuda") / path.name).is_file() and path.parent.name.startswith("cuda"):
        note(f"`{plain}`, where some of the samples keep it, is not read; move it to `{path}` to go on with it")
    return Start(network, path, file is not None)


def require_weights(start: Start, options: Options, note: Say, *, harmless: bool = False) -> None:
    """Raise LinneError where the weights are random; only say so where that was asked for or is `harmless`."""
    if start.found:
        return
    if options.faithful or harmless:
        note(f"no checkpoint at `{start.path}`: the weights are random")
        return
    model = options.network
    there = sorted(path.parent.name for path in (HOME / "checkpoints" / model).glob("*/checkpoint.pth"))
    elsewhere = f"; there are weights of it for --device {', '.join(there)}" if there else ""
    raise LinneError(
        f"no checkpoint at `{start.path}`, and random weights know nothing",
        hint=f"type `linne compat directml train --model {model} --device {options.device} --save_model` "
        f"first{elsewhere}; --faithful goes on with random weights, as the samples do",
    )


def build(model: str) -> nn.Module:
    """Return the network with random weights, in training mode."""
    # Without a choice of init_weights these warn; True is what they take then.
    arguments = {"init_weights": True} if model in AUXILIARY else {}
    network: nn.Module = models.get_model(model, weights=None, num_classes=NUM_CLASSES, **arguments)
    return network


def save(network: nn.Module, path: Path) -> None:
    """Write the weights to `path` as the samples do, and once more beside it as safetensors.

    The second file is what linne reads: the torch that DirectML needs, 2.4, has holes in its reader of the first kind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = OrderedDict((name, value.detach().cpu().contiguous()) for name, value in network.state_dict().items())
    save_torch(tensors, path)
    twin = path.with_suffix(".safetensors")
    fresh = twin.with_name(twin.name + ".new")
    save_file(tensors, fresh, metadata={_OF: file_sha256(path)})
    os.replace(fresh, twin)


def load(network: nn.Module, path: Path, model: str) -> None:
    """Give `network` the weights in `path`.

    Raises:
        LinneError: the file is damaged, holds more than tensors, or is of another network.
    """
    tensors = _twin(path) if path.suffix == ".pth" else None
    if tensors is None:
        tensors = dict(read_weights(path).tensors)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise LinneError(
            f"`{path}` does not hold the weights of `{model}` for {NUM_CLASSES} classes: {said[-1][:200]}",
            hint="move it away to begin anew",
        ) from error


def _twin(path: Path) -> dict[str, torch.Tensor] | None:
    """Return the tensors that `save` wrote beside `path`; None where there are none, or of another `path`."""
    twin = path.with_suffix(".safetensors")
    if not twin.is_file():
        return None
    try:
        with safe_open(twin, framework="pt", device="cpu") as file:
            if (file.metadata() or {}).get(_OF) != file_sha256(path):
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError):
        return None  # `path` is what counts, and is read instead
