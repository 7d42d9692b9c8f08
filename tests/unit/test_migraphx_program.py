"""Graphs by MIGraphX, as far as it goes without one: by its Python module's double, and without any of the two.

The real one, on its reference target, is asked in `test_migraphx_reference.py`.
"""

from __future__ import annotations

import ctypes.util
import sys
import types

import numpy as np
import pytest
from fakes.migraphx import FakeMigraphx
from fixtures.graphs import image_graph, write_graph_bundle

from linne.errors import BundleError, DeviceError, LinneError, RecipeError
from linne.graphs.migraphx_c import VARIABLE
from linne.graphs.migraphx_program import (
    IDENTITY,
    MigraphxProgram,
    find_binding,
    loaded_version,
    target_for,
    why_no_migraphx,
)
from linne.graphs.migraphx_python import MigraphxModule
from linne.inference.backends.base import RunOptions, require_known
from linne.inference.backends.migraphx import MigraphxBackend
from linne.preprocess import InputSpec
from linne.tuned import versions_of

onnx = pytest.importorskip("onnx")

SPEC = InputSpec(
    channels=3, height=8, width=10, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bicubic", crop_pct=0.8
)
LABELS = ("ant", "bee", "cow")
GRAPH = image_graph(3, SPEC).SerializeToString()


@pytest.fixture
def fake():
    return FakeMigraphx()


@pytest.fixture
def binding(fake):
    return MigraphxModule(fake)


@pytest.fixture
def images_NCHW():
    return np.random.default_rng(0).normal(0, 1, (7, 3, 8, 10)).astype(np.float32)


def opened(binding, graph=GRAPH, **settings):
    return MigraphxProgram.open(graph, "model.onnx", binding=binding, **{"target": "ref", "batch_size": 3, **settings})


