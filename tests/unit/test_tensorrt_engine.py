"""Graphs by TensorRT, as far as it goes without a GPU: on doubles of its module and of NVIDIA's driver.

The doubles are held against the real ones' surface in `test_tensorrt_surface.py`. None of this has run on a GPU.
"""

from __future__ import annotations

import sys
import types
import warnings
from contextlib import closing

import numpy as np
import pytest
from fakes.tensorrt import VERSIONS, FakeDriver, FakeTensorrt, put_driver
from fixtures.graphs import image_graph, write_graph_bundle

from linne.errors import BundleError, DeviceError, LinneError, RecipeError
from linne.graphs.tensorrt_cuda import LIBRARY, Gpu, look_for_gpu
from linne.graphs.tensorrt_engine import TensorRtEngine, build_plan
from linne.graphs.tensorrt_package import why_no_tensorrt
from linne.inference.backends.base import RunOptions, require_known
from linne.inference.backends.tensorrt import TensorRtBackend
from linne.preprocess import InputSpec

onnx = pytest.importorskip("onnx", reason="needs `linne[onnx]`")

SPEC = InputSpec(
    channels=3, height=8, width=10, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bicubic", crop_pct=0.8
)
LABELS = ("ant", "bee", "cow")
GRAPH = image_graph(3, SPEC).SerializeToString()
SHAPES = {"pixels": ((1, 3, 8, 10), (4, 3, 8, 10), (4, 3, 8, 10))}


@pytest.fixture
def driver(monkeypatch):
    return put_driver(monkeypatch, FakeDriver())


@pytest.fixture(params=VERSIONS)
def fake(request, monkeypatch, driver):
    module = FakeTensorrt(driver, request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


@pytest.fixture
def images_NCHW():
    return np.random.default_rng(0).normal(0, 1, (7, 3, 8, 10)).astype(np.float32)


def opened(fake, graph=GRAPH, *, batch_size=4, **settings):
    gpu = Gpu()
    plan = build_plan(fake, gpu, graph, "model.onnx", batch_size=batch_size)
    return TensorRtEngine(fake, gpu, plan, "model.onnx", **settings)


def right(images_NCHW):
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(onnx.load_model_from_string(GRAPH)).run(None, {"pixels": images_NCHW})[0]


def with_node(kind, *inputs, **attributes):
    """Return a graph of one node from `inputs` to `y`."""
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    taken = [helper.make_tensor_value_info(name, number, [2, 2]) for name in dict.fromkeys(inputs)]
    given = [helper.make_tensor_value_info("y", number, [2, 2])]
    graph = helper.make_graph([helper.make_node(kind, inputs, ["y"], **attributes)], "g", taken, given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString()


def test_any_number_of_images_is_answered_in_pieces_of_what_it_is_compiled_for(fake, images_NCHW):
    engine = opened(fake)
    expected_NK = right(images_NCHW)
    # Seven rows at once are added in another order than four and three.
    np.testing.assert_allclose(engine.run(images_NCHW), expected_NK, atol=1e-6 * np.abs(expected_NK).max())
    assert [call for call in fake.calls if call[0] == "run"] == [("run", 4), ("run", 3)]
    assert engine.run(images_NCHW[:0]).shape == (0, 3)
    assert engine.run(np.asfortranarray(images_NCHW))[0] == pytest.approx(expected_NK[0], rel=1e-5)


def test_networks_are_strongly_typed_and_fp32_is_computed_without_tf32(fake):
    opened(fake)
    assert fake.calls[:2] == [("strongly typed", True), ("build", SHAPES, 3, ("TF32",))]


@pytest.mark.parametrize(("before", "begun_with"), [(None, b""), (b"torn in two", b""), (b"NVIDIA L4|timed", b"")])
def test_how_fast_kernels_are_is_kept_and_what_does_not_fit_is_left(fake, tmp_path, before, begun_with):
    timings = tmp_path / "cache" / "timings"
    if before is not None:
        timings.parent.mkdir()
        timings.write_bytes(before)
    gpu = Gpu()
    for begun in (begun_with, b"NVIDIA H200|timed"):
        fake.calls.clear()
        assert build_plan(fake, gpu, GRAPH, "model.onnx", batch_size=4, timings=timings)
        assert fake.calls[1] == ("timings", begun)
        assert timings.read_bytes() == b"NVIDIA H200|timed"


def test_a_folder_that_cannot_be_written_costs_the_timings_alone(fake, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert build_plan(fake, Gpu(), GRAPH, "model.onnx", batch_size=4, timings=tmp_path / "file" / "timings")


def test_the_batch_size_of_a_graph_that_has_one_stays(fake, images_NCHW):
    engine = opened(fake, image_graph(3, SPEC, batch=2).SerializeToString())
    assert engine.batch_size == 2
    assert engine.run(images_NCHW).shape == (7, 3)
    assert [call for call in fake.calls if call[0] == "run"] == [("run", 2)] * 4


def test_kernels_are_recorded_once_for_a_size_and_launched_as_one(fake, driver, images_NCHW):
    engine = opened(fake, cuda_graph=True)
    expected_NK = right(images_NCHW)
    for _ in range(3):
        np.testing.assert_allclose(engine.run(images_NCHW[:2]), expected_NK[:2], atol=1e-6 * np.abs(expected_NK).max())
    events = [call[0] for call in driver.calls if call[0] != "allocate"]
    assert events == ["record", "launch", "launch", "launch"]
    np.testing.assert_allclose(engine.run(images_NCHW), expected_NK, atol=1e-6 * np.abs(expected_NK).max())
    engine.close()
    assert driver.held == 0


def test_everything_on_the_gpu_is_given_back(fake, driver, images_NCHW):
    engine = opened(fake)
    engine.run(images_NCHW)
    assert driver.held > 0
    engine.close()
    engine.close()
    assert driver.held == 0
    with pytest.raises(RuntimeError, match="the engine is closed"):
        engine.run(images_NCHW)


def test_what_does_not_fit_the_gpus_memory_is_said_and_nothing_stays(fake, driver):
    driver.memory = 100
    with pytest.raises(DeviceError, match="NVIDIA's driver refuses cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY"):
        opened(fake)
    assert driver.held == 0


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            with_node("Unheard", "x"),
            r"`model.onnx` cannot be read by TensorRT 1\S+: No importer registered for op: Unhe",
        ),
        (with_node("Einsum", "x", "x", equation="ij,jk->ik"), r"cannot be compiled by TensorRT 1\S+: Error Code 10: "),
        (with_node("Add", "x", "z"), r"`model.onnx` takes 2 inputs \(`x`, `z`\), expected one, of images"),
    ],
)
def test_a_graph_that_tensorrt_does_not_take_is_refused_with_its_words(fake, graph, message):
    with pytest.raises(LinneError, match=message):
        opened(fake, graph)


