"""Tensors from files that `torch.save` wrote, without running what else a pickle could hold; and such files of tensors.

torch's unpickler for weights knows a short list of tensor-building functions and refuses every other name. It is
hardening, not a boundary: it had a hole before torch 2.6 and another before 2.10, so older ones are refused here.
There is no second try with the full unpickler.

One class is added to torch's list: `argparse.Namespace`, in which training scripts (timm's, torchvision's) keep their
options beside the weights. The unpickler can make an empty one and fill its `__dict__`; the class has no
`__setstate__`, `__reduce__` or `__del__`, so that runs no code, and nobody looks at it afterwards. numpy's scalars,
which some scripts keep as a best score, are not added: one of dtype object is a pickle of its own.
"""

from __future__ import annotations

import argparse
import os
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from linne.errors import LinneError

OLDEST_TORCH = (2, 10)
"""CVE-2026-24747, a memory corruption in torch's unpickler for weights, is fixed from here on."""
MAX_MEMBERS = 200_000
MAX_PICKLE_BYTES = 256 * 2**20
"""The part of a file that says which tensors there are; 2 MB for the optimiser's state of a network of 1000 layers."""
LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How files of torch before 1.6 begin, and those of `_use_new_zipfile_serialization=False`."""

SAVE_AGAIN = (
    "where you trust it, load it with the program that wrote it, `torch.save(model.state_dict(), 'weights.pth')`, "
    "and use that file"
)


def load_torch(path: Path) -> Mapping[str, Any]:
    """Return what `torch.save` was given, a mapping; its tensors are on the CPU, mapped from the file where it can be.

    Raises:
        LinneError: an older torch, a file of another kind, one that holds more than plain data, or a damaged one.
    """
    require_safe(torch.__version__, path)
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _check_members(path)
    else:
        _check_legacy(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapped copy on write: the user's file cannot change. Legacy files cannot be mapped.
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a damaged file fails in as many ways as there are
        if type(error).__name__ == "UnpicklingError":  # by name: nothing here imports its module
            raise _refused(path, str(error)) from error
        raise LinneError(
            f"`{path}` cannot be read as a torch file: {_first_line(error)}", hint="copy or download it again"
        ) from error
    if not isinstance(found, Mapping):
        raise LinneError(f"`{path}` holds one {type(found).__name__}, expected tensors by name", hint=SAVE_AGAIN)
    return found


def save_torch(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write `tensors`, which are on the CPU, to `path` for programs that read nothing else; there whole or not at all.

    linne's own files are safetensors: what reads this has to unpickle.
    """
    fresh = path.with_name(path.name + ".new")
    torch.save(OrderedDict(tensors), fresh)
    os.replace(fresh, path)


def require_safe(version: str, path: Path) -> None:
    """Raise LinneError if a torch of this version must not read `path`."""
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST_TORCH:
        raise LinneError(
            f"`{path}` is a torch file, and torch {version} has a hole (CVE-2026-24747) by which such a file "
            "could run code",
            hint='pip install "torch>=2.10"; or, where another environment has it, `linne import` the file there: the '
            "bundle that it makes opens here",
        )


def _check_members(path: Path) -> None:
    """Raise LinneError unless the archive is one of plain tensors, stored as they are."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise LinneError(f"`{path}` is a damaged archive: {error}", hint="copy or download it again") from error
    names = [member.filename for member in members]
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise LinneError(
            f"`{path}` is a TorchScript archive, which holds a program beside the tensors, and it is not run",
            hint="where you trust it: `torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')`, and use that",
        )
    if {"config.json", "metadata.json"} <= set(names) or any(name.endswith(".weights.h5") for name in names):
        raise LinneError(
            f"`{path}` is a Keras model, whose layers torch networks do not have",
            hint="call it `.keras`, and `linne import` without --model makes a bundle of it",
        )
    if "data.pkl" not in inside:
        raise LinneError(f"`{path}` is an archive without `data.pkl`, so `torch.save` did not write it")
    if len(members) > MAX_MEMBERS:
        raise LinneError(f"`{path}` has {len(members):,} members, expected at most {MAX_MEMBERS:,}")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise LinneError(f"`{path}`: `{member.filename}` is compressed, which `torch.save` never does")
        if member.filename.endswith("/data.pkl") and member.file_size > MAX_PICKLE_BYTES:
            raise LinneError(f"`{path}`: `data.pkl` has {member.file_size:,} bytes, limit {MAX_PICKLE_BYTES:,}")


def _check_legacy(path: Path) -> None:
    """Raise LinneError, naming what the file is, unless it begins as files of older torches do."""
    with open(path, "rb") as file:
        head = file.read(512)
    if head.startswith(LEGACY_MAGIC):
        return
    if head[257:262] == b"ustar" or head[:4] in (b"sys_", b"pick"):
        what, hint = "a tar archive of a torch before 0.1.10", SAVE_AGAIN
    elif head.startswith(b"\x89HDF"):
        what, hint = (
            "an HDF5 file, as Keras writes",
            "save it by Keras as `.keras`, of which `linne import` makes a bundle",
        )
    elif head[:1] == b"\x80" or head[:2] in (b"x\x9c", b"x\x01", b"\x1f\x8b"):
        what, hint = "a pickle (joblib or Python's own), which runs code when it is read", SAVE_AGAIN
    elif head.startswith(b"version https://git-lfs"):
        what, hint = "a pointer of Git LFS, not the file itself", "`git lfs pull` fetches it"
    elif head.lstrip()[:1] == b"<":
        what, hint = "a web page, not weights", "download it again, from the link to the file itself"
    else:
        what, hint = "not a file that `torch.save` wrote", "copy or download it again"
    raise LinneError(f"`{path}` is {what}", hint=hint)


def _refused(path: Path, message: str) -> LinneError:
    """Return the error for a file with a name in it that the unpickler does not know."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:
        names = []  # a legacy file: the message of the unpickler is all there is
    names = [name for name in names if name != "argparse.Namespace"] or re.findall(r"GLOBAL ([\w.]+)", message)[:1]
    if not names:
        return LinneError(f"`{path}` is not read: {_first_line(message)}", hint=SAVE_AGAIN)
    listed = ", ".join(f"`{name}`" for name in names[:3])
    return LinneError(
        f"`{path}` holds more than tensors: {listed}; making such objects can run code, so nothing in it was used",
        hint=SAVE_AGAIN,
    )


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0][:200]
