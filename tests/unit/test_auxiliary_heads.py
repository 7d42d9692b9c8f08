"""Auxiliary classifiers: trained beside the network's own, and gone from what is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("torchvision", reason="needs `linne[train]`")

from torch import nn
from torch.nn import functional as F

from linne import models
from linne.data.loading.augment_mix import Mixture
from linne.data.loading.loader import Batch
from linne.device import Device
from linne.errors import RecipeError
from linne.models.layers import auxiliary_of, layers_of
from linne.recipe import DataConfig, ModelConfig, OptimConfig, Recipe
from linne.training.state import TrainState
from linne.training.step import add_gradients, evaluate_model, train_step
from linne.weights import Weights, fit_weights

pytestmark = pytest.mark.long  # GoogLeNet takes a second to draw

CPU = Device.pick("cpu")
SIDE = 32


def recipe_of(name="torchvision/googlenet", aux_weight=0.3, side=SIDE, **optim):
    return Recipe(
        data=DataConfig(source="x", height=side, width=side),
        model=ModelConfig(name=name, aux_weight=aux_weight),
        optim=OptimConfig(optimizer="sgd", lr=0.01, **optim),
    )


def build(recipe, num_classes=5):
    """The network as it is trained, without its dropout, so that two passes answer the same."""
    torch.manual_seed(0)
    network = models.build(models.in_training(models.describe_recipe(recipe, num_classes), recipe))
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def batch_of(count=4):
    generator = torch.Generator().manual_seed(1)
    images_NCHW, shares_N = (
        torch.randn(count, 3, SIDE, SIDE, generator=generator),
        torch.rand(count, generator=generator),
    )
    labels_N = torch.arange(count) % 5
    return Batch(images_NCHW, labels_N, Mixture(labels_N.flip(0), shares_N))


def test_the_losses_of_both_heads_are_added_by_their_weight():
    recipe, batch = recipe_of(label_smoothing=0.1), batch_of()
    state = TrainState.create(build(recipe), recipe, CPU)
    state.train_mode()
    loss = add_gradients(state, batch, recipe, CPU, None)
    with torch.no_grad():
        answers = build(recipe)(batch.images_NCHW)
    shares_N = batch.mixture.shares_N

    def of(logits_NK):
        own_N, other_N = (
            F.cross_entropy(logits_NK, labels_N, reduction="none", label_smoothing=0.1)
            for labels_N in (batch.labels_N, batch.mixture.labels_N)
        )
        return (shares_N * own_N + (1 - shares_N) * other_N).mean()

    expected = of(answers.logits) + 0.3 * of(answers.aux_logits1) + 0.3 * of(answers.aux_logits2)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)  # fp32, in another order
    assert float(state.model.aux1.fc2.weight.grad.abs().sum()) > 0


def test_parts_of_a_batch_add_up_with_heads_as_well():
    recipe, batch = recipe_of(), batch_of()
    gradients = []
    for largest in (None, 2):
        network = build(recipe)
        for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.eval()  # its statistics are of a part
        state = TrainState.create(network, recipe, CPU)
        loss = add_gradients(state, batch, recipe, CPU, largest)
        gradients.append((loss, network.aux2.fc2.weight.grad, network.conv1.conv.weight.grad))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)  # fp32, in other sums


def test_evaluation_and_what_is_kept_know_no_heads():
    recipe, batch = recipe_of(ema_decay=0.9), batch_of()
    state = TrainState.create(build(recipe), recipe, CPU)
    state.train_mode()
    train_step(state, batch, recipe, CPU, 1)
    scores = evaluate_model(state, [replace(batch, mixture=None)], recipe, CPU)
    assert state.keep(scores)
    plain = models.build(models.describe_recipe(recipe, 5))
    plain.load_state_dict(state.kept.weights)  # strict: each name, and no other
    assert not auxiliary_of(plain)
    assert auxiliary_of(state.ema.model)


def test_pretrained_heads_are_kept_where_their_shapes_allow_and_needed_nowhere():
    recipe = recipe_of()
    full, plain = build(recipe, 7), build(recipe_of(aux_weight=None), 7)

    def fitted(network):
        weights = Weights(network.state_dict(), "file", "", None, None, None)
        network = build(recipe)
        return fit_weights(network, weights, full_name="torchvision/googlenet"), network

    fit, network = fitted(full)
    heads = {f"{head}.{kind}" for head in ("fc", "aux1.fc2", "aux2.fc2") for kind in ("weight", "bias")}
    assert set(fit.fresh) == heads
    assert torch.equal(network.aux1.fc1.weight, full.aux1.fc1.weight)
    fit, _ = fitted(plain)
    floats = {name for name in auxiliary_of(network) if not name.endswith("num_batches_tracked")}
    assert set(fit.fresh) == floats | {"fc.weight", "fc.bias"}


def test_heads_learn_as_fast_as_the_classifier():
    network = build(recipe_of())
    parameters = {name for name, _ in network.named_parameters()}
    assert set(layers_of(network)[-1]) == (auxiliary_of(network) & parameters) | {"fc.weight", "fc.bias"}
    assert layers_of(network)[:-1] == layers_of(build(recipe_of(aux_weight=None)))[:-1]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (recipe_of("small"), "`small` has no auxiliary heads for model.aux_weight; `torchvision/googlenet` and"),
        (
            recipe_of("torchvision/inception_v3", side=96),
            "the auxiliary head of `torchvision/inception_v3` cannot take 96 x 96 pixels",
        ),
    ],
)
def test_what_has_no_heads_or_is_too_small_for_them_is_refused(recipe, message):
    with pytest.raises(RecipeError) as caught:
        models.describe_recipe(recipe, 5)
    assert caught.value.message.startswith(message)
    assert caught.value.hint == "use --set model.aux_weight=none"


def test_a_weight_that_is_none_is_refused():
    with pytest.raises(RecipeError, match=r"model\.aux_weight is 0, expected more than 0 and at most 10, or none"):
        ModelConfig(aux_weight=0.0)


def test_inception_takes_its_head_at_the_size_it_was_made_for():
    recipe = recipe_of("torchvision/inception_v3", aux_weight=0.4, side=299)
    with torch.device("meta"):
        network = models.build(models.in_training(models.describe_recipe(recipe, 5), recipe))
    assert auxiliary_of(network)
