"""`linne export --to tflite`: what is refused before it is converted. `tests/pipeline/test_tflite.py` converts."""

import importlib.util

import pytest
from fixtures.graphs import write_graph_bundle

import linne
from linne.errors import LinneError
from linne.exporting.convert_tflite import main
from linne.exporting.to_tflite import why_no_converter
from linne.inference.backends.null import write_null_bundle
from linne.preprocess import InputSpec

SPEC = InputSpec(channels=3, height=16, width=16, mean=(0.5,) * 3, std=(0.25,) * 3)
LABELS = ("ant", "bee", "cow")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"precision": "bf16"}, "`tflite` is exported in fp32, fp16 and int8, not in bf16"),
        ({"exporter": "script"}, "`--exporter` goes with `--to onnx`, not with `tflite`"),
        ({"opset": 17}, "`--opset` goes with `--to onnx`, not with `tflite`"),
        ({}, "bundle `{path}` holds a graph, `model.onnx`, and `tflite` is made of torch's networks"),
    ],
)
def test_what_tflite_is_not_made_of_is_refused(tmp_path, asked, message):
    pytest.importorskip("onnxruntime", reason="needs `linne[onnx]`")
    bundle = write_graph_bundle(tmp_path / "bundle", LABELS, SPEC)
    with pytest.raises(LinneError) as caught:
        linne.export(bundle.path, "tflite", quiet=True, **asked)
    assert caught.value.message == message.format(path=bundle.path)


@pytest.mark.skipif(importlib.util.find_spec("litert_torch") is not None, reason="the converter is installed")
def test_without_the_converter_it_says_what_to_install(tmp_path):
    bundle = write_null_bundle(tmp_path / "bundle", LABELS, SPEC)
    reason = why_no_converter()
    assert reason == "litert-torch is not installed; pip install 'linne[tflite-export]'"
    with pytest.raises(LinneError) as caught:
        linne.export(bundle.path, "tflite", quiet=True)
    assert caught.value.message == f"an export to TensorFlow Lite cannot be made: {reason}"


def test_the_child_reports_what_is_wrong_with_the_bundle(tmp_path, capsys):
    pytest.importorskip("torch", reason="needs `linne[train]`")
    main([str(tmp_path / "nowhere"), str(tmp_path / "model.tflite"), "planes", "-"])
    said = capsys.readouterr().out
    assert '"linne": "refused"' in said
    assert "nowhere" in said
