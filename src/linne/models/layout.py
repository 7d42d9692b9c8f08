"""Which networks must not be trained in channels_last, since torch ends the process where they are."""

from __future__ import annotations

from functools import partial

from torch import nn

from linne import models
from linne.models.checks import shapes_alone
from linne.recipe import Recipe

CHANNELS_IN_A_VECTOR = 16
"""Numbers of fp32 in 512 bits."""


def layer_against_channels_last(
    recipe: Recipe, num_classes: int, device_kind: str, *, trust_code: bool = False
) -> str | None:
    """Return the path of a layer of the recipe's network that torch crashes with on such a device, or None.

    On the CPU, oneDNN's gradient of the weights of a 1 x 1 convolution with a stride, over fewer channels than fit a
    vector, ends in a segmentation fault. Tried with torch 2.14.1 on rows of 40 outputs and more: 1 to 15 channels do it
    with AVX-512 and 1 to 7 with AVX2; more channels, larger kernels and rows of planes do not. RepVGG, MobileOne and
    FastViT have such a layer beside the 3 x 3 one that sees the image.

    Raises:
        RecipeError: as `models.describe_recipe`.
    """
    if device_kind != "cpu":
        return None
    ref = models.describe_recipe(recipe, num_classes, trust_code=trust_code)
    network = shapes_alone(partial(models.build, trust_code=trust_code), ref)
    return next((path for path, module in network.named_modules() if _crashes(module)), None)


def _crashes(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d):
        return False
    narrow = module.in_channels < CHANNELS_IN_A_VECTOR and module.groups == 1
    return narrow and max(module.kernel_size) == 1 and max(module.stride) > 1