def test_a_plan_of_another_version_is_refused_with_tensorrts_words(fake, driver):
    gpu = Gpu()
    plan = build_plan(fake, gpu, GRAPH, "model.onnx", batch_size=4)
    other = FakeTensorrt(driver, next(version for version in VERSIONS if not fake.__version__.startswith(version)))
    with pytest.raises(LinneError, match=r"`model.plan` cannot be opened by TensorRT 1\S+: Version tag does not match"):
        TensorRtEngine(other, gpu, plan, "model.plan")


def test_images_of_another_size_are_refused(fake, images_NCHW):
    with pytest.raises(LinneError, match=r"`model.onnx` takes images of \(3, 8, 10\), not of \(3, 8, 9\)"):
        opened(fake).run(images_NCHW[..., :9])


# Why it cannot be used.


def test_each_thing_that_is_missing_has_its_sentence(monkeypatch, tmp_path):
    put_driver(monkeypatch, None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.delitem(sys.modules, "tensorrt")
    if why_no_tensorrt() is not None and "is not installed" not in why_no_tensorrt():
        pytest.skip("there is a package tensorrt here")
    assert why_no_tensorrt() == "the package tensorrt is not installed; pip install 'linne[tensorrt]'"
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tensorrt.py").write_text(
        "raise ImportError('libnvonnxparser.so.11: cannot open shared object file')\n"
    )
    assert why_no_tensorrt().startswith(f"there is no driver of NVIDIA's here ({LIBRARY}: cannot open")
    put_driver(monkeypatch, FakeDriver())
    assert why_no_tensorrt() == (
        "tensorrt is installed without its libraries (libnvonnxparser.so.11: cannot open shared object file); "
        "pip install 'linne[tensorrt]'"
    )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"status": 100}, "NVIDIA's driver finds no GPU; TensorRT runs on NVIDIA's GPUs alone"),
        ({"status": 803}, "NVIDIA's driver does not start: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH; TensorRT runs"),
        ({"status": 77}, "NVIDIA's driver does not start: error 77"),
        ({"count": 0}, "NVIDIA's driver lists 0 GPUs, and number 0 is none"),
        (
            {"name": "Tesla V100", "capability": (7, 0)},
            "Tesla V100 has compute capability 7.0, and TensorRT 11.4.0.106",
        ),
    ],
)
def test_a_driver_or_gpu_that_does_not_do_has_its_sentence(monkeypatch, settings, reason):
    driver = put_driver(monkeypatch, FakeDriver(**settings))
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorrt(driver))
    assert why_no_tensorrt().startswith(reason)


def test_a_wheel_for_a_newer_cuda_than_the_drivers_is_said_with_what_to_install(monkeypatch, tmp_path, fake, driver):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tensorrt_cu13_libs-11.4.0.106.dist-info").mkdir()
    (tmp_path / "tensorrt_cu13_libs-11.4.0.106.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tensorrt_cu13_libs\nVersion: 11.4.0.106\n"
    )
    assert why_no_tensorrt() is None
    driver.cuda = 12080
    assert why_no_tensorrt() == (
        "the installed tensorrt is for CUDA 13, and the driver knows CUDA 12.8; a newer driver, or "
        "`pip uninstall tensorrt tensorrt-cu13` and `pip install tensorrt-cu12`"
    )


