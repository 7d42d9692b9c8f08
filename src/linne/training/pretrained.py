"""How a network starts from pretrained weights: found, fitted, shown to photographs, and said."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

from torch import nn

from linne import models
from linne.data.loading.loader import input_spec
from linne.data.names import same_classes
from linne.errors import RecipeError
from linne.log import Narrator
from linne.models.loading import load_weights
from linne.recipe import Recipe
from linne.weights import fit_weights, read_weights
from linne.weights.finding import bars_commerce, find, licence_of
from linne.weights.proving import prove
from linne.weights.roles import roles_of


def start_from_weights(model: nn.Module, recipe: Recipe, labels: Sequence[str], narrator: Narrator) -> None:
    """Fill `model`, on the CPU, with the weights that the recipe names, and say what was kept, adapted and dropped.

    A classifier is taken only where its classes are known to be those of `labels`, in whatever form they are written:
    as many others would be a bad start.

    Raises:
        LinneError: they cannot be found or read, are not those that the recipe means, or do not fit.
        RecipeError: their answers to photographs show that something is wrong, and `model.prove_weights` is set.
    """
    typed = recipe.model.weights
    assert typed is not None
    found = find(typed, recipe.model.name)
    weights = read_weights(found.fetched(narrator.line))
    if recipe.model.weights_sha256 not in (None, weights.sha256):
        raise RecipeError(
            f"the weights `{weights.origin}` are not those of model.weights_sha256",
            hint="bring the file that the run began with, or use --set model.weights_sha256=none",
        )
    roles = roles_of(model)
    heads = roles.classifier | roles.auxiliary
    drawn = {name: tensor.clone() for name, tensor in model.state_dict().items() if name in heads}
    fit = fit_weights(model, weights, full_name=recipe.model.name)
    theirs = weights.labels or (None if found.offered is None else found.offered.labels())
    if roles.classifier.isdisjoint(fit.fresh) and not same_classes(theirs or (), labels):
        load_weights(model, drawn, strict=False)
        others = drawn.keys() - set(fit.fresh)
        fit = dataclasses.replace(fit, kept=fit.kept - len(others), fresh=(*fit.fresh, *sorted(others)))
    licence = licence_of(found, weights)
    stated = f" (licence: {licence or 'not stated'})" if licence or found.offered else ""
    narrator.line(f"weights {found.name}{stated}")
    if bars_commerce(licence):
        narrator.warn(
            f"`{licence}` allows no commercial use of these weights, nor perhaps of what is trained from them"
        )
    for line in fit.lines():
        narrator.line(f"        {line}")
    if recipe.model.prove_weights:
        _prove(model, recipe, narrator)


def _prove(model: nn.Module, recipe: Recipe, narrator: Narrator) -> None:
    """Show the network photographs, at the size that it was designed for where it takes that, scaled as in training.

    The classifier may be new: what shows that something is wrong is what its batch norms see.
    """
    spec, designed = input_spec(recipe), models.input_defaults(recipe.model.name)
    if designed is not None and not designed.fixed_size:
        spec = dataclasses.replace(spec, height=designed.height, width=designed.width, crop_pct=designed.crop_pct)
    proof = prove(copy.deepcopy(model), spec, None)
    if proof.problem is not None:
        raise RecipeError(
            f"the weights do not belong to this network as it is set: {proof.problem}",
            hint=(f"{proof.hint}; " if proof.hint else "") + "or use --set model.prove_weights=false",
        )
    narrator.line(f"        shown photographs: {proof.line()}")
