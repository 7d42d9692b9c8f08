"""Whitening filters, identities, and scales that are held."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from processes import run_together
from torch import nn
from torch.nn import functional

from linne.data import open_source
from linne.data.loading.loader import make_batches
from linne.device import Device
from linne.errors import RecipeError
from linne.models.mlp import build_mlp
from linne.models.speedrun import build_speedrun
from linne.recipe import Recipe
from linne.training.distributed import ALONE, joined
from linne.training.starting import LEAST_VARIANCE, prepare, start_as_identity

CPU = Device.pick("cpu")
SOURCE = "synthetic:classes=3,size=12"


def make_recipe(**changes) -> Recipe:
    values = {"data": {"source": SOURCE, "height": 12, "width": 12}}
    return Recipe.from_dict(values).override({"augment.flip": True, **changes})


def make_training_batches(recipe: Recipe):
    return make_batches(open_source(SOURCE), recipe, CPU)[0]


def prepared(model: nn.Module, **changes) -> nn.Module:
    recipe = make_recipe(**changes)
    prepare(model, recipe, make_training_batches(recipe), ALONE)
    return model


def test_the_first_layer_whitens_the_patches_that_it_sees():
    recipe = make_recipe(**{"model.whiten": True})
    batches = make_training_batches(recipe)
    model = build_speedrun(3, 3, 12, 12, None, 0.2, None)
    prepare(model, recipe, batches, ALONE)
    images_NCHW = torch.cat([batch.images_NCHW for batch in batches.epoch(0)])
    patches_PV = functional.unfold(images_NCHW, 2).transpose(1, 2).reshape(-1, 12).double().numpy()
    filters_VV = model.patches.weight[:12].flatten(1).double().numpy(force=True)
    found_PV = patches_PV @ filters_VV.T
    # One in each direction and nothing between them, but for what is added to each direction's variance.
    variances_V = np.linalg.eigvalsh(patches_PV.T @ patches_PV / len(patches_PV))[::-1]
    expected_VV = np.diag(variances_V / (variances_V + LEAST_VARIANCE))
    np.testing.assert_allclose(found_PV.T @ found_PV / len(found_PV), expected_VV, atol=1e-4)  # weights are fp32
    assert torch.equal(model.patches.weight[12:], -model.patches.weight[:12])


def whitened_together() -> np.ndarray:
    """Return the filters that this process comes to as one of several, with its share of each batch."""
    recipe = make_recipe(**{"model.whiten": True, "data.batch_size": 33})  # shares of unequal size
    with joined() as world:
        batches, _ = make_batches(open_source(SOURCE), recipe, CPU, share=world.share)
        model = build_speedrun(3, 3, 12, 12, None, 0.2, None)
        prepare(model, recipe, batches, world)
    return model.patches.weight.numpy(force=True)


@pytest.mark.long
def test_several_processes_whiten_with_the_same_filters_that_one_does():
    alone = whitened_together()
    first, second = run_together(whitened_together, 2)
    assert np.array_equal(first, second)
    mine_VV, theirs_VV = (filters[:12].reshape(12, 12).astype(np.float64) for filters in (alone, first))
    # They add the same patches up in another order, in fp32, which moves the covariance by 6e-9 of its 0.14. The
    # filters together say its inverse, which does not ask how close two variances are: the smallest is 0.009, of which
    # that is less than a millionth. Found: 5e-7.
    inverse_VV = mine_VV.T @ mine_VV
    np.testing.assert_allclose(theirs_VV.T @ theirs_VV, inverse_VV, rtol=0, atol=5e-6 * inverse_VV.max())
    # Each alone is a direction, which turns by that difference over the gap to the next variance: 5e-5 here, so by
    # 1e-4 and more. Found: 4e-5 of the largest value.
    np.testing.assert_allclose(theirs_VV, mine_VV, rtol=0, atol=5e-4 * np.abs(mine_VV).max())


def test_whitening_filters_are_held_and_their_biases_learn():
    model = prepared(build_speedrun(3, 3, 12, 12, None, 0.2, None), **{"model.whiten": True})
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["patches.weight"]


def test_a_first_layer_with_fewer_filters_takes_the_directions_of_most_variance():
    full = prepared(nn.Sequential(nn.Conv2d(3, 30, 2)), **{"model.whiten": True})[0].weight
    few = prepared(nn.Sequential(nn.Conv2d(3, 11, 2)), **{"model.whiten": True})[0].weight
    assert torch.equal(few[:5], full[:5])
    assert torch.equal(few[5:10], -full[:5])
    sizes = full[:12].flatten(1).norm(dim=1)  # what varies more is scaled less
    assert (sizes.diff() > 0).all()


def test_a_network_that_begins_with_no_convolution_cannot_whiten():
    with pytest.raises(RecipeError, match="a network that begins with a convolution, and this one does not") as caught:
        prepared(build_mlp(3, 3, 12, 12, None), **{"model.whiten": True})
    assert caught.value.hint == "use --model speedrun, or --set model.whiten=false"


def test_identities_hand_on_what_comes_in():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, padding=1, bias=False))
    before = [conv.weight.detach().clone() for conv in model]
    start_as_identity(model)
    images = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(model[1](images)[:, :4], images)
    assert torch.equal(model[0].weight, before[0])
    assert torch.equal(model[1].weight[4:], before[1][4:])


def test_a_convolution_to_fewer_channels_hands_on_those_that_it_has():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1, bias=False))
    start_as_identity(model)
    images = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(model[1](images), images[:, :2])


def test_a_network_without_a_second_convolution_has_no_identities():
    with pytest.raises(RecipeError, match="this network has none after its first layer"):
        prepared(build_mlp(3, 3, 12, 12, None), **{"model.dirac": True})


def test_norms_keep_their_scales_where_only_biases_learn():
    model = prepared(build_speedrun(3, 3, 12, 12, None, 0.2, None), **{"optim.norm_bias_lr": 8.0})
    held = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert held == [f"groups.{group}.{norm}.weight" for group in range(3) for norm in (2, 5)]


def test_nothing_changes_unless_asked():
    model = build_speedrun(3, 3, 12, 12, None, 0.2, None)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prepared(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
