"""Several processes that train one network: who they are, what they exchange, and how the network is spread over them.

torchrun starts them and says in the environment who each is; DDP and FSDP2 do the training. No other file of training
imports `torch.distributed`. What the processes tell each other about the run goes through gloo, on the host, so that it
never waits for an accelerator; tensors of the network go through the device's own library.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from torch import nn

from linne.data.loading.sharing import Share
from linne.device import Device
from linne.errors import DeviceError, LinneError, RecipeError
from linne.recipe import Recipe
from linne.training.batch_norm import Gather, share_statistics

BACKENDS = {"cpu": "gloo", "cuda": "nccl", "rocm": "nccl", "xpu": "xccl"}
"""What carries tensors between devices of a kind."""
PATIENCE = datetime.timedelta(hours=2)
"""How long a process waits for another that still lives: the first one evaluates and writes reports alone."""
LEAST_SHARDED = 100_000
"""Weights of a layer that are gathered on their own: smaller ones come with their neighbours, in fewer exchanges."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a training, and which of them this one is. Alone, every exchange is over at once."""

    rank: int = 0
    local_rank: int = 0
    """Which of those on this machine."""
    size: int = 1
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that talks and writes."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """What this process does of every batch."""
        return Share(self.rank, self.size)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))  # torch's barrier picks an accelerator of its own accord

    def from_first(self, value: Any) -> Any:
        """Return the first process's `value`, which JSON can carry; the others' is not looked at."""
        if self.size == 1:
            return value
        return json.loads(self.bytes_from_first(json.dumps(value).encode() if self.is_first else b""))

    def bytes_from_first(self, content: bytes) -> bytes:
        """Return the first process's `content`."""
        if self.size == 1:
            return content
        size = torch.tensor([len(content)])
        dist.broadcast(size, 0)
        values = torch.frombuffer(bytearray(content), dtype=torch.uint8) if self.is_first and content else None
        values = torch.empty(int(size), dtype=torch.uint8) if values is None else values
        dist.broadcast(values, 0)
        return values.numpy().tobytes()

    def from_all(self, value: Any) -> list[Any]:
        """Return every process's `value`, which JSON can carry, by rank."""
        if self.size == 1:
            return [value]
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(content)]))
        longest = max(map(int, sizes))
        padded = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(padded, torch.cat((content, content.new_zeros(longest - len(content)))))
        return [json.loads(text.numpy()[: int(size)].tobytes()) for text, size in zip(padded, sizes, strict=True)]

    def largest(self, numbers: list[int]) -> list[int]:
        """Return the largest of all processes' numbers, place by place."""
        if self.size == 1:
            return numbers
        values = torch.tensor(numbers)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return [int(value) for value in values]

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of all processes' tensors, on the host; waits for the device."""
        total = tensor.detach().cpu()
        if self.size > 1:
            total = total.clone()
            dist.all_reduce(total)
        return total

    def seed(self, seed: int, step: int, device: Device) -> None:
        """Seed torch for a step on `device`: each of several processes draws its own numbers, the same after a resume.

        Alone, the generators go on from where they are, and a checkpoint holds their state.
        """
        if self.size == 1:
            return
        number = int(np.random.SeedSequence([seed, step, self.rank]).generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(number)  # torch.manual_seed asks every backend: a tenth of a millisecond
        device.seed(number)

    @contextlib.contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Let the first process of each machine come through before its others: what it keeps on disk they find."""
        if self.local_rank > 0:
            self.wait()
        try:
            yield
        finally:
            if self.local_rank == 0:
                self.wait()


ALONE = World()


def find() -> World:
    """Return the processes that torchrun's environment describes; this one alone without it.

    Raises:
        LinneError: the environment describes none.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return ALONE
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    missing = [name for name in (*names, "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise LinneError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, and {' and '.join(missing)} of torchrun's environment missing",
            hint="start several processes by `linne launch --nproc N train ...`, or unset WORLD_SIZE",
        )
    return World(*(int(os.environ[name]) for name in names))


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """Yield the processes that train, met and ready to exchange; leaves them at the end."""
    world = find()
    if world.size == 1:
        yield world
        return
    if not dist.is_available():
        raise LinneError(f"this torch ({torch.__version__}) is built for one process only", hint="unset WORLD_SIZE")
    # What it raises is left as it is: a port that another program took meanwhile is no mistake of the user's.
    dist.init_process_group(_backends(), timeout=PATIENCE)
    try:
        yield world
    finally:
        dist.destroy_process_group()


def pick_device(name: str, world: World, *, require_accelerator: bool = False) -> Device:
    """Return the device of this process: of several processes on a machine each has one of its own.

    Raises:
        DeviceError: it cannot be used, or several processes cannot exchange tensors on such devices.
    """
    device = Device.pick(name, require_accelerator=require_accelerator)
    if world.size == 1:
        return device
    if (problem := why_not_shared(device)) is not None:
        raise DeviceError(problem, hint="train in one process, or with --device cpu")
    if device.kind == "cpu":
        return device
    mine = Device.pick(f"{device.kind}:{world.local_rank}")
    mine.select()
    return mine


def why_not_shared(device: Device) -> str | None:
    """Return why several processes cannot train together on devices such as this one, or None."""
    backend = BACKENDS.get(device.kind)
    if backend is None:
        return f"`{device.kind}` trains in one process only: torch has nothing that carries its tensors to another"
    if not _is_built(backend):
        return f"this torch ({torch.__version__}) is built without {backend}, which carries tensors between processes"
    return None


def _is_built(backend: str) -> bool:
    return bool(getattr(dist, f"is_{backend}_available", lambda: False)())  # torch 2.4 does not ask for xccl


def _backends() -> str:
    """Return what carries tensors of the host, and of each kind of accelerator that is here, in torch's words."""
    accelerators = {"cuda": "nccl", "xpu": "xccl"}
    found = [
        f"{name}:{backend}"
        for name, backend in accelerators.items()
        if getattr(torch, name).is_available() and _is_built(backend)
    ]
    return ",".join(["cpu:gloo", *found])


def spread(model: nn.Module, recipe: Recipe, device: Device, world: World) -> nn.Module:
    """Return what to call to train `model` in all processes at once; alone, `model` itself.

    The gradients are then the mean over processes. With `ddp` every process has all weights, the first one's; with
    `fsdp` each has a part of every weight, and `model`'s parameters are replaced.

    Raises:
        RecipeError: this torch has no FSDP2, or the network has a batch norm whose statistics cannot be shared.
    """
    if world.size == 1:
        return model
    shared = recipe.model.sync_batch_norm
    if shared:
        share_statistics(model, over_processes(world), on_accelerator=device.is_accelerator)
    if recipe.device.parallel == "fsdp":
        return _sharded(model, recipe, device, world)
    ddp = nn.parallel.DistributedDataParallel
    # torch 2.14 renames it.
    name = "forward_sync_buffers" if "forward_sync_buffers" in signature(ddp).parameters else "broadcast_buffers"
    # Running statistics that every process has alike need no exchange; else the first one's count, as ever in DDP.
    options: dict[str, Any] = {name: not shared, "gradient_as_bucket_view": True}
    # Else it waits for the gradients of frozen layers.
    options["find_unused_parameters"] = recipe.model.freeze is not None or recipe.augment.size_tune_epochs is not None
    return ddp(model, device_ids=[device.index] if device.is_accelerator else None, **options)


def over_processes(world: World) -> Gather:
    """Return what makes size x D of all processes' D numbers, through which gradients flow back."""

    def gather(values_D: torch.Tensor) -> torch.Tensor:
        mine_P = torch.arange(world.size, device=values_D.device) == world.rank
        all_PD: torch.Tensor = _Sum.apply(torch.where(mine_P[:, None], values_D, 0.0))
        return all_PD

    return gather


class _Sum(torch.autograd.Function):
    """The sum over processes, through which gradients flow back to all of them."""

    @staticmethod
    def forward(context: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def _sharded(model: nn.Module, recipe: Recipe, device: Device, world: World) -> nn.Module:
    """Return `model` with every weight in parts, one a process (FSDP2)."""
    _check_shardable(recipe)
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        raise RecipeError(
            f"device.parallel is fsdp, which torch {torch.__version__} does not have; 2.6 is the first that does",
            hint="update torch, or use --set device.parallel=ddp",
        ) from None
    model.to(memory_format=torch.contiguous_format)  # FSDP2 parts no weights that lie channels last
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(device.torch_type, (world.size,))
    for module in reversed(list(model.modules())):
        if isinstance(module, (nn.Sequential, nn.ModuleList)):
            for child in module.children():
                if sum(p.numel() for p in child.parameters()) >= LEAST_SHARDED:
                    fully_shard(child, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def _check_shardable(recipe: Recipe) -> None:
    """Raise RecipeError for what looks at whole weights, or was never tried on parts of them."""
    optim = recipe.optim
    looks_at_whole = {
        f"optim.optimizer={optim.optimizer}": optim.optimizer not in ("sgd", "adamw"),
        "optim.schedule=schedule-free": optim.schedule == "schedule-free",
        "optim.ema_decay": optim.ema_decay is not None,
        "optim.average_epochs": optim.average_epochs is not None,
        "model.freeze": recipe.model.freeze is not None,
        "model.lora_rank": recipe.model.lora_rank is not None,
        "model.mixout": recipe.model.mixout > 0,
        "augment.size_tune_epochs": recipe.augment.size_tune_epochs is not None,
        "optim.sam_rho": optim.sam_rho is not None,
        "optim.clip_agc": optim.clip_agc is not None,
        "optim.nonfinite=skip": optim.nonfinite == "skip",
        "device.precision=fp16": recipe.device.precision == "fp16",
    }
    found = [name for name, holds in looks_at_whole.items() if holds]
    if found:
        raise RecipeError(
            f"`{found[0]}` does not go with device.parallel=fsdp, where no process has whole weights",
            hint="leave it out, or use --set device.parallel=ddp",
        )


def optimizer_speed(weights: Iterable[torch.Tensor], device: Device) -> dict[str, bool]:
    """Return `device.optimizer_speed`; but of parted weights torch can update several at a time, not all in one."""
    if any(map(_is_parted, weights)):
        return {"fused": False, "foreach": True}
    return device.optimizer_speed


def share_buffers(models: Iterable[nn.Module], recipe: Recipe, world: World) -> None:
    """Give all processes the first one's running statistics, before they evaluate together, where theirs differ."""
    if world.size == 1 or recipe.model.sync_batch_norm:
        return
    for model in models:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def parted_as(model: torch.Tensor | None, tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's part of `tensor`, all of which each has, if `model` is parted; else `tensor` as it is."""
    if model is None or not _is_parted(model):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    like: Any = model
    parted: torch.Tensor = distribute_tensor(tensor.to(model.device), like.device_mesh, like.placements)
    return parted


def _is_parted(tensor: torch.Tensor) -> bool:
    """Return whether it is a DTensor, whose module torch 2.4 has elsewhere and a build without processes not at all."""
    return hasattr(tensor, "full_tensor")


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a tensor of which each has one; any other as it is."""
    if not _is_parted(tensor):
        return tensor
    parted: Any = tensor
    part: torch.Tensor = parted.to_local()
    return part


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return all of a tensor of which each process has a part; any other as it is. All processes call it."""
    if not _is_parted(tensor):
        return tensor
    parted: Any = tensor
    gathered: torch.Tensor = parted.full_tensor()
    return gathered
