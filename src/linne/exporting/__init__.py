"""A bundle in other forms, for other runtimes and precisions: each is compared with the bundle before it is kept.

One file a form, one entry in `KINDS`. The forms lie in the bundle's `exports/`, as `linne.exports` keeps them.
"""

from __future__ import annotations

import importlib
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from linne.bundle import Bundle
from linne.errors import RecipeError, suggest
from linne.exporting.wish import Exported, Made, Wish
from linne.exports import COMPILED, PIXELS, remember_made, require_room, write_export

KINDS: Mapping[str, str] = {
    "onnx": "linne.exporting.to_onnx:make",
    "openvino": "linne.exporting.to_openvino:make",
    "tensorrt": "linne.exporting.to_tensorrt:make",
    "tflite": "linne.exporting.to_tflite:make",
    "torch-export": "linne.exporting.to_torch_export:make",
    "torchscript": "linne.exporting.to_torchscript:make",
    "migraphx": "linne.exporting.to_migraphx:make",
}
"""What can come after `--to`, and who makes it: `make(bundle, wish, say) -> Made`, verified."""

IN_INT8 = ("onnx", "openvino", "tflite")
"""Those of them that can be in int8."""


def require_kind(kind: str) -> None:
    """Raise RecipeError unless there is such a kind of export."""
    if kind not in KINDS:
        raise RecipeError(f"no kind of export `{kind}`", hint=suggest(kind, KINDS) or f"use {', '.join(KINDS)}")


def export_bundle(
    bundle: Bundle, kind: str, wish: Wish, *, replace: bool = False, say: Callable[[str], None]
) -> Exported:
    """Return what was made of `bundle`, in its `exports/` and verified.

    Args:
        kind: a key of `KINDS`.
        replace: whether an export of that name may give way, once the new one is whole.
        say: is told each step, in a line.

    Raises:
        LinneError: there is no such kind, it is not for this bundle, or there is an export of that name.
        CheckFailed: it does not answer as the bundle does; nothing is written.
    """
    require_kind(kind)
    if kind not in COMPILED and (wish.device != "auto" or wish.options):
        raise RecipeError(
            f"`--device` and `--backend-option` are for what is compiled for a device, not for `{kind}`",
            hint=f"leave them out, or use --to {' or '.join(COMPILED)}",
        )
    stored = kind + PIXELS if wish.pixels else kind
    require_room(bundle, stored, wish.precision, replace=replace)
    module, _, attribute = KINDS[kind].partition(":")
    make: Callable[[Bundle, Wish, Callable[[str], None]], Made] = getattr(importlib.import_module(module), attribute)
    started = time.perf_counter()
    made = make(bundle, wish, say)
    seconds = time.perf_counter() - started

    def fill(folder: Path) -> str:
        for name, content in made.files.items():
            (folder / name).write_bytes(content)
        return made.main

    export = write_export(
        bundle,
        stored,
        wish.precision,
        fill=fill,
        canary_logits=lambda _: made.canary_logits_NK.tolist(),
        facts={**_facts(), **made.facts, "agreement": made.agreement.to_dict()},
        replace=replace,
    )
    if kind in COMPILED:
        remember_made(export, made.files[made.main])
    return Exported(export=export, agreement=made.agreement, seconds=seconds)


def _facts() -> dict[str, Any]:
    """Return what is kept of every export: the command and the versions; a target adds its own."""
    versions = {"python": platform.python_version(), "numpy": np.__version__, "platform": platform.platform()}
    for name in ("torch", "torchvision", "timm", "transformers", "onnx", "onnxscript", "onnxruntime"):
        if name in sys.modules:
            versions[name] = str(getattr(sys.modules[name], "__version__", "unknown"))
    return {"command": ["linne", *sys.argv[1:]], "versions": versions}
