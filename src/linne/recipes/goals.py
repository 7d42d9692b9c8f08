"""Recipes by what is wanted: the least time, the most accuracy, few images, classes of very different size.

What each reaches, beside the values that are chosen without a recipe, and what each field is worth:
docs/guides/recipes.md.
"""

from __future__ import annotations

from typing import Any


def fast() -> dict[str, Any]:
    """What the CIFAR-10 speed records do, for any images: few epochs of a network that starts well, with Muon.

    linne train SOURCE --recipe fast
    """
    return {
        "model.name": "speedrun",
        "model.whiten": True,
        "model.dirac": True,
        "optim.optimizer": "muon",
        "optim.lr": 0.02,
        "optim.momentum": 0.9,
        "optim.weight_decay": 0.05,
        "optim.norm_bias_lr": 4.0,
        "optim.schedule": "one-cycle",
        "optim.label_smoothing": 0.1,
    }


def accurate() -> dict[str, Any]:
    """More accuracy than `fast` for many times its time: a patch at every pixel, and twelve epochs.

    linne train SOURCE --recipe accurate
    """
    return {**fast(), "model.patch_stride": 1, "optim.epochs": 12, "augment.erase": 0.25}


def speedrun() -> dict[str, Any]:
    """CIFAR-10 to 94 % in the least time on one GPU; each technique is a field that can be switched off.

    linne train cifar10 --recipe speedrun
    """
    return {
        **fast(),
        "model.patch_stride": 1,
        "optim.lr": 0.03,
        "optim.momentum": 0.8,
        "optim.epochs": 8,
        "optim.warmup_epochs": 0.8,
        "data.batch_size": 1000,
        "data.val_fraction": None,  # all images train, and the end of the schedule is the epoch to keep
        "augment.flip": True,
        "augment.alternate": True,
        "augment.crop_padding": 2,
        "augment.cutout": None,
        "tta": "crops",
        "log_every": 1000,  # each reading of the loss waits for the device
    }


def tiny_data() -> dict[str, Any]:
    """Hundreds of images: many epochs, in which no image looks the same twice, and none is held out.

    linne train SOURCE --recipe tiny-data
    """
    return {
        **fast(),
        "data.batch_size": 64,
        "data.val_fraction": None,  # the few that choosing an epoch would take teach more
        "optim.epochs": 120,
        "optim.ema_decay": 0.99,
        "augment.policy": "trivial",
        "augment.mixup_alpha": 0.5,
    }


def long_tail() -> dict[str, Any]:
    """Classes of very different size, which are to count the same: logits shifted by each class's share.

    linne train SOURCE --recipe long-tail
    """
    return {**fast(), "optim.logit_adjustment": 1.0}
