"""The first programs of other libraries' tutorials, each as one command with what was wrong in it put right.

What each reaches: docs/guides/recipes.md; whose step is which command: docs/guides/coming-from.md.
"""

from __future__ import annotations

from typing import Any

from linne.recipes.goals import fast

_AS_THEY_ARE = {
    "optim.schedule": "constant",
    "optim.warmup_epochs": None,
    "optim.label_smoothing": 0.0,
    "augment.flip": False,
    "augment.crop_padding": None,
    "data.val_fraction": None,
}
"""Every training image as it is, at one learning rate, with none held out."""


def mnist() -> dict[str, Any]:
    """Return MNIST to 99 % in one epoch: the network of the speed records, a quarter as wide.

    linne train mnist --recipe mnist

    Hardware: a CPU. Score and time: docs/guides/recipes.md; `benchmarks/mnist_example.py` has both beside those of
    PyTorch's example.
    """
    return {
        **fast(),
        "model.width": 0.25,
        "optim.lr": 0.03,
        "optim.epochs": 1,
        "data.batch_size": 128,
        "data.val_fraction": None,  # all images train, and the end of the schedule is the epoch to keep
        "augment.flip": False,  # a mirrored digit is another one, or none
    }


def cifar10_cnn() -> dict[str, Any]:
    """Return the CIFAR-10 tutorial of PyTorch, which AMD's deep learning guide has too: LeNet, SGD, batches of 4.

    linne train cifar10 --recipe cifar10-cnn

    Hardware: a CPU, minutes. Expect 50 to 60 %: the network is small and two epochs are few; `--recipe fast` reaches
    more in less time. linne's SGD has Nesterov's momentum, the tutorial's the plain one.
    """
    return {
        **_AS_THEY_ARE,
        "model.name": "lenet",
        "data.batch_size": 4,
        "data.channels": 3,
        "data.mean": (0.5, 0.5, 0.5),
        "data.std": (0.5, 0.5, 0.5),
        "optim.optimizer": "sgd",
        "optim.lr": 1e-3,
        "optim.momentum": 0.9,
        "optim.weight_decay": 0.0,
        "optim.epochs": 2,
        "device.precision": "fp32",  # of so little work per step, casting would take more than bf16 saves
        "log_every": 2000,
    }


def fashion_mnist_dense() -> dict[str, Any]:
    """Return the first tutorial of Keras and TensorFlow: Flatten, Dense 128, Dense 10 with Adam at batches of 32.

    linne train fashion-mnist --recipe fashion-mnist-dense

    Hardware: a CPU, seconds an epoch. Expect 87 to 89 %: docs/benchmarks/README.md, row "Fashion-MNIST, dense".
    """
    return {
        **_AS_THEY_ARE,
        "model.name": "mlp",
        "data.batch_size": 32,
        "data.channels": 1,
        "data.mean": (0.0,),  # pixels of 0 to 1, as dividing by 255 gives
        "data.std": (1.0,),
        "optim.optimizer": "adamw",
        "optim.weight_decay": 0.0,  # without decay AdamW is Adam
        "optim.lr": 1e-3,
        "optim.epochs": 10,
    }
