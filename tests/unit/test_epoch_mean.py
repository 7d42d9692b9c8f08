"""The mean of the last epochs' weights, and running statistics that fit it."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from linne.data.loading.loader import Batch
from linne.device import Device
from linne.training.epoch_mean import EpochMean, measure_norms

CPU = Device.pick("cpu")


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def change(model: nn.Module) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight))


def some_batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(5)
    sizes = (8, 8, 7)
    return [Batch(torch.randn(n, 1, 8, 8, generator=generator), torch.zeros(n, dtype=torch.long)) for n in sizes]


def test_the_mean_is_that_of_the_last_epochs_and_torchs():
    model = make_model()
    mean, reference = EpochMean(model, num_epochs=3, total_epochs=5), AveragedModel(model)
    kept = []
    for epoch in range(1, 6):
        change(model)
        mean.end_epoch(epoch)
        assert mean.ready == (epoch >= 3)
        if epoch >= 3:
            kept.append(model[0].weight.detach().clone())
            reference.update_parameters(model)
    torch.testing.assert_close(mean.model[0].weight, torch.stack(kept).mean(0), rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(mean.model.parameters(), reference.module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_a_mean_that_goes_on_from_its_state_is_the_same():
    model = make_model()
    first = EpochMean(model, num_epochs=2, total_epochs=2)
    change(model)
    first.end_epoch(1)
    second = EpochMean(model, num_epochs=2, total_epochs=2)
    second.load(copy.deepcopy(first.state()))
    change(model)
    for mean in (first, second):
        mean.end_epoch(2)
    for mine, theirs in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_an_epoch_that_is_in_the_mean_already_is_not_taken_twice():
    model = make_model()
    mean = EpochMean(model, num_epochs=2, total_epochs=3)
    change(model)
    mean.end_epoch(2)
    before = mean.model[0].weight.clone()
    change(model)
    mean.end_epoch(2)  # validated again, by a run that was cut off in validation
    assert torch.equal(mean.model[0].weight, before)
    mean.end_epoch(3)
    assert not torch.equal(mean.model[0].weight, before)


def test_running_statistics_are_measured_as_torch_does():
    model = make_model()
    reference = copy.deepcopy(model)
    measure_norms(model, some_batches(), CPU, "fp32")
    update_bn([batch.images_NCHW for batch in some_batches()], reference)
    assert torch.equal(model[1].running_mean, reference[1].running_mean)
    assert torch.equal(model[1].running_var, reference[1].running_var)
    assert not torch.equal(model[1].running_mean, torch.zeros(4))
    assert model[1].momentum == 0.1
    assert not model[1].training


def test_measuring_draws_no_random_number_although_there_is_dropout():
    model = nn.Sequential(make_model(), nn.Dropout(0.5)).eval()
    before = torch.get_rng_state()
    measure_norms(model, some_batches(), CPU, "fp32")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_without_batch_norm_needs_no_pass():
    def never():
        raise AssertionError("the training images were asked for")
        yield

    measure_norms(nn.Linear(2, 2), never(), CPU, "fp32")
