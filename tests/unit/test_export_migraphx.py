"""Exports to MIGraphX, by the double of its Python module: what is kept of them, and when they are opened again.

`test_migraphx_reference.py` makes one with the real MIGraphX.
"""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from fakes.migraphx import FakeMigraphx
from fixtures.graphs import write_graph_bundle

import linne
from linne.bundle_format import seal
from linne.errors import BundleError, DeviceError, LinneError, RecipeError
from linne.exports import open_export
from linne.graphs.migraphx_c import VARIABLE
from linne.graphs.migraphx_compiled import CompiledFor
from linne.inference.backends.base import RunOptions
from linne.inference.backends.migraphx import FACT, MigraphxBackend
from linne.inference.predictor import Predictor
from linne.preprocess import InputSpec
from linne.tuned import versions_of

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SPEC = InputSpec(channels=3, height=8, width=10, mean=(0.5,) * 3, std=(0.25,) * 3)
CPU = RunOptions(device="cpu")


@pytest.fixture
def fake(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found = FakeMigraphx()
    monkeypatch.setitem(sys.modules, "migraphx", found)
    # The real one's is the name of a file that the process has loaded.
    monkeypatch.setattr("linne.graphs.migraphx_program.loaded_version", lambda: "2.14.0")
    return found


@pytest.fixture
def bundle(tmp_path):
    return write_graph_bundle(tmp_path / "bundle", ("ant", "bee", "cow"), SPEC)


def export(bundle, **settings):
    return linne.export(bundle.path, "migraphx", **{"device": "cpu", "quiet": True, **settings})


def with_facts(bundle, **changes):
    """Change for what the export says it was compiled."""
    path = open_export(bundle, "migraphx", "fp32").path / "export.json"
    manifest = json.loads(path.read_bytes())
    manifest["facts"][FACT].update(changes)
    path.write_bytes(seal({key: value for key, value in manifest.items() if key != "sha256"}, path.name))


def test_an_export_is_verified_as_loaded_again_and_says_for_what_it_was_compiled(fake, bundle, capsys):
    made = export(bundle, backend_options={"batch_size": "2"}, quiet=False)
    assert made.export.main_file == bundle.path / "exports/migraphx-fp32/model.mxr"
    assert made.agreement.num_same == 64
    compiled_for = CompiledFor.from_dict(open_export(bundle, "migraphx", "fp32").facts[FACT])
    assert (compiled_for.migraphx, compiled_for.target) == ("2.14.0", "ref")
    assert compiled_for.shape == (2, 3, 8, 10)
    assert "in batches of 1, 3, 64" in capsys.readouterr().err
    export(bundle, replace=True, quiet=False)
    # One image at a time is all that such a program does.
    assert "in batches of 1:" in capsys.readouterr().err


def test_the_backend_loads_it_instead_of_compiling_the_graph(fake, bundle):
    export(bundle)
    fake.calls.clear()
    predictor = Predictor.open(bundle, backend="migraphx", how=CPU)
    assert {call[0] for call in fake.calls} == {"run"}
    assert predictor.backend.description.endswith("compiled before")
    (bundle.path / "model.onnx").unlink()
    assert MigraphxBackend.why_not(bundle) is None


@pytest.mark.parametrize("options", [{"batch_size": "4"}, {"exhaustive_tune": "true"}])
def test_what_is_asked_for_otherwise_is_compiled_from_the_graph(fake, bundle, options):
    export(bundle)
    fake.calls.clear()
    backend = MigraphxBackend.open(bundle, RunOptions(device="cpu", options=options))
    assert fake.calls[0] == ("parse", int(options.get("batch_size", "1")))
    assert "compiled before" not in backend.description
    fake.calls.clear()
    MigraphxBackend.open(bundle, RunOptions(device="cpu", options={"batch_size": "1", "exhaustive_tune": "false"}))
    assert fake.calls == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"migraphx": "2.13.0"}, "it was compiled by MIGraphX 2.13.0, and here is MIGraphX "),
        ({"target": "gpu"}, "it was compiled for MIGraphX's target `gpu`, not for `ref`"),
        ({"architecture": "riscv64"}, "it was compiled for riscv64, and here is "),
    ],
)
def test_one_that_was_compiled_for_elsewhere_is_an_error_that_says_what_to_type(fake, bundle, changes, reason):
    export(bundle)
    with_facts(bundle, **changes)
    fake.calls.clear()
    with pytest.raises(DeviceError) as raised:
        MigraphxBackend.open(bundle, CPU)
    expected = f"bundle `{bundle.path}`: `exports/migraphx-fp32/model.mxr` cannot be run here: {reason}"
    assert raised.value.message.startswith(expected)
    assert raised.value.hint == (
        f"linne export {bundle.path} --to migraphx --precision fp32 --device cpu --replace; or delete "
        f"`{bundle.path / 'exports/migraphx-fp32'}`: the graph is then compiled each time"
    )
    assert fake.calls == [], "nothing of it is loaded"


