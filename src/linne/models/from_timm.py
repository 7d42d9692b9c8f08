"""timm's networks, with random weights, in any size and number of channels they can be built for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from linne.models import checks, config_json
from linne.models.provider import InputDefaults, ModelRef

if TYPE_CHECKING:
    from timm.models import PretrainedCfg
    from torch import nn


class TimmModels:
    """The provider `timm`."""

    def why_unavailable(self) -> str | None:
        """Return why timm cannot be used, or None."""
        try:
            import timm  # noqa: F401
        except Exception as error:
            return checks.import_failure("timm", error)
        return None

    def names(self) -> list[str]:
        """Return every architecture's name, sorted, without weight tags and deprecated names."""
        import timm

        return sorted(timm.list_models())

    def input_defaults(self, name: str) -> InputDefaults:
        """Return what timm's default weights of `name` were trained for."""
        about = self._about(name)
        _, height, width = about.input_size
        red, green, blue = about.mean
        red_std, green_std, blue_std = about.std
        return InputDefaults(
            height=height,
            width=width,
            mean=(red, green, blue),
            std=(red_std, green_std, blue_std),
            interpolation=about.interpolation,
            crop_pct=about.crop_pct,
            fixed_size=about.fixed_input_size,
        )

    def describe(
        self, name: str, *, num_classes: int, channels: int, height: int, width: int, dropout: float | None
    ) -> ModelRef:
        """Return the reference, having run the network on shapes alone.

        `options` holds `img_size` for networks whose weights depend on it, and `drop_rate`.
        """
        # timm's own rule: fixed_input_size says that the constructor takes `img_size`.
        about = self._about(name)
        sized, designed = about.fixed_input_size, about.input_size[1]

        def at(channels: int, height: int, width: int, dropout: float | None) -> ModelRef:
            options: dict[str, Any] = {"img_size": [height, width]} if sized else {}
            if dropout is not None:
                options["drop_rate"] = dropout
            return ModelRef(
                provider="timm",
                name=name,
                num_classes=num_classes,
                channels=channels,
                height=height,
                width=width,
                options=options,
            )

        return checks.checked(at, self.build, channels, height, width, dropout, designed)

    def build(self, ref: ModelRef) -> nn.Module:
        """Return the network with freshly drawn weights, in training mode. Nothing is fetched."""
        import timm

        # Not only for the error text: timm would follow a name such as `hf-hub:...` to the network.
        checks.require_known("timm", ref.name, self.names())
        checks.require_options(ref, ("drop_rate", "img_size"))
        return timm.create_model(
            ref.name, pretrained=False, num_classes=ref.num_classes, in_chans=ref.channels, **ref.options
        )

    def config(self, ref: ModelRef, labels: tuple[str, ...], input_spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return the file with which timm (`local-dir:`) and transformers load the bundle."""
        about = self._about(ref.name)
        # Dropout belongs to training; timm leaves it out as well. RGB is every constructor's default.
        model_args = {key: value for key, value in ref.options.items() if key == "img_size"}
        if ref.channels != 3:
            model_args["in_chans"] = ref.channels
        # The two layers that timm replaces when someone goes on from these weights with other channels or classes.
        layers = {"first_conv": _plain(about.first_conv), "classifier": _plain(about.classifier)}
        return config_json.timm_layout(
            ref.name,
            labels,
            input_spec,
            model_args=model_args,
            about={"fixed_input_size": about.fixed_input_size, **layers},
        )

    def _about(self, name: str) -> PretrainedCfg:
        """Return timm's own description of `name`, as of its default weights."""
        from timm.models import PretrainedCfg, get_pretrained_cfg

        # Looking through all names takes milliseconds, too long for a listing that comes here for each of them.
        about = get_pretrained_cfg(name) if "." not in name else None
        if about is None:
            checks.require_known("timm", name, self.names())
        return about or PretrainedCfg()


def _plain(names: str | tuple[str, ...] | None) -> str | list[str] | None:
    return list(names) if isinstance(names, tuple) else names
