"""Mixout: steps in which random weights are the pretrained ones again, so that fine-tuning does not stray from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from linne.device import Device
from linne.models.layers import layers_of

STREAM = 190_911_299
"""Tells these numbers apart from what else is drawn for a step: the paper's number."""


class Mixout:
    """The pretrained weights of a network's backbone, and their mixture with the present ones (Lee et al. 2020)."""

    def __init__(self, model: nn.Module, probability: float, seed: int, device: Device) -> None:
        """Remember the weights of `model`, which are the pretrained ones, all but the classifier's.

        Several processes with the same `seed` mix alike, as one that has the whole batch.
        """
        self._probability, self._seed = probability, seed
        # A device without a generator of its own gets the CPU's numbers.
        self._draws_on = "cpu" if device.random_state() is None else device.torch_device
        classifier = set(layers_of(model)[-1])
        self._parameters = {name: p for name, p in model.named_parameters() if name not in classifier}
        self._pretrained = {name: p.detach().clone() for name, p in self._parameters.items()}

    @contextmanager
    def mixed(self, step: int) -> Iterator[None]:
        """Inside, the weights w that learn are (m w + (1 - m) u - p u) / (1 - p), with u the pretrained ones.

        m is 0 with the probability p, drawn for each number, the same whenever this step is taken; the mean over m is
        w. After it the weights are w again, to the bit, and gradients those for w: m / (1 - p) times what was found.
        """
        keep = 1 - self._probability
        learning = [name for name, parameter in self._parameters.items() if parameter.requires_grad]
        number = int(np.random.SeedSequence([self._seed, step, STREAM]).generate_state(1, np.uint64)[0])
        generator = torch.Generator(self._draws_on).manual_seed(number)
        before, masks = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
        try:
            with torch.no_grad():
                for name in learning:
                    weight, pretrained = self._parameters[name].detach(), self._pretrained[name]
                    drawn = torch.rand(weight.shape, generator=generator, device=self._draws_on)
                    masks[name] = mask = (drawn < keep).to(weight)
                    before[name] = weight.clone()
                    weight.copy_((mask * weight + (1 - mask) * pretrained - self._probability * pretrained) / keep)
            yield
        finally:  # memory may run short inside, and the step is then tried again
            with torch.no_grad():
                for name, weight in before.items():
                    self._parameters[name].detach().copy_(weight)
        for name, mask in masks.items():
            if (gradient := self._parameters[name].grad) is not None:
                gradient.mul_(mask).div_(keep)

    def state(self) -> dict[str, Any]:
        """Return what a restart needs: the pretrained weights, whose file may be gone by then."""
        return dict(self._pretrained)

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        for name, tensor in self._pretrained.items():
            tensor.copy_(state[name])