@pytest.mark.parametrize("wrong", [{"target": "fpga"}, {"shape": [1, 2]}, {"shape": [1, 3, 8, True]}, {"migraphx": 2}])
def test_facts_of_another_form_are_refused(fake, bundle, wrong):
    export(bundle)
    with_facts(bundle, **wrong)
    with pytest.raises(BundleError, match="does not say for what the program was compiled"):
        MigraphxBackend.open(bundle, CPU)


def test_a_program_that_somebody_else_compiled_is_never_loaded(fake, bundle, monkeypatch, tmp_path):
    export(bundle)
    moved = shutil.copytree(bundle.path, tmp_path / "moved")
    assert Predictor.open(moved, backend="migraphx", how=CPU), "where the bundle lies does not matter"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of somebody else"))
    monkeypatch.setattr(fake, "load", None)
    with pytest.raises(BundleError) as raised:
        MigraphxBackend.open(bundle, CPU)
    assert "is compiled code, and was not made here: opening it would run what is in it" in raised.value.message
    assert raised.value.hint == (
        f"linne export {bundle.path} --to migraphx --precision fp32 --device cpu --replace makes it here"
    )
    with pytest.raises(BundleError, match="was not made here"):
        MigraphxBackend.open(bundle, RunOptions(device="cpu", trust_code=True))


def test_what_version_is_not_known_fits_no_program():
    compiled = CompiledFor(
        migraphx="of unknown version", target="ref", architecture="x86_64", shape=(1, 3, 8, 8), exhaustive_tune=False
    )
    assert "cannot be told from another" in (compiled.why_not_here("of unknown version", "ref") or "")
    assert "cannot be told from another" in (compiled.why_not_here("", "ref") or "")


def test_where_no_version_is_known_no_program_is_written_that_nothing_could_load(fake, bundle, monkeypatch):
    monkeypatch.setattr("linne.graphs.migraphx_program.loaded_version", lambda: "of unknown version")
    with pytest.raises(LinneError, match="MIGraphX of unknown version on "):
        export(bundle)
    assert versions_of("migraphx") == {}


def test_half_precision_is_an_export_of_its_own(fake, bundle):
    export(bundle, precision="fp16")
    assert ("fp16",) in fake.calls
    assert (bundle.path / "exports/migraphx-fp16/model.mxr").is_file()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "int8"}, "`migraphx` is exported in fp32 and fp16, not in int8"),
        ({"bake_preprocessing": True}, "`--bake-preprocessing` goes with `--to onnx`, not with `migraphx`"),
        ({"backend_options": {"batch": "1"}}, "backend `migraphx` has no option `batch`"),
    ],
)
def test_what_it_is_not_made_in_is_refused_before_anything_is_computed(fake, bundle, settings, message):
    with pytest.raises(RecipeError) as raised:
        export(bundle, **settings)
    assert raised.value.message == message
    assert fake.calls == []


def test_without_a_gpu_none_is_made_for_one_and_without_migraphx_none_at_all(fake, bundle, monkeypatch, tmp_path):
    with pytest.raises(DeviceError, match="MIGraphX finds no GPU that it can use"):
        export(bundle, device="auto")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.so"))
    with pytest.raises(LinneError, match="an export to MIGraphX cannot be made: `LINNE_MIGRAPHX_LIBRARY` names"):
        export(bundle)


def test_a_device_is_only_for_what_is_compiled_for_one(bundle):
    with pytest.raises(RecipeError) as raised:
        linne.export(bundle.path, "onnx", precision="fp16", device="cpu", quiet=True)
    assert raised.value.message == (
        "`--device` and `--backend-option` are for what is compiled for a device, not for `onnx`"
    )