def with_node(kind, *inputs, **attributes):
    """Return a graph of one node from `inputs` to `y`."""
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    taken = [helper.make_tensor_value_info(name, number, [2, 2]) for name in dict.fromkeys(inputs)]
    given = [helper.make_tensor_value_info("y", number, [2, 2])]
    graph = helper.make_graph([helper.make_node(kind, inputs, ["y"], **attributes)], "g", taken, given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString()


def without_module(monkeypatch, folder):
    """Let `import migraphx` find what is in `folder` first, or nothing."""
    monkeypatch.setitem(sys.modules, "migraphx", None)  # put back at the end, whatever is imported meanwhile
    monkeypatch.delitem(sys.modules, "migraphx")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("ROCM_PATH", str(folder / "rocm"))


def test_any_number_of_images_goes_through_the_one_batch_size_it_is_compiled_for(fake, binding, images_NCHW):
    from onnx.reference import ReferenceEvaluator

    program = opened(binding)
    assert program.batch_size == 3
    logits_NK = program.run(images_NCHW)
    (expected_NK,) = ReferenceEvaluator(onnx.load_model_from_string(GRAPH)).run(None, {"pixels": images_NCHW})
    # Seven rows at once are added in another order than three.
    np.testing.assert_allclose(logits_NK, expected_NK, atol=1e-6 * np.abs(expected_NK).max())
    assert [call for call in fake.calls if call[0] == "run"] == [("run", 3)] * 3
    assert program.run(images_NCHW[:0]).shape == (0, 3)


def test_the_batch_size_of_a_graph_that_has_one_stays(binding, images_NCHW):
    program = opened(binding, image_graph(3, SPEC, batch=2).SerializeToString())
    assert program.batch_size == 2
    assert program.run(images_NCHW).shape == (7, 3)


def test_a_graph_is_read_then_quantised_then_compiled_with_inputs_on_the_host_and_exact_mathematics(fake, binding):
    opened(binding, precision="fp16", exhaustive_tune=True)
    assert fake.calls == [("parse", 3), ("fp16",), ("compile", "ref", True, False, True)]


def test_int8_is_calibrated_with_whole_batches_the_last_filled_up_with_the_first_images(fake, binding, images_NCHW):
    opened(binding, precision="int8", calibration_NCHW=images_NCHW)
    _, (kind, target, batches), _ = fake.calls
    assert (kind, target) == ("int8", "ref")
    np.testing.assert_array_equal(np.concatenate(batches), np.concatenate([images_NCHW, images_NCHW[:2]]))


@pytest.mark.parametrize(("precision", "count"), [("int8", None), ("int8", 0), ("fp16", 7)])
def test_images_to_calibrate_with_go_with_int8_and_with_nothing_else(binding, images_NCHW, precision, count):
    images = None if count is None else images_NCHW[:count]
    with pytest.raises(LinneError, match="int8 needs images to be calibrated with, and no other precision does"):
        opened(binding, precision=precision, calibration_NCHW=images)


def test_a_precision_that_a_release_does_not_have_is_said(binding):
    with pytest.raises(LinneError, match=r"`model.onnx` cannot be compiled in bf16 by .*: this release has no `quant"):
        opened(binding, precision="bf16")


def test_a_saved_program_answers_the_same(binding, images_NCHW):
    program = opened(binding)
    again = MigraphxProgram.load(program.save(), "model.mxr", target="ref", binding=binding)
    np.testing.assert_array_equal(again.run(images_NCHW), program.run(images_NCHW))


def test_what_the_library_says_is_in_the_error_without_the_line_of_its_source(binding):
    with pytest.raises(LinneError) as raised:
        opened(binding, with_node("Einsum", "x", "x", equation="ij,jk->ik"))
    assert raised.value.message.endswith("in fp32 by MIGraphX of unknown version: apply: No kernel for einsum")


def test_a_graph_with_several_inputs_is_refused(binding):
    with pytest.raises(LinneError, match=r"`model.onnx` takes 2 inputs \(`x`, `z`\), expected one, of images"):
        opened(binding, with_node("Add", "x", "z"))


def test_images_of_another_size_are_refused(binding, images_NCHW):
    program = opened(binding)
    with pytest.raises(LinneError, match=r"`model.onnx` takes images of \(3, 8, 10\), not of \(3, 8, 9\)"):
        program.run(images_NCHW[..., :9])


def test_a_closed_program_is_no_longer_run(binding, images_NCHW):
    program = opened(binding)
    program.close()
    program.close()
    with pytest.raises(RuntimeError, match="the program is closed"):
        program.run(images_NCHW)


def test_a_gpu_that_is_asked_for_and_not_there_is_no_fault_of_the_graph(binding):
    with pytest.raises(DeviceError) as raised:
        opened(binding, target="gpu")
    assert raised.value.message.startswith("MIGraphX finds no GPU that it can use: ")
    assert raised.value.message.endswith("get_device_id: No device")
    assert "--device cpu takes MIGraphX's reference, which is slow" in raised.value.hint


def test_a_graph_that_does_not_compile_on_a_gpu_is_no_fault_of_the_gpu():
    binding = MigraphxModule(FakeMigraphx(has_gpu=True))
    assert "its GPU target" in opened(binding, target="gpu").description
    with pytest.raises(LinneError) as raised:
        opened(binding, with_node("Einsum", "x", "x", equation="ij,jk->ik"), target="gpu")
    assert type(raised.value) is LinneError


def test_the_graph_that_a_gpu_is_tried_with_is_a_sound_one():
    model = onnx.load_model_from_string(IDENTITY)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Identity"]


def test_devices_are_called_as_everywhere_and_nothing_takes_the_place_of_one_that_is_asked_for():
    assert {device: target_for(device) for device in ("auto", "rocm", "cpu")} == {
        "auto": "gpu",
        "rocm": "gpu",
        "cpu": "ref",
    }
    with pytest.raises(DeviceError, match="MIGraphX runs on auto, rocm, cpu, not on `cuda`"):
        target_for("cuda")
    with pytest.raises(DeviceError) as raised:
        target_for("rocm:1")
    assert raised.value.hint == "set HIP_VISIBLE_DEVICES to the GPU's number and use --device rocm"
    with pytest.raises(DeviceError, match="an accelerator is required"):
        target_for("cpu", require_accelerator=True)


def test_the_version_is_read_from_the_file_that_is_loaded(tmp_path):
    maps = tmp_path / "maps"
    maps.write_text("7f00 r-xp 00:00 0 /usr/lib/libmigraphx_c.so.3.0\n7f01 r-xp /lib/libmigraphx.so.2014001.0.70101\n")
    assert loaded_version(maps) == "2.14.1"
    assert loaded_version(tmp_path / "none") == "of unknown version"


def test_a_tuned_choice_depends_on_the_version_of_the_library_that_is_loaded(monkeypatch, fake, tmp_path):
    monkeypatch.setitem(sys.modules, "migraphx", fake)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("linne.graphs.migraphx_program.loaded_version", lambda: "2.14.0")
    assert versions_of("migraphx") == {"migraphx": "2.14.0"}
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.so"))
    assert versions_of("migraphx") == {}


def test_the_placeholder_on_pypi_is_no_migraphx(monkeypatch, tmp_path):
    with pytest.raises(ImportError, match="is a placeholder without code"):
        MigraphxModule(types.ModuleType("migraphx"))
    (tmp_path / "migraphx.py").write_text("__version__ = '0.0.1'\n")
    without_module(monkeypatch, tmp_path)
    reason = why_no_migraphx()
    assert reason is None or reason.startswith(
        "`migraphx` cannot be imported (the module `migraphx` here is a placeholder without code), and "
    )


def test_a_module_that_breaks_as_it_is_imported_is_told_from_one_that_is_not_there(monkeypatch, tmp_path):
    without_module(monkeypatch, tmp_path)
    if why_no_migraphx() is None:
        pytest.skip("there is a C library of MIGraphX's here")
    assert why_no_migraphx().startswith("no Python module `migraphx`, and libmigraphx_c.so.3: ")
    assert "`make migraphx` in a clone of linne unpacks one" in why_no_migraphx()
    (tmp_path / "migraphx.py").write_text("raise OSError('libamdhip64.so.7: cannot open shared object file')\n")
    assert "`migraphx` cannot be imported (libamdhip64.so.7: cannot open shared object file)" in why_no_migraphx()


def test_the_module_is_taken_where_there_is_one(monkeypatch, fake):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "migraphx", fake)
    assert find_binding().description == "by its Python module"


