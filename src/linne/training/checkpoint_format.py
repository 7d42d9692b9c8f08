"""How a checkpoint lies on disk: a folder of tensors in safetensors and sealed JSON, whole or not there. No pickle.

    RUN/checkpoints/latest                                    the name of the newest
    RUN/checkpoints/epoch-0002-step-00001234/
        state.safetensors    weights, average, optimiser, random states
        kept.safetensors     the weights of the best epoch so far; one file for several checkpoints where it can be
        checkpoint.json      everything that is no tensor, each file's size and sha256, and its own

The checksums find damage. They do not say who wrote a checkpoint.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import linne
from linne.bundle_format import (
    check_files,
    describe_file,
    exact_keys,
    parse_files,
    parse_json,
    read_bytes,
    replace_file,
    seal,
    sync_folder,
    table,
    unsealed,
    write_file,
)
from linne.errors import BundleError, LinneError

FORMAT_VERSION = 1
MANIFEST, STATE, KEPT, LATEST = "checkpoint.json", "state.safetensors", "kept.safetensors", "latest"
COMPARED_BYTES = 4 * 2**20
"""At a time, so that comparing needs no memory to speak of."""
UNFINISHED = "."
"""How the names of folders begin that are being written or removed."""
_NAME = re.compile(r"epoch-(\d{4,})-step-(\d{8,})")
_KEYS = ("format", "linne", "epoch", "step", "batch", "facts", "state", "files")

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Contents:
    """What a checkpoint holds: copies on the host, which training does not touch."""

    epoch: int
    """Epochs done."""
    step: int
    batch: int
    """Batches of the next epoch that are done."""
    facts: Mapping[str, Any]
    """JSON: recipe, fingerprint of the source, versions, device."""
    state: Any
    """What `to_plain` made of it."""
    tensors: Tensors
    kept: Tensors | None
    """Weights of the best epoch so far."""

    def holds_nan(self) -> bool:
        """Return whether a weight of the network is not a number."""
        # NumPy, since torch's threads are at work on the next steps; it has no bf16.
        return any(
            bool(np.isnan(tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()).any())
            for name, tensor in self.tensors.items()
            if name.startswith("state/model:") and tensor.is_floating_point()
        )


def name_of(epoch: int, step: int) -> str:
    """Return what the folder of a checkpoint is called; in the order of their names they were made."""
    return f"epoch-{epoch:04}-step-{step:08}"


def to_plain(value: Any, place: str, tensors: Tensors) -> Any:
    """Return `value` as JSON; its tensors go to `tensors`, under names that begin with `place`.

    Takes numbers, texts, None, tensors, and lists, tuples and dicts of them: what `state_dict`s are made of.

    Raises:
        TypeError: something else is in it.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, torch.Tensor):
        tensors[place] = value.detach()
        return {"tensor": place}
    if isinstance(value, (list, tuple)):
        items = [to_plain(item, f"{place}/{i}", tensors) for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if not isinstance(value, Mapping):
        raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}, as `{place}` is")
    rest = []
    for key, item in value.items():
        if isinstance(key, str) and isinstance(item, torch.Tensor):  # one entry for all of a model's
            tensors[f"{place}:{key}"] = item.detach()
        else:
            rest.append([key, to_plain(item, f"{place}/{quote(str(key), safe='')}", tensors)])
    return {"dict": place, "rest": rest}


