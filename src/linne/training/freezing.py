"""Layers that are left as they are: all of training, or until their turn comes."""

from __future__ import annotations

from torch import nn

from linne.errors import RecipeError
from linne.models.layers import layers_of
from linne.recipe import ModelConfig


class Freezing:
    """Holds the first layers of a network still, thawing them from the classifier down if the recipe says so.

    All but the classifier is a linear probe; thawed one after another it is gradual unfreezing (Howard and Ruder 2018).
    """

    def __init__(self, model: nn.Module, config: ModelConfig) -> None:
        """Find the layers; nothing is frozen before the first `start_epoch`.

        Raises:
            RecipeError: no layer would be left to train.
        """
        self._model = model
        self._layers = layers_of(model)
        self._unfreeze_epochs = config.unfreeze_epochs
        count = len(self._layers)
        self._num_first = count - 1 if config.freeze == "backbone" else int(config.freeze or 0)
        if self._num_first >= count:
            raise RecipeError(
                f"model.freeze is {config.freeze}, and `{config.name}` has {count} layers, of which one must learn",
                hint="use --set model.freeze=backbone to train the classifier alone",
            )
        self._still: list[nn.Module] = []
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}

    @property
    def thaws(self) -> bool:
        """Whether the frozen layers are trained later on."""
        return self._unfreeze_epochs is not None

    def start_epoch(self, epoch: int) -> None:
        """Freeze and thaw what is due in `epoch`, counted from 0."""
        num_frozen = self._num_first
        if self._unfreeze_epochs is not None:
            num_frozen = max(0, num_frozen - num_frozen * epoch // self._unfreeze_epochs)
        frozen = {name for names in self._layers[:num_frozen] for name in names}
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name not in frozen)
        self._still = []
        for path, module in self._model.named_modules():
            names = [f"{path}.{name}" for name, _ in module.named_parameters()]
            if path and names and frozen.issuperset(names):
                self._still.append(module)

    def hold(self) -> None:
        """Put the frozen layers into evaluation mode: batch norms keep their statistics, and nothing is dropped."""
        for module in self._still:
            module.eval()
