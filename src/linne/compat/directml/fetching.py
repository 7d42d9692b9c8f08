"""The samples' `dataset`: CIFAR-10 and PennFudanPed, fetched into their folder and checked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from linne.archive import extract
from linne.compat.directml import lines
from linne.compat.directml.lines import Say
from linne.compat.directml.programs import DATASETS, data_folder
from linne.data.places import NamedSet
from linne.data.sources.cifar import CIFAR10
from linne.data.sources.get import get
from linne.download import fetch
from linne.errors import LinneError, SourceError, suggest
from linne.log import Narrator

PEDESTRIANS_URL = "https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip"
PEDESTRIANS = "PennFudanPed"
_COUNTED = {"PNGImages": 170, "PedMasks": 170}
"""The files in its folders, by which it is known to be whole: its publisher gives no hash."""
_MAX_BYTES = 500 * 10**6


def fetch_datasets(name: str, say: Say) -> None:
    """Fetch `all`, `cifar10` or `pennfudanped` into `cv/data`, in any spelling of case.

    Raises:
        LinneError: there is no such set, or it cannot be fetched or is not what was published.
    """
    wanted = name.lower()
    if wanted not in DATASETS:
        hint = suggest(wanted, DATASETS) or f"use {', '.join(DATASETS)}"
        raise LinneError(f"dataset `{name}` is not supported yet", hint=hint)
    narrator = Narrator()
    if wanted in ("all", "cifar10"):
        fetch_cifar10(CIFAR10, say, narrator)
    if wanted in ("all", "pennfudanped"):
        fetch_pedestrians(PEDESTRIANS_URL, say, narrator)


def fetch_cifar10(named: NamedSet, say: Say, narrator: Narrator) -> None:
    """Have the binary files of CIFAR-10 where `train` and `test` look for them."""
    root = data_folder("cifar-10-python")
    got = get(named, root=root, narrator=narrator)
    if got.was_here:
        say(lines.CIFAR_HERE)
        return
    archive = named.downloads[0]
    say(f"Downloading {archive.urls[0]} to {root / named.name / archive.name}")
    say(f"Extracting {root / named.name / archive.name} to {got.folder}")


def fetch_pedestrians(url: str, say: Say, narrator: Narrator) -> None:
    """Have PennFudanPed in `cv/data`, although no program here uses it."""
    folder = data_folder(PEDESTRIANS)
    if folder.exists():
        missing = _missing(folder)
        if missing is not None:
            raise SourceError(f"`{folder}` is not whole: {missing}", hint="move it away and type this again")
        say(lines.PEDESTRIANS_HERE)
        return
    say(lines.PEDESTRIANS_FETCHING)
    archive = folder.with_suffix(".zip")
    was_here = archive.exists()
    if not was_here:
        narrator.line(f"fetching {url}, about 50 MB")
    fetch([url], archive, max_bytes=_MAX_BYTES)
    try:
        _unpack_pedestrians(archive, folder)
    except SourceError:
        say(lines.INVALID)
        raise
    finally:
        if not was_here:  # what the user put there stays
            archive.unlink()
    say(lines.PEDESTRIANS_DONE)


def _unpack_pedestrians(archive: Path, folder: Path) -> None:
    """Have what is in `archive` at `folder`, whole; or raise SourceError, and nothing of it stays."""
    staging = folder.with_name(f".{PEDESTRIANS}.new")
    shutil.rmtree(staging, ignore_errors=True)  # of a call that was killed
    try:
        extract(archive, staging, max_bytes=_MAX_BYTES, max_files=1000)
        missing = _missing(staging / PEDESTRIANS)
        if missing is not None:
            raise SourceError(f"`{archive}` is not the published archive: {missing}", hint="type this again")
        os.replace(staging / PEDESTRIANS, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _missing(folder: Path) -> str | None:
    """Return what is not as published, or None."""
    for name, number in _COUNTED.items():
        found = sum(1 for _ in (folder / name).glob("*.png"))
        if found != number:
            return f"{found} of {number} images in `{name}`"
    return None
