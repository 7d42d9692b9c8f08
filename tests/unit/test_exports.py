"""What is made of a bundle lies in folders beside it: whole, checked, of this very bundle, and deletable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from linne.bundle import Bundle, add_metrics, open_bundle
from linne.bundle_format import EXPORT_MANIFEST
from linne.errors import BundleError
from linne.exports import (
    Export,
    exports_of,
    graph_of,
    has_export,
    has_graph,
    open_export,
    write_export,
)
from linne.inference.backends.null import write_null_bundle
from linne.preprocess import InputSpec

LABELS = ("cat", "dog", "emu")
SPEC = InputSpec(channels=1, height=4, width=5, mean=(0.5,), std=(0.25,), interpolation="bilinear", crop_pct=1.0)
ANSWERS = [[1.0, 2.0, 3.0]] * 4


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_null_bundle(tmp_path / "bundle", LABELS, SPEC)


def export(bundle: Bundle, content: bytes = b"graph", *, replace: bool = False) -> Export:
    def fill(folder: Path) -> str:
        (folder / "parts").mkdir()
        (folder / "parts" / "more.bin").write_bytes(b"more")
        (folder / "model.onnx").write_bytes(content)
        return "model.onnx"

    facts = {"exporter": "by hand"}
    return write_export(
        bundle, "onnx", "int8", fill=fill, canary_logits=lambda _: ANSWERS, facts=facts, replace=replace
    )


def refusal(bundle: Bundle) -> tuple[str, str | None]:
    with pytest.raises(BundleError) as caught:
        open_export(bundle, "onnx", "int8")
    return caught.value.message, caught.value.hint


def test_an_export_is_read_back_as_it_was_written(bundle: Bundle) -> None:
    written = export(bundle)
    assert open_export(bundle, "onnx", "int8") == written
    assert exports_of(bundle) == (written,)
    assert written.main_file.read_bytes() == b"graph"
    assert set(written.files) == {"model.onnx", "parts/more.bin"}


def test_the_bundle_is_untouched_by_its_exports(bundle: Bundle) -> None:
    before = {path: path.read_bytes() for path in bundle.path.rglob("*") if path.is_file()}
    export(bundle)
    assert {path: path.read_bytes() for path in before} == before
    assert open_bundle(bundle.path) == bundle
    shutil.rmtree(bundle.path / "exports")
    assert open_bundle(bundle.path) == bundle
    assert exports_of(bundle) == ()


def test_an_export_that_is_there_is_replaced_only_when_that_is_said(bundle: Bundle) -> None:
    export(bundle)
    with pytest.raises(BundleError, match="already"):
        export(bundle, b"other")
    assert graph_of(bundle, "int8").path.read_bytes() == b"graph"
    export(bundle, b"other", replace=True)
    assert graph_of(bundle, "int8").path.read_bytes() == b"other"
    assert [path.name for path in (bundle.path / "exports").iterdir()] == ["onnx-int8"]


def test_a_failure_leaves_the_older_export_and_no_rest(bundle: Bundle) -> None:
    export(bundle)

    def fill(folder: Path) -> str:
        (folder / "model.onnx").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_export(bundle, "onnx", "int8", fill=fill, canary_logits=lambda _: ANSWERS, facts={}, replace=True)
    assert graph_of(bundle, "int8").path.read_bytes() == b"graph"
    assert [path.name for path in (bundle.path / "exports").iterdir()] == ["onnx-int8"]


def test_an_altered_file_is_refused_with_how_to_make_it_again(bundle: Bundle) -> None:
    export(bundle).main_file.write_bytes(b"grapf")
    message, hint = refusal(bundle)
    assert "`model.onnx` was altered or damaged" in message
    assert hint == f"linne export {bundle.path} --to onnx --precision int8 --replace"


def test_an_edited_manifest_is_refused(bundle: Bundle) -> None:
    path = export(bundle).path / EXPORT_MANIFEST
    path.write_text(path.read_text().replace("by hand", "by HAND"))
    assert "`export.json` was edited or damaged" in refusal(bundle)[0]


def test_an_export_of_another_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    other = write_null_bundle(tmp_path / "other", LABELS[::-1], SPEC)
    shutil.copytree(export(bundle).path, other.path / "exports" / "onnx-int8")
    assert "made of another network, other labels or another input" in refusal(other)[0]


def test_an_export_under_another_name_is_refused(bundle: Bundle) -> None:
    export(bundle).path.rename(bundle.path / "exports" / "onnx-fp16")
    with pytest.raises(BundleError, match="it calls itself `onnx-int8`"):
        open_export(bundle, "onnx", "fp16")


def test_new_scores_of_the_bundle_leave_its_exports_valid(bundle: Bundle) -> None:
    written = export(bundle)
    assert open_export(add_metrics(bundle, {"test": {"accuracy": 0.5}}), "onnx", "int8") == written


def test_answers_that_are_no_numbers_are_not_kept(bundle: Bundle) -> None:
    def fill(folder: Path) -> str:
        (folder / "model.onnx").write_bytes(b"")
        return "model.onnx"

    with pytest.raises(BundleError, match="no numbers"):
        write_export(bundle, "onnx", "int8", fill=fill, canary_logits=lambda _: [[float("nan")] * 3] * 4, facts={})
    assert exports_of(bundle) == ()


def test_without_an_export_the_command_that_makes_it_is_named(bundle: Bundle) -> None:
    assert not has_export(bundle, "onnx", "int8")
    assert not has_graph(bundle)
    message, hint = refusal(bundle)
    assert message == f"bundle `{bundle.path}` has no export `onnx-int8`"
    assert hint == f"linne export {bundle.path} --to onnx --precision int8"


def test_rows_of_another_length_are_refused(bundle: Bundle) -> None:
    def fill(folder: Path) -> str:
        (folder / "model.onnx").write_bytes(b"")
        return "model.onnx"

    write_export(bundle, "onnx", "int8", fill=fill, canary_logits=lambda _: [[1.0]], facts={})
    assert "`canary_logits` are not 4 rows of 3 numbers" in refusal(bundle)[0]
    assert json.loads((bundle.path / "exports" / "onnx-int8" / EXPORT_MANIFEST).read_text())["canary_logits"] == [[1.0]]
