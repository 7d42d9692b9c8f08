"""LiteRT: the operators that a file says, on the CPU, for any number of images; the real one, on files by hand."""

import importlib.util
import json
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs `linne[onnx]`")
if importlib.util.find_spec("ai_edge_litert") is None:
    pytest.skip("LiteRT is tried for real: pip install 'linne[tflite]'", allow_module_level=True)

from fixtures.graphs import image_graph, write_graph_bundle
from fixtures.tflite_files import tflite_file, write_tflite_bundle

from linne.errors import BundleError, DeviceError, LinneError, RecipeError
from linne.exporting.tflite_file import layers_of, of_any_batch, with_texts
from linne.graphs.session import GraphSession
from linne.graphs.tflite_model import TfliteModel, _taken_by_delegates
from linne.inference.backends import choose_backend
from linne.inference.backends.base import RunOptions
from linne.inference.backends.tflite import TfliteBackend
from linne.inference.predictor import Predictor
from linne.preprocess import InputSpec

LABELS = ("ant", "bee", "cow", "dog")
SPEC = InputSpec(channels=3, height=12, width=10, mean=(0.5,) * 3, std=(0.25,) * 3)
CLOSE = 1e-5
"""Of the largest logit: other kernels add in another order."""


@pytest.fixture(scope="module")
def content():
    return tflite_file(len(LABELS), SPEC)


@pytest.fixture(scope="module")
def images_NCHW():
    return np.random.default_rng(3).normal(0, 1, (7, 3, SPEC.height, SPEC.width)).astype(np.float32)


@pytest.fixture(scope="module")
def expected_NK(images_NCHW):
    return GraphSession(image_graph(len(LABELS), SPEC).SerializeToString(), "by hand").run(images_NCHW)


def gap(found_NK, expected_NK):
    assert found_NK.shape == expected_NK.shape
    assert found_NK.dtype == np.float32
    return np.abs(found_NK - expected_NK).max() / np.abs(expected_NK).max()


@pytest.mark.parametrize("delegate", ["xnnpack", "none"])
@pytest.mark.parametrize("batch", [-1, 1, 3])
def test_answers_are_the_same_for_any_number_of_images(images_NCHW, expected_NK, batch, delegate):
    model = TfliteModel(tflite_file(len(LABELS), SPEC, batch=batch), "by hand", num_threads=2, delegate=delegate)
    assert model.batch_size == (None if batch < 0 else batch)
    for count in (1, 7, 2, 5, 7):
        assert gap(model.run(images_NCHW[:count]), expected_NK[:count]) < CLOSE


def test_every_other_layout_of_memory_is_taken(content, images_NCHW, expected_NK):
    model = TfliteModel(content, "by hand")
    turned = np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not turned.flags.c_contiguous
    assert gap(model.run(turned), expected_NK) < CLOSE
    assert gap(model.run(images_NCHW[::-1]), expected_NK[::-1]) < CLOSE


def test_pixels_are_taken_as_they_are():
    model = TfliteModel(tflite_file(len(LABELS), SPEC, pixels=True), "by hand")
    pixels = np.random.default_rng(0).integers(0, 256, (3, SPEC.height, SPEC.width, 3), dtype=np.uint8)
    graph = GraphSession(image_graph(len(LABELS), SPEC).SerializeToString(), "by hand")
    assert gap(model.run(pixels), graph.run(pixels.transpose(0, 3, 1, 2).astype(np.float32))) < CLOSE


def test_who_computes_is_said(content):
    assert TfliteModel(content, "by hand").description.endswith(" with XNNPACK (6 of 6 operators) on CPU")
    # XNNPACK does not read uint8.
    part = TfliteModel(tflite_file(len(LABELS), SPEC, pixels=True), "by hand")
    assert part.description.endswith(" with XNNPACK (5 of 6 operators) on CPU")
    assert part.notes == ()
    alone = TfliteModel(content, "by hand", delegate="none")
    assert alone.description.endswith(" with its own kernels on CPU")
    assert alone.notes == ()


def test_operators_between_what_goes_into_a_part_and_what_comes_out_are_its_own():
    def operator(name, taken, given):
        return {"op_name": name, "inputs": np.array(taken), "outputs": np.array(given)}

    chain = [operator("CAST", [0], [1]), operator("ADD", [1, 9], [2]), operator("MUL", [2, 1], [3])]
    last = operator("TOPK_V2", [3], [4, 5])
    assert _taken_by_delegates([*chain, last]) == (0, 4)
    assert _taken_by_delegates([*chain, last, operator("DELEGATE", [1, 9], [3])]) == (2, 4)
    parts = [operator("DELEGATE", [0], [1]), operator("DELEGATE", [2, 1], [3])]
    assert _taken_by_delegates([*chain, last, *parts]) == (2, 4)


def test_opening_says_nothing_on_stderr_that_is_only_news(content, capfd):
    TfliteModel(content, "by hand")
    assert capfd.readouterr() == ("", "")


