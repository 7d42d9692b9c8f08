"""Knowledge distillation: learning what a trained bundle answers beside what the labels say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from linne.bundle import open_bundle
from linne.data.loading.loader import input_spec
from linne.device import Device
from linne.models.from_bundle import network_of
from linne.preprocess import InputSpec
from linne.recipe import Recipe

LUMINANCE = (0.299, 0.587, 0.114)
"""Of red, green and blue in grey (ITU-R 601, which Pillow converts by)."""


class Teacher:
    """A bundle's network, asked about the very images that the student sees, cut and mixed as they are.

    Seeing the same view is what makes a good teacher (Beyer et al. 2022).
    """

    def __init__(self, network: nn.Module, spec: InputSpec, recipe: Recipe, device: Device) -> None:
        """`spec` is what `network` takes; `recipe` says what the student does."""
        network = network.to(device.torch_device)
        self._network = network.to(memory_format=torch.channels_last) if recipe.device.channels_last else network
        self._translate = Translation(input_spec(recipe), spec, device)
        self._config, self._precision, self._device = recipe.distill, recipe.device.precision, device

    def blend(self, loss: torch.Tensor, logits_NK: torch.Tensor, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Return `loss`, which is the labels', and the one against the teacher, by the recipe's weight.

        `images_NCHW` are the student's, to which it answered `logits_NK`.
        """
        teachers = distillation_loss(logits_NK, self.logits(images_NCHW), self._config.temperature)
        weight = self._config.weight
        return (1 - weight) * loss + weight * teachers  # DirectML has no kernel for lerp

    @torch.no_grad()
    def logits(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Return what the teacher answers to the student's normalised images, N x K in fp32."""
        with self._device.autocast(self._precision):
            logits_NK: torch.Tensor = self._network(self._translate(images_NCHW))
        return logits_NK.float()


def make_teacher(recipe: Recipe, device: Device, *, trust_code: bool = False) -> Teacher | None:
    """Return the teacher that `recipe` names, which with `trust_code` may be the user's own Python; None without one.

    Raises:
        BundleError: it cannot be read.
        RecipeError: its network cannot be built.
    """
    if recipe.distill.bundle is None:
        return None
    bundle = open_bundle(Path(recipe.distill.bundle))
    return Teacher(network_of(bundle, trust_code=trust_code), bundle.input, recipe, device)


def distillation_loss(logits_NK: torch.Tensor, teachers_NK: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T^2 KL(teacher || student), both softmaxes at temperature T, mean over images (Hinton et al. 2015).

    T^2 keeps its gradient of the size of the labels'.
    """
    logs_NK, teachers_logs_NK = (F.log_softmax(x / temperature, 1) for x in (logits_NK, teachers_NK))
    return F.kl_div(logs_NK, teachers_logs_NK, reduction="batchmean", log_target=True) * temperature**2


class Translation:
    """From images that are normalised for one network to what another one takes.

    The whole image is resized: `crop_pct` is about images from outside, and these are cut already.
    """

    def __init__(self, own: InputSpec, wanted: InputSpec, device: Device) -> None:
        self._wanted = wanted
        self._to_grey = wanted.channels < own.channels
        self._same = not self._to_grey and (own.mean, own.std) == (wanted.mean, wanted.std)
        own_mean, own_std, mean, std = (np.array(values) for values in (own.mean, own.std, wanted.mean, wanted.std))
        parts = np.array(LUMINANCE) if self._to_grey else np.ones(1)
        own_mean = (parts * own_mean).sum(keepdims=True) if self._to_grey else own_mean
        self._scale, self._shift = (
            device.put(torch.from_numpy(values).float()[:, None, None])
            for values in (parts * own_std / std, (own_mean - mean) / std)
        )

    def __call__(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Return the images, three times the same channel where grey ones are wanted in colour."""
        if not self._same:
            images_NCHW = images_NCHW * self._scale
            if self._to_grey:
                images_NCHW = images_NCHW.sum(1, keepdim=True)
            images_NCHW = images_NCHW + self._shift
        images_NCHW = images_NCHW.expand(-1, self._wanted.channels, -1, -1)
        height, width = images_NCHW.shape[2:]  # training may grow them
        if (height, width) == (self._wanted.height, self._wanted.width):
            return images_NCHW
        return F.interpolate(
            images_NCHW,
            (self._wanted.height, self._wanted.width),
            mode="bicubic" if self._wanted.interpolation == "bicubic" else "bilinear",
            antialias=self._wanted.height < height or self._wanted.width < width,
        )
