"""Layers that are left as they are: all of training, or until their turn comes."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from linne.errors import RecipeError
from linne.models.layers import layers_of
from linne.recipe import ModelConfig, Recipe

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


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


class Tuning:
    """Holds all but classifier and norms still in the last epochs, on images of full size (Touvron et al. 2019).

    Norms go on learning, running statistics included: they were those of smaller images.
    """

    thaws = True

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        """Find the layers; nothing is frozen before the first `start_epoch`."""
        self._first_epoch = recipe.optim.epochs - (recipe.augment.size_tune_epochs or 0)
        norms = (module for module in model.modules() if isinstance(module, NORMS))
        tuned = {id(parameter) for norm in norms for parameter in norm.parameters()}
        classifier = set(layers_of(model)[-1])
        self._frozen = [
            parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name not in classifier and id(parameter) not in tuned
        ]

    def start_epoch(self, epoch: int) -> None:
        """Freeze what is due in `epoch`, counted from 0."""
        for parameter in self._frozen:
            parameter.requires_grad_(epoch < self._first_epoch)

    def hold(self) -> None:
        """Leave every layer in training mode."""


def make_freezing(model: nn.Module, recipe: Recipe) -> Freezing | Tuning | None:
    """Return what leaves layers as they are, or None where all of them learn to the end.

    Raises:
        RecipeError: no layer would be left to train.
    """
    if recipe.augment.size_tune_epochs is not None:
        return Tuning(model, recipe)
    return None if recipe.model.freeze is None else Freezing(model, recipe.model)
