"""An ONNX file made a bundle: brought to the bundle's form, shown photographs, written. Needs no framework."""

from __future__ import annotations

import datetime
import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from linne.bundle import GRAPH_PROVIDER, canary_batch, write_bundle
from linne.errors import CheckFailed, LinneError, RecipeError
from linne.graphs.editing import (
    ImageInput,
    before_sigmoid,
    before_softmax,
    bundle_form,
    choose_output,
    image_input,
    read_graph,
)
from linne.graphs.session import GraphSession, why_no_runtime
from linne.importing import Imported
from linne.importing.inputs import Preparation, preparation, preparation_in, scaling_unsaid
from linne.importing.labels import how_to_name, labels_in, named
from linne.preprocess import Floats, InputSpec
from linne.weights.answers import SCALINGS, photographs, prove_names

if TYPE_CHECKING:
    from onnx import ModelProto

SUM_TOLERANCE = 1e-3
"""Around 1, within which answers sum up to probabilities; half precision adds a thousand of them to 4e-4."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeOf:
    """The file that a graph was made of."""

    name: str
    """What to call it to a person."""
    sha256: str
    notes: tuple[str, ...] = ()
    """What was found while the graph was made, for people."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of what made it."""


def import_graph(
    path: Path,
    output: Path,
    *,
    labels: str | Path | None,
    preprocess: Mapping[str, Any],
    output_name: str | None = None,
    must_prove: bool = True,
    made_of: MadeOf | None = None,
) -> Imported:
    """Return the new bundle `output` of the ONNX file `path`; arguments as of `importing.import_weights`.

    Args:
        made_of: the file that the ONNX file was made of, which a person knows; None where it is the ONNX file itself.

    Raises:
        LinneError: the file or something given cannot be used.
        CheckFailed: the answers to photographs show that something is wrong.
    """
    if not path.is_file():
        raise LinneError(f"no graph at `{path}`: there is no such file")
    origin = made_of or MadeOf(name=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    name = origin.name
    if (reason := why_no_runtime()) is not None:
        raise LinneError(f"`{path}` cannot be imported: {reason}")
    model = read_graph(path)
    taken = image_input(model, name, layout=preparation({"layout": preprocess.get("layout")}).layout)
    said = _said(model, name, preprocess, taken)
    spec = _input_of(name, taken, said)
    graph, session, notes = _in_bundle_form(model, name, taken, spec, said.bgr, choose_output(model, name, output_name))
    notes = [*origin.notes, *notes]
    num_classes = session.run(photographs(spec)).shape[1]
    names, labels_from = _labels(labels, model, name, num_classes)
    proof = prove_names(session.run, spec, names)
    if proof.problem is not None and must_prove:
        raise CheckFailed(f"`{name}`: {proof.problem}", hint=proof.hint)
    ref: dict[str, Any] = {"provider": GRAPH_PROVIDER, "name": Path(name).stem, "num_classes": num_classes}
    bundle = write_bundle(
        output,
        labels=names,
        input=spec,
        model=ref,
        weights=graph,
        config=_config(ref["name"], names, spec),
        canary_logits_NK=session.run(canary_batch(spec)),
        metrics={},
        provenance={
            "imported": {
                "weights": name,
                "sha256": origin.sha256,
                "licence": None,
                "proof": asdict(proof),
                "notes": notes,
            },
            "versions": {**_versions(), **origin.versions},
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )
    return Imported(bundle=bundle, fit=None, proof=proof, labels_from=labels_from, licence=None, notes=tuple(notes))


def _said(model: ModelProto, name: str, preprocess: Mapping[str, Any], taken: ImageInput) -> Preparation:
    """Return how images are prepared as far as it is typed, or else written in the file."""
    written = preparation_in(_metadata(model), name)
    if "scaling" in preprocess:  # a word for both
        written = {key: value for key, value in written.items() if key not in ("mean", "std")}
    return preparation({**written, **preprocess}, taken.channels)


def _input_of(name: str, taken: ImageInput, said: Preparation) -> InputSpec:
    """Return how images are prepared for the graph in file `name`.

    Raises:
        RecipeError: size or scaling are not known, or what was said contradicts the graph.
    """
    fields = {"channels": taken.channels, "height": taken.height, "width": taken.width, **said.fields}
    for key, theirs in (("channels", taken.channels), ("height", taken.height), ("width", taken.width)):
        if fields[key] is None:
            raise RecipeError(
                f"the graph `{name}` takes images of any {key}",
                hint="use --preprocess height=224 --preprocess width=224, or what it was trained with",
            )
        if theirs is not None and fields[key] != theirs:
            raise RecipeError(f"{key} is {fields[key]}, and the graph `{name}` takes {theirs} alone")
    raw = SCALINGS["raw"]
    if taken.type == "UINT8" and not {"mean", "std"} & said.fields.keys():
        fields |= {"mean": raw.mean[: taken.channels], "std": raw.std[: taken.channels]}
    if "mean" not in fields or "std" not in fields:
        raise scaling_unsaid(name)
    spec = InputSpec(**fields)
    if taken.type == "UINT8" and (any(spec.mean) or set(spec.std) != {raw.std[0]}):
        raise RecipeError(f"the graph `{name}` takes pixels of 0 to 255 as they are", hint="use --preprocess raw")
    if said.bgr and spec.channels != 3:
        raise RecipeError(f"the graph `{name}` takes grey images, which have no blue")
    return spec


def _in_bundle_form(
    model: ModelProto, name: str, taken: ImageInput, spec: InputSpec, bgr: bool, output: str
) -> tuple[bytes, GraphSession, list[str]]:
    """Return the graph as bundles keep it, opened, and what was done to it, for people."""
    before = before_softmax(model, output)
    batch, notes = taken.batch, _notes(taken, spec, bgr)
    if before is not None:
        notes.append(f"logits are what goes into the Softmax before `{output}`")

    def form(**changes: bool) -> tuple[bytes, GraphSession]:
        given = {"flip": bgr, **changes}
        made = bundle_form(model, taken, before or output, height=spec.height, width=spec.width, batch=batch, **given)
        return made, GraphSession(made, name)

    made, session = form()
    if batch is None and not _any_batch(session, spec):
        batch = 1
        notes.append("images go through it one at a time: it does not answer several as it answers each")
        made, session = form()
    answers_NK = session.run(photographs(spec))
    if answers_NK.ndim == 2 and answers_NK.shape[1] == 1 and (single := before_sigmoid(model, output)) is not None:
        notes.append(f"`{output}` is the second class's probability alone: the first one's logit is 0")
        before = single
        return *form(as_two=True), notes
    if answers_NK.ndim != 2 or answers_NK.shape[1] < 2:
        raise LinneError(
            f"the graph `{name}` answers an image with {answers_NK.shape[1]} numbers, expected one for each of two or "
            "more classes",
            hint="one number for two classes is taken where a Sigmoid makes it: add one in the program that exports it",
        )
    if before is None and _are_probabilities(answers_NK):
        notes.append(f"`{output}` are probabilities, of which the bundle takes logarithms")
        made, session = form(as_logarithm=True)
    return made, session, notes


def _notes(taken: ImageInput, spec: InputSpec, bgr: bool) -> list[str]:
    how_many = "any number of images" if taken.batch is None else f"{taken.batch} at once"
    colours = "grey" if spec.channels == 1 else "BGR, for which the bundle turns RGB around" if bgr else "RGB"
    notes = [f"input `{taken.name}`: {how_many}, {taken.layout}, {spec.height} x {spec.width}, {colours}"]
    fit = f"{'stretched to' if spec.crop_mode == 'squash' else 'resized to cover'} {1 / spec.crop_pct:.4g} times"
    return [
        *notes,
        f"images are {fit} that size ({spec.interpolation}); `crop_pct=0.875` cuts borders off",
    ]


def _any_batch(session: GraphSession, spec: InputSpec) -> bool:
    """Return whether several images get the answers that each of them gets alone."""
    images_NCHW = photographs(spec)
    alone_NK = np.concatenate([session.run(images_NCHW[i : i + 1]) for i in range(len(images_NCHW))])
    try:
        whole_NK = session.run(images_NCHW)
    except LinneError:
        return False
    # Other batch sizes add in another order: a few millionths. Half precision has three digits.
    scale = max(float(np.abs(alone_NK).max()), 1e-30)
    return whole_NK.shape == alone_NK.shape and float(np.abs(whole_NK - alone_NK).max()) <= 2e-2 * scale


def _are_probabilities(answers_NK: Floats) -> bool:
    return bool((answers_NK >= 0).all() and (np.abs(answers_NK.sum(axis=1) - 1) <= SUM_TOLERANCE).all())


def _metadata(model: ModelProto) -> dict[str, str]:
    return {item.key: item.value for item in model.metadata_props}


def _labels(said: str | Path | None, model: ModelProto, name: str, num_classes: int) -> tuple[tuple[str, ...], str]:
    """Return the names of the classes, and who says so."""
    found = labels_in(_metadata(model))
    if said is not None:
        names, who = named(said)
    elif found is not None:
        names, who = found[0], f"the file's own `{found[1]}`"
    else:
        raise RecipeError(
            f"`{name}` does not say what its {num_classes:,} classes are",
            hint=how_to_name(num_classes),
        )
    if len(names) != num_classes:
        raise RecipeError(f"{who} names {len(names):,} classes, and the graph has {num_classes:,}")
    return names, who


def _config(name: str, labels: tuple[str, ...], spec: InputSpec) -> dict[str, Any]:
    """Return the bundle's `config.json`, in timm's layout."""
    settings = spec.to_dict()
    return {
        "architecture": f"{GRAPH_PROVIDER}/{name}",
        "num_classes": len(labels),
        "label_names": list(labels),
        "pretrained_cfg": {
            "input_size": [spec.channels, spec.height, spec.width],
            **{key: settings[key] for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode")},
        },
    }


def _versions() -> dict[str, str]:
    import onnx
    import onnxruntime

    return {
        "python": platform.python_version(),
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
    }
