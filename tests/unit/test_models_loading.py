"""Weights by name into a network."""

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")

from linne import models  # noqa: E402
from linne.models.loading import load_weights  # noqa: E402


def built(seed):
    torch.manual_seed(seed)
    return models.build(models.describe("torchvision/mnasnet0_5", num_classes=3, channels=3, height=64, width=64))


def test_a_network_that_asks_for_the_version_of_its_weights_takes_them_from_a_plain_mapping():
    first, second = built(0), built(1)
    weights = dict(first.state_dict())
    with pytest.raises(ValueError, match="version should be set"):
        second.load_state_dict(weights)
    load_weights(second, weights)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in second.state_dict().items())


def test_weights_that_are_missing_are_refused_where_all_are_asked_for():
    network = torch.nn.Linear(2, 3)
    with pytest.raises(RuntimeError, match="Missing key"):
        load_weights(network, {"weight": torch.zeros(3, 2)})
    load_weights(network, {"weight": torch.zeros(3, 2)}, strict=False)
    assert not network.weight.any()
