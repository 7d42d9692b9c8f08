"""What the files beside a model's weights say: its labels, how pixels are prepared, and the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linne.bundle_format import MAX_JSON_BYTES, parse_json
from linne.errors import BundleError, LinneError
from linne.preprocess import CROP_MODES, INTERPOLATIONS, InputSpec

PILLOW_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""`resample` in a preprocessor's file is Pillow's number of the filter."""
CONVNEXT_SQUASH_FROM = 384
"""From this size on transformers' ConvNeXT preprocessing stretches the image instead of cutting it."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What was said; None where it was not, or in a way that `InputSpec` cannot express."""

    labels: tuple[str, ...] | None = None
    input: InputSpec | None = None
    model: str | None = None
    licence: str | None = None


def read_beside(folder: Path) -> Beside:
    """Return what `config.json` (timm's or Hugging Face's) and `preprocessor_config.json` in `folder` say.

    Raises:
        LinneError: one of them is there and is not JSON, or says something that contradicts itself.
    """
    config = _json(folder / "config.json")
    preprocessor = _json(folder / "preprocessor_config.json")
    timm = config.get("pretrained_cfg")
    try:
        found = _timm_input(timm) if isinstance(timm, dict) else _hf_input(preprocessor) if preprocessor else None
    except (BundleError, TypeError, ValueError, ZeroDivisionError) as error:
        reason = error.message if isinstance(error, LinneError) else error
        raise LinneError(f"`{folder}` says how pixels are prepared in a way that makes no sense: {reason}") from error
    return Beside(labels=_labels(config), input=found, model=_model(config))


def _json(path: Path) -> dict[str, Any]:
    """Return the object in `path`, empty where there is no such file."""
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_JSON_BYTES:
        raise LinneError(f"`{path}` has {path.stat().st_size:,} bytes, expected at most {MAX_JSON_BYTES:,}")
    return parse_json(path.read_bytes(), str(path))


def _model(config: Mapping[str, Any]) -> str | None:
    """Return the network's full name; timm's layout says `architecture`, Hugging Face's `model_type`."""
    architecture, kind = config.get("architecture"), config.get("model_type")
    if isinstance(architecture, str) and architecture:
        return architecture if "/" in architecture else f"timm/{architecture}"
    return f"hf:{kind}" if isinstance(kind, str) and kind else None


def _labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the labels in the order of the outputs, as they are written: ImageNet's `crane` is there twice."""
    names = config.get("label_names")
    if names is None:
        by_number = config.get("id2label")
        if not isinstance(by_number, dict):
            return None
        numbers = [str(number) for number in range(len(by_number))]
        if set(by_number) != set(numbers):
            return None
        names = [by_number[number] for number in numbers]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    placeholders = all(name == f"LABEL_{number}" for number, name in enumerate(names))
    return None if placeholders else tuple(names)


def _timm_input(about: Mapping[str, Any]) -> InputSpec | None:
    """Return the input of timm's `pretrained_cfg`, or None where it lacks a part or has one that is unknown here."""
    size, mean, std = about.get("input_size"), about.get("mean"), about.get("std")
    interpolation, mode = about.get("interpolation", "bicubic"), about.get("crop_mode", "center")
    if not (isinstance(size, list) and len(size) == 3 and isinstance(mean, list) and isinstance(std, list)):
        return None
    if interpolation not in INTERPOLATIONS or mode not in CROP_MODES:
        return None
    channels, height, width = map(int, size)
    return InputSpec(
        channels=channels,
        height=height,
        width=width,
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        interpolation=interpolation,
        crop_pct=float(about.get("crop_pct", 1.0)),
        crop_mode=mode,
    )


def _hf_input(about: Mapping[str, Any]) -> InputSpec | None:
    """Return the input of a `preprocessor_config.json`, or None where its steps have no equal in `InputSpec`."""
    geometry = _hf_geometry(about)
    interpolation = PILLOW_FILTERS.get(about.get("resample", -1))  # each kind has its own default
    if geometry is None or interpolation is None:
        return None
    height, width, crop_pct, mode = geometry
    mean, std = about.get("image_mean"), about.get("image_std")
    if not about.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    if not isinstance(mean, list) or not isinstance(std, list):
        return None
    # They scale pixels 0-255 by `rescale_factor` before (x - mean) / std, InputSpec by 1 / 255:
    # (255 f u - mean) / std = (u - mean / 255 f) / (std / 255 f).
    scale = 255.0 * float(about.get("rescale_factor", 1 / 255)) if about.get("do_rescale", True) else 255.0
    shift = 1.0 if about.get("rescale_offset") else 0.0  # EfficientNet's: f x - 1
    return InputSpec(
        channels=len(mean),
        height=height,
        width=width,
        mean=tuple((float(m) + shift) / scale for m in mean),
        std=tuple(float(s) / scale for s in std),
        interpolation=interpolation,
        crop_pct=crop_pct,
        crop_mode=mode,
    )


def _hf_geometry(about: Mapping[str, Any]) -> tuple[int, int, float, str] | None:
    """Return (height, width, crop_pct, crop_mode); None for steps without an equal.

    `size` is {"height", "width"}, stretched to exactly that; {"shortest_edge"}, which the shorter side becomes; or,
    in older files, a number, which is the latter where a part is cut out after it, but for DeiT and BEiT.
    """
    if not about.get("do_resize", True):
        return None
    kind = str(about.get("image_processor_type") or about.get("feature_extractor_type") or "")
    cuts, size, crop = bool(about.get("do_center_crop", False)), about.get("size"), _pair(about.get("crop_size"))
    edge = size.get("shortest_edge") if isinstance(size, dict) else size
    if isinstance(edge, int) and isinstance(about.get("crop_pct"), int | float) and not cuts:  # ConvNeXT's own rule
        squashed = edge >= CONVNEXT_SQUASH_FROM
        return edge, edge, 1.0 if squashed else float(about["crop_pct"]), "squash" if squashed else "center"
    whole = _pair(size)
    if whole is not None and (isinstance(size, dict) or not cuts or kind.startswith(("DeiT", "Beit"))):
        crop = crop if cuts and crop else whole
        shares = {_share(cut, full) for cut, full in zip(crop, whole, strict=True)}
        return (*crop, shares.pop(), "squash") if len(shares) == 1 and crop <= whole else None
    # Without a cut each image keeps its own proportions, and a batch of them has no one shape.
    if not isinstance(edge, int) or not cuts or crop is None or crop[0] != crop[1]:
        return None
    if kind.startswith("Levit"):
        edge = int(256 / 224 * edge)
    return (*crop, _share(crop[0], edge), "center") if crop[0] <= edge else None


def _share(cut: int, full: int) -> float:
    """Return the `crop_pct` with which `floor(cut / crop_pct)` is `full` again, whatever the rounding."""
    return cut / full if int(cut / (cut / full)) == full else cut / (full + 0.5)


def _pair(value: Any) -> tuple[int, int] | None:
    """Return (height, width) of a number or of {"height", "width"}."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    if isinstance(value, dict) and isinstance(value.get("height"), int) and isinstance(value.get("width"), int):
        return value["height"], value["width"]
    return None
