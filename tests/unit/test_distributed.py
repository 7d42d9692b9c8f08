"""Who the processes are, and what is refused before they would wait for each other in vain."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from processes import run_together
from torch import nn

from linne.device import Device
from linne.errors import DeviceError, LinneError, RecipeError
from linne.recipe import DataConfig, Recipe
from linne.training.distributed import ALONE, World, find, joined, pick_device, spread

TORCHRUN = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}
RECIPE = Recipe(data=DataConfig(source="x"))
CPU = Device.pick("cpu")


def test_without_torchrun_a_process_is_alone_and_every_exchange_is_over_at_once():
    assert find() == ALONE
    with joined() as world:
        assert world.is_first
        assert world.from_first({"a": 1}) == {"a": 1}
        assert world.from_all("x") == ["x"]
        assert world.largest([3, 1]) == [3, 1]
        assert world.bytes_from_first(b"x") == b"x"
    model = nn.Linear(2, 2)
    assert spread(model, RECIPE, CPU, ALONE) is model


def test_the_environment_of_torchrun_says_who_a_process_is(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert find() == World(rank=3, local_rank=1, size=4, local_size=2)


def test_half_an_environment_is_refused_by_the_names_that_are_missing(monkeypatch):
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(LinneError) as refused:
        find()
    missing = "LOCAL_RANK and LOCAL_WORLD_SIZE and MASTER_ADDR and MASTER_PORT"
    assert str(refused.value) == f"WORLD_SIZE is 4, and {missing} of torchrun's environment missing"
    assert refused.value.hint == "start several processes by `linne launch --nproc N train ...`, or unset WORLD_SIZE"


@pytest.mark.parametrize("kind", ["mps", "dml", "npu"])
def test_devices_whose_tensors_nothing_carries_train_in_one_process(kind, monkeypatch):
    device = dataclasses.replace(CPU, kind=kind)
    monkeypatch.setattr(Device, "pick", lambda name, **_: device)
    assert pick_device(kind, ALONE) is device
    with pytest.raises(DeviceError) as refused:
        pick_device(kind, World(0, 0, 2, 2))
    assert str(refused.value).startswith(f"`{kind}` trains in one process only: torch has nothing that carries")
    assert refused.value.hint == "train in one process, or with --device cpu"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optim.optimizer": "muon"}, "optim.optimizer=muon"),
        ({"optim.ema_decay": 0.9}, "optim.ema_decay"),
        ({"optim.sam_rho": 0.1}, "optim.sam_rho"),
        ({"model.weights": "default", "model.mixout": 0.1}, "model.mixout"),
    ],
)
def test_what_needs_whole_weights_is_refused_where_they_are_parted(changes, said):
    recipe = RECIPE.override({**changes, "device.parallel": "fsdp"})
    with pytest.raises(RecipeError) as refused:
        spread(nn.Linear(2, 2), recipe, CPU, World(0, 0, 2, 2))
    assert str(refused.value) == f"`{said}` does not go with device.parallel=fsdp, where no process has whole weights"
    assert refused.value.hint == "leave it out, or use --set device.parallel=ddp"


def exchange() -> list:
    with joined() as world:
        mine = {"rank": world.rank, "text": "x" * 10**world.rank}
        found = [
            world.from_first(mine if world.is_first else None)["rank"],
            [len(each["text"]) for each in world.from_all(mine)],
            world.largest([world.rank, -world.rank]),
            world.sum(torch.tensor([world.rank + 0.5])).tolist(),
            world.bytes_from_first(b"ab" if world.is_first else b"").decode(),
            world.bytes_from_first(b"").decode(),
        ]
        world.wait()
        return found


@pytest.mark.long
def test_processes_tell_each_other_values_of_any_length():
    expected = [0, [1, 10, 100], [2, 0], [4.5], "ab", ""]
    assert run_together(exchange, 3) == [expected] * 3


def test_the_networks_own_random_numbers_differ_between_processes_and_steps_and_repeat():
    def draw(rank: int, step: int) -> float:
        World(rank, rank, 2, 2).seed(7, step, CPU)
        return float(torch.rand(()))

    found = [draw(rank, step) for rank in (0, 1) for step in (0, 1)]
    assert len(set(found)) == 4
    assert found == [draw(rank, step) for rank in (0, 1) for step in (0, 1)]


def test_alone_the_generators_go_on_from_where_they_are():
    torch.manual_seed(0)
    first = torch.rand(2)
    torch.manual_seed(0)
    again = [torch.rand(())]
    ALONE.seed(7, 1, CPU)
    assert torch.equal(torch.stack([*again, torch.rand(())]), first)