def test_a_library_that_is_named_is_taken_or_nothing_is(monkeypatch, fake, tmp_path):
    monkeypatch.setitem(sys.modules, "migraphx", fake)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.so"))
    assert why_no_migraphx().startswith(f"`{VARIABLE}` names a file that is no help: {tmp_path / 'none.so'}: ")
    another = ctypes.util.find_library("c")
    if another is None:
        pytest.skip("this system does not say what its C library is called")
    monkeypatch.setenv(VARIABLE, another)
    assert f"`{another}` is no C library of MIGraphX's" in why_no_migraphx()


def test_the_backend_compiles_for_as_many_images_as_it_is_told(monkeypatch, fake, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "migraphx", fake)
    bundle = write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)
    how = RunOptions(device="cpu", precision="fp16", options={"batch_size": "8", "exhaustive_tune": "true"})
    require_known("migraphx", MigraphxBackend, how)
    backend = MigraphxBackend.open(bundle, how)
    assert fake.calls == [("parse", 8), ("fp16",), ("compile", "ref", True, False, True)]
    assert backend.description.endswith("its target `ref`, a slow reference on the CPU in fp16")
    MigraphxBackend.open(bundle, RunOptions(device="cpu"))
    assert fake.calls[3] == ("parse", 1)


def test_the_backend_says_which_export_it_needs(tmp_path):
    bundle = write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)
    assert MigraphxBackend.why_not(bundle, "bf16") is None
    assert MigraphxBackend.why_not(bundle, "int8") == (
        f"it has no ONNX export in int8: linne export {bundle.path} --to onnx --precision int8"
    )


def test_the_backend_refuses_what_it_would_not_heed(monkeypatch, fake, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "migraphx", fake)
    bundle = write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)
    with pytest.raises(RecipeError, match="MIGraphX cannot be told how many threads to take"):
        MigraphxBackend.open(bundle, RunOptions(device="cpu", num_threads=2))
    with pytest.raises(DeviceError, match="MIGraphX finds no GPU that it can use"):
        MigraphxBackend.open(bundle, RunOptions())
    (bundle.path / "model.onnx").write_bytes(b"\x3a\x05nothing")
    with pytest.raises(BundleError, match=r"bundle `.*`: `model.onnx` cannot be read as ONNX"):
        MigraphxBackend.open(bundle, RunOptions(device="cpu"))
