"""The network and the training of Keras' first tutorial."""

from __future__ import annotations

from typing import Any


def keras_mlp() -> dict[str, Any]:
    """Flatten, Dense 128, Dense 10 with Adam at batch 32: the arithmetic of Keras' Fashion-MNIST tutorial.

    linne train fashion-mnist --recipe keras-mlp
    Report: docs/benchmarks/README.md, row "Fashion-MNIST, dense".
    """
    return {
        "model.name": "mlp",
        "data.batch_size": 32,
        "optim.optimizer": "adamw",
        "optim.weight_decay": 0.0,  # without decay AdamW is Adam
        "optim.lr": 1e-3,
        "optim.schedule": "constant",
        "optim.warmup_epochs": None,
        "optim.label_smoothing": 0.0,
        "optim.epochs": 10,
        "augment.flip": False,
        "augment.crop_padding": None,
        "augment.cutout": None,
    }
