"""Weights from a path: what kind of file or folder it is, its tensors, its hash, and what lies beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from linne.bundle import open_bundle
from linne.errors import LinneError
from linne.models.provider import full_name
from linne.models.shards import INDEX, read_index
from linne.weights import Weights
from linne.weights.beside import Beside, read_beside
from linne.weights.entries import tensors_in

TORCH = (".pth", ".pt", ".bin", ".tar", ".ckpt")
IMPORTED = "`linne import` without --model makes a bundle of it"
KERAS = f"a Keras file, whose layers torch networks do not have; {IMPORTED}"
REFUSED = {
    ".h5": KERAS,
    ".hdf5": KERAS,
    ".keras": KERAS,
    ".joblib": "a pickle, which runs code when it is read; save `model.state_dict()` as .safetensors instead",
    ".pkl": "a pickle, which runs code when it is read; save `model.state_dict()` as .safetensors instead",
    ".pickle": "a pickle, which runs code when it is read; save `model.state_dict()` as .safetensors instead",
    ".npz": "a NumPy archive of JAX's layout; timm's page of that model has it as .safetensors",
    ".msgpack": "a Flax file; the same page often has it as .safetensors",
    ".tflite": "a compiled program; use the weights it was made from",
}
KINDS = ".safetensors, .pth, .pt, .bin, .tar, .ckpt or .onnx; a bundle, a run, or a folder with config.json"
MAX_FILE_BYTES = 64 * 2**30
"""The largest image classifier known to timm, 4.4 billion numbers, has 18 GB; a checkpoint three times that."""

FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Where timm and transformers keep weights, the safe format first."""


def read(path: Path) -> Weights:
    """Return `read_weights` of `path`."""
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise LinneError(f"no weights at `{path}`: there is no such file or folder")
    if not path.is_file():
        raise LinneError(f"`{path}` is not a regular file")
    # Only under these names do files beside it speak of it.
    beside = read_beside(path.parent) if path.name in FOLDER_FILES else Beside()
    return _read_file(path, str(path), beside)


def _read_folder(folder: Path) -> Weights:
    for place in (folder, folder / "bundle"):
        if (place / "bundle.json").exists():
            return _read_bundle(place, str(folder))
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return _read_file(folder / name, str(folder), read_beside(folder))
    if (folder / "saved_model.pb").is_file():
        raise LinneError(
            f"`{folder}` is a SavedModel of TensorFlow, which is a program and no weights of a torch network",
            hint=IMPORTED,
        )
    raise LinneError(
        f"no weights in the folder `{folder}`",
        hint=f"expected `bundle.json`, or one of {', '.join(f'`{name}`' for name in FOLDER_FILES)}",
    )


def _read_bundle(folder: Path, origin: str) -> Weights:
    bundle = open_bundle(folder)
    provider, name = (str(bundle.model.get(key)) for key in ("provider", "name"))
    licence = _licence_in(bundle.provenance)
    beside = Beside(labels=bundle.labels, input=bundle.input, model=full_name(provider, name), licence=licence)
    return _read_file(folder / bundle.network_file, origin, beside)


def _licence_in(provenance: Mapping[str, Any]) -> str | None:
    """Return the licence of what a bundle was imported or trained from, which goes on with its weights."""
    origin = provenance.get("imported") or provenance.get("started_from")
    licence = origin.get("licence") if isinstance(origin, Mapping) else None
    return licence if isinstance(licence, str) else None


def _read_file(path: Path, origin: str, beside: Beside) -> Weights:
    if path.name.endswith(INDEX):
        return _read_shards(path, origin, beside)
    tensors, part = _load(path)
    return _weights(tensors, origin, [path], beside, part)


def _load(path: Path) -> tuple[dict[str, torch.Tensor], str | None]:
    """Return the tensors in one file, and which entry of it they are."""
    suffix = path.suffix.lower()
    if suffix in REFUSED:
        what, _, way_out = REFUSED[suffix].partition("; ")
        raise LinneError(f"`{path}` is {what}", hint=way_out)
    _check_size(path, path.stat().st_size)
    if suffix == ".safetensors":
        return _load_safetensors(path), None
    if suffix in TORCH:
        from linne.weights.torch_files import load_torch

        return tensors_in(load_torch(path), str(path))
    if suffix == ".onnx":
        from linne.weights.onnx_files import load_onnx

        return load_onnx(path), None
    raise LinneError(f"`{path}` is not a kind of weights that is read", hint=f"expected {KINDS}")


def _read_shards(index: Path, origin: str, beside: Beside) -> Weights:
    """Return the weights in the files that `index` lists, each tensor from the one it names."""
    where = read_index(index)
    shards = [index.parent / name for name in sorted(set(where.values()))]
    for shard in shards:
        if not shard.is_file():
            raise LinneError(
                f"`{index}` names `{shard.name}`, which is not there", hint="copy or download the whole folder"
            )
    _check_size(index.parent, sum(shard.stat().st_size for shard in shards))
    tensors: dict[str, torch.Tensor] = {}
    for shard in shards:
        found, _ = _load(shard)
        tensors |= {name: tensor for name, tensor in found.items() if where.get(name) == shard.name}
    missing = next((name for name in where if name not in tensors), None)
    if missing is not None:
        raise LinneError(
            f"`{index}` lists `{missing}` in `{where[missing]}`, which does not hold it", hint="download it again"
        )
    return _weights(tensors, origin, [index, *shards], beside, None)


def _weights(
    tensors: Mapping[str, torch.Tensor], origin: str, files: Iterable[Path], beside: Beside, part: str | None
) -> Weights:
    if not tensors:
        raise LinneError(f"`{origin}` holds no tensors")
    return Weights(
        tensors=tensors,
        origin=origin,
        sha256=file_sha256(*files),
        labels=beside.labels,
        input=beside.input,
        model=beside.model,
        part=part,
        licence=beside.licence,
    )


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise LinneError(
            f"`{path}` cannot be read as safetensors: {error}", hint="copy or download it again"
        ) from error


def _check_size(path: Path, size_bytes: int) -> None:
    if size_bytes > MAX_FILE_BYTES:
        raise LinneError(f"`{path}` has {size_bytes:,} bytes, and the limit is {MAX_FILE_BYTES:,}")


def file_sha256(*files: Path) -> str:
    """Return the sha256 of what `files` hold, one after another."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()
