"""Networks of every provider are exported by either of torch's exporters and answer as they did; others are refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs `linne[train]`")
onnx = pytest.importorskip("onnx", reason="needs `linne[onnx]`")
pytest.importorskip("onnxruntime", reason="needs `linne[onnx]`")

from fixtures.graphs import write_graph_bundle  # noqa: E402
from fixtures.settled import LABELS, write_network_bundle  # noqa: E402

import linne  # noqa: E402
from linne.bundle import Bundle, canary_batch  # noqa: E402
from linne.errors import CheckFailed, LinneError  # noqa: E402
from linne.exports import exports_of, has_export, open_export  # noqa: E402
from linne.graphs.wire import require_whole  # noqa: E402
from linne.inference.backends.base import RunOptions  # noqa: E402
from linne.inference.predictor import Predictor  # noqa: E402
from linne.preprocess import InputSpec  # noqa: E402
from linne.weights.answers import FOLDER  # noqa: E402

pytestmark = pytest.mark.long

NO_DYNAMO = importlib.util.find_spec("onnxscript") is None
needs_dynamo = pytest.mark.skipif(NO_DYNAMO, reason="onnxscript is not installed; pip install 'linne[onnx]'")
BY_BOTH = [pytest.param("dynamo", marks=needs_dynamo), "script"]
PLANTED = Path(__file__).parent.parent / "fixtures/networks/planted.py"
NETWORKS = {
    "small": (32, 3),
    "speedrun": (32, 3),
    "torchvision/inception_v3": (75, 3),
    "torchvision/squeezenet1_1": (40, 3),
    "torchvision/resnet18": (32, 3),
    "timm/vit_tiny_patch16_224": (32, 3),
    "timm/convnext_atto": (32, 3),
    "timm/efficientnet_b0": (64, 1),
    f"python:{PLANTED}:Plain": (24, 3),
}
"""Each with the side of its images, and their channels."""


def spec_of(side: int, channels: int = 3) -> InputSpec:
    return InputSpec(channels=channels, height=side, width=side, mean=(0.5,) * channels, std=(0.25,) * channels)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Bundles of networks, each made once."""
    made: dict[str, Bundle] = {}

    class Made(dict[str, Bundle]):
        def __missing__(self, model: str) -> Bundle:
            folder = tmp_path_factory.mktemp("bundles") / "bundle"
            self[model] = write_network_bundle(folder, model, spec_of(*NETWORKS[model]), trust_code=True)
            return self[model]

    return Made(made)


@pytest.fixture
def planted(tmp_path: Path) -> Any:
    def write(name: str) -> Bundle:
        return write_network_bundle(tmp_path / name, f"python:{PLANTED}:{name}", spec_of(24), trust_code=True)

    return write


@pytest.mark.parametrize("exporter", BY_BOTH)
@pytest.mark.parametrize("model", NETWORKS, ids=lambda model: model.rpartition("/")[2])
def test_a_network_answers_from_its_graph_as_it_did_whatever_the_batch(
    bundles: dict[str, Bundle], model: str, exporter: Any
) -> None:
    bundle = bundles[model]
    exported = linne.export(bundle.path, "onnx", exporter=exporter, trust_code=True, replace=True, quiet=True)
    agreement = exported.agreement
    assert set(agreement.worst_by_batch) == {1, 3, 64}
    assert agreement.num_same == 64
    # 1e-4, as `agreement` explains. Kernels that add in another order differ by a few millionths; networks that nobody
    # trained amplify that, Inception v3 at its least size most: by up to half of what is allowed.
    assert agreement.worst <= 1e-4 * agreement.largest_logit
    facts = exported.export.facts
    assert (facts["exporter"], facts["opset"], facts["not_kept"]) == (exporter, 18, [])
    content = exported.export.main_file.read_bytes()
    require_whole(content, "the export")
    assert [path.name for path in exported.export.path.iterdir() if path.suffix != ".json"] == ["model.onnx"]
    graph = onnx.load_model_from_string(content)
    assert {item.key: item.value for item in graph.metadata_props}["labels"] == json.dumps(list(LABELS))
    assert str(PLANTED.parent).encode() not in content  # nor any other path of this machine
    predictor = Predictor.open(bundle, backend="onnxruntime", how=RunOptions(device="cpu"))
    assert predictor.worst_canary().gap < 1e-6


