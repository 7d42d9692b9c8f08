"""The samples' arithmetic: one training step, and the measurement on the test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from linne.compat.directml.loading import Batches
from linne.compat.directml.programs import AUXILIARY, Options
from linne.device import Device


@dataclass(frozen=True, slots=True)
class Scores:
    """What a measurement found."""

    accuracy: float
    """In the precision of torch's fp32, as the samples print it."""
    loss: float
    """Mean over images."""
    batch_loss: float
    """Mean over batches of their means, as the samples print it."""


def seed(options: Options, device: Device) -> None:
    """Begin the random numbers of torch and of the device anew."""
    torch.manual_seed(options.seed)
    device.seed(options.seed)


def optimizer(network: nn.Module, options: Options, device: Device) -> torch.optim.SGD:
    """Return the samples' SGD. On DirectML `foreach` is off: left to torch, it runs on the CPU there."""
    return torch.optim.SGD(
        network.parameters(),
        lr=options.learning_rate,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        foreach=None if device.can.foreach.holds else False,
    )


def train_step(
    network: nn.Module,
    sgd: torch.optim.SGD,
    images_NCHW: torch.Tensor,
    labels_N: torch.Tensor,
    *,
    auxiliary: tuple[float, ...],
    twice: bool,
) -> torch.Tensor:
    """Return the loss of a batch, having learned from it.

    Args:
        auxiliary: What the losses of the auxiliary classifiers weigh; empty for a network without them.
        twice: Run the network once more before, for nothing, as the samples do.
    """
    if twice:
        network(images_NCHW)
    answers = network(images_NCHW)
    if auxiliary:
        answers, *others = answers
        loss = cross_entropy(answers, labels_N)
        for weight, other in zip(auxiliary, others, strict=True):
            loss = loss + weight * cross_entropy(other, labels_N)
    else:
        loss = cross_entropy(answers, labels_N)
    sgd.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    sgd.step()
    return loss


def auxiliary_weights(model: str) -> tuple[float, ...]:
    """Return what the losses of the auxiliary classifiers of `model` weigh."""
    return AUXILIARY.get(model, ())


def evaluate(network: nn.Module, batches: Batches, device: Device) -> Scores:
    """Return how well `network` does on `batches`; it is left in evaluation mode."""
    network.eval()
    correct, count, batch_losses, loss_sum = 0, 0, 0.0, 0.0
    with torch.no_grad():  # not inference mode, which DirectML refuses
        for images_NCHW, labels_N in batches:
            on_device = labels_N.to(device.torch_device)
            logits_NK = network(images_NCHW.to(device.torch_device))
            loss = cross_entropy(logits_NK, on_device).item()
            batch_losses += loss
            loss_sum += loss * len(labels_N)
            correct += int((logits_NK.argmax(1) == on_device).sum().item())
            count += len(labels_N)
    accuracy = (torch.tensor(float(correct)) / count).item()
    return Scores(accuracy, loss_sum / count, batch_losses / len(batches))


def profiled(work: Callable[[], object], options: Options) -> str:
    """Return the table of what the operators of `work()` took, by the CPU's clock; writes the trace asked for."""
    from torch.autograd import profiler

    with (
        profiler.profile(record_shapes=True, with_stack=True, profile_memory=True) as profile,
        profiler.record_function("model_inference"),
    ):
        work()
    table: str = profile.key_averages().table(sort_by="cpu_time_total", row_limit=1000)
    if options.trace_file is not None:
        profile.export_chrome_trace(str(options.trace_file))
    return table
