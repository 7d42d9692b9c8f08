"""`linne export --to openvino`: two files that answer as the bundle does, and are run by the backend."""

import pytest
from fixtures.graphs import write_graph_bundle

import linne
from linne.errors import LinneError
from linne.exports import open_export
from linne.inference.backends.base import RunOptions
from linne.inference.predictor import Predictor
from linne.preprocess import InputSpec

pytest.importorskip("openvino", reason="OpenVINO is tried for real: pip install 'linne[openvino]'")

SPEC = InputSpec(channels=3, height=16, width=16, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def bundle(tmp_path):
    return write_graph_bundle(tmp_path / "bundle", ("ant", "bee", "cow"), SPEC)


def test_a_graph_is_exported_verified_and_run(bundle):
    made = linne.export(bundle.path, "openvino", quiet=True)
    assert sorted(made.export.files) == ["model.bin", "model.xml"]
    assert made.agreement.worst <= made.agreement.bound
    assert open_export(bundle, "openvino", "fp32").facts["graph"] == "model.onnx"
    predictor = Predictor.open(bundle, backend="openvino", how=RunOptions(device="cpu"))
    assert predictor.backend.canary_logits_NK is not None, "it is the export that runs"


def test_weights_in_fp16_answer_nearly_as_the_bundle_does(bundle):
    whole = linne.export(bundle.path, "openvino", quiet=True)
    half = linne.export(bundle.path, "openvino", precision="fp16", quiet=True)
    assert half.export.files["model.bin"]["size_bytes"] < 0.6 * whole.export.files["model.bin"]["size_bytes"]
    assert 0 < half.agreement.worst <= half.agreement.bound


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"precision": "bf16"}, "`openvino` is exported in fp32, fp16 and int8, not in bf16"),
        ({"bake_preprocessing": True}, "`--bake-preprocessing` goes with `--to onnx`, not with `openvino`"),
    ],
)
def test_what_openvino_is_not_written_in_is_refused(bundle, asked, message):
    with pytest.raises(LinneError) as caught:
        linne.export(bundle.path, "openvino", quiet=True, **asked)
    assert caught.value.message == message
