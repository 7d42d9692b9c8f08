"""The samples' `train` and `test`, line by line."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from linne.compat.directml import defects, lines, networks, steps
from linne.compat.directml.lines import Say
from linne.compat.directml.loading import Batches, open_cifar10, testing_batches, training_batches
from linne.compat.directml.programs import AUXILIARY, CI_MODELS, SAMPLES, Options
from linne.device import Device
from linne.errors import LinneError

LINE_EVERY = 100
"""Batches between two lines of loss."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to."""

    network: nn.Module
    """As after the last step, on the device."""
    accuracy: float
    """The highest on the test images, 0 where they were not looked at."""


def train(options: Options, say: Say, note: Say) -> Trained:
    """Return the network of `options`, or the last of those of `--ci_train`, trained.

    Args:
        say: Takes what the samples print.
        note: Takes what linne has to add.

    Raises:
        LinneError: an option, the device or the data cannot be used.
    """
    options.check()
    models = CI_MODELS if options.ci_train else (options.network,)
    device = Device.pick(options.device)
    said: set[str] = set()
    for model in models:
        trained = train_one(replace(options, model=model), device, say, lambda text: _once(text, note, said))
    return trained


def _once(text: str, note: Say, said: set[str]) -> None:
    """Give `text` to `note` unless it was said before, as fourteen networks in turn would have it."""
    if text not in said:
        said.add(text)
        note(text)


def train_one(options: Options, device: Device, say: Say, note: Say) -> Trained:
    """Return the network of `options` trained, with the samples' lines."""
    model = options.network
    _refuse_unworkable(options)
    if "train" in SAMPLES[options.sample].prints_options:
        say(options.line("train"))
    steps.seed(options, device)
    batch_size = _batch_size(options)
    source, folder = open_cifar10(options.path)
    batches = training_batches(source, model, batch_size)
    _refuse_single_image(options, len(source.splits["train"]), batch_size)
    _announce(batches, "training", folder, say)
    tests = testing_batches(source, model, batch_size, faithful=options.faithful)
    _announce(tests, "testing", folder, say)
    start = networks.start(options, device, note)
    network = start.network
    _move(network, model, device, say)
    has_batch_norm = any(isinstance(module, _BatchNorm) for module in network.modules())
    met = defects.met_in_training(options, test_count=len(source.splits["test"]), has_batch_norm=has_batch_norm)
    _note(met, options, note)

    best: float = 0
    if start.found and options.save_model and not (options.faithful or options.trace or options.ci_train):
        best = steps.evaluate(network, tests, device).accuracy
        note(f"`{start.path}` has an accuracy of {best}, and is replaced only by a higher one")
    sgd = steps.optimizer(network, options, device)
    for epoch in range(1 if options.trace or options.ci_train else options.epochs):
        say(lines.epoch(epoch + 1))
        if not options.faithful:
            network.train()
        elif epoch > 0:
            sgd = steps.optimizer(network, options, device)
        _train_epoch(network, sgd, batches, options, device, say)
        if options.trace or options.ci_train:
            break
        accuracy = _measure(network, tests, options, device, best, say, note)
        if accuracy > best:
            best = accuracy
            if options.save_model:
                networks.save(network, start.path)
                note(f"weights kept in `{start.path}`")
    say(lines.done(best))
    return Trained(network, best)


def _train_epoch(
    network: nn.Module, sgd: torch.optim.SGD, batches: Batches, options: Options, device: Device, say: Say
) -> None:
    """Train one epoch; with `--trace` or `--ci_train` one batch."""
    model = options.network
    auxiliary = steps.auxiliary_weights(model)
    total = len(batches.dataset)  # type: ignore[arg-type]
    start = time.perf_counter()
    for number, (images_NCHW, labels_N) in enumerate(batches, start=1):
        images_NCHW, labels_N = images_NCHW.to(device.torch_device), labels_N.to(device.torch_device)
        if options.trace:
            _trace_step(network, sgd, images_NCHW, labels_N, options, say)
            return
        twice = options.faithful and not auxiliary
        loss = steps.train_step(network, sgd, images_NCHW, labels_N, auxiliary=auxiliary, twice=twice)
        done = number * len(labels_N)
        if options.ci_train:
            device.synchronise()
            say(lines.one_batch(done, total, time.perf_counter() - start))
            return
        if number % LINE_EVERY == 0:
            value = loss.item()  # waits for the device
            say(lines.loss(value, done, total, time.perf_counter() - start))
            start = time.perf_counter()


