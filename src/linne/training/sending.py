"""One checkpoint for all processes: the first one reads and verifies it, the others need not see its disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from linne.training.checkpoint_format import Checkpoint, from_plain, to_plain
from linne.training.distributed import World


def from_first(checkpoint: Checkpoint | None, world: World) -> Checkpoint | None:
    """Return the first process's `checkpoint`; the others' is not looked at. All processes call it."""
    if world.size == 1:
        return checkpoint
    if world.is_first:
        _send(checkpoint, world)
        return checkpoint
    return _receive(world)


def _send(checkpoint: Checkpoint | None, world: World) -> None:
    if checkpoint is None:
        world.from_first(None)
        return
    tensors: dict[str, Any] = {}
    plain = to_plain(checkpoint.state, "state", tensors)
    place = {
        "path": str(checkpoint.path),
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "batch": checkpoint.batch,
    }
    world.from_first({**place, "facts": dict(checkpoint.facts), "state": plain, "kept": checkpoint.kept is not None})
    for part in (tensors, checkpoint.kept or {}):
        world.bytes_from_first(save({name: tensor.contiguous() for name, tensor in part.items()}))


def _receive(world: World) -> Checkpoint | None:
    told = world.from_first(None)
    if told is None:
        return None
    tensors, kept = (load(world.bytes_from_first(b"")) for _ in ("state", "kept"))
    told["path"], told["state"] = Path(told["path"]), from_plain(told["state"], tensors)
    return Checkpoint(**{**told, "kept": kept if told["kept"] else None})
