"""A batch in parts gives the gradients of the whole, and memory that runs short makes the parts smaller."""

from __future__ import annotations

import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from linne.data.loading.augment_mix import Mixture
from linne.data.loading.loader import Batch
from linne.device import Device
from linne.errors import LinneError, OutOfMemory
from linne.recipe import AugmentConfig, DataConfig, DeviceConfig, OptimConfig, Recipe
from linne.training.memory import fitting, is_out_of_memory, parts_of, smaller
from linne.training.state import TrainState
from linne.training.step import train_step

CPU = Device.pick("cpu")


def make_batch(count=13):
    torch.manual_seed(1)
    mixture = Mixture(torch.arange(count) % 3, torch.rand(count))
    return Batch(torch.randn(count, 1, 4, 4), torch.arange(count) % 4, mixture)


def make_state(recipe, *, norm=False):
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(16, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.Tanh(), nn.Linear(8, 4)]
    return TrainState.create(nn.Sequential(*layers), recipe, CPU)


def recipe_of(**fields):
    return Recipe(data=DataConfig(source="digits"), optim=OptimConfig(optimizer="sgd", lr=0.1, **fields))


@pytest.mark.parametrize(("largest", "sizes"), [(None, [13]), (13, [13]), (12, [6, 7]), (5, [4, 4, 5]), (1, [1] * 13)])
def test_a_batch_is_cut_into_as_few_parts_of_nearly_one_size_as_hold_no_more(largest, sizes):
    batch = make_batch()
    parts = list(parts_of(batch, largest))
    assert [len(part.labels_N) for part in parts] == sizes
    assert torch.equal(torch.cat([part.images_NCHW for part in parts]), batch.images_NCHW)
    assert torch.equal(torch.cat([part.labels_N for part in parts]), batch.labels_N)
    assert torch.equal(torch.cat([part.mixture.shares_N for part in parts]), batch.mixture.shares_N)
    assert torch.equal(torch.cat([part.mixture.labels_N for part in parts]), batch.mixture.labels_N)


COMPARED = AugmentConfig(policy="augmix", consistency=12.0)


def make_views(batch):
    return replace(batch, mixture=None, views_NCHW=tuple(torch.randn_like(batch.images_NCHW) for _ in range(2)))


