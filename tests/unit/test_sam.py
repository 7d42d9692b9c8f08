"""Sharpness-aware minimisation against its formula."""

from __future__ import annotations

import torch
from torch import nn

from linne.training.sam import Sharpness


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))


def loss_of(model: nn.Module) -> torch.Tensor:
    images = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    return model(images).square().mean()


def test_the_gradient_is_taken_rho_further_up_and_the_weights_come_back_to_the_bit():
    model = make_model()
    weights = list(model.parameters())
    loss_of(model).backward()
    before = [w.detach().clone() for w in weights]
    gradients = [w.grad.clone() for w in weights]
    length = torch.cat([g.flatten() for g in gradients]).norm()

    with Sharpness(model, weights, rho=0.05).uphill():
        assert all(w.grad is None for w in weights), "or the first gradient would be in the sum"
        for weight, old, gradient in zip(weights, before, gradients, strict=True):
            torch.testing.assert_close(weight.detach(), old + 0.05 * gradient / length, rtol=1e-6, atol=1e-7)
        loss_of(model).backward()

    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
    moved = make_model()
    with torch.no_grad():
        for weight, gradient in zip(moved.parameters(), gradients, strict=True):
            weight.add_(0.05 * gradient / length)
    loss_of(moved).backward()
    for mine, expected in zip(weights, moved.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-4, atol=1e-6)


def test_running_statistics_move_in_the_first_pass_only():
    model = make_model()
    norm = model[1]
    loss_of(model).backward()
    mean, count = norm.running_mean.clone(), int(norm.num_batches_tracked)
    with Sharpness(model, list(model.parameters()), rho=0.5).uphill():
        loss_of(model).backward()
    assert torch.equal(norm.running_mean, mean)
    assert int(norm.num_batches_tracked) == count == 1
    loss_of(model).backward()
    assert int(norm.num_batches_tracked) == 2, "and go on moving after it"


def test_a_weight_without_a_gradient_stays():
    model = make_model()
    loss_of(model).backward()
    model[3].bias.grad = None
    before = model[3].bias.detach().clone()
    with Sharpness(model, list(model.parameters()), rho=0.5).uphill():
        assert torch.equal(model[3].bias, before)
