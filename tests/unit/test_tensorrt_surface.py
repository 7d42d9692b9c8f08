"""What linne calls of TensorRT and of NVIDIA's driver is there, as far as it was recorded in their own files."""

from __future__ import annotations

import ctypes
import inspect
import re
from typing import Any

import pytest
from fakes.tensorrt import VERSIONS, FakeDriver, FakeTensorrt, prototypes, surface
from fixtures.tensorrt.record import surface as surface_of

from linne.graphs.tensorrt_cuda import SIGNATURES
from linne.graphs.tensorrt_engine import _logger


@pytest.mark.parametrize("version", VERSIONS)
def test_the_double_of_tensorrt_has_nothing_that_the_real_one_lacks_and_calls_it_the_same(version: str) -> None:
    fake = FakeTensorrt(FakeDriver(), version)
    for name, recorded in surface(version)["classes"].items():
        if not hasattr(fake, name):
            continue
        for member, value in vars(getattr(fake, name)).items():
            if member.startswith("_") or not inspect.isfunction(value):
                continue
            taken = [name for name in inspect.signature(value).parameters if name != "self"]
            assert taken in [_parameters(line) for line in recorded[member]], f"{name}.{member} in {version}"


def _parameters(signature: str) -> list[str]:
    """Return the names in `(flags: typing.SupportsInt = 0) -> INetworkDefinition`."""
    return re.findall(r"(?:^|, )(\w+): ", signature[1 : signature.index(") ->")])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_double_is_as_strict_as_what_was_recorded(version: str) -> None:
    fake: Any = FakeTensorrt(FakeDriver(), version)
    assert not hasattr(fake, "volume_of")
    with pytest.raises(AttributeError):
        _ = fake.BuilderFlag.FP16X
    config = fake.IBuilderConfig()
    config.builder_optimization_level = 5
    with pytest.raises(AttributeError):
        config.max_workspace_size = 1 << 30  # of TensorRT 8


def test_tensorrt_11_has_no_flags_of_precisions_and_another_number_for_strong_types() -> None:
    before, now = (surface(version)["enums"] for version in VERSIONS)
    assert {"FP16", "BF16", "INT8"} <= set(before["BuilderFlag"])
    assert not {"FP16", "BF16", "INT8"} & set(now["BuilderFlag"])
    strong = [each["NetworkDefinitionCreationFlag"]["STRONGLY_TYPED"] for each in (before, now)]
    assert strong == [1, 0]
    assert "TF32" in now["BuilderFlag"]


def test_the_drivers_functions_are_called_as_cuda_h_says() -> None:
    recorded = prototypes()
    assert set(SIGNATURES) == set(recorded)
    for name, kinds in SIGNATURES.items():
        # To a buffer that ctypes made, a pointer to characters is a pointer.
        ours = [ctypes.c_void_p if name == "cuDeviceGetName" and kind is ctypes.c_char_p else kind for kind in kinds]
        assert ours == recorded[name], name


def test_the_recorded_surface_is_that_of_the_tensorrt_installed_here() -> None:
    tensorrt = pytest.importorskip(
        "tensorrt", reason="pip install 'linne[tensorrt]' lets it be compared", exc_type=ImportError
    )
    found = surface_of(tensorrt)
    version = next((each for each in VERSIONS if found["version"].startswith(f"{each}.")), None)
    if version is None:
        pytest.skip(f"tensorrt {found['version']} was not recorded; fixtures/tensorrt/record.py does it")
    assert found["enums"] == surface(version)["enums"]
    assert found["classes"] == surface(version)["classes"]
    said: list[str] = []
    logger = _logger(tensorrt, said)
    logger.log(tensorrt.ILogger.Severity.WARNING, "slow")
    logger.log(tensorrt.ILogger.Severity.ERROR, "wrong")
    assert said == ["wrong"]
