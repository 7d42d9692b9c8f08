"""What was made of a bundle for other runtimes and precisions: folders in its `exports/`, each checked and deletable.

`exports/onnx-int8/` holds the files and `export.json`, which says of which state of the bundle they were made, and how.
The bundle itself is as it was, and without the folder it loses nothing.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

import linne
from linne.bundle import PARTIAL, Bundle
from linne.bundle_format import (
    EXPORT_MANIFEST,
    EXPORTS,
    GRAPH,
    check_files,
    describe_file,
    exact_keys,
    open_plain,
    parse_files,
    parse_json,
    read_bytes,
    seal,
    sync_folder,
    table,
    to_json,
    unsealed,
    write_file,
)
from linne.errors import BundleError

FORMAT_VERSION = 1

Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""Of the numbers that a network computes with; in int8 those of most layers, the rest in fp32."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

PIXELS = "-pixels"
"""What the kind of an export ends with that takes uint8 N x H x W x C and scales them itself: `onnx-pixels`."""

COMPILED = ("migraphx", "tensorrt")
"""Kinds whose files are compiled code: a runtime reads them unchecked, and runs what is in them. None is opened that a
stranger may have made."""
MADE_HERE = "made-here"
"""The folder among linne's own state, outside any bundle, in which the compiled files of this user are remembered."""

_KEYS = ("format", "linne", "name", "of", "kind", "precision", "main", "canary_logits", "facts", "files")


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """One folder of a bundle's `exports`, its files checked."""

    path: Path
    kind: str
    """`onnx`, `openvino`: the word after `--to`; with `PIXELS` behind it where the scaling is in it."""
    precision: Precision
    main: str
    """The file that a runtime is given."""
    canary_logits: tuple[tuple[float, ...], ...]
    """What it answered to the bundle's canaries when it was made, in the order of the bundle's labels."""
    facts: Mapping[str, Any]
    """How it was made: command, versions, exporter, opset, calibration."""
    files: Mapping[str, Mapping[str, Any]]

    @property
    def name(self) -> str:
        """The folder's name."""
        return export_name(self.kind, self.precision)

    @property
    def main_file(self) -> Path:
        """The path of the file that a runtime is given."""
        return self.path / self.main


def export_name(kind: str, precision: str) -> str:
    """Return the name of the folder for an export: `onnx-int8`."""
    return f"{kind}-{precision}"


def identity_of(bundle: Bundle) -> str:
    """Return the sha256 of all that an export depends on: the network, its labels and its input; not its scores."""
    parts = {
        "labels": list(bundle.labels),
        "input": bundle.input.to_dict(),
        "model": dict(bundle.model),
        "network": bundle.files[bundle.network_file]["sha256"],
    }
    return hashlib.sha256(to_json(parts, "identity")).hexdigest()


def has_export(bundle: Bundle, kind: str, precision: str) -> bool:
    """Return whether there is an export by its name; nothing in it is read."""
    return (bundle.path / EXPORTS / export_name(kind, precision) / EXPORT_MANIFEST).is_file()


def exports_of(bundle: Bundle) -> tuple[Export, ...]:
    """Return every export of `bundle`, by name.

    Raises:
        BundleError: as `open_export`.
    """
    folder = bundle.path / EXPORTS
    names = sorted(path.name for path in folder.iterdir() if _is_export(path)) if folder.is_dir() else []
    return tuple(open_export(bundle, *name.rsplit("-", 1)) for name in names)


def _is_export(path: Path) -> bool:
    return not path.name.startswith(".") and "-" in path.name and (path / EXPORT_MANIFEST).is_file()


def open_export(bundle: Bundle, kind: str, precision: str) -> Export:
    """Return an export of `bundle`, after comparing every file with its size and sha256.

    Raises:
        BundleError: there is none, it was altered, or it was made of another state of the bundle.
    """
    return _opened(bundle, kind, precision)


def _opened(bundle: Bundle, kind: str, precision: str, *, but_main: bool = False) -> Export:
    """Return an export after the checks, of its main file only the size where `but_main`."""
    name = export_name(kind, precision)
    folder = bundle.path / EXPORTS / name
    baked = " --bake-preprocessing" if kind.endswith(PIXELS) else ""
    again = f"linne export {bundle.path} --to {kind.removesuffix(PIXELS)} --precision {precision}{baked}"
    if not (folder / EXPORT_MANIFEST).is_file():
        raise BundleError(f"bundle `{bundle.path}` has no export `{name}`", hint=again)
    try:
        export = _read(folder, bundle)
        check_files(folder, export.files, later=(export.main,) if but_main else (), ahead=bundle.ahead)
    except BundleError as error:
        raise BundleError(f"export `{folder}`: {error.message}", hint=f"{again} --replace") from error
    return export


