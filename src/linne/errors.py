"""The exceptions linne raises for things a user can put right.

LinneError          anything a user can put right: exit code 1
├── RecipeError     an option, recipe or model name that cannot be used
├── SourceError     a source that cannot be found, read or trusted
├── ImageError      one image that cannot be decoded
├── BundleError     a bundle that is incomplete, altered or not understood
├── DeviceError     a device that cannot be used
├── OutOfMemory     too many images at once for one of several processes: the same with fewer may succeed
└── CheckFailed     work that ran but failed its check: exit code 3
"""

from __future__ import annotations

from collections.abc import Iterable


class LinneError(Exception):
    """Something the user can put right, said in one sentence, with what to do next in `hint`."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RecipeError(LinneError):
    """An option, recipe or model name that cannot be used."""


class SourceError(LinneError):
    """A source that cannot be found, read or trusted."""


class ImageError(LinneError):
    """One image that cannot be decoded."""


class BundleError(LinneError):
    """A bundle that is incomplete, altered or not understood."""


class DeviceError(LinneError):
    """A device that cannot be used."""


class OutOfMemory(LinneError):
    """One of several processes ran out of memory in the middle of a step, from which it cannot go on."""

    def __init__(self, message: str, *, micro_batch: int, hint: str | None = None) -> None:
        """`micro_batch` is how many images each process should compute at once from here on."""
        super().__init__(message, hint=hint)
        self.micro_batch = micro_batch


class CheckFailed(LinneError):
    """Work that ran to its end, or to a stop, and failed its check."""

    exit_code = 3


def suggest(name: str, options: Iterable[str]) -> str | None:
    """Return "did you mean `x`?" for the nearest of `options`, or None when nothing is near."""
    from difflib import get_close_matches  # imported only when an error is being made

    options = list(options)
    begun = [option for option in options if len(name) >= 3 and option.startswith(name)]
    matches = [min(begun, key=len)] if begun else get_close_matches(name, options, n=1, cutoff=0.6)
    return f"did you mean `{matches[0]}`?" if matches else None
