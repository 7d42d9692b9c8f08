"""Which compiled programs linne wrote for this user: the only ones that it runs without being told to trust them.

A compiled program is code. That its sha256 is the one in `export.json` shows that it did not change, not who wrote
it: a stranger's export is sealed as well as one's own. So linne notes the sha256 of each that it writes in the user's
cache folder, where no bundle brings anything along. Who can write there as this user needs no program to run code.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from linne.data.places import cache_folder
from linne.errors import LinneError

FOLDER = "compiled"


def note(content: bytes) -> None:
    """Note that linne has just compiled the program whose file has this content.

    Raises:
        LinneError: the cache folder cannot be written to.
    """
    path = _place(content)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(f"{path.name}\n", "ascii")
    except OSError as error:
        raise LinneError(
            f"`{path}` cannot be written: {error.strerror}; there linne notes which programs it compiled itself",
            hint="LINNE_CACHE=DIR names another cache folder",
        ) from error


def is_noted(content: bytes) -> bool:
    """Return whether linne compiled the program of this content for this user, in this cache folder.

    A file that another user has put into a shared cache folder is no note.
    """
    path = _place(content)
    try:
        with path.open("rb") as file:
            own = not hasattr(os, "geteuid") or os.fstat(file.fileno()).st_uid == os.geteuid()
            return own and file.read(65) == f"{path.name}\n".encode("ascii")
    except OSError:
        return False


def _place(content: bytes) -> Path:
    return cache_folder() / FOLDER / hashlib.sha256(content).hexdigest()
