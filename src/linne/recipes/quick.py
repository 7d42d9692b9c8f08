"""A first look."""

from __future__ import annotations

from typing import Any


def quick() -> dict[str, Any]:
    """Two epochs of the small network: is the data right, does anything learn, how long will the rest take.

    linne train SOURCE --recipe quick
    """
    return {"model.name": "small", "optim.epochs": 2}