def _trace_step(
    network: nn.Module,
    sgd: torch.optim.SGD,
    images_NCHW: torch.Tensor,
    labels_N: torch.Tensor,
    options: Options,
    say: Say,
) -> None:
    """Profile one step, without auxiliary losses, as the samples do."""

    def work() -> None:
        answers = network(images_NCHW)
        logits_NK = answers if isinstance(answers, torch.Tensor) else answers[0]
        loss = nn.functional.cross_entropy(logits_NK, labels_N)
        sgd.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        sgd.step()

    say(steps.profiled(work, options))


def test(options: Options, say: Say, note: Say) -> float:
    """Return the accuracy on the test images; 0 with `--trace`, which looks at one batch only.

    Raises:
        LinneError: an option, the device or the data cannot be used, or there are no weights to test.
    """
    options.check()
    options = replace(options, model=options.model or _DEFAULT_TEST_MODEL.get(options.sample))
    model = options.network
    device = Device.pick(options.device)
    if "test" in SAMPLES[options.sample].prints_options:
        say(options.line("test"))
    steps.seed(options, device)
    source, folder = open_cifar10(options.path)
    batches = testing_batches(source, model, 1 if options.trace else options.batch_size, faithful=options.faithful)
    _announce(batches, "testing", folder, say)
    start = networks.start(options, device, note)
    networks.require_weights(start, options, note, harmless=options.trace)
    network = start.network
    _move(network, model, device, say)
    _note(defects.met_in_test(options, test_count=len(source.splits["test"])), options, note)
    if options.trace:
        network.eval()
        images_NCHW = next(iter(batches))[0].to(device.torch_device)
        with torch.no_grad():
            say(steps.profiled(lambda: network(images_NCHW), options))
        return 0
    return _measure(network, batches, options, device, 0, say, note)


_DEFAULT_TEST_MODEL = {"classification": "resnet18"}
"""Where `test` has another default than `train`."""


def _measure(
    network: nn.Module, tests: Batches, options: Options, device: Device, best: float, say: Say, note: Say
) -> float:
    """Return the accuracy of `network`, which is left in evaluation mode, and print it."""
    scores = steps.evaluate(network, tests, device)
    if scores.accuracy > best:
        say(lines.highest(scores.accuracy))
    say(lines.test_error(scores.accuracy, scores.batch_loss if options.faithful else scores.loss))
    if f"{scores.loss:.6f}" != f"{scores.batch_loss:.6f}":
        note(f"average loss over images {scores.loss:.6f}, over batches {scores.batch_loss:.6f}")
    return scores.accuracy


def _refuse_unworkable(options: Options) -> None:
    """Raise LinneError where the samples, computed faithfully, fail."""
    several = options.epochs > 1 and not options.trace and not options.ci_train
    if options.faithful and several and options.network in AUXILIARY:
        raise LinneError(
            f"the samples fail with `{options.network}` in epoch 2, where they train in evaluation mode",
            hint="type --epochs 1, or leave out --faithful",
        )


def _refuse_single_image(options: Options, count: int, batch_size: int) -> None:
    """Raise LinneError where batch norm would meet a single value: inception_v3's auxiliary head sees one pixel."""
    last = batch_size if options.trace or options.ci_train else count % batch_size
    if options.network == "inception_v3" and 1 in (batch_size, last):
        raise LinneError(
            f"`inception_v3` cannot train on a batch of one image, and {count:,} images in batches of {batch_size} "
            "have one",
            hint=f"type --batch_size {batch_size + 1}",
        )


def _batch_size(options: Options) -> int:
    if not options.trace:
        return options.batch_size
    return 3 if options.network == "inception_v3" else 1


def _announce(batches: Batches, split: str, folder: Path, say: Say) -> None:
    """Print the shapes of one batch, which is decoded for nothing else."""
    say(lines.loading(split, folder))
    images_NCHW, labels_N = next(iter(batches))
    say(lines.shapes("Train" if split == "training" else "Test", images_NCHW, labels_N))


def _move(network: nn.Module, model: str, device: Device, say: Say) -> None:
    start = time.perf_counter()
    network.to(device.torch_device)
    device.synchronise()
    say(lines.moved(model, device.torch_device, time.perf_counter() - start))


def _note(met: list[str], options: Options, note: Say) -> None:
    for line in defects.lines(met, faithful=options.faithful):
        note(line)
