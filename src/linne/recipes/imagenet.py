"""ImageNet as published results have it: the reference training of ResNet, and one that takes less and reaches more.

None of these was run to its end here: the scores are those that their authors publish, and each says whose.
"""

from __future__ import annotations

from typing import Any

_PHOTOGRAPHS = {
    "data.height": 224,
    "data.width": 224,
    "data.channels": 3,  # the few grey photographs are repeated
    "data.crop_pct": 224 / 256,
    "data.interpolation": "bilinear",
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
    "data.loader": "streaming",
    "augment.resized_crop_area": 0.08,
    "augment.flip": True,
    "augment.crop_padding": None,
}
"""Random crops in training, the centre of the photograph in the test; what every ImageNet training does."""

_STEPS = {
    "optim.optimizer": "sgd",
    "optim.lr": 0.1,
    "optim.momentum": 0.9,
    "optim.weight_decay": 1e-4,
    "optim.epochs": 90,
    "optim.schedule": "step",
    "optim.step_epochs": 30,
    "optim.step_factor": 0.1,
    "optim.warmup_epochs": None,
    "optim.label_smoothing": 0.0,
}
"""Ninety epochs, the rate cut by ten every thirty."""


def imagenet() -> dict[str, Any]:
    """Return the training of PyTorch's ImageNet example: ResNet-50, SGD, 90 epochs, the rate cut by 10 every 30.

    linne train imagenet:DIR --recipe imagenet
    linne train imagenet:DIR --recipe imagenet --model torchvision/resnet18

    Hardware: one GPU of 24 GB for days, or several by `linne launch`. Published: 76.1 % top-1, and 69.8 % for
    ResNet-18 (torchvision's weights `IMAGENET1K_V1`, from this recipe). The rate is for batches of 256, over all
    processes. Differences from the example: the network, where it names ResNet-18 unless told otherwise; Nesterov's
    momentum; biases and norms do not decay.
    """
    return {
        **_PHOTOGRAPHS,
        "model.name": "torchvision/resnet50",
        "data.batch_size": 256,
        **_STEPS,
    }


def imagenet_a3() -> dict[str, Any]:
    """Return procedure A3 of "ResNet strikes back" (Wightman et al. 2021, arXiv 2110.00476), for ResNet-50.

    linne train imagenet:DIR --recipe imagenet-a3

    Hardware: GPUs whose memory holds batches of 2,048 at 160 pixels, or `--set device.micro_batch=256`. Published:
    78.1 % top-1, two points more than `imagenet`, for less work: an image of 160 pixels takes half the products of one
    of 224, and 100 epochs are 11 % more. It is better because every image is seen mixed and distorted, so that more
    epochs go on teaching, and because a network that trains on smaller images than those it is tested on sees things at
    the same size in both (Touvron et al. 2019). Difference from the paper: the strength of RandAugment's operations
    does not vary.
    """
    return {
        **_PHOTOGRAPHS,
        "model.name": "timm/resnet50",
        "data.batch_size": 2048,
        "data.crop_pct": 0.95,
        "data.interpolation": "bicubic",
        "optim.optimizer": "lamb",
        "optim.lr": 8e-3,
        "optim.weight_decay": 0.02,
        "optim.epochs": 100,
        "optim.schedule": "cosine",
        "optim.warmup_epochs": 5,
        "optim.loss": "bce",
        "optim.bce_threshold": 0.2,
        "optim.label_smoothing": 0.0,
        "augment.policy": "rand",
        "augment.rand_magnitude": 6,
        "augment.mixup_alpha": 0.1,
        "augment.cutmix_alpha": 1.0,
        "augment.size_start": 160 / 224,
        "augment.size_end": 160 / 224,
    }


def imagenet_resnet50_finetune() -> dict[str, Any]:
    """Return the one-page script that trains a pretrained ResNet-50 on: SGD with 0.001, batches of 64, ten epochs.

    linne train imagenet:DIR --recipe imagenet-resnet50-finetune

    Hardware: one GPU of 8 GB, hours an epoch. The script itself cannot run: its images have many sizes, and no two of
    them make a batch. Not measured here; the weights score 80.9 % already as torchvision publishes them (76.1 % for
    `IMAGENET1K_V1`, which the script meant), and ImageNet is what they have learnt: it is a check that data and weights
    go together, and a start for other photographs. Crop, mean and deviation are those of the weights.
    """
    return {
        "model.name": "torchvision/resnet50",
        "model.weights": "default",
        "data.batch_size": 64,
        "data.height": 224,
        "data.width": 224,
        "data.loader": "streaming",
        "optim.optimizer": "sgd",
        "optim.lr": 1e-3,
        "optim.momentum": 0.9,
        "optim.weight_decay": 0.0,
        "optim.epochs": 10,
        "optim.schedule": "constant",
        "optim.warmup_epochs": None,
        "optim.label_smoothing": 0.0,
        "augment.resized_crop_area": 0.08,
        "augment.flip": True,
        "augment.crop_padding": None,
    }


def tiny_imagenet_inception() -> dict[str, Any]:
    """Return the fine-tuning of AMD's deep learning guide: pretrained Inception v3 on Tiny ImageNet, at 299 pixels.

    linne train tiny-imagenet --recipe tiny-imagenet-inception
    linne train tiny-imagenet --recipe tiny-imagenet-inception --lr 0.01 --epochs 10 --set optim.schedule=cosine

    Hardware: one GPU of 12 GB, a day or more. Score: not measured here. The second command is the better one: with
    batches of 32, a rate of 0.1 is one for random weights, and undoes in the first epochs what the pretrained ones
    know; a tenth of it, falling to 0 in a ninth of the epochs, keeps it. The auxiliary head is off, as in the guide.
    Differences: Nesterov's momentum, and biases and norms do not decay.
    """
    return {
        **_PHOTOGRAPHS,
        "model.name": "torchvision/inception_v3",
        "model.weights": "default",
        "data.batch_size": 32,
        "data.height": 299,
        "data.width": 299,
        "data.crop_pct": 299 / 342,
        "data.mean": (0.5, 0.5, 0.5),  # what torchvision makes of ImageNet's inside this network
        "data.std": (0.5, 0.5, 0.5),
        **_STEPS,
    }
