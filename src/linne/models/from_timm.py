"""timm's networks, with random weights, in any size and number of channels they can be built for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from linne.errors import RecipeError
from linne.models import checks, config_json, imagenet
from linne.models.provider import HubFile, InputDefaults, ModelRef, Pretrained, Variant, WebFile, hash_in

if TYPE_CHECKING:
    from timm.models import PretrainedCfg
    from torch import nn

BLUR = "blurpool"
"""What a bundle calls timm's `BlurPool2d`, which blurs before a stride (Zhang 2019)."""


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
        return _input_of(self._about(name))

    def pretrained(self, name: str) -> list[Pretrained]:
        """Return the weights that timm knows for `name`: from the hub where they are there, as timm does itself."""
        from timm.models import get_arch_pretrained_cfgs

        default = self._about(name).tag
        found = [_pretrained(name, about) for about in get_arch_pretrained_cfgs(name).values() if about.has_weights]
        return sorted(found, key=lambda weights: (weights.tag != default, weights.tag))

    def describe(
        self, name: str, *, num_classes: int, channels: int, height: int, width: int, variant: Variant
    ) -> ModelRef:
        """Return the reference, having run the network on shapes alone.

        `options` holds `img_size` for networks whose weights depend on it, and what `variant` asks for.
        """
        # timm's own rule: fixed_input_size says that the constructor takes `img_size`.
        about = self._about(name)
        sized, designed = about.fixed_input_size, about.input_size[1]

        def at(channels: int, height: int, width: int, wished: Mapping[str, Any]) -> ModelRef:
            options = {**({"img_size": [height, width]} if sized else {}), **wished}
            return ModelRef(
                provider="timm",
                name=name,
                num_classes=num_classes,
                channels=channels,
                height=height,
                width=width,
                options=options,
            )

        arguments: dict[str, dict[str, Any]] = {
            "dropout": {"drop_rate": variant.dropout},
            "drop_path": {"drop_path_rate": variant.drop_path},
            "blur_pool": {"aa_layer": BLUR},
        }
        for wish in ("width", "patch_stride"):
            if getattr(variant, wish) is not None:
                raise checks.takes_no(at(channels, height, width, {}), wish)
        wished = checks.wishes(variant, arguments)
        return checks.checked(at, self.build, channels, height, width, wished, designed)

    def build(self, ref: ModelRef) -> nn.Module:
        """Return the network with freshly drawn weights, in training mode. Nothing is fetched."""
        import timm
        from timm.layers.blur_pool import BlurPool2d

        # Not only for the error text: timm would follow a name such as `hf-hub:...` to the network.
        checks.require_known("timm", ref.name, self.names())
        checks.require_options(ref, ("aa_layer", "drop_path_rate", "drop_rate", "img_size"))
        arguments = dict(ref.options)
        if arguments.get("aa_layer", BLUR) != BLUR:
            raise RecipeError(f"`{ref.full_name}` is described with an aa_layer that linne does not know")
        if "aa_layer" in arguments:
            arguments["aa_layer"] = BlurPool2d  # not every network takes a name
        network: nn.Module = timm.create_model(
            ref.name, pretrained=False, num_classes=ref.num_classes, in_chans=ref.channels, **arguments
        )
        if "aa_layer" in arguments and not any(isinstance(module, BlurPool2d) for module in network.modules()):
            raise checks.takes_no(ref, "blur_pool")
        return network

    def config(self, ref: ModelRef, labels: tuple[str, ...], input_spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return the file with which timm (`local-dir:`) and transformers load the bundle, or refuse it."""
        if "aa_layer" in ref.options:
            # JSON holds no class, and built without it timm's network has the same weights and gives other answers.
            return config_json.foreign_layout(ref, labels, input_spec)
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


def _input_of(about: PretrainedCfg) -> InputDefaults:
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
        crop_mode=about.crop_mode,
    )


def _pretrained(name: str, about: PretrainedCfg) -> Pretrained:
    tag = about.tag or ""
    # timm allows the address to come with a hash; none of its own does.
    address = about.url if isinstance(about.url, str) else (about.url or ("",))[0]
    where: HubFile | WebFile = WebFile(url=address)
    if about.hf_hub_id:
        repository, _, revision = about.hf_hub_id.partition("@")
        filename = about.hf_hub_filename or "pytorch_model.bin"
        safe = "model.safetensors" if filename == "pytorch_model.bin" else f"{filename.rpartition('.')[0]}.safetensors"
        where = HubFile(
            repository=repository, filenames=tuple(dict.fromkeys((safe, filename))), revision=revision or None
        )
    return Pretrained(
        provider="timm",
        name=name,
        tag=tag,
        where=where,
        sha256_prefix=hash_in(where.filename) if isinstance(where, WebFile) else None,
        licence=None if about.license == "unknown" else about.license,
        input=_input_of(about),
        num_classes=about.num_classes,
        classes=imagenet.part_of(about.num_classes, tag),
    )


def _plain(names: str | tuple[str, ...] | None) -> str | list[str] | None:
    return list(names) if isinstance(names, tuple) else names
