"""Weights of a network that linne builds, found, fitted, proved and made a bundle."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from linne import models
from linne.bundle import canary_batch, write_bundle
from linne.device import describe_versions
from linne.errors import CheckFailed, RecipeError
from linne.importing import Imported
from linne.importing.inputs import preparation
from linne.importing.labels import how_to_name, named
from linne.importing.samples import as_in_sample, sample_model
from linne.models.fetching import fetch_description
from linne.models.provider import ModelRef
from linne.preprocess import Floats, InputSpec
from linne.weights import Fit, Weights, fit_weights, num_classes_in, read_weights
from linne.weights.finding import Found, asked_for, find, licence_of, offers_for, spec_of
from linne.weights.proving import prove


def import_into(
    typed: str,
    output: Path,
    *,
    model: str | None,
    labels: str | Path | None = None,
    preprocess: Mapping[str, Any],
    must_prove: bool = True,
    trust_code: bool = False,
    say: Callable[[str], None],
) -> Imported:
    """Return the new bundle `output` of the network `model` with the weights `typed`, as `weights.finding` reads it.

    Args:
        model: None where the weights are a folder that says it.
        labels: as `importing.labels.named` reads them; otherwise what comes with the weights.
        preprocess: fields of `InputSpec` that are to be other than the weights' provider says.
        must_prove: whether to refuse weights whose answers to photographs show that something is wrong.
        trust_code: whether the Python file may be run that `python:FILE.py:NAME` names as the network.

    Raises:
        LinneError: something given cannot be used, or parts of the network would keep random weights.
        CheckFailed: the answers to photographs show that something is wrong.
    """
    sample = sample_model(typed)
    if model is None and sample is not None:
        model = sample
        say(f"`{typed}` lies where a DirectML sample keeps its {sample}: with CIFAR-10's labels, prepared as there")
    if model is not None:
        fetch_description(model, say)
    model, tag = (_network_of(typed), None) if model is None else models.full_name_and_tag(model)
    found = find(asked_for(tag, typed) or typed, model)
    weights = read_weights(found.fetched(say))
    if sample == model:
        weights = as_in_sample(weights)
    spec = input_of(found, weights, preprocess)
    num_classes = num_classes_in(weights, model, trust_code=trust_code)
    names, labels_from = _labels(labels, weights, found, num_classes)
    ref = _described(model, num_classes, spec, trust_code)
    network = models.build(ref, trust_code=trust_code)
    fit = fit_weights(network, weights, full_name=model)
    _require_whole(fit, weights, model)
    proof = prove(network, spec, names)
    if proof.problem is not None and must_prove:
        raise CheckFailed(f"`{weights.origin}` as `{model}`: {proof.problem}", hint=proof.hint)
    licence = licence_of(found, weights)
    config = models.config(ref, names, spec.to_dict())
    bundle = write_bundle(
        output,
        labels=names,
        input=spec,
        model=asdict(ref),
        weights={name: tensor.contiguous().numpy() for name, tensor in network.state_dict().items()},
        config=config,
        canary_logits_NK=_answers(network, spec),
        metrics={},
        provenance={
            "imported": {"weights": found.name, "sha256": weights.sha256, "licence": licence, "proof": asdict(proof)},
            "versions": describe_versions(),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )
    return Imported(bundle=bundle, fit=fit, proof=proof, labels_from=labels_from, licence=licence)


def _described(model: str, num_classes: int, spec: InputSpec, trust_code: bool) -> ModelRef:
    """Return the reference of the network at the input of its weights."""
    return models.describe(
        model,
        num_classes=num_classes,
        channels=spec.channels,
        height=spec.height,
        width=spec.width,
        trust_code=trust_code,
    )


def _require_whole(fit: Fit, weights: Weights, model: str) -> None:
    """Raise RecipeError where the network would keep random weights."""
    if fit.fresh:
        more = f" and {len(fit.fresh) - 3} more" if len(fit.fresh) > 3 else ""
        raise RecipeError(
            f"`{weights.origin}` leaves parts of `{model}` without weights: {', '.join(fit.fresh[:3])}{more}",
            hint="an import must be whole; `linne train --weights` starts from what there is",
        )


def _network_of(typed: str) -> str:
    """Return the network that the folder or file `typed` says it is of.

    Raises:
        RecipeError: there is none, or it does not say.
    """
    path = Path(typed).expanduser()
    if not path.exists():
        raise RecipeError(
            f"no weights at `{typed}`: there is no such file or folder",
            hint="weights that a provider offers need --model NAME",
        )
    model = read_weights(path).model
    if model is not None and model.startswith("hf:"):  # of which it names only the kind
        return f"hf:{typed}"
    if model is None:
        raise RecipeError(f"`{typed}` does not say which network it is of", hint="add --model NAME")
    return model


def input_of(found: Found, weights: Weights, changes: Mapping[str, Any]) -> InputSpec:
    """Return what the weights are evaluated with: what comes with them, or their provider's, or the network's.

    Raises:
        RecipeError: nobody knows, and `changes` leaves something open.
    """
    spec = weights.input
    designed = found.input or models.input_defaults(found.full_name)
    if spec is None and designed is not None:
        spec = spec_of(designed, changes.get("crop_mode"))
    said = preparation(changes, changes.get("channels", 3) if spec is None else spec.channels)
    if said.bgr or said.layout is not None:
        raise RecipeError(
            "blue first or channels last can be said of a graph, and these are weights of a network that takes RGB",
            hint="export the network to ONNX, and import that with --preprocess order=bgr",
        )
    if spec is not None:
        return dataclasses.replace(spec, **said.fields)
    missing = [name for name in ("height", "width", "mean", "std") if name not in said.fields]
    if missing:
        raise RecipeError(
            f"nobody says what size and scaling `{found.name}` takes",
            hint=f"type {' '.join(f'--preprocess {name}=...' for name in missing)}",
        )
    return InputSpec(**{"channels": 3, **said.fields})


def _labels(said: str | Path | None, weights: Weights, found: Found, num_classes: int) -> tuple[tuple[str, ...], str]:
    """Return the names of the classes, and who says so."""
    if said is not None:
        names, who = named(said)
    elif weights.labels is not None:
        names, who = weights.labels, f"`{weights.origin}`"
    elif found.offered is not None and (offered := found.offered.labels()) is not None:
        names, who = offered, found.offered.full_name
    else:
        # An architecture's default weights say what its publisher trains on; the photographs show whether it is so.
        offers = [offer for offer in offers_for(found.full_name) if offer.num_classes == num_classes]
        guess = next((theirs for offer in offers if (theirs := offer.labels()) is not None), None)
        if guess is None:
            raise RecipeError(
                f"`{weights.origin}` does not say what its {num_classes} classes are",
                hint=how_to_name(num_classes),
            )
        names, who = guess, f"{offers[0].full_name}, which has as many"
    if len(names) != num_classes:
        raise RecipeError(f"{who} names {len(names)} classes, and the weights have {num_classes}")
    return names, who


def _answers(network: nn.Module, spec: InputSpec) -> Floats:
    with torch.inference_mode():
        logits_NK: Floats = network.eval()(torch.from_numpy(canary_batch(spec))).numpy()
    return logits_NK
