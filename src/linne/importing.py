"""Pretrained weights in, a bundle out: from then on they are evaluated, served and exported like one's own."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from linne import models
from linne.bundle import Bundle, canary_batch, write_bundle
from linne.bundle_format import MANIFEST
from linne.data.names import listed
from linne.data.places import cache_folder
from linne.device import describe_versions
from linne.errors import CheckFailed, RecipeError
from linne.models.fetching import fetch_description
from linne.preprocess import Floats, InputSpec
from linne.weights import Fit, Weights, fit_weights, num_classes_in, read_weights
from linne.weights.finding import DEFAULT, Found, find, offers_for, spec_of
from linne.weights.proving import Proof, prove

MAX_LABELS_BYTES = 16 * 2**20
MOST_NAMED = 5
"""Classes that are named to a person."""
CACHE_FORMAT = 1
"""Changes when a bundle that is made of the same weights would be another one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """A bundle that was made from weights, and what was found on the way."""

    bundle: Bundle
    fit: Fit
    proof: Proof
    labels_from: str
    """Who named the classes."""
    licence: str | None
    """Of the weights, where their provider states one."""

    def lines(self) -> list[str]:
        """Return what was found, for people."""
        licence = self.licence or "not stated"
        named = listed(self.bundle.labels, MOST_NAMED)
        return [
            *self.fit.lines(),
            self.proof.line(),
            f"{len(self.bundle.labels):,} classes: {named}, as {self.labels_from} has them",
            f"licence of the weights: {licence}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "bundle": str(self.bundle.path),
            "labels_from": self.labels_from,
            "licence": self.licence,
            "fit": asdict(self.fit),
            "proof": asdict(self.proof),
        }


def bundle_of(model: str, typed: str | None, say: Callable[[str], None]) -> Path:
    """Return a bundle of the network `model` with pretrained weights, made now or found in the cache.

    Args:
        typed: which weights, as `weights.finding` reads it; None takes those that `model` names, or the default ones.

    Raises:
        LinneError: as `import_weights`.
    """
    fetch_description(model, say)
    full_name, tag = models.full_name_and_tag(model)
    found = find(typed or tag or DEFAULT, full_name)
    path = found.fetched(say)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    identity = json.dumps([CACHE_FORMAT, full_name, str(path.resolve()), facts])
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in full_name)
    folder = cache_folder() / "pretrained" / f"{name}-{key}"
    if not (folder / MANIFEST).exists():
        say(f"making a bundle of {found.name} in {folder}")
        for line in import_weights(str(path), folder, model=full_name, preprocess={}, say=say).lines():
            say(line)
    return folder


def import_weights(
    typed: str,
    output: Path,
    *,
    model: str | None,
    labels: Path | None = None,
    preprocess: Mapping[str, Any],
    must_prove: bool = True,
    say: Callable[[str], None],
) -> Imported:
    """Return the new bundle `output` of the network `model` with the weights `typed`, as `weights.finding` reads it.

    Args:
        model: None where the weights are a folder that says it.
        labels: a file with the names of the classes: one a line, or JSON; otherwise what comes with the weights.
        preprocess: fields of `InputSpec` that are to be other than the weights' provider says.
        must_prove: whether to refuse weights whose answers to photographs show that something is wrong.

    Raises:
        LinneError: something given cannot be used, or parts of the network would keep random weights.
        CheckFailed: the answers to photographs show that something is wrong.
    """
    if model is not None:
        fetch_description(model, say)
    found = find(typed, _network_of(typed) if model is None else models.full_name_and_tag(model)[0])
    model = found.full_name
    weights = read_weights(found.fetched(say))
    spec = input_of(found, weights, preprocess)
    num_classes = num_classes_in(weights, model)
    names, labels_from = _labels(labels, weights, found, num_classes)
    ref = models.describe(model, num_classes=num_classes, channels=spec.channels, height=spec.height, width=spec.width)
    network = models.build(ref)
    fit = fit_weights(network, weights, full_name=model)
    if fit.fresh:
        more = f" and {len(fit.fresh) - 3} more" if len(fit.fresh) > 3 else ""
        raise RecipeError(
            f"`{weights.origin}` leaves parts of `{model}` without weights: {', '.join(fit.fresh[:3])}{more}",
            hint="an import must be whole; `linne train --weights` starts from what there is",
        )
    proof = prove(network, spec, names)
    if proof.problem is not None and must_prove:
        raise CheckFailed(f"`{weights.origin}` as `{model}`: {proof.problem}", hint=proof.hint)
    licence = None if found.offered is None else found.offered.licence
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
    if spec is None:
        raise RecipeError(
            f"nobody says what size and scaling `{found.name}` takes",
            hint="use --preprocess height=224,width=224 and so on",
        )
    known = {field.name for field in dataclasses.fields(InputSpec)}
    for name in changes:
        if name not in known:
            raise RecipeError(f"no field `{name}` of preprocessing", hint=f"there are {', '.join(sorted(known))}")
    return dataclasses.replace(spec, **changes)


def _labels(file: Path | None, weights: Weights, found: Found, num_classes: int) -> tuple[tuple[str, ...], str]:
    """Return the names of the classes, and who says so."""
    if file is not None:
        named, who = _read_labels(file), f"`{file}`"
    elif weights.labels is not None:
        named, who = weights.labels, f"`{weights.origin}`"
    elif found.offered is not None and (offered := found.offered.labels()) is not None:
        named, who = offered, found.offered.full_name
    else:
        # An architecture's default weights say what its publisher trains on; the photographs show whether it is so.
        offers = [offer for offer in offers_for(found.full_name) if offer.num_classes == num_classes]
        guess = next((names for offer in offers if (names := offer.labels()) is not None), None)
        if guess is None:
            raise RecipeError(
                f"`{weights.origin}` does not say what its {num_classes} classes are",
                hint="use --labels FILE, with one name a line in the order of the classes",
            )
        named, who = guess, f"{offers[0].full_name}, which has as many"
    if len(named) != num_classes:
        raise RecipeError(f"{who} names {len(named)} classes, and the weights have {num_classes}")
    return named, who


def _read_labels(file: Path) -> tuple[str, ...]:
    """Return the names in a text with one a line, or in JSON: a list, or {"0": name} as `id2label` is written.

    Raises:
        RecipeError: it cannot be read, or is neither.
    """
    try:
        with open(file, "rb") as stream:
            data = stream.read(MAX_LABELS_BYTES + 1)
        if len(data) > MAX_LABELS_BYTES:
            raise RecipeError(f"the labels `{file}` are larger than {MAX_LABELS_BYTES // 2**20} MiB")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise RecipeError(f"the labels `{file}` cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the labels `{file}` are not UTF-8 text") from error
    if not text.lstrip().startswith(("[", "{")):
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    try:
        value = json.loads(text)
        names = [value[str(k)] for k in range(len(value))] if isinstance(value, dict) else value
    except (ValueError, KeyError) as error:
        raise RecipeError(f"the labels `{file}` are neither one a line nor a JSON list") from error
    if not all(isinstance(name, str) for name in names):
        raise RecipeError(f"the labels `{file}` hold something that is no text")
    return tuple(names)


def _answers(network: nn.Module, spec: InputSpec) -> Floats:
    with torch.inference_mode():
        logits_NK: Floats = network.eval()(torch.from_numpy(canary_batch(spec))).numpy()
    return logits_NK
