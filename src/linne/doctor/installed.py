"""The installed packages that matter to linne, read from their metadata and never imported.

Importing one to ask it is how a broken package ends the program that wanted to say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from linne.doctor.compatibility import numbers

INTERESTING = (
    "linne",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-migraphx",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
    "onnxruntime-webgpu",
    "onnxruntime-windowsml",
    "onnxruntime-ep-migraphx",
    "onnxruntime-ep-openvino",
    "onnxruntime-ep-webgpu",
    "windowsml",
    "onnx",
    "migraphx",
    "torch-migraphx",
    "torch-directml",
    "torch-npu",
    "intel-extension-for-pytorch",
    "openvino",
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-rocm",
    "jax",
    "jax-rocm60-plugin",
    "jax-rocm7-plugin",
    "jax-rocm10-plugin",
    "amdsmi",
    "pillow",
    "scikit-learn",
    "scipy",
    "transformers",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """One installed package: its version, what it asks of others, and what it was built for.

    `requires` is as the metadata has it. `build` holds what a `version.py` says of `cuda`, `hip`, `xpu` (None: built
    without) and `tag`, the local part of the version (`cpu`, `cu132`, `rocm6.4`); a key is missing where unknown.
    """

    name: str
    version: str
    requires: tuple[str, ...] = ()
    build: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """Return what the wheel was built for as its version says it, empty where it does not."""
        return (self.build.get("tag") or self.version.partition("+")[2]).lower()


def installed_packages(folders: Iterable[str] | None = None) -> dict[str, Package]:
    """Return the interesting packages by name, of `folders` or of this Python; broken metadata counts as absent."""
    found: dict[str, Package] = {}
    distributions = metadata.distributions() if folders is None else metadata.distributions(path=list(folders))
    for distribution in distributions:
        try:
            name = canonical(distribution.metadata["Name"] or "")
            version = distribution.version
        except (AttributeError, KeyError, OSError, TypeError, ValueError):
            continue
        # The first on the path is the one that is imported.
        if name in INTERESTING and name not in found and isinstance(version, str):
            found[name] = Package(
                name=name,
                version=version,
                requires=tuple(distribution.requires or ()),
                build=_build(distribution, name) if name in ("torch", "torchvision") else {},
            )
    return {name: found[name] for name in INTERESTING if name in found}


def _build(distribution: metadata.Distribution, name: str) -> dict[str, str | None]:
    """Return what the wheel's `version.py` says it was built for; its text is read, not run."""
    try:
        text = Path(str(distribution.locate_file(f"{name}/version.py"))).read_text("utf-8")
    except (OSError, ValueError):
        return {}
    pattern = r"^(__version__|cuda|hip|xpu)\b[^=\n]*=\s*(?:['\"]([^'\"\n]*)['\"]|None)\s*$"
    said = {match[1]: match[2] for match in re.finditer(pattern, text, re.MULTILINE)}
    version = said.pop("__version__", None)
    return {**said, "tag": version.partition("+")[2]} if version else said


def canonical(name: str) -> str:
    """Return a package's name as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement(text: str) -> tuple[str, str] | None:
    """Return the name and version clauses of a `Requires-Dist`; None for one that holds only under a condition."""
    plain, semicolon, _ = text.partition(";")
    found = re.fullmatch(r"\s*([A-Za-z0-9._-]+?)\s*(?:\[[^\]]*\])?\s*\(?\s*([<>=!~][^()]*)?\)?\s*", plain)
    return None if semicolon or found is None else (canonical(found[1]), (found[2] or "").strip())


def satisfies(version: str, clauses: str) -> bool | None:
    """Return whether a version fits clauses such as `>=2.4,<3`; None where one is not understood.

    Releases alone are compared: whether a nightly build of 2.9 fits `>=2.9` is left to pip.
    """
    have = numbers(version)
    if have is None:
        return None
    return _all([_fits(have, clause.strip()) for clause in clauses.split(",") if clause.strip()])


def _all(answers: list[bool | None]) -> bool | None:
    if False in answers:
        return False
    return None if None in answers else True


def _fits(have: tuple[int, ...], clause: str) -> bool | None:
    found = re.fullmatch(r"(===?|~=|!=|<=|>=|<|>)\s*(\d+(?:\.\d+)*)(\.\*)?(?:[+.\w]*)", clause)
    if found is None:
        return None
    sign, want = found[1], numbers(found[2]) or ()
    if found[3]:
        same = _padded(have, len(want))[: len(want)] == want
        return {"==": same, "!=": not same}.get(sign)
    width = max(len(have), len(want))
    left, right = _padded(have, width), _padded(want, width)
    if sign == "~=":
        return left >= right and have[: len(want) - 1] == want[:-1]
    return {
        "==": left == right,
        "===": left == right,
        "!=": left != right,
        "<=": left <= right,
        ">=": left >= right,
        "<": left < right,
        ">": left > right,
    }[sign]


def _padded(parts: tuple[int, ...], width: int) -> tuple[int, ...]:
    return parts + (0,) * (width - len(parts))