def write_export(
    bundle: Bundle,
    kind: str,
    precision: Precision,
    *,
    fill: Callable[[Path], str],
    canary_logits: Callable[[Path], Sequence[Sequence[float]]],
    facts: Mapping[str, Any],
    replace: bool = False,
) -> Export:
    """Return the new export of `bundle`, written whole or not at all.

    Args:
        fill: writes the files into the empty folder it is given, and returns the name of the main one.
        canary_logits: returns what the main file, at the path it is given, answers to the bundle's canaries.
        replace: whether an export of that name may give way, once the new one is whole.

    Raises:
        BundleError: there is one already, its answers are no numbers, or the disk refuses. What `fill` and
            `canary_logits` raise comes through.
    """
    name = export_name(kind, precision)
    folder = bundle.path / EXPORTS / name
    require_room(bundle, kind, precision, replace=replace)
    partial = folder.with_name(f".{name}{PARTIAL}{secrets.token_hex(4)}")
    try:
        partial.mkdir(parents=True)
        main = fill(partial)
        files = sorted(str(path.relative_to(partial)) for path in partial.rglob("*") if path.is_file())
        logits = tuple(tuple(float(f"{value:.9g}") for value in row) for row in canary_logits(partial / main))
        if not all(math.isfinite(value) for row in logits for value in row):
            raise BundleError(f"export `{folder}` is not written: it answers the canaries with what are no numbers")
        export = Export(
            path=folder,
            kind=kind,
            precision=precision,
            main=main,
            canary_logits=logits,
            facts=facts,
            files={file: describe_file(partial, file) for file in files},
        )
        write_file(partial / EXPORT_MANIFEST, seal(_manifest(export, bundle), EXPORT_MANIFEST))
        sync_folder(partial)
        _take_place(partial, folder)
    except OSError as error:
        raise BundleError(f"export `{folder}` cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return export


def require_room(bundle: Bundle, kind: str, precision: str, *, replace: bool) -> None:
    """Raise BundleError where there is an export of that name which may not be replaced: before minutes of work."""
    folder = bundle.path / EXPORTS / export_name(kind, precision)
    if os.path.lexists(folder) and not replace:
        raise BundleError(f"there is an export `{folder}` already", hint="add --replace to make it again")


class NotMadeHereError(BundleError):
    """An export is compiled code, which this user has not made on this machine."""


def remember_made(export: Export, content: bytes) -> None:
    """Keep that the compiled file of `export` is what was made a moment ago, so that `read_made_here` opens it.

    Raises:
        BundleError: it is not `content`, somebody else being at work in that folder; or it cannot be kept.
    """
    digest = hashlib.sha256(content).hexdigest()
    if digest != export.files[export.main]["sha256"]:
        raise BundleError(f"export `{export.path}`: `{export.main}` is not what was written a moment ago")
    path = _memory_of(digest)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise BundleError(f"`{path}` cannot be written: {error.strerror}") from error


def read_made_here(export: Export, again: str) -> bytes:
    """Return the compiled file of `export`, whose bytes are the ones that were compared.

    It was made by this user on this machine, as `remember_made` keeps it: a bundle that others made can hold any file
    with a fitting checksum, but cannot be remembered here. There is no way around: it is made again in minutes.

    Args:
        again: what to type to make it here.

    Raises:
        NotMadeHereError: it was not made here.
        BundleError: it is not what its `export.json` lists.
    """
    listed = export.files[export.main]["sha256"]
    if not _memory_of(listed).is_file():
        raise NotMadeHereError(
            f"export `{export.path}` is compiled code, and was not made here: opening it would run what is in it",
            hint=f"{again} makes it here",
        )
    with open_plain(export.path, export.main) as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != listed:
        raise BundleError(f"export `{export.path}`: `{export.main}` is not the file that was written")
    return content


def _memory_of(sha256: str) -> Path:
    from platformdirs import user_state_path

    return user_state_path("linne", appauthor=False) / MADE_HERE / sha256


def _take_place(partial: Path, folder: Path) -> None:
    """Rename `partial` to `folder`; an older one is out of the way only for the moment between two renames."""
    old = folder.with_name(f".{folder.name}{PARTIAL}old-{secrets.token_hex(4)}")
    if os.path.lexists(folder):
        os.rename(folder, old)
    os.rename(partial, folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class GraphFile:
    """An ONNX file that computes a bundle."""

    path: Path
    sha256: str
    """As it is listed, in hexadecimal."""
    canary_logits_NK: NDArray[np.float32] | None
    """What it answered to the bundle's canaries when it was made; None for the bundle's own graph."""


def has_graph(bundle: Bundle, precision: str = "fp32") -> bool:
    """Return whether the bundle is a graph or has an ONNX export in `precision`; nothing of it is read."""
    return (precision == "fp32" and bundle.network_file == GRAPH) or has_export(bundle, "onnx", precision)


def graph_of(bundle: Bundle, precision: str = "fp32") -> GraphFile:
    """Return the ONNX file that computes the bundle in `precision`: its own graph, or an export.

    Raises:
        BundleError: there is none, it was altered, or it was made of another state of the bundle.
    """
    if precision == "fp32" and bundle.network_file == GRAPH:
        bundle.require_network()
        return _own_graph(bundle)
    return _graph_in(open_export(bundle, "onnx", precision))


def listed_graph(bundle: Bundle, precision: str = "fp32") -> GraphFile:
    """Return the same, before its bytes are compared with their sha256: for who has kept something made of them."""
    if precision == "fp32" and bundle.network_file == GRAPH:
        return _own_graph(bundle)
    return _graph_in(_opened(bundle, "onnx", precision, but_main=True))


def _own_graph(bundle: Bundle) -> GraphFile:
    return GraphFile(bundle.path / GRAPH, bundle.files[GRAPH]["sha256"], None)


def _graph_in(export: Export) -> GraphFile:
    logits_NK = np.array(export.canary_logits, dtype=np.float32)
    return GraphFile(export.main_file, export.files[export.main]["sha256"], logits_NK)


def _manifest(export: Export, bundle: Bundle) -> dict[str, Any]:
    return {
        "format": FORMAT_VERSION,
        "linne": linne.__version__,
        "name": export.name,
        "of": identity_of(bundle),
        "kind": export.kind,
        "precision": export.precision,
        "main": export.main,
        "canary_logits": [list(row) for row in export.canary_logits],
        "facts": dict(export.facts),
        "files": {name: dict(entry) for name, entry in export.files.items()},
    }


def _read(folder: Path, bundle: Bundle) -> Export:
    """Return the export in `folder` as its `export.json` says it; its files are not compared."""
    raw = read_bytes(folder, EXPORT_MANIFEST)
    manifest = parse_json(raw, EXPORT_MANIFEST)
    if manifest.get("format") != FORMAT_VERSION:
        raise BundleError(f"it has format `{manifest.get('format')}`, and this linne reads format {FORMAT_VERSION}")
    values = exact_keys(unsealed(raw, manifest, EXPORT_MANIFEST), _KEYS, EXPORT_MANIFEST)
    if values["name"] != folder.name or values["name"] != export_name(values["kind"], values["precision"]):
        raise BundleError(f"it calls itself `{values['name']}`")
    if values["precision"] not in PRECISIONS:
        raise BundleError(f"its precision is `{values['precision']}`, expected one of {', '.join(PRECISIONS)}")
    if values["of"] != identity_of(bundle):
        raise BundleError("it was made of another network, other labels or another input than the bundle has now")
    files = parse_files(values["files"])
    if values["main"] not in files:
        raise BundleError(f"`files` does not list `{values['main']}`")
    logits = _rows(values["canary_logits"])
    if len(logits) != len(bundle.canaries) or any(len(row) != len(bundle.labels) for row in logits):
        raise BundleError(f"`canary_logits` are not {len(bundle.canaries)} rows of {len(bundle.labels)} numbers")
    return Export(
        path=folder,
        kind=values["kind"],
        precision=values["precision"],
        main=values["main"],
        canary_logits=logits,
        facts=table(values["facts"], "facts"),
        files=files,
    )


def _rows(value: Any) -> tuple[tuple[float, ...], ...]:
    rows = value if isinstance(value, list) else [value]
    if not all(isinstance(row, list) and all(type(number) in (int, float) for number in row) for row in rows):
        raise BundleError("`canary_logits` are not rows of numbers")
    return tuple(tuple(map(float, row)) for row in rows)