def test_once_exported_a_bundle_predicts_without_torch(bundles: dict[str, Bundle], python: Any) -> None:
    bundle = bundles["torchvision/resnet18"]
    if not has_export(bundle, "onnx", "fp32"):
        linne.export(bundle.path, "onnx", quiet=True)
    code = f"""
import sys, linne
(answer,) = linne.predict({str(bundle.path)!r}, {str(FOLDER / "cat.jpg")!r}, device="cpu")
assert answer.error is None
assert not {{"torch", "torchvision", "timm", "onnx"}} & set(sys.modules)
print(answer.labels[0])
"""
    ended = python("-c", code)
    assert ended.returncode == 0, ended.stderr
    (by_torch,) = linne.predict(bundle.path, FOLDER / "cat.jpg", backend="torch", device="cpu")
    assert ended.stdout.strip() == by_torch.labels[0]


def test_a_bundle_that_is_a_graph_is_exported_without_torch(python: Any, tmp_path: Path) -> None:
    bundle = write_graph_bundle(tmp_path / "graph", LABELS, spec_of(24))
    code = f"""
import sys, linne
linne.export({str(bundle.path)!r}, "onnx", precision="fp16", bake_preprocessing=True, quiet=True)
assert not {{"torch", "torchvision", "timm"}} & set(sys.modules)
"""
    ended = python("-c", code)
    assert ended.returncode == 0, ended.stderr
    assert has_export(bundle, "onnx-pixels", "fp16")


