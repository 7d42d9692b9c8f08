"""What was measured so far, a line a candidate: an interrupted search goes on, and the next one knows what it found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from linne.bundle import Bundle
from linne.bundle_format import EXPORTS
from linne.exports import exports_of, identity_of
from linne.tuned import machine_name, versions_of
from linne.tuning.candidate import Candidate

FILE = "tuning.jsonl"
MOST_BYTES = 16 << 20


class TuningLog:
    """Results by candidate, for one state of a bundle, its exports, this machine and the versions of each backend."""

    def __init__(self, bundle: Bundle) -> None:
        """Read what there is; lines that cannot be read, as a kill may leave one, are passed over."""
        self.path = bundle.path / EXPORTS / FILE
        exported = {export.name: export.files[export.main]["sha256"] for export in exports_of(bundle)}
        self._place = {"of": identity_of(bundle), "machine": machine_name(), "exports": exported}
        self._rows: dict[str, Mapping[str, Any]] = {}
        for line in self._lines():
            try:
                row = json.loads(line)
                if all(row[key] == value for key, value in self._place.items()):
                    self._rows[str(row["key"])] = row["result"]
            except (ValueError, KeyError, TypeError):
                continue

    def _lines(self) -> list[str]:
        try:
            if self.path.is_symlink() or self.path.stat().st_size > MOST_BYTES:
                return []
            return self.path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return []

    def get(self, step: str, candidate: Candidate) -> Mapping[str, Any] | None:
        """Return what `step` found of the candidate, or None."""
        return self._rows.get(_key(step, candidate))

    def add(self, step: str, candidate: Candidate, result: Mapping[str, Any]) -> None:
        """Keep what `step` found of the candidate, at once."""
        key = _key(step, candidate)
        self._rows[key] = result
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**self._place, "key": key, "result": dict(result)}) + "\n")


def _key(step: str, candidate: Candidate) -> str:
    return json.dumps([step, candidate.words, candidate.how.device, versions_of(candidate.backend)])
