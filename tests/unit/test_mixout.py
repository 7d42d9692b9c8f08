"""Mixout against its formula (Lee et al. 2020, equation 5), step by step the same."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")

from torch import nn  # noqa: E402

from linne.device import Device  # noqa: E402
from linne.errors import RecipeError  # noqa: E402
from linne.recipe import DataConfig, Recipe  # noqa: E402
from linne.training.mixout import Mixout  # noqa: E402

CPU = Device.pick("cpu")
P = 0.3


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 60), nn.BatchNorm1d(60), nn.Tanh(), nn.Linear(60, 50), nn.Linear(50, 2))


def pair():
    """Return a network that has learnt, the pretrained weights, and their mixout."""
    model = make_model()
    pretrained = [p.detach().clone() for p in model.parameters()]
    mixout = Mixout(model, P, seed=1, device=CPU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape))
    return model, pretrained, mixout


def loss_of(model):
    images = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    return model(images).square().mean()


def weights_in(model, mixout, step):
    with mixout.mixed(step):
        return [p.detach().clone() for p in model.parameters()]


def test_each_weight_is_the_pretrained_one_or_its_own_by_the_papers_formula():
    model, pretrained, mixout = pair()
    own = [p.detach().clone() for p in model.parameters()]
    mixed = weights_in(model, mixout, step=3)
    replaced = 0
    for w, u, found in zip(own[:-2], pretrained[:-2], mixed[:-2], strict=True):
        as_u, as_w = (u - P * u) / (1 - P), (w - P * u) / (1 - P)
        # Sums of three products in fp32, in another order.
        is_u, is_w = torch.isclose(found, as_u, atol=1e-6), torch.isclose(found, as_w, atol=1e-6)
        assert torch.all(is_u | is_w)
        replaced += int((is_u & ~is_w).sum())
    count = sum(w.numel() for w in own[:-2])
    deviation = (count * P * (1 - P)) ** 0.5
    assert abs(replaced - P * count) < 5 * deviation, "a share that chance gives once in a million"
    assert all(torch.equal(a, b) for a, b in zip(own[-2:], mixed[-2:], strict=True)), "the classifier is new"


def test_the_mean_over_steps_is_the_weight_itself():
    model, pretrained, mixout = pair()
    own = model[0].weight.detach().clone()
    mean = torch.stack([weights_in(model, mixout, step)[0] for step in range(2000)]).mean(0)
    # The deviation of one is |w - u| sqrt(p / (1 - p)); of the mean of 2,000 a 45th of it; six of those.
    bound = 6 * (own - pretrained[0]).abs() * (P / (1 - P)) ** 0.5 / 2000**0.5
    assert torch.all((mean - own).abs() <= bound + 1e-5)


def test_gradients_are_those_of_the_formula_and_the_weights_come_back_to_the_bit():
    model, pretrained, mixout = pair()
    own = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    with mixout.mixed(5):
        mixed = {name: p.detach().clone() for name, p in model.named_parameters()}
        loss_of(model).backward()
    assert all(torch.equal(p, own[name]) for name, p in model.named_parameters())

    expected = {}
    for (name, w), u in zip(own.items(), pretrained, strict=True):
        kept = torch.isclose(mixed[name], (w - P * u) / (1 - P), atol=1e-6).float()
        expected[name] = w if name.startswith("4.") else (kept * w + (1 - kept) * u - P * u) / (1 - P)
    images = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    torch.func.functional_call(model, expected, (images,)).square().mean().backward()
    for name, parameter in model.named_parameters():
        # Through the formula, torch multiplies and divides in another order.
        torch.testing.assert_close(parameter.grad, own[name].grad, rtol=1e-4, atol=1e-6)


def test_a_step_mixes_the_same_whenever_it_is_taken_and_another_one_otherwise():
    model, _, mixout = pair()
    torch.manual_seed(7)
    first = weights_in(model, mixout, 2)
    state = torch.get_rng_state()
    assert not torch.equal(weights_in(model, mixout, 3)[0], first[0])
    assert all(torch.equal(a, b) for a, b in zip(weights_in(model, mixout, 2), first, strict=True))
    assert torch.equal(torch.get_rng_state(), state), "nothing else is drawn otherwise because of it"


def test_weights_that_are_held_are_left_alone():
    model, _, mixout = pair()
    model[0].requires_grad_(False)
    own = model[0].weight.detach().clone()
    assert torch.equal(weights_in(model, mixout, 0)[0], own)


def test_an_error_inside_brings_the_weights_back():
    model, _, mixout = pair()
    own = model[0].weight.detach().clone()
    with pytest.raises(RuntimeError, match="out of memory"), mixout.mixed(0):
        raise RuntimeError("out of memory")
    assert torch.equal(model[0].weight, own)


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        (
            {"model.mixout": 0.5},
            "model.mixout mixes pretrained weights in, and model.weights is none",
            "add --weights default, or use --set model.mixout=0",
        ),
        (
            {"model.mixout": 1, "model.weights": "default"},
            "model.mixout is 1, expected 0 or more and less than 1",
            None,
        ),
        (
            {"model.mixout": 0.5, "model.weights": "default", "model.lora_rank": 4},
            "model.mixout draws learning weights back to the pretrained ones, where model.lora_rank holds them",
            "use --set model.mixout=0, or --set model.lora_rank=none",
        ),
        (
            {"model.mixout": 0.5, "model.weights": "default", "model.freeze": "backbone"},
            "model.mixout draws learning weights back to the pretrained ones, where model.freeze holds them",
            "use --set model.mixout=0, or --set model.freeze=none",
        ),
        (
            {"model.mixout": 0.5, "model.weights": "default", "optim.sam_rho": 0.05},
            "model.mixout and optim.sam_rho both move the weights before a gradient is taken",
            "use --set optim.sam_rho=none, or --set model.mixout=0",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused(changes, message, hint):
    with pytest.raises(RecipeError) as caught:
        Recipe(data=DataConfig(source="digits")).override(changes)
    assert (caught.value.message, caught.value.hint) == (message, hint)
