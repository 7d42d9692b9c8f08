"""Image classifiers of Hugging Face's transformers, built from a configuration; its code, and nobody else's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.bundle_format import MAX_JSON_BYTES, parse_json
from linne.errors import BundleError, RecipeError, suggest
from linne.models import checks, config_json
from linne.models.fetching import find_on_hub
from linne.models.provider import HubFile, InputDefaults, ModelRef, Pretrained, Variant
from linne.models.shards import INDEX

if TYPE_CHECKING:
    from torch import Tensor, nn

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
CONFIG = "config.json"
WEIGHTS = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
"""The safe format first; an index where they are in several files."""
IMAGE_SIZE = 224
"""Tried as well for hints where a configuration does not say a size."""

OURS = frozenset(
    {
        "architectures",
        "attn_implementation",
        "auto_map",
        "dtype",
        "experts_implementation",
        "id2label",
        "label2id",
        "model_type",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "quantization_config",
        "return_dict",
        "torch_dtype",
        "torchscript",
        "transformers_version",
    }
)
"""Not taken from a configuration: what linne says itself, what changes the form of the answer, and what names code.

`_attn_implementation` may name a repository with code on the hub; every name that begins so is left out as well.
"""


class HuggingFaceModels:
    """The provider `hf`: `hf:OWNER/NAME` on the hub, by its configuration in the client's cache, or `hf:FOLDER`."""

    def why_unavailable(self) -> str | None:
        """Return why transformers cannot be used, or None."""
        try:
            import transformers
        except Exception as error:
            return checks.import_failure("transformers", error, extra="hf")
        if not transformers.is_torch_available():
            return f"transformers {transformers.__version__} does not work with the torch that is installed"
        return None

    def names(self) -> list[str]:
        """Return none: a network is named by where its configuration lies."""
        return []

    def input_defaults(self, name: str) -> InputDefaults | None:
        """Return None: how pixels are prepared stands beside the weights, not in the configuration."""
        _read_config(name)
        return None

    def pretrained(self, name: str) -> list[Pretrained]:
        """Return the one set of weights that lies where the configuration does."""
        config = _read_config(name)
        names = config.get("id2label") or {}
        labels = tuple(str(names.get(str(k), f"LABEL_{k}")) for k in range(len(names)))
        placeholders = all(label == f"LABEL_{k}" for k, label in enumerate(labels))
        folder = _folder(name)
        return [
            Pretrained(
                provider="hf",
                name=name,
                tag="main",
                where=HubFile(repository=name, filenames=WEIGHTS) if folder is None else folder,
                input=None,
                num_classes=len(labels),
                classes=None if placeholders else labels,
            )
        ]

    def describe(
        self, name: str, *, num_classes: int, channels: int, height: int, width: int, variant: Variant
    ) -> ModelRef:
        """Return the reference, whose options hold the configuration, having run the network on shapes alone."""
        given = _read_config(name)
        kind = given["model_type"]
        config = _harmless(kind, given)

        def at(channels: int, height: int, width: int, wished: Mapping[str, Any]) -> ModelRef:
            return ModelRef(
                provider="hf",
                name=kind,
                num_classes=num_classes,
                channels=channels,
                height=height,
                width=width,
                options={"config": _sized(kind, {**config, **wished}, channels, height, width)},
            )

        for wish in ("dropout", "blur_pool", "width", "patch_stride"):
            if getattr(variant, wish):
                raise checks.takes_no(at(channels, height, width, {}), wish)
        if variant.drop_path is not None and "drop_path_rate" not in _defaults(kind):
            raise checks.takes_no(at(channels, height, width, {}), "drop_path")
        wished = checks.wishes(variant, {"drop_path": {"drop_path_rate": variant.drop_path}})
        return checks.checked(at, self.build, channels, height, width, wished, _designed_side(config))

    def build(self, ref: ModelRef) -> nn.Module:
        """Return the network with freshly drawn weights, in training mode. Nothing is fetched.

        It answers with logits alone, by a hook, so that its weights keep the names that they have everywhere.
        """
        from transformers import AutoModelForImageClassification

        make: Any = AutoModelForImageClassification.from_config  # has no types
        network: nn.Module = make(_config_of(ref), trust_remote_code=False)
        network.register_forward_hook(_logits_alone)
        return network.train()

    def config(self, ref: ModelRef, labels: tuple[str, ...], input_spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return transformers' own file, with timm's part on how pixels are prepared.

        transformers follows that part where `image_processor_type` says so. Its own processors differ from kind to
        kind of network, and few of them cut out what linne does.
        """
        config = _config_of(ref)
        own = {key: value for key, value in config.to_dict().items() if not key.startswith("_")}
        return {
            **own,
            "image_processor_type": "TimmWrapperImageProcessor",
            "architectures": ref.options["config"]["architectures"],
            "id2label": {str(k): label for k, label in enumerate(labels)},
            "label2id": {label: k for k, label in enumerate(labels)},
            **config_json.timm_layout(f"hf/{ref.name}", labels, input_spec, model_args={}, about={}),
        }


def is_on_hub(name: str) -> bool:
    """Return whether `name`, what stands after `hf:`, is not on this disk and can be the name of a repository."""
    return _folder(name) is None and HUB_NAME.fullmatch(name) is not None


def _folder(name: str) -> Path | None:
    """Return the folder on this disk that `name` names, or None. What is here is not looked for on the hub."""
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else None


def _read_config(name: str) -> dict[str, Any]:
    """Return what `config.json` says, whose model type is one that transformers has an image classifier for.

    Raises:
        RecipeError: there is none on this machine, or it is of something else.
    """
    folder = _folder(name)
    path = None if folder is None else folder / CONFIG
    if folder is None and HUB_NAME.fullmatch(name):
        path = find_on_hub(HubFile(repository=name, filenames=(CONFIG,)))
        if path is None:
            raise RecipeError(
                f"`hf:{name}` is not on this machine",
                hint="`--weights default` fetches it; or bring its files here and type `hf:FOLDER`",
            )
    if path is None or not path.is_file():
        raise RecipeError(
            f"`hf:{name}` is neither a folder with a `{CONFIG}` nor a name on the hub",
            hint="type `hf:OWNER/NAME` or `hf:FOLDER`",
        )
    if path.stat().st_size > MAX_JSON_BYTES:
        raise RecipeError(f"`{path}` has {path.stat().st_size:,} bytes, expected at most {MAX_JSON_BYTES:,}")
    try:
        config = parse_json(path.read_bytes(), str(path))
    except BundleError as error:
        raise RecipeError(f"`hf:{name}` cannot be used: {error.message}") from error
    _require_kind(config.get("model_type"), f"hf:{name}")
    return config


def _require_kind(kind: object, name: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KINDS

    if kind == "timm_wrapper" or kind is None:
        raise RecipeError(
            f"`{name}` is not one of transformers' own networks", hint="timm's are named `timm/NAME`: `linne models`"
        )
    if kind not in KINDS:
        raise RecipeError(
            f"`{name}` is a `{kind}`, for which transformers has no image classifier", hint=suggest(str(kind), KINDS)
        )


def _heads(kind: str) -> list[str]:
    """Return the names of transformers' image classifiers of this kind, the usual one first."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KINDS

    heads: Any = KINDS[kind]
    return list(heads) if isinstance(heads, tuple) else [heads]


def _defaults(kind: str) -> dict[str, Any]:
    """Return what a configuration of `kind` may say and linne passes on, with transformers' values."""
    from transformers import CONFIG_MAPPING

    every = CONFIG_MAPPING[kind]().to_dict()
    return {key: value for key, value in every.items() if key not in OURS and not key.startswith("_")}


def _harmless(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return of `given` what says how the network is built."""
    known = _defaults(kind)
    config = {key: _without_ours(value) for key, value in given.items() if key in known}
    heads = _heads(kind)
    named = [name for name in given.get("architectures") or () if name in heads]
    return {**config, "architectures": (named or heads)[:1]}


def _without_ours(value: Any) -> Any:
    if isinstance(value, dict):
        inner = {k: _without_ours(v) for k, v in value.items() if not k.startswith("_") and k not in OURS}
        return {**inner, **({"model_type": value["model_type"]} if "model_type" in value else {})}
    return [_without_ours(item) for item in value] if isinstance(value, list) else value


def _sized(kind: str, config: dict[str, Any], channels: int, height: int, width: int) -> dict[str, Any]:
    """Return `config` for images of this size, where it has a say in that."""
    known = _defaults(kind)
    square = height == width and not isinstance(known.get("image_size"), list | tuple)
    size = {"image_size": height if square else [height, width], "num_channels": channels}
    sized = {**config, **{key: value for key, value in size.items() if key in known}}
    if "vision_config" in known:  # of networks that also read text: the images' part
        sized["vision_config"] = {**config.get("vision_config", {}), **size}
    return sized


def _designed_side(config: Mapping[str, Any]) -> int:
    size = config.get("image_size", (config.get("vision_config") or {}).get("image_size"))
    size = size[0] if isinstance(size, list) and size else size
    return size if isinstance(size, int) else IMAGE_SIZE


def _config_of(ref: ModelRef) -> Any:
    """Return the configuration as transformers has it, of a reference that may come from anywhere."""
    from transformers import CONFIG_MAPPING

    checks.require_options(ref, ("config",))
    _require_kind(ref.name, ref.full_name)
    given = ref.options.get("config")
    if not isinstance(given, Mapping) or _harmless(ref.name, given) != given:
        raise RecipeError(f"`{ref.full_name}` is described with a configuration that linne does not write")
    return CONFIG_MAPPING[ref.name].from_dict({**given, "num_labels": ref.num_classes})


def _logits_alone(network: nn.Module, images: object, answer: Any) -> Tensor:
    logits_NK: Tensor = answer.logits
    return logits_NK