def from_plain(plain: Any, tensors: Tensors) -> Any:
    """Return what `to_plain` was given."""
    if isinstance(plain, list):
        return [from_plain(item, tensors) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if "float" in plain:
        return float(plain["float"])
    if "tensor" in plain:
        return tensors[plain["tensor"]]
    if "tuple" in plain:
        return tuple(from_plain(item, tensors) for item in plain["tuple"])
    prefix = f"{plain['dict']}:"
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return own | {key: from_plain(item, tensors) for key, item in plain["rest"]}


def write_checkpoint(folder: Path, contents: Contents, shared: Path | None = None) -> Path:
    """Return the checkpoint written into `folder`, synced, read back and compared, and named in `latest`.

    Whatever goes wrong before, there is no such checkpoint, and the others are as they were.

    Args:
        shared: An older checkpoint of the same kept weights; their file becomes this one's too, by a hard link.

    Raises:
        OSError, SafetensorError: the disk refuses, or gives back something else.
    """
    place = folder / name_of(contents.epoch, contents.step)
    partial = place.with_name(f"{UNFINISHED}{place.name}.partial-{secrets.token_hex(4)}")
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync_folder(folder.parent)
        partial.mkdir()
        files = {STATE: _write_tensors(partial, STATE, contents.tensors)}
        if contents.kept is not None:
            linked = None if shared is None else _link(shared, partial)
            files[KEPT] = linked or _write_tensors(partial, KEPT, contents.kept)
        manifest = {
            "format": FORMAT_VERSION,
            "linne": linne.__version__,
            "epoch": contents.epoch,
            "step": contents.step,
            "batch": contents.batch,
            "facts": contents.facts,
            "state": contents.state,
            "files": files,
        }
        write_file(partial / MANIFEST, seal(manifest, MANIFEST))
        sync_folder(partial)
        if place.exists():  # damaged: the run went on from an older one and came here again
            remove(place)
        os.rename(partial, place)
        sync_folder(folder)
        replace_file(folder / LATEST, f"{place.name}\n".encode())
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return place


def _write_tensors(folder: Path, name: str, tensors: Tensors) -> dict[str, Any]:
    """Write a file of tensors, wait for the disk, read it back, and return its size and sha256."""
    path = folder / name
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    save_file(tensors, path)
    # safetensors keeps others from reading it: as open to them as the folder is.
    path.chmod(stat.S_IMODE(folder.stat().st_mode) & 0o666)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    found = load_file(path)
    if found.keys() != tensors.keys() or not all(_same(found[key], tensors[key]) for key in tensors):
        raise OSError(f"`{name}` is not on the disk as it was written")
    return describe_file(folder, name)


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Return whether two tensors hold the same bytes; as numbers, NaN would not equal itself."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    mine, theirs = (tensor.reshape(-1).view(torch.uint8).numpy() for tensor in (first, second))
    parts = (slice(start, start + COMPARED_BYTES) for start in range(0, len(mine), COMPARED_BYTES))
    return all(np.array_equal(mine[part], theirs[part]) for part in parts)


def _link(shared: Path, partial: Path) -> dict[str, Any] | None:
    """Return size and sha256 of the kept weights of `shared`, now in `partial` too; None where that cannot be."""
    try:
        expected = read_manifest(shared)["files"][KEPT]
        os.link(shared / KEPT, partial / KEPT)
        if describe_file(partial, KEPT) == expected:
            return dict(expected)
        os.unlink(partial / KEPT)  # damaged since it was written
    except (BundleError, OSError):
        pass  # removed meanwhile, or a disk without hard links
    return None


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Checkpoint:
    """A checkpoint that was read and whose every byte is what was written."""

    path: Path
    epoch: int
    step: int
    batch: int
    facts: Mapping[str, Any]
    state: Any
    """As it was before `to_plain`."""
    kept: Tensors | None


def read_manifest(path: Path) -> dict[str, Any]:
    """Return what `checkpoint.json` says; the other files are not looked at.

    Raises:
        BundleError: missing, altered or damaged.
        LinneError: of a newer format.
    """
    raw = read_bytes(path, MANIFEST)
    # The seal first: the same in every format, so that a damaged number is not taken for a newer one.
    manifest = unsealed(raw, parse_json(raw, MANIFEST), MANIFEST)
    if manifest.get("format") != FORMAT_VERSION:
        raise LinneError(
            f"checkpoint `{path}` was written by linne {manifest.get('linne')} in format {manifest.get('format')}; "
            f"this linne reads format {FORMAT_VERSION}",
            hint="pip install --upgrade linne",
        )
    values = exact_keys(manifest, _KEYS, MANIFEST)
    parse_files(values["files"])
    return values


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint at `path`, after comparing every file with its size and sha256.

    Raises:
        BundleError: incomplete, altered or damaged.
        LinneError: of a newer format.
    """
    manifest = read_manifest(path)
    files = manifest["files"]
    check_files(path, files)
    try:
        tensors, kept = (
            {k: t.clone() for k, t in load_file(path / n).items()} if n in files else None for n in (STATE, KEPT)
        )
    except (OSError, SafetensorError) as error:
        raise BundleError(f"its tensors cannot be read: {error}") from error
    return Checkpoint(
        path=path,
        epoch=manifest["epoch"],
        step=manifest["step"],
        batch=manifest["batch"],
        facts=table(manifest["facts"], "facts"),
        state=from_plain(manifest["state"], tensors or {}),
        kept=kept,
    )


def find_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder` by name, the newest first; none is opened."""
    if not folder.is_dir():
        return []
    found = [
        (tuple(map(int, match.groups())), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found, reverse=True)]


def newest_good(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint in `folder` that is whole, None without one, and what is wrong with newer ones.

    Raises:
        LinneError: a newer one is of a format that this linne does not read.
    """
    problems = []
    paths = find_checkpoints(folder)
    named = _named_latest(folder)
    if named is not None and all(path.name != named for path in paths):
        problems.append(f"`{folder / LATEST}` names `{named}`, which is not there")
    for path in paths:
        try:
            return read_checkpoint(path), problems
        except BundleError as error:
            problems.append(f"checkpoint `{path}` cannot be used: {error.message}")
    return None, problems


def _named_latest(folder: Path) -> str | None:
    try:
        return (folder / LATEST).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def remove(path: Path) -> None:
    """Remove a checkpoint; one that is half removed is not taken for one that is damaged."""
    doomed = path.with_name(f"{UNFINISHED}{path.name}.removed-{secrets.token_hex(4)}")
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)
