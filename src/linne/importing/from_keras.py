"""A `.keras` file made a bundle: unpacked and looked at here, exported by Keras in a process of its own.

A `.keras` file is a zip of a configuration and an HDF5 file of weights. What is not covered: a hole in the HDF5 library
itself, which reads the weights in that process, and a network so large that the machine runs out of memory.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from linne.archive import extract
from linne.bundle_format import parse_json, read_bytes, to_json
from linne.errors import BundleError, LinneError
from linne.graphs.wire import MAX_BYTES
from linne.importing import Imported
from linne.importing.converting import Package, convert, require
from linne.importing.graph import MadeOf, import_graph
from linne.importing.inputs import says_scaling, scaling_unsaid
from linne.importing.keras_config import MODELS, begins_with_rescaling, not_listed, without_compiled

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
CHILD = "linne.importing.export_keras"
MAX_UNPACKED = 4 * MAX_BYTES
"""Weights of the largest graph, and three times as much of an optimiser's."""
MAX_MEMBERS = 100
MAX_DEPTH = 64
"""Of a configuration: three levels for each model in a model."""
MOST_NAMED = 3
PACKAGES = (
    Package("keras", "3.15.1", "older ones have holes by which a file could run code or read others"),
    Package("torch", "2.4", "it is what Keras exports with here"),
    Package("onnxscript", "0.7", "torch exports some networks with it alone"),
    Package("onnx", "1.21", "it reads what Keras exports"),
)


def import_keras(
    path: Path,
    output: Path,
    *,
    labels: Path | None,
    preprocess: Mapping[str, Any],
    output_name: str | None = None,
    must_prove: bool = True,
) -> Imported:
    """Return the new bundle `output` of the `.keras` file `path`; arguments as of `importing.import_weights`.

    Raises:
        LinneError: the file or something given cannot be used, or a package is missing.
        CheckFailed: the graph answers otherwise than Keras, or as no trained network does.
    """
    _require_zip(path)
    with tempfile.TemporaryDirectory(prefix="linne-keras-") as home:
        config = _laid_out(path, Path(home) / "model")
        require(PACKAGES, path, "keras")
        preprocess, notes = as_rescaled(config, preprocess)
        if not says_scaling(preprocess):  # before the work, not after it
            raise scaling_unsaid(str(path))
        sizes = [str(preprocess.get(key, 0)) for key in ("height", "width")]
        converted = convert(CHILD, [*sizes, output_name or ""], name=str(path), home=Path(home))
        origin = MadeOf(
            name=str(path),
            sha256=_sha256(path),
            notes=(*notes, converted.note),
            versions=converted.versions,
        )
        return import_graph(
            Path(home) / "model.onnx",
            output,
            labels=labels,
            preprocess=preprocess,
            must_prove=must_prove,
            made_of=origin,
        )


def as_rescaled(config: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """Return how images are prepared, what was `said` and what the first layer shows, and that in words."""
    if not begins_with_rescaling(config):
        return said, []
    begins = "it begins with a layer `Rescaling` for pixels of 0 to 255"
    if not says_scaling(said):
        return {**said, "scaling": "raw"}, [f"{begins}, and gets them as they are (`raw`)"]
    return said, [] if said.get("scaling") == "raw" else [f"{begins}, and gets others, as you say"]


def _require_zip(path: Path) -> None:
    """Raise LinneError unless `path` is a file that begins as a zip."""
    if not path.is_file():
        raise LinneError(f"no Keras model at `{path}`: there is no such file")
    with open(path, "rb") as file:
        head = file.read(8)
    if head.startswith(b"\x89HDF"):
        raise LinneError(
            f"`{path}` is an HDF5 file, which Keras opens without its checks (CVE-2025-9905)",
            hint=f"where it is yours, `python -c \"import keras; keras.models.load_model('{path}', compile=False)"
            ".save('model.keras')\"`, then `linne import model.keras`",
        )
    if not head.startswith(b"PK"):
        raise LinneError(f"`{path}` is no Keras model: it is not a zip", hint="copy or download it again")


def _laid_out(path: Path, folder: Path) -> Mapping[str, Any]:
    """Return the configuration in `path`, and leave in the new `folder` what Keras is to read of it, and no more.

    Raises:
        LinneError: the file is damaged or no model, or names something that is not in the list.
    """
    extract(path, folder, max_bytes=MAX_UNPACKED, max_files=MAX_MEMBERS)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise LinneError(f"`{path}` holds no `{name}`, so Keras did not write it", hint="copy or download it again")
    try:
        config = without_compiled(parse_json(read_bytes(folder, CONFIG), CONFIG, max_depth=MAX_DEPTH))
        _require_keras_3(path, folder)
    except BundleError as error:
        raise LinneError(f"`{path}` is damaged: {error.message}", hint="copy or download it again") from error
    refused = sorted(set(not_listed(config)))
    if refused or config.get("class_name") not in MODELS:
        more = f" and {len(refused) - MOST_NAMED} more" if len(refused) > MOST_NAMED else ""
        named = ", ".join(refused[:MOST_NAMED]) + more or "a model that is neither Sequential nor Functional"
        raise LinneError(
            f"`{path}` needs {named}; taken are those of Keras' own layers that only compute, since all else is code",
            hint="where it is yours, `model.export('model.onnx', format='onnx')`, then `linne import model.onnx`",
        )
    (folder / CONFIG).write_bytes(to_json(config, CONFIG))
    return dict(config)


def _require_keras_3(path: Path, folder: Path) -> None:
    """Raise LinneError where an older Keras wrote what is in `folder`, whose layers today's does not make."""
    if not (folder / METADATA).is_file():
        return
    version = str(parse_json(read_bytes(folder, METADATA), METADATA).get("keras_version"))
    if re.match(r"[12]\.", version):
        raise LinneError(
            f"`{path}` was written by Keras {version[:20]}, whose files Keras 3 does not open",
            hint="where it is yours, `model.export('saved')` in the program that made it, then `linne import saved`",
        )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