def test_a_placeholder_and_an_old_one_are_no_tensorrt(monkeypatch, driver):
    module = types.ModuleType("tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    assert why_no_tensorrt().startswith("the module tensorrt here is a placeholder without code")
    module.Builder, module.__version__ = object, "8.6.1"
    assert why_no_tensorrt().startswith("tensorrt 8.6.1 is older than 10.0")


def test_what_a_gpu_is_is_read_from_its_driver(driver):
    found = look_for_gpu()
    assert (found.name, found.capability, found.driver_cuda) == ("NVIDIA H200", (9, 0), (13, 0))


# The backend.


@pytest.fixture
def bundle(tmp_path):
    return write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)


def test_the_backend_compiles_as_it_is_told_and_says_what_runs(fake, driver, bundle, images_NCHW):
    how = RunOptions(device="cuda:0", options={"batch_size": "4", "level": "5", "cuda_graph": "true"})
    require_known("tensorrt", TensorRtBackend, how)
    backend = TensorRtBackend.open(bundle, how)
    assert ("build", SHAPES, 5, ("TF32",)) in fake.calls
    assert backend.description == f"TensorRT {fake.__version__} on NVIDIA H200, 4 layers"
    expected_NK = right(images_NCHW)
    np.testing.assert_allclose(backend.run(images_NCHW), expected_NK, atol=1e-6 * np.abs(expected_NK).max())
    backend.close()
    backend.close()
    assert driver.held == 0


@pytest.mark.parametrize("device", ["cpu", "rocm", "cuda:x", "auto:1"])
def test_nothing_takes_the_place_of_an_nvidia_gpu(fake, bundle, device):
    with pytest.raises(DeviceError, match=f"TensorRT runs on NVIDIA's GPUs, not on `{device}`"):
        TensorRtBackend.open(bundle, RunOptions(device=device))
    with pytest.raises(DeviceError, match="lists 1 GPU, and number 1 is none"):
        TensorRtBackend.open(bundle, RunOptions(device="cuda:1"))


def test_bf16_needs_a_gpu_that_has_it(monkeypatch, bundle):
    driver = put_driver(monkeypatch, FakeDriver(name="Tesla T4", capability=(7, 5)))
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorrt(driver))
    with pytest.raises(
        DeviceError, match=r"Tesla T4 has no instructions for bf16: its compute capability is 7\.5, exp"
    ):
        TensorRtBackend.open(bundle, RunOptions(precision="bf16"))
    assert driver.held == 0


def test_the_backend_says_which_export_it_needs_and_refuses_what_it_would_not_heed(fake, bundle):
    assert TensorRtBackend.why_not(bundle) is None
    assert TensorRtBackend.why_not(bundle, "bf16") == (
        f"it has no ONNX export in bf16: linne export {bundle.path} --to onnx --precision bf16"
    )
    with pytest.raises(RecipeError, match="TensorRT takes no number of threads"):
        TensorRtBackend.open(bundle, RunOptions(num_threads=2))


def test_a_failure_to_compile_is_of_the_bundle_and_nothing_stays_on_the_gpu(fake, driver, bundle):
    (bundle.path / "model.onnx").write_bytes(with_node("Einsum", "x", "x", equation="ij,jk->ik"))
    with warnings.catch_warnings(), pytest.raises(BundleError, match="cannot be compiled by TensorRT"):
        TensorRtBackend.open(bundle, RunOptions())
    assert driver.held == 0


class BrokenDriver(FakeDriver):
    """One whose GPU fails for good from a certain moment, as CUDA's errors in a kernel are."""

    broken = False

    def cuMemFree_v2(self, *arguments):
        return 700 if self.broken else super().cuMemFree_v2(*arguments)

    def cuCtxPopCurrent_v2(self, *arguments):
        return 700 if self.broken else super().cuCtxPopCurrent_v2(*arguments)

    def cuStreamSynchronize(self, *arguments):
        return 700 if self.broken else super().cuStreamSynchronize(*arguments)


def test_what_is_said_of_a_gpu_that_fails_is_what_failed_first(monkeypatch):
    driver = put_driver(monkeypatch, BrokenDriver())
    tensorrt = FakeTensorrt(driver)
    gpu = Gpu()
    plan = build_plan(tensorrt, gpu, image_graph(3, SPEC).SerializeToString(), "model", batch_size=2)
    engine = TensorRtEngine(tensorrt, gpu, plan, "model")
    driver.broken = True
    with pytest.raises(LinneError, match="cuStreamSynchronize"), closing(engine):
        engine.run(np.zeros((1, SPEC.channels, SPEC.height, SPEC.width), np.float32))
    assert not gpu.is_open


def test_a_gpu_that_gives_no_stream_is_let_go(monkeypatch):
    class NoStream(FakeDriver):
        def cuStreamCreate(self, *arguments):
            return 2

    driver = put_driver(monkeypatch, NoStream())
    with pytest.raises(LinneError, match="cuStreamCreate"):
        Gpu()
    assert driver.held == 0
