"""The user's own network, made by a class or function in a Python file, run only where the user trusts it."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.abc import SourceLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from linne.errors import LinneError, RecipeError, suggest
from linne.models import checks, config_json
from linne.models.provider import InputDefaults, ModelRef, Pretrained, Variant

if TYPE_CHECKING:
    from torch import nn

SIZES = ("channels", "height", "width")
"""Given to those that take them by name; `num_classes` is given to all."""


@dataclass(frozen=True, slots=True)
class PythonModels:
    """The provider `python`: `python:FILE.py:NAME`. The file is run as Python, with all that this allows it."""

    trust_code: bool = False
    """Whether the user said that files of Python may be run. Without it none is, whatever a recipe or bundle says."""

    def why_unavailable(self) -> str | None:
        """Return why torch cannot be used, or None."""
        try:
            import torch  # noqa: F401
        except Exception as error:
            return checks.import_failure("torch", error)
        return None

    def names(self) -> list[str]:
        """Return none: a network is named by where its code lies."""
        return []

    def input_defaults(self, name: str) -> InputDefaults | None:
        """Return None: what the code was designed for only its author knows."""
        _split(name)
        return None

    def pretrained(self, name: str) -> list[Pretrained]:
        """Return none."""
        _split(name)
        return []

    def describe(
        self, name: str, *, num_classes: int, channels: int, height: int, width: int, variant: Variant
    ) -> ModelRef:
        """Return the reference, having run the network on shapes alone.

        `options` holds where the file lies and its sha256; the code itself goes nowhere.
        """
        path, _ = _split(name)
        self._require_trust(f"python:{name}")
        digest = hashlib.sha256(_source(path)).hexdigest()

        def at(channels: int, height: int, width: int, wished: Mapping[str, Any]) -> ModelRef:
            return ModelRef(
                provider="python",
                name=name,
                num_classes=num_classes,
                channels=channels,
                height=height,
                width=width,
                options={"file": str(path.resolve()), "sha256": digest},
            )

        for wish in checks.WITHOUT:
            if getattr(variant, wish):
                raise checks.takes_no(at(channels, height, width, {}), wish)
        return checks.checked(at, self.build, channels, height, width, {})

    def build(self, ref: ModelRef) -> nn.Module:
        """Return what the class or function gives, in training mode, having compared the file's sha256.

        Raises:
            RecipeError: the user did not say that the code is trusted, or it is not the code that was.
        """
        checks.require_options(ref, ("file", "sha256"))
        path, attribute = _split(ref.name)
        self._require_trust(ref.full_name)
        # As typed, from this folder; else where it was.
        path = path if path.is_file() else Path(str(ref.options.get("file", path)))
        source = _source(path)
        found, expected = hashlib.sha256(source).hexdigest(), ref.options.get("sha256")
        if found != expected:
            raise RecipeError(
                f"`{path}` is not the file that the network was made with: its sha256 is {found}, expected {expected}",
                hint="bring that version of the file back, or train again",
            )
        return _call(path, source, attribute, ref)

    def config(self, ref: ModelRef, labels: tuple[str, ...], input_spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return timm's layout under an architecture and model type that other libraries refuse by name."""
        return config_json.foreign_layout(ref, labels, input_spec)

    def _require_trust(self, name: str) -> None:
        if not self.trust_code:
            raise RecipeError(
                f"`{name}` is Python that would be run, and nobody said that it is trusted",
                hint="read it, and type `--trust-code` if you trust it",
            )


def _split(name: str) -> tuple[Path, str]:
    """Return the file and the attribute that `FILE.py:NAME` names."""
    file, colon, attribute = name.rpartition(":")
    if not colon or not file.endswith(".py") or not attribute.isidentifier():
        raise RecipeError(
            f"`python:{name}` does not say which class or function of which file", hint="type `python:FILE.py:NAME`"
        )
    return Path(file).expanduser(), attribute


def _source(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecipeError(f"`{path}` cannot be read: {(error.strerror or str(error)).lower()}") from error


class _Checked(SourceLoader):
    """Gives the import machinery the bytes whose sha256 was compared, so that no others are run."""

    def __init__(self, path: Path, source: bytes) -> None:
        self.path, self.source = path, source

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:
        if str(path) != str(self.path):  # a compiled copy of it, which could be of something else
            raise OSError
        return self.source


def _run(path: Path, source: bytes) -> ModuleType:
    """Return the module that is `source`. A file beside it is not found by `import`; a package that is installed is."""
    spec = importlib.util.spec_from_loader(path.stem, _Checked(path, source))
    assert spec is not None  # a loader was given
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except LinneError:
        raise
    except Exception as error:
        raise RecipeError(f"`{path}` cannot be run: {type(error).__name__}: {error}") from error
    return module


def _call(path: Path, source: bytes, attribute: str, ref: ModelRef) -> nn.Module:
    """Return the network that `attribute` of the module with this `source` makes."""
    from torch import nn

    module = _run(path, source)
    make = vars(module).get(attribute)
    if not callable(make):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise RecipeError(f"no class or function `{attribute}` in `{path}`", hint=suggest(attribute, names))
    takes = inspect.signature(make).parameters
    if "num_classes" not in takes:
        raise RecipeError(
            f"`{attribute}` in `{path}` takes no `num_classes`, with which linne calls it",
            hint="its other arguments need defaults, but for `channels`, `height` and `width`",
        )
    sizes = {name: getattr(ref, name) for name in SIZES if name in takes}
    network = make(num_classes=ref.num_classes, **sizes)
    if not isinstance(network, nn.Module):
        raise RecipeError(f"`{attribute}` in `{path}` gives {type(network).__name__}, expected a torch `nn.Module`")
    return network.train()
