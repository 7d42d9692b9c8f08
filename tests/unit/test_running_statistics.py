"""Batch norms whose running statistics stay for a while."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from linne.training.running_statistics import batch_norms, held


@pytest.mark.parametrize("momentum", [0.1, None])
def test_held_norms_compute_as_in_training_and_keep_what_they_have(momentum):
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=momentum), nn.BatchNorm1d(3, track_running_stats=False))
    norm, images = model[0], torch.randn(8, 3)
    expected = model(images)
    mean, count = norm.running_mean.clone(), int(norm.num_batches_tracked)
    with held(batch_norms(model)), held(batch_norms(model)):
        assert torch.equal(model(images), expected)
    assert torch.equal(norm.running_mean, mean)
    assert (int(norm.num_batches_tracked), norm.momentum) == (count, momentum)
    model(images + 1)
    assert not torch.equal(norm.running_mean, mean), "and go on moving afterwards"


def test_an_error_inside_lets_go_of_the_norms():
    norm = nn.BatchNorm1d(3)
    with pytest.raises(ZeroDivisionError), held([norm]):
        raise ZeroDivisionError
    assert norm.momentum == 0.1
    assert int(norm.num_batches_tracked) == 0
