"""`linne export --to tensorrt`: an engine that answers as the bundle does, and is opened where it was made alone.

On doubles of TensorRT and of NVIDIA's driver; none of this has run on a GPU.
"""

from __future__ import annotations

import json
import pickle
import sys
import warnings

import numpy as np
import pytest
from fakes.tensorrt import FakeDriver, FakeTensorrt, put_driver
from fixtures.graphs import write_graph_bundle

import linne
from linne.bundle_format import describe_file, seal
from linne.errors import BundleError, LinneError, RecipeError
from linne.exports import open_export, read_made_here, remember_made
from linne.graphs.tensorrt_cuda import Gpu
from linne.graphs.tensorrt_engine import build_plan
from linne.inference.backends.base import RunOptions
from linne.inference.backends.tensorrt import TensorRtBackend
from linne.inference.predictor import Predictor
from linne.preprocess import InputSpec

onnx = pytest.importorskip("onnx", reason="needs `linne[onnx]`")
pytest.importorskip("onnxruntime", reason="needs `linne[onnx]`")

SPEC = InputSpec(channels=3, height=16, width=16, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def bundle(tmp_path):
    return write_graph_bundle(tmp_path / "bundle", ("ant", "bee", "cow"), SPEC)


@pytest.fixture
def driver(monkeypatch):
    return put_driver(monkeypatch, FakeDriver())


@pytest.fixture
def fake(monkeypatch, driver, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    module = FakeTensorrt(driver)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


def plant(bundle, content):
    """Put `content` in the place of the engine, with checksums that fit: what a stranger's bundle may hold."""
    folder = bundle.path / "exports" / "tensorrt-fp32"
    (folder / "model.plan").write_bytes(content)
    manifest = json.loads((folder / "export.json").read_bytes())
    del manifest["checksum"]
    manifest["files"] = {"model.plan": describe_file(folder, "model.plan")}
    (folder / "export.json").write_bytes(seal(manifest, "export.json"))


def test_an_engine_is_verified_and_taken_without_compiling_again(fake, driver, bundle):
    made = linne.export(bundle.path, "tensorrt", quiet=True)
    assert driver.held == 0
    assert made.agreement.worst <= made.agreement.bound
    facts = open_export(bundle, "tensorrt", "fp32").facts
    tied = {key: facts[key] for key in ("tensorrt", "gpu", "compute_capability", "batch_size", "level", "graph")}
    assert tied == {
        "tensorrt": "11.4.0.106",
        "gpu": "NVIDIA H200",
        "compute_capability": "9.0",
        "batch_size": 64,
        "level": 3,
        "graph": "model.onnx",
    }
    fake.calls.clear()
    predictor = Predictor.open(bundle, backend="tensorrt", how=RunOptions(device="cuda"))
    assert [call[0] for call in fake.calls[:1]] == ["open"]
    assert predictor.backend.canary_logits_NK is not None, "it is the engine that runs"


def test_an_engine_that_was_not_made_here_is_never_opened(fake, bundle, monkeypatch, tmp_path):
    linne.export(bundle.path, "tensorrt", quiet=True)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    fake.calls.clear()
    with pytest.raises(BundleError, match="is compiled code, and was not made here: opening it would run what is"):
        TensorRtBackend.open(bundle, RunOptions())
    with pytest.raises(BundleError, match="was not made here"):
        TensorRtBackend.open(bundle, RunOptions(trust_code=True))
    assert fake.calls == []


class Planted:
    """What runs when it is read."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('planted code ran')",))


def test_an_engine_that_a_stranger_planted_with_fitting_checksums_is_not_opened(fake, bundle):
    linne.export(bundle.path, "tensorrt", quiet=True)
    plant(bundle, pickle.dumps(Planted()))
    with pytest.raises(BundleError) as caught:
        TensorRtBackend.open(bundle, RunOptions())
    assert "was not made here" in caught.value.message
    assert caught.value.hint == f"linne export {bundle.path} --to tensorrt --precision fp32 --replace makes it here"


def test_an_engine_that_changes_after_it_was_compared_is_not_opened(fake, bundle):
    linne.export(bundle.path, "tensorrt", quiet=True)
    export = open_export(bundle, "tensorrt", "fp32")
    (export.path / "model.plan").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"`model\.plan` is not the file that was written"):
        read_made_here(export, "linne export")


def test_an_engine_that_was_swapped_while_it_was_written_is_not_remembered(fake, bundle):
    linne.export(bundle.path, "tensorrt", quiet=True)
    export = open_export(bundle, "tensorrt", "fp32")
    with pytest.raises(BundleError, match=r"`model\.plan` is not what was written a moment ago"):
        remember_made(export, b"what was compiled")


@pytest.mark.parametrize(
    ("driver_settings", "version", "reason"),
    [
        ({"name": "NVIDIA L4", "capability": (8, 9)}, "11.4", "it was made with NVIDIA H200, and here is NVIDIA L4"),
        ({}, "10.16", r"it was made with 11\.4\.0\.106, and here is 10\.16\.1\.11"),
    ],
)
def test_an_engine_for_another_gpu_or_version_gives_way_to_the_graph_and_that_is_said(
    fake, bundle, monkeypatch, driver_settings, version, reason
):
    linne.export(bundle.path, "tensorrt", quiet=True)
    other = FakeTensorrt(put_driver(monkeypatch, FakeDriver(**driver_settings)), version)
    monkeypatch.setitem(sys.modules, "tensorrt", other)
    with pytest.warns(RuntimeWarning, match=rf"`exports/tensorrt-fp32/model.plan` is not used, {reason}; compiling"):
        TensorRtBackend.open(bundle, RunOptions())
    assert "build" in [call[0] for call in other.calls]


def test_what_is_asked_for_is_compiled_where_the_engine_is_for_something_else(fake, bundle):
    linne.export(bundle.path, "tensorrt", quiet=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TensorRtBackend.open(bundle, RunOptions(options={"batch_size": "64", "cuda_graph": "true"}))
    with pytest.warns(RuntimeWarning, match="its batch_size is 64, and 8 is asked for; compiling again"):
        TensorRtBackend.open(bundle, RunOptions(options={"batch_size": "8"}))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_in_half_precision_the_export_to_onnx_is_compiled_as_it_is(fake, bundle, precision):
    if precision == "bf16":
        pytest.importorskip("openvino", reason="bf16 is verified by OpenVINO: pip install 'linne[openvino]'")
    with pytest.raises(LinneError, match=f"cannot be made: it has no ONNX export in {precision}: linne export"):
        linne.export(bundle.path, "tensorrt", precision=precision, quiet=True)
    linne.export(bundle.path, "onnx", precision=precision, quiet=True)
    made = linne.export(bundle.path, "tensorrt", precision=precision, quiet=True)
    assert 0 < made.agreement.worst <= made.agreement.bound
    assert made.export.facts["graph"] == f"exports/onnx-{precision}/model.onnx"
    backend = TensorRtBackend.open(bundle, RunOptions(precision=precision))
    assert f" on NVIDIA H200 in {precision}, " in backend.description


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"bake_preprocessing": True}, "`--bake-preprocessing` goes with `--to onnx`, not with `tensorrt`"),
        ({"opset": 18}, "`--opset` goes with `--to onnx`, not with `tensorrt`"),
        ({"precision": "int8", "max_drop": 0.1}, "`tensorrt` is not quantised by itself"),
    ],
)
def test_what_goes_with_another_export_is_refused(fake, bundle, asked, message):
    with pytest.raises(RecipeError) as caught:
        linne.export(bundle.path, "tensorrt", quiet=True, **asked)
    assert caught.value.message == message


def test_without_a_gpu_it_is_said_before_anything_is_computed(bundle, monkeypatch):
    put_driver(monkeypatch, None)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorrt(FakeDriver()))
    with pytest.raises(LinneError, match="an export to TensorRT cannot be made: there is no driver of NVIDIA's here"):
        linne.export(bundle.path, "tensorrt", quiet=True)


def test_int8_is_compiled_with_zero_points_of_zero_and_answers_nearly_the_same(fake, bundle):
    from onnx.reference import ReferenceEvaluator

    from linne.exporting.to_int8 import layers_of, prepared, quantised
    from linne.graphs.session import GraphSession
    from linne.graphs.tensorrt_int8 import around_zero

    images_NCHW = np.random.default_rng(0).normal(0, 1, (16, 3, 16, 16)).astype(np.float32)
    whole = (bundle.path / "model.onnx").read_bytes()
    model = prepared(whole)
    names = ["pixels", *(node.output[0] for node in model.graph.node)]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    tensors = ReferenceEvaluator(model).run(None, {"pixels": images_NCHW})
    ranges = {name: (min(0.0, each.min()), max(0.0, each.max())) for name, each in zip(names, tensors, strict=True)}
    model = prepared(whole)
    eights = quantised(model, layers_of(model), ranges, in_float=(), reduce_range=False)
    gpu = Gpu()
    with pytest.raises(LinneError, match="only activation types allowed as input"):
        build_plan(fake, gpu, eights, "eights", batch_size=4)
    changed = around_zero(eights, "eights")
    onnx.checker.check_model(onnx.load_model_from_string(changed), full_check=True)
    assert build_plan(fake, gpu, changed, "changed", batch_size=4)
    gpu.close()
    before_NK, found_NK = (GraphSession(each, "by ONNX Runtime").run(images_NCHW) for each in (eights, changed))
    exact_NK = GraphSession(whole, "whole").run(images_NCHW)
    largest = np.abs(exact_NK).max()
    assert np.abs(before_NK - exact_NK).max() > 0, "int8 rounds"
    # One of 127 levels either way, in each of four tensors, where one of 255 was meant.
    np.testing.assert_allclose(found_NK, exact_NK, atol=0.04 * largest)


def test_answers_are_those_of_the_graph(fake, bundle):
    images_NCHW = np.random.default_rng(0).normal(0, 1, (5, 3, 16, 16)).astype(np.float32)
    from linne.graphs.session import GraphSession

    expected_NK = GraphSession((bundle.path / "model.onnx").read_bytes(), "by hand").run(images_NCHW)
    found_NK = TensorRtBackend.open(bundle, RunOptions()).run(images_NCHW)
    np.testing.assert_allclose(found_NK, expected_NK, atol=1e-5 * np.abs(expected_NK).max())
