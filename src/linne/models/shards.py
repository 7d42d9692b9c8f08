"""Weights in several files: what the index beside them says, and nothing that it could be made to say."""

from __future__ import annotations

import re
from pathlib import Path

from linne.bundle_format import MAX_JSON_BYTES, parse_json
from linne.errors import LinneError

INDEX = ".index.json"
"""How the name of an index ends."""
MAX_SHARDS = 1000
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def read_index(index: Path) -> dict[str, str]:
    """Return the file of each tensor, all of them plain names of files beside `index`.

    Raises:
        LinneError: it is too long, is no index, or names something else.
    """
    size = index.stat().st_size
    if size > MAX_JSON_BYTES:
        raise LinneError(f"`{index}` has {size:,} bytes, and the limit is {MAX_JSON_BYTES:,}")
    where = parse_json(index.read_bytes(), index.name).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise LinneError(f"`{index}` has no `weight_map`", hint="copy or download it again")
    names = {str(name) for name in where.values()}
    if len(names) > MAX_SHARDS:
        raise LinneError(f"`{index}` lists {len(names):,} files, expected at most {MAX_SHARDS:,}")
    for name in sorted(names):
        if not _PLAIN.fullmatch(name):
            raise LinneError(f"`{index}` names `{name}`, expected a file beside it")
    return {str(tensor): str(name) for tensor, name in where.items()}
