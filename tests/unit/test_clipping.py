"""Clipped gradients against the formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from linne.recipe import OptimConfig
from linne.training.clipping import make_clip


def model_with_gradients() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5), nn.Linear(5, 3))
    model(torch.randn(6, 2, 8, 8)).square().sum().backward()
    return model


def clipped(**fields) -> tuple[list[torch.Tensor], list[torch.Tensor], nn.Module]:
    """Return the gradients before and after clipping."""
    model = model_with_gradients()
    parameters = list(model.parameters())
    before = [p.grad.clone() for p in parameters]
    make_clip(model, parameters, OptimConfig(**fields))()
    return before, [p.grad for p in parameters], model


def norm(tensors: list[torch.Tensor]) -> float:
    return float(torch.cat([t.flatten() for t in tensors]).norm())


def test_nothing_clips_unless_asked():
    model = model_with_gradients()
    assert make_clip(model, list(model.parameters()), OptimConfig()) is None


def test_clip_norm_shortens_all_gradients_together_and_turns_none():
    before, after, _ = clipped(clip_norm=1.0)
    assert norm(before) > 1.0
    assert norm(after) == pytest.approx(1.0, rel=1e-4)  # torch divides by the norm plus 1e-6
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old / norm(before), rtol=1e-4, atol=1e-7)


def test_clip_value_cuts_each_value():
    before, after, _ = clipped(clip_value=0.5)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(new, old.clamp(-0.5, 0.5))


def test_adaptive_clipping_follows_its_formula_by_unit_and_leaves_the_classifier_out():
    factor = 0.02
    before, after, model = clipped(clip_agc=factor)
    *body, weight, bias = zip(before, after, model.parameters(), strict=True)
    num_cut = 0
    for old, new, parameter in body:
        units = (old, new, parameter.detach())
        if parameter.ndim == 1:  # a bias is one unit
            units = tuple(tensor[None] for tensor in units)
        for old_unit, new_unit, weights in zip(*units, strict=True):
            allowed = factor * max(float(weights.norm()), 1e-3)
            length = float(old_unit.norm())
            num_cut += length > allowed
            expected = old_unit * allowed / length if length > allowed else old_unit
            torch.testing.assert_close(new_unit, expected, rtol=1e-5, atol=1e-8)
    assert num_cut > 0
    for old, new, _ in (weight, bias):
        assert torch.equal(old, new)


def test_parameters_that_are_not_trained_are_not_clipped():
    model = model_with_gradients()
    frozen = model[0]
    frozen.requires_grad_(False)
    before = frozen.weight.grad.clone()
    trained = [p for p in model.parameters() if p.requires_grad]
    make_clip(model, trained, OptimConfig(clip_agc=1e-6))()
    assert torch.equal(frozen.weight.grad, before)
