"""What is chosen otherwise where training starts from pretrained weights.

The numbers were found on 50 images a class of CIFAR-10 with MobileNetV2 (docs/benchmarks/fine-tuning.md); the rest is
how such networks are usually tuned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from linne.recipes.auto import Choices, Designed, Task

SIDE = {"cpu": 128}
"""Pixels that are enough for a pretrained network to know what it sees, where each costs dearly."""
VISITS = {"cpu": 5_000}
"""Images that are shown in all, an epoch's and the next one's counted anew."""
VISITS_ACCELERATOR = 200_000
"""Not measured: many on what shows them fast."""
FEWEST_EPOCHS, MOST_EPOCHS = 3, 20
FEW_IMAGES = 5_000
"""With fewer, statistics over whole batches of them are worse than those of the pretrained weights."""
LAYER_DECAY = 0.85
"""What each layer learns slower by than the one above it; the classifier has the whole rate."""


def choose_fine_tuning(choices: Choices, task: Task, designed: Designed | None) -> None:
    """Set the fields whose values differ from those of a training that starts from random weights."""
    values = choices.values
    model = values["model.name"]
    if designed is not None and not designed.fixed_size:
        side = min(SIDE.get(task.device_kind, designed.height), designed.height)
        why = f"what {model} was designed for"
        if side < designed.height:
            why = f"of the {designed.height} that {model} was designed for: faster, and most of what they say"
        choices.set("data.height", side, why)
        choices.set("data.width", side, why)
    visits = VISITS.get(task.device_kind, VISITS_ACCELERATOR)
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(visits / task.num_train)))
    why = f"about {visits:,} images in all, at least {FEWEST_EPOCHS} and at most {MOST_EPOCHS} epochs: much is known"
    choices.set("optim.epochs", epochs, why)
    averaged = values.get("optim.average_epochs") is not None or values.get("optim.schedule") == "schedule-free"
    if task.num_train <= FEW_IMAGES and not averaged:
        choices.set("model.keep_statistics", True, "batches of so few images would only spoil those that were learnt")
    optimizer = choices.set("optim.optimizer", "adamw", "moves each layer of a pretrained network at its own scale")
    if optimizer == "adamw" and values.get("model.lora_rank") is None:
        choices.set(
            "optim.layer_decay", LAYER_DECAY, "the first layers know edges and colours already, the classifier nothing"
        )