def test_what_else_is_said_while_it_is_opened_is_passed_on(python):
    code = """
import os
from linne.graphs.tflite_model import _without_its_news
with _without_its_news():
    os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\\nINFO: of another program\\n")
"""
    assert python("-c", code).stderr == "INFO: of another program\n"


def test_two_that_open_at_once_leave_stderr_as_it_was(python):
    code = """
import os, sys, threading, time
from linne.graphs.tflite_model import _without_its_news
def opens(seconds):
    with _without_its_news():
        time.sleep(seconds)
threads = [threading.Thread(target=opens, args=(seconds,)) for seconds in (0.05, 0.01, 0.02)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
os.write(2, b"still here")
"""
    assert python("-c", code).stderr == "still here"


def test_a_process_without_stderr_opens_files_too(python):
    code = """
import os, sys
from linne.graphs.tflite_model import _without_its_news
os.close(2)
sys.stderr = None
with _without_its_news():
    print("opened")
"""
    assert python("-c", code).stdout == "opened\n"


def test_threads_that_share_a_model_get_their_own_answers(content):
    model = TfliteModel(content, "model")
    images = np.random.default_rng(0).normal(0, 1, (2, 1, 3, 12, 10)).astype(np.float32)
    alone = [model.run(image) for image in images]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(model.run, [images[k % 2] for k in range(400)]))
    assert all(np.array_equal(answer, alone[k % 2]) for k, answer in enumerate(together))


def rewritten(content, change):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def with_a_buffer_elsewhere(content):
    """What keeps numbers behind the flatbuffer has, but beyond the end of the file."""

    def change(model):
        model.buffers[1].data, model.buffers[1].offset, model.buffers[1].size = None, 64, len(content)

    return rewritten(content, change)


def without_the_input_of_a_reshape(content):
    def change(model):
        model.subgraphs[0].operators[-2].inputs = [9999, 2]

    return rewritten(content, change)


def without_graphs(model):
    model.subgraphs = []


def in_a_buffer_that_is_not_there(model):
    model.subgraphs[0].tensors[0].buffer = 900


def of_a_billion_images(model):
    model.subgraphs[0].tensors[0].shape = [10**9, 3, 12, 10]


def by_an_operator_that_is_not_there(model):
    model.subgraphs[0].operators[0].opcodeIndex = 900


def hidden_behind_a_builtin_number(model):
    """LiteRT takes the larger of an operator's two numbers; 32 stands for a custom one."""
    for code in model.operatorCodes:
        if code.customCode:
            code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 0, 32, "Mfcc\n"


def test_what_is_no_such_file_or_more_than_data_is_refused(content):
    for damaged, message in (
        (b"", "is no TensorFlow Lite file"),
        (b"\xff" * 40, "is no TensorFlow Lite file"),
        (content[:40], "cannot be read as TensorFlow Lite"),
        (content[:-200], "cannot be read as TensorFlow Lite"),
        (without_the_input_of_a_reshape(content), "tensor 9999 of 14 is asked for"),
        (rewritten(content, without_graphs), "it has 0 graphs, expected 1"),
        (rewritten(content, in_a_buffer_that_is_not_there), "a tensor is in buffer 900 of"),
        (rewritten(content, of_a_billion_images), "a tensor has 1000000000 x 3 x 12 x 10 numbers"),
        (rewritten(content, by_an_operator_that_is_not_there), "an operator is of kind 900 of"),
        (
            tflite_file(4, SPEC, custom=True),
            "needs the custom operator `FlexErf`, and only TensorFlow Lite's own are run",
        ),
        (
            rewritten(tflite_file(4, SPEC, custom=True), hidden_behind_a_builtin_number),
            "needs the custom operator `Mfcc\\\\n`, and only",
        ),
        (with_a_buffer_elsewhere(content), "keeps tensors outside itself, which are not followed"),
        (tflite_file(4, SPEC, inputs=2), "takes 2 inputs, -1 x 3 x 12 x 10 the first; expected one, of images"),
    ):
        with pytest.raises(LinneError, match=message):
            TfliteModel(damaged, "cut")
    with pytest.raises(LinneError, match="was given no image"):
        TfliteModel(content, "by hand").run(np.zeros((0, 3, 12, 10), np.float32))


def test_images_of_another_size_are_an_error_and_the_next_are_answered(content, images_NCHW, expected_NK):
    model = TfliteModel(content, "by hand")
    with pytest.raises(LinneError, match="`by hand` fails in LiteRT"):
        model.run(np.zeros((2, 3, 9, 10), np.float32))
    assert gap(model.run(images_NCHW), expected_NK) < CLOSE


def test_a_file_for_one_image_is_made_one_for_any_number(images_NCHW, expected_NK):
    content = of_any_batch(tflite_file(len(LABELS), SPEC, batch=1))
    model = TfliteModel(content, "by hand")
    assert model.batch_size is None
    assert gap(model.run(images_NCHW), expected_NK) < CLOSE


