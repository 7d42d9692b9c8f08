"""Batch norm over several processes' parts is batch norm over the whole, forwards and backwards."""

from __future__ import annotations

import copy

import pytest
import torch
from processes import run_together
from torch import nn

from linne.errors import RecipeError
from linne.training.batch_norm import SharedBatchNorm, share_statistics
from linne.training.distributed import joined, over_processes

ROUNDING = 1e-12
"""Of float64, in which both sides compute; values are about 1, and a hundred times that before they are normalised."""


def make(momentum: float | None = 0.1) -> nn.BatchNorm2d:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, momentum=momentum).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def whole_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return values far from 0 with little spread, whose variance E[x^2] - E[x]^2 would lose, and a weight for each."""
    random = torch.Generator().manual_seed(1)
    return 100 + torch.randn(7, 3, 2, 2, generator=random).double(), torch.randn(7, 3, 2, 2, generator=random).double()


def passes(norm: nn.Module, values: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
    """Return the outputs of two passes, the input's gradient of the second, and everything that the norm learnt."""
    norm(values)
    values = values.clone().requires_grad_()
    output = norm(values)
    (output * weights).sum().backward()
    found = [output.detach(), values.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
    return [tensor.clone() for tensor in found]


def part_of_the_passes(momentum: float | None) -> list[list]:
    with joined() as world:
        values, weights = whole_batch()
        mine = torch.from_numpy(world.share.of(torch.arange(7).numpy()))
        found = passes(SharedBatchNorm(make(momentum), over_processes(world)), values[mine], weights[mine])
        return [tensor.tolist() for tensor in found]


@pytest.mark.parametrize("momentum", [0.1, None])
def test_outputs_gradients_and_running_statistics_are_those_of_the_whole_batch(momentum):
    expected = passes(make(momentum), *whole_batch())
    found = [
        [torch.tensor(x, dtype=torch.float64) for x in part] for part in run_together(part_of_the_passes, 3, momentum)
    ]
    for place in (0, 1):  # outputs and gradients of the input, of each process's images
        together = torch.cat([part[place] for part in found])
        assert torch.allclose(together, expected[place], rtol=0, atol=1000 * ROUNDING)
    for place in (2, 3):  # gradients of the weights, which DDP puts together
        assert torch.allclose(sum(part[place] for part in found), expected[place], rtol=0, atol=1000 * ROUNDING)
    for place in (4, 5):
        for part in found:
            assert torch.allclose(part[place], expected[place], rtol=0, atol=1000 * ROUNDING)


def test_what_replaces_a_norm_has_its_weights_and_in_evaluation_its_answers():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    before, expected = copy.deepcopy(model), model.eval()(torch.ones(2, 3, 2, 2))
    share_statistics(model, lambda values_D: values_D[None], on_accelerator=False)
    assert type(model[1]) is SharedBatchNorm
    assert model.state_dict().keys() == before.state_dict().keys()
    assert torch.equal(model(torch.ones(2, 3, 2, 2)), expected)


def test_the_activation_that_timm_puts_into_a_norm_stays():
    from timm.layers import BatchNormAct2d

    model = nn.Sequential(BatchNormAct2d(3, act_layer=nn.ReLU).double())
    values, _ = whole_batch()
    expected = copy.deepcopy(model)(values)
    share_statistics(model, lambda values_D: values_D[None], on_accelerator=False)
    assert torch.allclose(model(values), expected, rtol=0, atol=1000 * ROUNDING)
    assert expected.min() == 0


def test_a_norm_that_does_more_than_normalise_is_refused_by_name():
    class Odd(nn.BatchNorm2d):
        pass

    with pytest.raises(RecipeError) as refused:
        share_statistics(nn.Sequential(Odd(3)), lambda values_D: values_D[None], on_accelerator=False)
    assert str(refused.value) == "`0` of the network is a Odd, whose statistics cannot be shared"
    assert refused.value.hint.startswith("--set model.sync_batch_norm=false")