@pytest.mark.parametrize("fields", [{}, {"loss": "bce"}, {"sam_rho": 0.05}, {"clip_norm": 0.01}, None], ids=str)
def test_parts_train_the_same_weights_as_the_whole(fields):
    recipe = recipe_of(**(fields or {}))
    batch = make_batch()
    if fields is None:
        recipe, batch = replace(recipe, augment=COMPARED), make_views(batch)
    whole, parted = make_state(recipe), make_state(recipe)
    parted.micro_batch = 3
    for _ in range(5):
        losses = [train_step(state, batch, recipe, CPU, 10) for state in (whole, parted)]
        torch.testing.assert_close(*losses, rtol=1e-6, atol=0)  # another order of the same sums, in fp32
    for mine, theirs in zip(whole.parameters, parted.parameters, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_step_that_compares_views_learns_labels_from_the_image_alone_in_one_pass():
    recipe, batch = replace(recipe_of(), augment=COMPARED), make_views(make_batch())
    state, answers = make_state(recipe), []
    state.model.register_forward_hook(lambda module, given, answer: answers.append(answer.detach().double().numpy()))
    loss = train_step(state, batch, recipe, CPU, 10)
    (logits_MK,) = answers
    logs_VNK = logits_MK.reshape(3, 13, 4)
    logs_VNK = logs_VNK - np.log(np.exp(logs_VNK).sum(2, keepdims=True))
    own = -logs_VNK[0, np.arange(13), batch.labels_N.numpy()].mean()
    mean_NK = np.exp(logs_VNK).mean(0)
    apart = (np.exp(logs_VNK) * (logs_VNK - np.log(mean_NK))).sum(2).mean()
    assert loss.item() == pytest.approx(own + 12 * apart, rel=1e-5)  # rounding of float32


def test_the_recipe_says_how_many_are_computed_at_once():
    recipe = Recipe(data=DataConfig(source="digits"), device=DeviceConfig(micro_batch=2))
    state, seen = make_state(recipe), []
    state.model.register_forward_hook(lambda module, given, answer: seen.append(len(answer)))
    train_step(state, make_batch(5), recipe, CPU, 10)
    assert seen == [1, 2, 2]


class Small(nn.Module):
    """A network on a device that holds `most` images at once, and says so as that device does."""

    def __init__(self, most, error):
        super().__init__()
        self.most, self.error, self.asked = most, error, []
        self.layer = nn.Linear(16, 4)

    def forward(self, images):
        self.asked.append(len(images))
        if len(images) > self.most:
            raise self.error
        return self.layer(images.flatten(1))


def test_memory_that_runs_short_halves_what_is_computed_at_once_and_the_step_is_that_of_the_batch():
    recipe = recipe_of()
    short = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    torch.manual_seed(0)
    state = TrainState.create(Small(4, short), recipe, CPU)
    torch.manual_seed(0)
    whole = TrainState.create(Small(99, short), recipe, CPU)
    for each in (state, whole):
        train_step(each, make_batch(), recipe, CPU, 10)
    assert state.model.asked == [13, 6, 3, 3, 3, 4]
    assert (state.micro_batch, whole.micro_batch) == (4, None)
    torch.testing.assert_close(state.model.layer.weight, whole.model.layer.weight, rtol=1e-5, atol=1e-6)
    state.model.asked.clear()
    train_step(state, make_batch(), recipe, CPU, 10)
    assert state.model.asked == [3, 3, 3, 4]


def test_one_image_that_does_not_fit_ends_with_what_was_said_and_what_to_do():
    state = TrainState.create(Small(0, RuntimeError("MPS backend out of memory")), recipe_of(), CPU)
    with pytest.raises(LinneError, match="`cpu` is out of memory with 1 images at once: MPS backend") as caught:
        train_step(state, make_batch(), recipe_of(), CPU, 10)
    assert "use smaller images" in caught.value.hint
    assert all(p.grad is None for p in state.parameters)


def test_what_several_processes_compute_together_none_halves_alone_and_the_error_says_how_many_to_take():
    state = TrainState.create(Small(4, RuntimeError("CUDA out of memory")), recipe_of(), CPU)
    state.together = True
    with pytest.raises(OutOfMemory, match="`cpu` is out of memory with 13 images at once: CUDA out of") as caught:
        train_step(state, make_batch(), recipe_of(), CPU, 10)
    assert (caught.value.micro_batch, state.model.asked) == (7, [13])
    assert all(p.grad is None for p in state.parameters)


def test_batch_norm_never_gets_a_part_of_one_image():
    assert make_state(recipe_of(), norm=True).least_at_once == 2
    assert smaller(4, 13, 2) == 2
    assert smaller(2, 13, 2) is None
    assert smaller(None, 1, 1) is None


def test_another_error_is_not_taken_for_short_memory():
    problem = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        train_step(TrainState.create(Small(0, problem), recipe_of(), CPU), make_batch(), recipe_of(), CPU, 10)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "HIP out of memory. Tried to allocate 2.00 GiB.",
        "MPS backend out of memory (MPS allocated: 9.06 GB)",
        "XPU out of memory. Tried to allocate 1.00 GiB",
        "Could not allocate tensor with 822083584 bytes. There is not enough GPU video memory available!",
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
        "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to allocate",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_every_backends_words_for_short_memory_are_known(said):
    assert is_out_of_memory(RuntimeError(said))
    assert not is_out_of_memory(ValueError(said))


def test_what_fits_at_once_is_not_asked_for_again():
    assert fitting(lambda largest: torch.tensor(1.0), None, 8, CPU, 1)[1] is None
    assert fitting(lambda largest: torch.tensor(1.0), 4, 8, CPU, 1)[1] == 4


LIMITED = textwrap.dedent(
    """
    import resource, sys
    import torch
    from linne.training.memory import is_out_of_memory
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
    try:
        torch.ones(1 << 30)
    except Exception as error:
        sys.exit(0 if is_out_of_memory(error) else f"{type(error)}: {error}")
    sys.exit("it fitted")
    """
)


@pytest.mark.long
@pytest.mark.skipif(not __import__("sys").platform.startswith("linux"), reason="limits memory as Linux does")
def test_a_process_that_really_runs_out_of_memory_raises_what_is_looked_for(python):
    ended = python("-c", LIMITED)
    assert ended.returncode == 0, ended.stderr
