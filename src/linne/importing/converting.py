"""Files of Keras and TensorFlow made ONNX files, each by its own library, in a process of its own.

What is in the file is looked at before. The process gets a copy in a temporary folder, an empty home for Keras'
settings, no accelerator, and a time limit; it reports which libraries it used and what they answer to pixels drawn at
random, with which the graph is then compared.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from linne.child import Heard, first_event, listen
from linne.data.names import printable
from linne.errors import CheckFailed, LinneError
from linne.graphs.session import GraphSession
from linne.importing.in_child import images_like

LIMIT_S = 900.0
"""The largest network of keras.applications is exported in under a minute; a busy machine takes its time."""
TOLERANCE = 1e-3
"""Of the largest answer: other kernels add in another order, some 1e-6; a wrong graph is off by more than a tenth."""
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}


@dataclass(frozen=True, slots=True)
class Package:
    """A package that a conversion needs."""

    name: str
    least: str
    """The oldest version that is used."""
    why: str
    """Why no older one, in a clause."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What a conversion found."""

    versions: Mapping[str, str]
    note: str
    """How well the graph's answers agree, for people."""


def require(packages: Sequence[Package], path: Path, extra: str) -> None:
    """Raise LinneError where a package is missing or too old, with what to install; nothing is imported."""
    hint = f"pip install 'linne[{extra}]'"
    for package in packages:
        if importlib.util.find_spec(package.name) is None:
            raise LinneError(f"`{path}` needs the package {package.name} to be imported", hint=hint)
        try:
            found = metadata.version(package.name)
        except metadata.PackageNotFoundError:  # a build under another name, such as tensorflow-cpu
            continue
        if _numbers(found) < _numbers(package.least):
            raise LinneError(
                f"`{path}` is not opened with {package.name} {found}, expected {package.least} or newer: {package.why}",
                hint=hint,
            )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def convert(module: str, words: Sequence[str], *, name: str, home: Path, limit_s: float = LIMIT_S) -> Converted:
    """Return what the child `module` found while it made the ONNX file `home / "model.onnx"`.

    Args:
        words: its arguments, after `home`.
        name: what to call the file to a person.
        home: a folder of its own, in which it may write.

    Raises:
        LinneError: its library cannot open or export the file, or does not end.
        CheckFailed: the graph does not answer as the library does.
    """
    environ = {
        **os.environ,
        **QUIET,
        "KERAS_BACKEND": "torch",
        "KERAS_HOME": str(home),
        "TMPDIR": str(home),
        "KERAS_TORCH_DEVICE": "cpu",
        "CUDA_VISIBLE_DEVICES": "-1",
        "HDF5_PLUGIN_PRELOAD": "::",  # HDF5's own word for: load no filter from a library
    }
    heard = listen([sys.executable, "-P", "-m", module, str(home), *words], environ=environ, limit_s=limit_s)
    if (refused := first_event(heard, "refused")) is not None:
        hint = refused.get("hint")
        raise LinneError(
            f"`{name}` {printable(str(refused.get('why')))}", hint=None if hint is None else printable(str(hint))
        )
    done = first_event(heard, "converted")
    if done is None or heard.end != "done":
        raise LinneError(f"`{name}` is not converted: {_why(heard)}")
    note = compared(home / "model.onnx", name, done)
    return Converted(versions=dict(done["versions"]), note=note)


def _why(heard: Heard) -> str:
    """Return how a conversion failed; names in the file stand in it, so what is no text is escaped."""
    failed = first_event(heard, "failed")
    if failed is not None:
        return printable(f"{failed.get('step')}: {failed.get('error')}")
    return printable(f"{heard.how}; {heard.said}" if heard.said else heard.how)


def compared(graph: Path, name: str, done: Mapping[str, Any]) -> str:
    """Return how well the answers of `graph` agree with those that the library gave."""
    expected_NK = np.array(done["answers"], dtype=np.float32)
    session = GraphSession(graph, name)
    images = images_like(done["sizes"])
    answers_NK = np.concatenate([session.run(images[k : k + 1]) for k in range(len(images))])
    library = f"{done['library']} {done['versions'][done['library']]}"
    if answers_NK.shape != expected_NK.shape:
        raise CheckFailed(
            f"`{name}`: {library} answers with {expected_NK.shape}, and its graph with {answers_NK.shape}"
        )
    apart, scale = float(np.abs(answers_NK - expected_NK).max()), float(np.abs(expected_NK).max())
    if not apart <= TOLERANCE * max(scale, 1e-30):
        raise CheckFailed(
            f"`{name}`: the graph that {library} made of it answers otherwise than {library} itself, by {apart:.2g} of "
            f"{scale:.2g}",
            hint="export it to ONNX in the program that made it, and import that file",
        )
    return f"the graph that {library} made answers random pixels as it does itself, to {apart:.1g} of {scale:.2g}"
