"""A museum of odd images, made by code: each with one defined result, the pixels it shows or why it is refused.

`scripts/make_museum FOLDER` writes them as files, with a table.
"""

from __future__ import annotations

from functools import cache

from museum import bmps, gifs, jpegs, pngs, strangers, tiffs
from museum.picture import Exhibit


@cache
def exhibits() -> tuple[Exhibit, ...]:
    """Return every exhibit, each under a name of its own."""
    modules = (jpegs, pngs, gifs, bmps, tiffs, strangers)
    return tuple(exhibit for module in modules for exhibit in module.exhibits())
