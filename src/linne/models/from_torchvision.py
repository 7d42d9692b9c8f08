"""torchvision's classification networks, with random weights, and where their pretrained ones lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from linne.errors import RecipeError
from linne.models import checks, config_json
from linne.models.provider import InputDefaults, ModelRef, Pretrained, Variant, WebFile, hash_in

if TYPE_CHECKING:
    from torch import nn

DROPOUT_FAMILIES = (
    "alexnet",
    "efficientnet",
    "googlenet",
    "inception",
    "mnasnet",
    "mobilenet",
    "squeezenet",
    "vgg",
)
"""Whose constructor's `dropout` is the one before the classifier. `vit`'s and `swin`'s is in every block."""

OPTIONS = ("aux_logits", "dropout", "image_size", "input_size", "stochastic_depth_prob")
"""What a `ModelRef` may hold."""
FROM_TENSORFLOW = ("googlenet", "inception_v3")
"""Whose weights were trained with mean and deviation 0.5. torchvision hands them ImageNet's, and turns those into 0.5
inside the network (`transform_input`); built without that they take 0.5 itself, which works for grey images too."""


class TorchvisionModels:
    """The provider `torchvision`."""

    def why_unavailable(self) -> str | None:
        """Return why torchvision cannot be used, or None."""
        try:
            import torchvision  # noqa: F401
        except Exception as error:
            return checks.import_failure("torchvision", error)
        return None

    def names(self) -> list[str]:
        """Return every classifier's name, sorted; detection, segmentation and video are left out."""
        from torchvision import models

        return sorted(models.list_models(module=models))

    def input_defaults(self, name: str) -> InputDefaults:
        """Return what torchvision's default weights of `name` were trained for. Nothing is fetched."""
        from torchvision import models

        checks.require_known("torchvision", name, self.names())
        return _input_of(name, models.get_model_weights(name).DEFAULT.transforms())

    def pretrained(self, name: str) -> list[Pretrained]:
        """Return the weights that torchvision knows for `name`, the default first."""
        from torchvision import models

        checks.require_known("torchvision", name, self.names())
        every = models.get_model_weights(name)
        return [_pretrained(name, weights) for weights in dict.fromkeys((every.DEFAULT, *every))]

    def describe(
        self, name: str, *, num_classes: int, channels: int, height: int, width: int, variant: Variant
    ) -> ModelRef:
        """Return the reference, having run the network on shapes alone.

        `options` holds `image_size` or `input_size` for networks whose weights depend on it, and what `variant`
        asks for.
        """
        designed = self.input_defaults(name).height

        def at(channels: int, height: int, width: int, wished: Mapping[str, Any]) -> ModelRef:
            options: dict[str, Any] = dict(wished)
            if name.startswith("vit_"):
                options["image_size"] = height  # square only: another width fails the check
            if name.startswith("maxvit_"):
                options["input_size"] = [height, width]
            return ModelRef(
                provider="torchvision",
                name=name,
                num_classes=num_classes,
                channels=channels,
                height=height,
                width=width,
                options=options,
            )

        for wish in ("width", "patch_stride"):
            if getattr(variant, wish) is not None:
                raise checks.takes_no(at(channels, height, width, {}), wish)
        if variant.blur_pool:
            raise checks.takes_no(at(channels, height, width, {}), "blur_pool")
        arguments = {
            "dropout": {"dropout": variant.dropout},
            "drop_path": {"stochastic_depth_prob": variant.drop_path},
        }
        wished = checks.wishes(variant, arguments)
        return checks.checked(at, self.build, channels, height, width, wished, designed)

    def build(self, ref: ModelRef) -> nn.Module:
        """Return the network with freshly drawn weights, in training mode. Nothing is fetched.

        With one channel it is the network that gives a grey image the answer that the three-channel network with
        the same seed gives to it in all three channels.
        """
        from torchvision import models

        checks.require_known("torchvision", ref.name, self.names())
        checks.require_options(ref, OPTIONS)
        if "dropout" in ref.options and not ref.name.startswith(DROPOUT_FAMILIES):
            raise checks.takes_no(ref, "dropout")
        arguments = dict(ref.options)
        if ref.full_name in checks.WITH_HEADS:
            # Auxiliary heads change what training mode returns; without a choice of init_weights it warns.
            arguments = {"aux_logits": False, "init_weights": True, **arguments}
        network: nn.Module = models.get_model(ref.name, weights=None, num_classes=ref.num_classes, **arguments)
        if ref.channels == 1:
            _take_grey(network)
        return network

    def config(self, ref: ModelRef, labels: tuple[str, ...], input_spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return timm's layout under an architecture and model type that other libraries refuse by name."""
        return config_json.foreign_layout(ref, labels, input_spec)


def _input_of(name: str, preset: Any) -> InputDefaults:
    """Return what torchvision's `ImageClassification` preset does to an image."""
    side, resized = preset.crop_size[0], preset.resize_size[0]
    half = (0.5, 0.5, 0.5)
    red, green, blue = half if name in FROM_TENSORFLOW else preset.mean
    red_std, green_std, blue_std = half if name in FROM_TENSORFLOW else preset.std
    return InputDefaults(
        height=side,
        width=side,
        mean=(red, green, blue),
        std=(red_std, green_std, blue_std),
        interpolation=preset.interpolation.value,
        crop_pct=side / resized,
        fixed_size=name.startswith(("vit_", "maxvit_")),
    )


def _pretrained(name: str, weights: Any) -> Pretrained:
    where = WebFile(url=weights.url)
    classes = weights.meta.get("categories")  # one of VGG's has no classifier, and says so with None
    return Pretrained(
        provider="torchvision",
        name=name,
        tag=weights.name,
        where=where,
        sha256_prefix=hash_in(where.filename),
        size_bytes=round(weights.meta["_file_size"] * 2**20) if "_file_size" in weights.meta else None,
        licence=weights.meta.get("license"),
        input=_input_of(name, weights.transforms()),
        num_classes=len(classes or ()),
        classes=tuple(classes) if classes else None,
    )


def _take_grey(network: nn.Module) -> None:
    """Make the first convolution of RGB take one channel instead, by summing its weights over the colours.

    The sum keeps the size of what comes out: drawn for a fan-in of three colours, used with one.
    """
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            module.weight = nn.Parameter(module.weight.detach().sum(dim=1, keepdim=True))
            module.in_channels = 1
            return
    raise RecipeError("the network has no convolution that takes RGB, so it cannot take grey images")
