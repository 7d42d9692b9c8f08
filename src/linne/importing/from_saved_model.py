"""A SavedModel of TensorFlow made a bundle: copied, looked at and exported in a process of its own.

A SavedModel is a program of TensorFlow's operations. What TensorFlow would do by itself when it loads one, and what may
be run of it, is decided by `export_saved_model`. Not covered: a hole in TensorFlow's own reading of graphs and weights.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from linne.bundle_format import open_plain
from linne.errors import BundleError, LinneError
from linne.graphs.wire import MAX_BYTES
from linne.importing import SAVED_MODEL, Imported
from linne.importing.converting import Package, convert, require
from linne.importing.graph import MadeOf, import_graph
from linne.importing.inputs import says_scaling, scaling_unsaid

VARIABLES = "variables"
CHILD = "linne.importing.export_saved_model"
MAX_FILES = 1000
MAX_UNPACKED = 4 * MAX_BYTES
"""Weights of the largest graph, and three times as much of an optimiser's."""
PACKAGES = (
    Package("tensorflow", "2.21", "it is the one that this has been tried with"),
    Package("tf2onnx", "1.17", "older ones do not work with NumPy 2"),
    Package("onnx", "1.21", "it reads what tf2onnx exports"),
)


def import_saved_model(
    path: Path,
    output: Path,
    *,
    labels: Path | None,
    preprocess: Mapping[str, Any],
    output_name: str | None = None,
    must_prove: bool = True,
) -> Imported:
    """Return the new bundle `output` of the SavedModel in folder `path`; arguments as of `importing.import_weights`.

    Raises:
        LinneError: the folder or something given cannot be used, or a package is missing.
        CheckFailed: the graph answers otherwise than TensorFlow, or as no trained network does.
    """
    require(PACKAGES, path, "tensorflow")
    if not says_scaling(preprocess):  # before the work, not after it
        raise scaling_unsaid(str(path))
    with tempfile.TemporaryDirectory(prefix="linne-saved-model-") as home:
        sha256 = _copied(path, Path(home) / "model")
        sizes = [str(preprocess.get(key, 0)) for key in ("height", "width")]
        converted = convert(CHILD, [*sizes, output_name or ""], name=str(path), home=Path(home))
        return import_graph(
            Path(home) / "model.onnx",
            output,
            labels=labels,
            preprocess=preprocess,
            must_prove=must_prove,
            made_of=MadeOf(name=str(path), sha256=sha256, notes=(converted.note,), versions=converted.versions),
        )


def _copied(path: Path, folder: Path) -> str:
    """Return the sha256 of what was copied from `path` to the new `folder`: the program and its weights, no more.

    Raises:
        LinneError: something is missing, a link, or too large.
    """
    variables = path / VARIABLES
    found = sorted(file.name for file in variables.iterdir()) if variables.is_dir() else []
    weights = [name for name in found if name.startswith("variables.")]
    if len(weights) > MAX_FILES:
        raise LinneError(f"`{path}` has weights in {len(weights):,} files, expected at most {MAX_FILES:,}")
    (folder / VARIABLES).mkdir(parents=True)
    digest, left = hashlib.sha256(), MAX_UNPACKED
    for name in (SAVED_MODEL, *(f"{VARIABLES}/{name}" for name in weights)):
        try:
            source = open_plain(path, name)
        except BundleError as error:
            raise LinneError(f"`{path}` is no whole SavedModel: {error.message}", hint=error.hint) from error
        with source, open(folder / name, "wb") as copy:
            left -= os.fstat(source.fileno()).st_size
            if left < 0:
                raise LinneError(f"`{path}` has more than {MAX_UNPACKED:,} bytes")
            while block := source.read(2**20):
                digest.update(block)
                copy.write(block)
    return digest.hexdigest()
