"""What the children that try an inference runtime share: how one loads it, and what it reports of a device.

A probe started alone says what the runtime is (`runtime`: what was `found` in a clause, the `devices`, and which of
them is its `own`, needing no accelerator) and opens that one; with `--device NAME`, it opens the one asked for.
`missing` and `broken` come in place of `runtime`. What a device did is a `session`: who `computes`, the `result`, and
what it `raised`.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

from linne.child import said_of, say
from linne.doctor.tiny_model import EXPECTED

Compute = Callable[[dict[str, Any]], None]
"""Opens a device and computes; writes `computes`, `result` and what else it learns, each as soon as it is known."""


def asked_device(words: Sequence[str] | None, description: str) -> str | None:
    """Return the device that the command line asks for; None where it asks what there is."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device")
    device: str | None = parser.parse_args(words).device
    return device


def load(name: str) -> Any:
    """Return the module `name`; None, after reporting it `missing` or `broken`, where it cannot be imported.

    By name: no runtime is among linne's dependencies, and nothing of them is typed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        say("missing" if error.name == name else "broken", reason=f"{error}")
    except BaseException as error:  # a wheel for another system raises OSError, a half-removed one AttributeError
        say("broken", reason=said_of(error))
    return None


def version_of(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a module without its metadata, as of a source tree
        return "of unknown version"


def try_device(device: str, compute: Compute) -> None:
    """Report whether `device` computes; everything it raises is a finding."""
    say("starts", device=device)
    facts: dict[str, Any] = {"device": device, "raised": "", "computes": [], "result": None, "expected": list(EXPECTED)}
    try:
        compute(facts)
    except Exception as error:
        facts["raised"] = said_of(error)
    say("session", **facts)
