"""The child that replays a bundle's canaries: `python -m linne.doctor.probe_bundle BUNDLE --device cpu`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from linne.bundle import open_bundle
from linne.child import said_of, say
from linne.errors import LinneError
from linne.inference.backends import load_backend
from linne.inference.backends.base import RunOptions
from linne.inference.predictor import Predictor


def main(words: Sequence[str] | None = None) -> int:
    """Report how far the bundle's answers are, on one backend and device, from those it had when it was written."""
    parser = argparse.ArgumentParser(description="replay a bundle's canaries on a backend and a device")
    parser.add_argument("bundle")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--trust-code", action="store_true")
    asked = parser.parse_args(words)
    try:
        backend = load_backend(asked.backend)
        reason = backend.why_unavailable()
        if reason is not None:
            say("unavailable", reason=reason)
            return 0
        bundle = open_bundle(asked.bundle)
        say("starts", backend=asked.backend)
        how = RunOptions(device=asked.device, trust_code=asked.trust_code)
        predictor = Predictor(bundle, backend.open(bundle, how), asked.backend, "asked for", how=how)
        worst = predictor.worst_canary()
    except LinneError as error:
        say("refused", reason=error.message, hint=error.hint)
        return 0
    except Exception as error:  # a device's errors are of any kind, and all of them are findings
        say("refused", reason=said_of(error), hint=None)
        return 0
    say(
        "replayed",
        on=predictor.backend.description,
        gap=worst.gap if math.isfinite(worst.gap) else None,
        tolerance=predictor.canary_tolerance,
        file=worst.file,
        expected=worst.expected,
        answer=worst.answer,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
