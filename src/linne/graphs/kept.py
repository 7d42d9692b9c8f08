"""Graphs as ONNX Runtime rewrote them for this processor, kept so that they open in half the time.

They lie in linne's cache folder, may be deleted at any time, and hold nothing that is not made again from the graph.
Each is compared with its sha256 before it is used, and answers the canaries like any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from linne.bundle_format import (
    EXPORT_MANIFEST,
    EXPORTS,
    GRAPH,
    MANIFEST,
    check_files,
    describe_file,
    parse_json,
    read_bytes,
)
from linne.errors import BundleError
from linne.hash_ahead import HashAhead
from linne.host import cache_folder, processor_features

FACTS = "kept.json"
LEAST_BYTES = 16 * 2**20
"""A smaller graph opens in hundredths of a second."""
MOST_BYTES = 2**30
"""ONNX Runtime writes the whole graph as one message of at most 2 GiB, and rewritten it is somewhat larger."""
ALL_BYTES = 4 * 2**30
"""Of all that is kept; what was not used for longest goes first."""


@dataclass(frozen=True, slots=True)
class KeptGraph:
    """The place for what the graph with a certain sha256 is rewritten to on this processor."""

    sha256: str
    """Of the graph as it was exported, in hexadecimal."""
    ahead: HashAhead | None = None
    root: Path = field(default_factory=lambda: cache_folder() / "graphs")

    @property
    def folder(self) -> Path:
        """Where it is, or would be: another processor, with the same home folder, has its own."""
        return self.root / hashlib.sha256(f"{self.sha256}\n{processor_features()}".encode()).hexdigest()[:32]

    def find(self, runtime: str) -> Path | None:
        """Return the rewritten graph; None where there is none by this `runtime`, or it is not as it was written."""
        folder = self.folder
        try:
            if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
                return None
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            if facts["runtime"] != runtime or facts["of"] != self.sha256:
                return None
            check_files(folder, {GRAPH: facts["file"]}, ahead=self.ahead)
            os.utime(folder)  # used now: not among the first to go
        except (BundleError, OSError, ValueError, KeyError, TypeError):
            return None  # whatever is wrong with it, the graph itself is there
        return folder / GRAPH

    @contextlib.contextmanager
    def written(self, runtime: str) -> Iterator[Path]:
        """Yield the path for the runtime to write the rewritten graph to; it is kept when the block ends well.

        Raises:
            OSError: there is no place for it.
        """
        partial = self.root / f"{self.folder.name}.{uuid4().hex}.partial"
        partial.mkdir(parents=True)
        try:
            yield partial / GRAPH
            facts = {"runtime": runtime, "of": self.sha256, "file": describe_file(partial, GRAPH)}
            (partial / FACTS).write_text(json.dumps(facts), encoding="utf-8")
            if self.folder.exists():  # by another version, damaged, or kept by another process meanwhile
                shutil.rmtree(self.folder)
            partial.rename(self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process may be tidying up as well
            self._make_room()

    def _make_room(self) -> None:
        """Remove what was not used for longest until all together fits; and what a killed process left behind."""
        entries = [entry for entry in self.root.iterdir() if entry.is_dir()]
        total, day_ago = 0, time.time() - 24 * 3600
        for entry in sorted(entries, key=lambda entry: entry.stat().st_mtime_ns, reverse=True):
            total += sum(file.stat().st_size for file in entry.iterdir())
            if total > ALL_BYTES or (entry.suffix == ".partial" and entry.stat().st_mtime < day_ago):
                shutil.rmtree(entry)


def likely_files(bundle: Path, precision: str) -> list[Path]:
    """Return what will probably run for the bundle in a folder: a kept graph, else the graph. Nothing is checked.

    Raises:
        BundleError, LookupError, TypeError: it is no bundle with such a graph.
    """
    own = precision == "fp32" and (bundle / GRAPH).exists()
    folder = bundle if own else bundle / EXPORTS / f"onnx-{precision}"
    manifest = MANIFEST if own else EXPORT_MANIFEST
    listed = parse_json(read_bytes(folder, manifest), manifest)["files"]
    kept = KeptGraph(listed[GRAPH]["sha256"]).folder / GRAPH
    return [kept if kept.exists() else folder / GRAPH]
