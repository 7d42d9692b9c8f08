"""linne's own networks, sized by their input: `lenet`, `mlp`, `small` and `speedrun`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from linne.models import checks, config_json
from linne.models.provider import InputDefaults, ModelRef, Pretrained, Variant

if TYPE_CHECKING:
    from torch import nn

OPTIONS = {
    "lenet": ("dropout",),
    "mlp": ("dropout",),
    "small": ("dropout", "width"),
    "speedrun": ("dropout", "width", "patch_stride"),
}
"""By network, the fields of `Variant` that it takes, which are also its options in a `ModelRef`."""
NAMES = tuple(OPTIONS)


class OwnModels:
    """The provider `linne`."""

    def why_unavailable(self) -> str | None:
        """Return why torch cannot be used, or None."""
        try:
            import torch  # noqa: F401
        except Exception as error:
            return checks.import_failure("torch", error)
        return None

    def names(self) -> list[str]:
        """Return every network's name, sorted, without importing anything."""
        return list(NAMES)

    def input_defaults(self, name: str) -> InputDefaults | None:
        """Return None: our networks are sized by their input."""
        checks.require_known("linne", name, NAMES)
        return None

    def pretrained(self, name: str) -> list[Pretrained]:
        """Return none: ours are trained in minutes."""
        checks.require_known("linne", name, NAMES)
        return []

    def describe(
        self, name: str, *, num_classes: int, channels: int, height: int, width: int, variant: Variant
    ) -> ModelRef:
        """Return the reference, having run the network on shapes alone."""
        checks.require_known("linne", name, NAMES)

        def at(channels: int, height: int, width: int, options: Mapping[str, Any]) -> ModelRef:
            return ModelRef(
                provider="linne",
                name=name,
                num_classes=num_classes,
                channels=channels,
                height=height,
                width=width,
                options=options,
            )

        arguments = {option: {option: getattr(variant, option)} for option in OPTIONS[name]}
        for wish in ("drop_path", "blur_pool", "width", "patch_stride"):
            if wish not in arguments and getattr(variant, wish):
                raise checks.takes_no(at(channels, height, width, {}), wish)
        wished = checks.wishes(variant, arguments)
        return checks.checked(at, self.build, channels, height, width, wished)

    def build(self, ref: ModelRef) -> nn.Module:
        """Return the network with freshly drawn weights, in training mode."""
        checks.require_known("linne", ref.name, NAMES)
        checks.require_options(ref, OPTIONS[ref.name])
        size = (ref.num_classes, ref.channels, ref.height, ref.width)
        options = [ref.options.get(option) for option in OPTIONS[ref.name]]
        if ref.name == "lenet":
            from linne.models.lenet import build_lenet

            return build_lenet(*size, *options)
        if ref.name == "mlp":
            from linne.models.mlp import build_mlp

            return build_mlp(*size, *options)
        if ref.name == "speedrun":
            from linne.models.speedrun import build_speedrun

            return build_speedrun(*size, *options)
        from linne.models.small import build_small

        return build_small(*size, *options)

    def config(self, ref: ModelRef, labels: tuple[str, ...], input_spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return timm's layout under an architecture and model type that other libraries refuse by name."""
        return config_json.foreign_layout(ref, labels, input_spec)
