"""The names of ImageNet's classes, in the orders in which networks answer; timm has the lists."""

from __future__ import annotations


def part_of(num_classes: int, tag: str) -> str | None:
    """Return which part of ImageNet timm's weights `tag` tell apart, or None where their classes are not known.

    The number of classes says it, except for 1000, which timm also writes where nothing was said.
    """
    from timm.data.imagenet_info import infer_imagenet_subset

    part: str | None = infer_imagenet_subset({"num_classes": num_classes})
    return None if part == "imagenet-1k" and "in1k" not in tag else part


def names_in(part: str) -> tuple[str, ...]:
    """Return WordNet's words for each class of `part`, such as `imagenet-1k`, in order; some classes share theirs."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo(part).label_descriptions())
