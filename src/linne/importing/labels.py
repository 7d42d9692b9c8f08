"""The names of a network's classes, as people and exporters write them down."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from linne.data.sources.synsets import names_of_imagenet
from linne.errors import RecipeError
from linne.models.provider import numbered

IMAGENET = "imagenet"
"""Typed in place of a file for ImageNet's names: said, and never guessed from their number."""
NUM_IMAGENET = 1000
MAX_LABELS_BYTES = 16 * 2**20
IN_GRAPHS = ("names", "labels", "classes", "class_names", "id2label", "label_names")
"""Under which exporters write them into an ONNX file."""


def named(labels: str | Path) -> tuple[tuple[str, ...], str]:
    """Return the names that `labels` stands for, and who says so: the word `imagenet`, or a file.

    A file that is called like the word is typed with its folder: `./imagenet`.

    Raises:
        RecipeError: the file cannot be read, or nothing that is installed knows ImageNet's names.
    """
    if labels != IMAGENET:
        return _read_labels(Path(labels)), f"`{labels}`"
    names = names_of_imagenet()
    if names is None:
        raise RecipeError(
            "ImageNet's names come with timm, which is not installed", hint="pip install timm, or use --labels FILE"
        )
    return names, "ImageNet"


def how_to_name(num_classes: int) -> str:
    """Return the hint for a network of so many classes that nobody names."""
    hint = "use --labels FILE, with one name a line in the order of the classes"
    return f"{hint}; where they are ImageNet's, --labels {IMAGENET}" if num_classes == NUM_IMAGENET else hint


def _read_labels(file: Path) -> tuple[str, ...]:
    """Return the names in a text with one a line, or in JSON: a list, or {"0": name} as `id2label` is written.

    A name that is there twice is numbered, as in `crane (2)`: ImageNet has some.

    Raises:
        RecipeError: it cannot be read, or is neither.
    """
    try:
        with open(file, "rb") as stream:
            data = stream.read(MAX_LABELS_BYTES + 1)
        if len(data) > MAX_LABELS_BYTES:
            raise RecipeError(f"the labels `{file}` are larger than {MAX_LABELS_BYTES // 2**20} MiB")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise RecipeError(f"the labels `{file}` cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the labels `{file}` are not UTF-8 text") from error
    if not text.lstrip().startswith(("[", "{")):
        return numbered([line.strip() for line in text.splitlines() if line.strip()])
    try:
        value = json.loads(text)
        names = [value[str(k)] for k in range(len(value))] if isinstance(value, dict) else value
    except (ValueError, KeyError) as error:
        raise RecipeError(f"the labels `{file}` are neither one a line nor a JSON list") from error
    if not all(isinstance(name, str) for name in names):
        raise RecipeError(f"the labels `{file}` hold something that is no text")
    return numbered(names)


def labels_in(metadata: Mapping[str, str]) -> tuple[tuple[str, ...], str] | None:
    """Return the names in what an exporter wrote into an ONNX file, and under which word; None where there are none.

    Read are JSON and Python literals of a list or of {0: name}, and names with commas or line breaks between them.
    """
    for key in IN_GRAPHS:
        text = metadata.get(key, "")
        if text and len(text) <= MAX_LABELS_BYTES and (names := _names_in(text)) is not None:
            return numbered(names), key
    return None


def _names_in(text: str) -> list[str] | None:
    if not text.lstrip().startswith(("[", "{", "(")):
        parts = text.splitlines() if "\n" in text.strip() else text.split(",")
        names = [part.strip() for part in parts if part.strip()]
        return names if len(names) > 1 else None
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    if isinstance(value, dict):
        by_number = {str(key): name for key, name in value.items()}
        value = [by_number.get(str(k)) for k in range(len(by_number))]
    return list(value) if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value) else None
