"""A network as a row of layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from linne import models
from linne.models.layers import layers_of, matrices_of

NAMES = ["small", "mlp", "timm/resnet18", "timm/vit_tiny_patch16_224", "timm/convnext_atto"]
NAMES += [f"torchvision/{name}" for name in ("resnet18", "vit_b_16", "swin_t", "vgg11_bn", "shufflenet_v2_x0_5")]


def build(name: str) -> nn.Module:
    with torch.device("meta"):
        return models.build(models.describe(name, num_classes=7, channels=3, height=224, width=224))


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_in_one_layer_from_the_pixels_to_the_classes(name):
    model = build(name)
    layers = layers_of(model)
    shapes = {path: tuple(p.shape) for path, p in model.named_parameters()}
    assert sorted(path for layer in layers for path in layer) == sorted(shapes)
    reads_pixels = [path for path in layers[0] if len(shapes[path]) == 4 and shapes[path][1] == 3]
    assert reads_pixels or name == "mlp"
    assert [path for path in layers[-1] if shapes[path] == (7,)], "the bias of the classifier"


@pytest.mark.parametrize(
    ("name", "count"),
    [("mlp", 2), ("timm/resnet18", 10), ("torchvision/resnet18", 10), ("timm/vit_tiny_patch16_224", 14),
     ("torchvision/vit_b_16", 14), ("torchvision/vgg11_bn", 11)],
)  # fmt: skip
def test_a_block_is_a_layer_and_a_norm_belongs_to_the_layer_before_it(name, count):
    assert len(layers_of(build(name))) == count


def test_weights_outside_all_children_belong_to_the_first_layer():
    first = layers_of(build("torchvision/vit_b_16"))[0]
    assert {"class_token", "encoder.pos_embedding", "conv_proj.weight"} <= set(first)


def test_matrices_are_what_multiplies_an_input():
    found = matrices_of(build("torchvision/vit_b_16"))
    block = "encoder.layers.encoder_layer_0"
    assert {f"{block}.self_attention.in_proj_weight", f"{block}.mlp.0.weight", "conv_proj.weight"} <= found
    assert not any(name.endswith(("pos_embedding", "bias", "class_token")) or ".ln" in name for name in found)
