"""What several processes cannot do together is refused before the first step."""

from __future__ import annotations

import pytest
from torch import nn

from linne.device import Device
from linne.errors import RecipeError
from linne.recipe import DataConfig, DeviceConfig, ModelConfig, Recipe
from linne.training.distributed import ALONE, World, spread

CPU = Device.pick("cpu")
DATA = DataConfig(source="digits")


@pytest.mark.parametrize(
    ("recipe", "setting"),
    [
        (Recipe(data=DATA, model=ModelConfig(freeze="backbone")), "model.freeze=none"),
        (Recipe(data=DATA, device=DeviceConfig(checkpoint_activations=True)), "device.checkpoint_activations=false"),
    ],
)
def test_what_was_never_tried_with_several_processes_is_refused_and_one_process_may_do_it(recipe, setting):
    model = nn.Linear(2, 2)
    assert spread(model, recipe, CPU, ALONE) is model
    with pytest.raises(RecipeError, match="was never tried with several processes") as caught:
        spread(model, recipe, CPU, World(size=2))
    assert caught.value.hint == f"use --set {setting}, or train with one process"
