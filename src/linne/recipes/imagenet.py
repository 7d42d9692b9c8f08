"""ImageNet as published results have it: the reference training of ResNet, and one that takes less and reaches more.

None of these was run to its end here: the scores are those that their authors publish, and each says whose.
"""

from __future__ import annotations

from typing import Any


def imagenet() -> dict[str, Any]:
    """Return the training of PyTorch's ImageNet example: ResNet-50, SGD, 90 epochs, the rate cut by 10 every 30.

    linne train imagenet:DIR --recipe imagenet
    linne train imagenet:DIR --recipe imagenet --model torchvision/resnet18

    Hardware: one GPU of 24 GB for days, or several by `linne launch`. Published: 76.1 % top-1, and 69.8 % for
    ResNet-18 (torchvision's weights `IMAGENET1K_V1`, from this recipe). The rate is for batches of 256, over all
    processes. Differences from the example: Nesterov's momentum, and biases and norms do not decay.
    """
    return {
        "model.name": "torchvision/resnet50",
        "data.batch_size": 256,
        "data.height": 224,
        "data.width": 224,
        "data.channels": 3,  # the few grey photographs are repeated
        "data.crop_pct": 224 / 256,
        "data.interpolation": "bilinear",
        "data.mean": (0.485, 0.456, 0.406),
        "data.std": (0.229, 0.224, 0.225),
        "data.val_fraction": None,
        "data.loader": "streaming",
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
        "augment.resized_crop_area": 0.08,
        "augment.flip": True,
        "augment.crop_padding": None,
    }
