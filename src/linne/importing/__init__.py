"""Pretrained weights or a graph in, a bundle out: from then on they are evaluated, served and exported like one's own.

Weights go into a network that linne builds (`weights`); a graph is taken as it is (`graph`), and needs no framework. Of
a Keras model (`from_keras`) and a SavedModel (`from_saved_model`) their own library makes a graph, in a child process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne import models
from linne.bundle import Bundle
from linne.bundle_format import MANIFEST
from linne.data.names import listed
from linne.errors import RecipeError
from linne.host import cache_folder
from linne.models.fetching import fetch_description
from linne.weights import Fit
from linne.weights.finding import DEFAULT, asked_for, find

if TYPE_CHECKING:
    from linne.weights.answers import Proof

MOST_NAMED = 5
"""Classes that are named to a person."""
CACHE_FORMAT = 1
"""Changes when a bundle that is made of the same weights would be another one."""
GRAPHS = (".onnx",)
"""Endings of files that hold a graph. With a network's name only their tensors are taken."""
KERAS = (".keras", ".h5", ".hdf5")
"""Endings of files that Keras writes."""
SAVED_MODEL = "saved_model.pb"
"""In a folder that TensorFlow writes: its program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """A bundle that was made from weights, and what was found on the way."""

    bundle: Bundle
    fit: Fit | None
    """What became of the weights' tensors; None for a graph, which is taken whole."""
    proof: Proof
    labels_from: str
    """Who named the classes."""
    licence: str | None
    """Of the weights, where their provider states one."""
    notes: tuple[str, ...] = ()
    """What was done to a graph, and what was taken for granted."""

    def lines(self) -> list[str]:
        """Return what was found, for people."""
        licence = self.licence or "not stated"
        named = listed(self.bundle.labels, MOST_NAMED)
        return [
            *([] if self.fit is None else self.fit.lines()),
            *self.notes,
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
            "fit": None if self.fit is None else asdict(self.fit),
            "notes": list(self.notes),
            "proof": asdict(self.proof),
        }


def bundle_of(model: str, typed: str | None, say: Callable[[str], None], *, trust_code: bool = False) -> Path:
    """Return a bundle of the network `model` with pretrained weights, made now or found in the cache.

    Args:
        typed: which weights, as `weights.finding` reads it; None takes those that `model` names, or the default ones.
        trust_code: whether the Python file may be run that `python:FILE.py:NAME` names as the network.

    Raises:
        LinneError: as `import_weights`.
    """
    fetch_description(model, say)
    full_name, tag = models.full_name_and_tag(model)
    wanted = asked_for(tag, typed) or DEFAULT
    found = find(wanted, full_name)
    path = found.fetched(say)
    files = [*(sorted(path.iterdir()) if path.is_dir() else [path]), *models.code_of(full_name)]
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    identity = json.dumps([CACHE_FORMAT, full_name, str(path.resolve()), facts])
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in full_name)
    folder = cache_folder() / "pretrained" / f"{name}-{key}"
    if not (folder / MANIFEST).exists():
        say(f"making a bundle of {found.name} in {folder}")
        for line in import_weights(
            wanted, folder, model=full_name, preprocess={}, trust_code=trust_code, say=say
        ).lines():
            say(line)
    return folder


def import_weights(
    typed: str,
    output: Path,
    *,
    model: str | None,
    labels: str | Path | None = None,
    preprocess: Mapping[str, Any],
    output_name: str | None = None,
    must_prove: bool = True,
    trust_code: bool = False,
    say: Callable[[str], None],
) -> Imported:
    """Return the new bundle `output` of what `typed` names: a graph, or weights of the network `model`.

    Args:
        typed: an ONNX file, a `.keras` file, a SavedModel, or weights as `weights.finding` reads it.
        model: None for a graph or a model, and where the weights are a folder that says it.
        labels: a file with the names of the classes: one a line, or JSON; or `imagenet`; otherwise what comes with
            the weights.
        preprocess: fields of `InputSpec` that are to be other than the weights' provider says, and the words of
            `importing.inputs`.
        output_name: which output of a graph or model that has several.
        must_prove: whether to refuse weights whose answers to photographs show that something is wrong.
        trust_code: whether the Python file may be run that `python:FILE.py:NAME` names as the network.

    Raises:
        LinneError: something given cannot be used, or parts of the network would keep random weights.
        CheckFailed: the answers to photographs show that something is wrong.
    """
    path = Path(typed).expanduser()
    if model is None and (take := _importer(path)) is not None:
        return take(path, output, labels=labels, preprocess=preprocess, output_name=output_name, must_prove=must_prove)
    if output_name is not None:
        raise RecipeError("an output is chosen of a graph, and these are weights", hint="leave --output-name out")
    from linne.importing.weights import import_into

    return import_into(
        typed,
        output,
        model=model,
        labels=labels,
        preprocess=preprocess,
        must_prove=must_prove,
        trust_code=trust_code,
        say=say,
    )


def _importer(path: Path) -> Callable[..., Imported] | None:
    """Return what makes a bundle of a file that holds a network itself; None for weights of one that linne builds."""
    if path.suffix.lower() in GRAPHS:
        from linne.importing.graph import import_graph

        return import_graph
    if path.suffix.lower() in KERAS:
        from linne.importing.from_keras import import_keras

        return import_keras
    if (path / SAVED_MODEL).is_file():
        from linne.importing.from_saved_model import import_saved_model

        return import_saved_model
    return None