@pytest.mark.parametrize("model", NETWORKS, ids=lambda model: model.rpartition("/")[2])
def test_a_network_answers_in_bf16_about_as_it_did(bundles: dict[str, Bundle], model: str) -> None:
    pytest.importorskip("openvino", reason="bf16 is verified by OpenVINO: pip install 'linne[openvino]'")
    bundle = bundles[model]
    if model == "torchvision/inception_v3":
        # With drawn weights it enlarges what is rounded: by torch's autocast its logits are off by 10 of 21 as well.
        with pytest.raises(CheckFailed, match="the graph in bf16 does not answer as the bundle does"):
            linne.export(bundle.path, "onnx", precision="bf16", quiet=True)
        return
    made = linne.export(bundle.path, "onnx", precision="bf16", trust_code=True, replace=True, quiet=True)
    assert 0 < made.agreement.worst <= made.agreement.bound
    types = {item.data_type for item in onnx.load(made.export.main_file).graph.initializer}
    assert onnx.TensorProto.BFLOAT16 in types
    assert not types & {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_program_of_torch_holds_weights_in_half_precision_and_takes_and_gives_fp32(
    bundles: dict[str, Bundle], precision: Any
) -> None:
    import torch

    whole = linne.export(bundles["small"].path, "torch-export", replace=True, quiet=True)
    made = linne.export(bundles["small"].path, "torch-export", precision=precision, quiet=True)
    assert 0 < made.agreement.worst <= made.agreement.bound
    assert made.size_bytes < whole.size_bytes
    program = torch.export.load(made.export.main_file)
    number = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    assert {value.dtype for value in program.state_dict.values() if value.is_floating_point()} == {number}
    images = torch.zeros(5, 3, *program.example_inputs[0][0].shape[2:])
    assert program.module()(images).dtype == torch.float32


@pytest.mark.parametrize("to", ["torch-export", "torchscript"])
@pytest.mark.parametrize("model", ["small", "torchvision/resnet18", "timm/vit_tiny_patch16_224"])
def test_torchs_own_formats_open_with_torch_alone_and_know_their_labels(
    bundles: dict[str, Bundle], python: Any, model: str, to: str
) -> None:
    bundle = bundles[model]
    exported = linne.export(bundle.path, to, replace=True, quiet=True)
    assert exported.agreement.num_same == 64
    np.save(exported.export.path.parent / "canaries.npy", canary_batch(bundle.input))
    load = {
        "torch-export": "torch.export.load(file, extra_files=texts).module()",
        "torchscript": "torch.jit.load(file, _extra_files=texts)",
    }[to]
    code = f"""
import json, sys, warnings, numpy, torch
warnings.simplefilter("ignore")
texts, file = {{"labels.json": ""}}, {str(exported.export.main_file)!r}
network = {load}
answers = network(torch.from_numpy(numpy.load({str(exported.export.path.parent / "canaries.npy")!r})))
assert not any(name.startswith("linne") for name in sys.modules)
print(json.dumps([json.loads(texts["labels.json"]), answers.tolist()]))
"""
    ended = python("-c", code)
    assert ended.returncode == 0, ended.stderr
    labels, answers = json.loads(ended.stdout)
    assert tuple(labels) == LABELS
    np.testing.assert_allclose(answers, exported.export.canary_logits, rtol=0, atol=1e-4)


def test_a_network_that_looks_at_the_whole_batch_is_refused(planted: Any) -> None:
    bundle = planted("SeesTheBatch")
    for to in ("onnx", "torch-export", "torchscript"):
        with pytest.raises(CheckFailed, match="answers an image otherwise when others are in the batch") as caught:
            linne.export(bundle.path, to, trust_code=True, quiet=True)
        assert caught.value.hint is not None
        assert "the whole batch" in caught.value.hint
    assert exports_of(bundle) == ()


def test_a_graph_for_as_many_images_as_it_was_shown_is_refused(planted: Any) -> None:
    bundle = planted("CountsInPython")
    with pytest.raises(CheckFailed, match=r"has no export to ONNX that answers as it does; .*script: "):
        linne.export(bundle.path, "onnx", trust_code=True, quiet=True)
    for to in ("torch-export", "torchscript"):
        with pytest.raises(CheckFailed, match=f"cannot be exported to {to}"):
            linne.export(bundle.path, to, trust_code=True, quiet=True)
    assert exports_of(bundle) == ()


@needs_dynamo
@pytest.mark.parametrize(
    ("name", "reason"),
    [("WrongByDynamo", "in batches of 1 logits differ by up to"), ("DecidesByPixels", "Could not guard on")],
)
def test_where_one_exporter_is_wrong_the_other_is_kept_and_that_is_said(
    planted: Any, capfd: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    bundle = planted(name)
    exported = linne.export(bundle.path, "onnx", trust_code=True)
    assert exported.export.facts["exporter"] == "script"
    (why,) = exported.export.facts["not_kept"]
    assert why.startswith("dynamo: ")
    assert reason in why
    out, said = capfd.readouterr()
    assert out == ""
    lines = said.splitlines()
    assert any(line.startswith("`dynamo` is not kept: ") and reason in line for line in lines)
    # What torch itself has to say, pages of it, is kept from the terminal.
    assert len(lines) == 6


@needs_dynamo
def test_where_both_are_wrong_nothing_is_written_and_both_reasons_are_given(planted: Any, python: Any) -> None:
    bundle = planted("WrongByBoth")
    ended = python("-m", "linne", "export", bundle.path, "--to", "onnx", "--trust-code", "--quiet")
    assert ended.returncode == 3
    assert ended.stdout == ""
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "has no export to ONNX that answers as it does" in line
    for exporter in ("dynamo", "script"):
        assert f"{exporter}: in batches of 1 logits differ by up to" in line
    assert not (bundle.path / "exports").exists()


def test_what_cannot_be_written_is_named_and_the_graph_is_kept_from_the_terminal(planted: Any, python: Any) -> None:
    bundle = planted("HasNoOperator")
    # In a child, on the streams that the terminal would be: torch's C++ writes to them past Python.
    ended = python("-m", "linne", "export", bundle.path, "--to", "onnx", "--exporter", "script", "--trust-code")
    assert ended.returncode == 3
    assert ended.stdout == ""
    assert "IR graph" not in ended.stderr
    *notes, error, _empty, hint = ended.stderr.splitlines()
    assert len(notes) == 3
    assert "Exporting the operator 'aten::special_bessel_j0' to ONNX opset version 18 is not supported" in error
    assert hint == "hint: --exporter auto tries the other one as well"


def test_layers_that_overflow_in_fp16_stay_in_fp32_and_are_named(
    planted: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = planted("Overflows")
    exported = linne.export(bundle.path, "onnx", precision="fp16", exporter="script", trust_code=True)
    kept = exported.export.facts["kept_in_fp32"]
    assert {name.rpartition("/")[2].partition("_")[0] for name in kept} >= {"Mul", "Relu", "Conv", "ReduceMean"}
    assert min(kept.values()) > 65504 / 2
    said = capfd.readouterr().err
    for name in kept:
        assert f"`{name}` stays in fp32" in said
    assert exported.agreement.num_same == 64
    Predictor.open(bundle, backend="onnxruntime", how=RunOptions(device="cpu", precision="fp16"))


@pytest.mark.parametrize("model", ["torchvision/resnet18", "timm/vit_tiny_patch16_224", "timm/convnext_atto"])
def test_in_fp16_a_network_is_half_as_large_and_names_the_same(bundles: dict[str, Bundle], model: str) -> None:
    bundle = bundles[model]
    exported = linne.export(bundle.path, "onnx", precision="fp16", exporter="script", replace=True, quiet=True)
    weights = bundle.files["model.safetensors"]["size_bytes"]
    assert 0.45 * weights < exported.size_bytes < 0.6 * weights
    # On a CPU, ONNX Runtime rounds the weights to eleven bits and computes in fp32.
    assert exported.agreement.worst <= 1e-2 * exported.agreement.largest_logit
    assert exported.agreement.num_same >= 63


def test_pixels_go_into_a_networks_graph_as_they_are(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["torchvision/resnet18"]
    made = linne.export(
        bundle.path, "onnx", bake_preprocessing=True, precision="fp16", exporter="script", replace=True, quiet=True
    )
    assert made.export == open_export(bundle, "onnx-pixels", "fp16")
    assert made.agreement.num_same >= 63


def test_another_operator_set_is_written_or_refused(planted: Any) -> None:
    bundle = planted("Plain")
    exported = linne.export(bundle.path, "onnx", exporter="script", opset=17, trust_code=True, quiet=True)
    assert exported.export.facts["opset"] == 17
    with pytest.raises(CheckFailed, match=r"script: .*version") as caught:
        linne.export(bundle.path, "onnx", exporter="script", opset=99, trust_code=True, replace=True, quiet=True)
    assert caught.value.hint == "--exporter auto tries the other one as well"
    assert open_export(bundle, "onnx", "fp32") == exported.export


def test_code_is_not_run_where_nobody_trusts_it(planted: Any) -> None:
    bundle = planted("Plain")
    with pytest.raises(LinneError, match="is Python that would be run, and nobody said that it is trusted"):
        linne.export(bundle.path, "onnx", quiet=True)


def test_the_command_prints_where_the_file_is_and_json_where_asked(bundles: dict[str, Bundle], python: Any) -> None:
    bundle = bundles["small"]
    words = ["-m", "linne", "export", bundle.path, "--to", "onnx", "--exporter", "script", "--replace"]
    ended = python(*words, "--dynamic-batch")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{bundle.path}/exports/onnx-fp32/model.onnx\n"
    assert "64 of 64 first labels are the same" in ended.stderr
    assert (
        "`--dynamic-batch` has no effect: an export takes any number of images at a time where its runtime does\n"
        in ended.stderr
    )
    ended = python(*words, "--json", "--quiet")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    found = json.loads(ended.stdout)
    assert found["path"] == f"{bundle.path}/exports/onnx-fp32/model.onnx"
    assert found["facts"]["command"][:2] == ["linne", "export"]
    assert found["agreement"]["num_same"] == 64