def test_texts_go_with_the_file_and_change_no_answer(content, images_NCHW, expected_NK, tmp_path):
    import zipfile

    whole = with_texts(content, {"labels.json": json.dumps(LABELS)})
    assert whole == with_texts(content, {"labels.json": json.dumps(LABELS)})
    assert whole.startswith(content)
    (tmp_path / "model.tflite").write_bytes(whole)
    with zipfile.ZipFile(tmp_path / "model.tflite") as archive:
        assert json.loads(archive.read("labels.json")) == list(LABELS)
    assert gap(TfliteModel(whole, "by hand").run(images_NCHW), expected_NK) < CLOSE


def test_layers_go_by_their_names_in_torch(content):
    from linne.exporting.tflite_file import _in_torch

    seq = "net.Net/torch.nn.modules.container.Sequential_layer1/timm.models.resnet._Block_0"
    tensor = f"{seq}/torch.nn.modules.activation.ReLU_act;;{seq}/torch.nn.modules.conv.Conv2d_conv_1;1"
    assert _in_torch(tensor) == "layer1.0.conv_1"
    assert _in_torch("whatever") == "whatever"
    assert _in_torch("linne.a.converted.<locals>.Whole/a.Net_network/a.Conv2d_stem;") == "stem"
    assert len(layers_of(content)) == 2


DAMAGE = """
import random, sys
import numpy as np
from linne.errors import LinneError
from linne.graphs.tflite_model import TfliteModel
whole = open(sys.argv[1], "rb").read()
refused = 0
for seed in range(300):
    draw = random.Random(seed)
    content = bytearray(whole)
    for _ in range(draw.choice([1, 2, 5, 20])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    try:
        TfliteModel(bytes(content), "damaged", num_threads=1).run(np.zeros((1, 3, 12, 10), np.float32))
    except LinneError:
        refused += 1
print(refused)
"""


@pytest.mark.long
def test_damaged_files_are_refused_or_run_and_never_end_the_process(content, python, tmp_path):
    (tmp_path / "model.tflite").write_bytes(content)
    ended = python("-W", "ignore", "-c", DAMAGE, tmp_path / "model.tflite")
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert 0 < int(ended.stdout) < 300


def test_layers_to_keep_in_float_are_found_by_pattern_or_refused():
    from linne.exporting.to_tflite_int8 import _named

    layers = {"stem": "a", "body.0": "b", "body.1": "c"}
    assert _named(layers, ["body.*", "stem"]) == {"body.0": "b", "body.1": "c", "stem": "a"}
    for pattern, hint in (("stemm", "did you mean `stem`?"), ("nowhere", "it has stem, body.0, body.1")):
        with pytest.raises(RecipeError) as caught:
            _named(layers, [pattern])
        assert (caught.value.message, caught.value.hint) == (f"no layer `{pattern}` in the network", hint)


# The backend.


def test_an_export_is_run_by_name_or_where_nothing_else_can(tmp_path, images_NCHW, expected_NK):
    bundle = write_tflite_bundle(tmp_path / "bundle", LABELS, SPEC)
    predictor = Predictor.open(bundle, backend="tflite", how=RunOptions(device="cpu", num_threads=1))
    assert predictor.backend.canary_logits_NK is not None
    assert gap(predictor.backend.run(images_NCHW), expected_NK) < CLOSE
    predictor.backend.close()
    with pytest.raises(RuntimeError, match="the backend is closed"):
        predictor.backend.run(images_NCHW)
    assert choose_backend("auto", bundle, "fp32", "cpu")[0] == "onnxruntime"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (RunOptions(device="cuda"), "LiteRT has no device `cuda` here"),
        (RunOptions(require_accelerator=True), "an accelerator is required, and LiteRT runs on the CPU here"),
    ],
)
def test_another_device_than_the_cpu_is_refused(tmp_path, how, message):
    bundle = write_tflite_bundle(tmp_path / "bundle", LABELS, SPEC)
    with pytest.raises(DeviceError) as caught:
        TfliteBackend.open(bundle, how)
    assert caught.value.message == message


def test_without_an_export_it_says_how_to_make_one(tmp_path):
    bundle = write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)
    with pytest.raises(LinneError) as caught:
        Predictor.open(bundle, backend="tflite", how=RunOptions(precision="int8"))
    wanted = f"it has no export to TensorFlow Lite: linne export {bundle.path} --to tflite --precision int8"
    assert caught.value.message == f"backend `tflite` cannot run bundle `{bundle.path}`: {wanted}"


def test_an_altered_file_is_refused_before_it_is_parsed(tmp_path):
    bundle = write_tflite_bundle(tmp_path / "bundle", LABELS, SPEC)
    file = bundle.path / "exports/tflite-fp32/model.tflite"
    content = bytearray(file.read_bytes())
    content[struct.unpack("<I", content[:4])[0]] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.tflite"):
        Predictor.open(bundle, backend="tflite", how=RunOptions(device="cpu"))
