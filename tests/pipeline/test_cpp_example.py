"""The C++ example, built and run: it sees the pixels and gives the answers that linne does.

Needs a compiler, CMake, libjpeg, libpng and nlohmann's JSON. Answers also need ONNX Runtime (where CMake finds it,
where ONNXRUNTIME_ROOT says, or in build/onnxruntime) or MIGraphX in build/migraphx; `make migraphx` brings both.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.cpp_images import bad_files, jpegs, pngs
from fixtures.graphs import change_weight, image_graph, write_graph_bundle

from linne.bundle import canary_batch, write_bundle
from linne.data.images.decode import to_input
from linne.errors import ImageError
from linne.exports import write_export
from linne.preprocess import InputSpec

pytestmark = pytest.mark.long

PACKAGES = "apt install cmake g++ libjpeg-dev libpng-dev nlohmann-json3-dev"
LABELS = [f"label {k}" for k in range(7)]
TOLERANCE = 1e-4
"""Of probabilities: kernels may add up in another order."""


def spec(interpolation: str, height: int, width: int, *, channels: int = 3, **others: object) -> InputSpec:
    scaling = {"mean": (0.485, 0.456, 0.406)[:channels], "std": (0.229, 0.224, 0.225)[:channels]}
    return InputSpec(channels=channels, height=height, width=width, interpolation=interpolation, **scaling, **others)  # type: ignore[arg-type]


SPECS = {
    "bilinear, square": spec("bilinear", 64, 64, crop_pct=0.875),
    "bicubic, square": spec("bicubic", 96, 96, crop_pct=0.95),
    "bicubic, grey": spec("bicubic", 64, 64, channels=1, crop_pct=0.875),
    "lanczos, not square": spec("lanczos", 60, 80),
    "nearest": spec("nearest", 64, 64, crop_pct=0.9),
    "stretched": spec("bicubic", 50, 40, crop_mode="squash"),
    "enlarged": spec("lanczos", 400, 400),
}


@dataclass(frozen=True)
class Example:
    """The program, and the runtimes it was built with."""

    command: tuple[str, ...]
    runtimes: tuple[str, ...]

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.command, *map(str, words)], capture_output=True, text=True, check=False)


def build(repository: Path, folder: Path, *settings: str, launcher: tuple[str, ...] = ()) -> Example:
    """Return the example built in `folder`, or skip the test with what is missing."""
    missing = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found: {PACKAGES}")
    configured = subprocess.run(
        ["cmake", "-S", repository / "examples/cpp", "-B", folder, *settings],
        capture_output=True,
        text=True,
        check=False,
    )
    lacks = re.search(r"could not find.*", configured.stderr, re.IGNORECASE)
    if configured.returncode and lacks:
        pytest.skip(f"CMake: {lacks[0]}: {PACKAGES}")
    assert configured.returncode == 0, configured.stderr
    built = subprocess.run(["cmake", "--build", folder], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    found = re.search(r"Runtimes: (.*)", configured.stdout)
    return Example((*launcher, str(folder / "classify")), tuple(found[1].split(";")) if found else ())


@pytest.fixture(scope="module")
def example(repository, tmp_path_factory):
    root = os.environ.get("ONNXRUNTIME_ROOT") or repository / "build/onnxruntime"
    return build(repository, tmp_path_factory.mktemp("cpp"), f"-DONNXRUNTIME_ROOT={root}")


@pytest.fixture(scope="module")
def answering(example):
    """The example with ONNX Runtime."""
    if "onnxruntime" not in example.runtimes:
        pytest.skip(
            "CMake finds no ONNX Runtime: `make migraphx` puts headers and a link to the installed library in "
            "build/onnxruntime (rm -r it first where it is an older one's); ONNXRUNTIME_ROOT names another folder"
        )
    return example


@pytest.fixture(scope="module")
def with_migraphx(repository, tmp_path_factory):
    """The example with the MIGraphX of build/migraphx, and the C library that this was built for."""
    root = repository / "build/migraphx"
    libraries = root / "usr/lib/x86_64-linux-gnu"
    if not (root / "usr/include/migraphx/migraphx.h").is_file():
        pytest.skip(
            "no MIGraphX with its headers in build/migraphx: `make migraphx` fetches both (rm -r an older one first)"
        )
    path = f"{libraries}:{libraries}/migraphx/lib:/usr/lib/x86_64-linux-gnu"
    settings = (f"-DMIGRAPHX_ROOT={root}", "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined")
    launcher = (str(libraries / "ld-linux-x86-64.so.2"), "--library-path", path)
    return build(repository, tmp_path_factory.mktemp("cpp"), *settings, launcher=launcher)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name, (image, settings) in {**jpegs(), **pngs()}.items():
        image.save(folder / name, **settings)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_graph_bundle(tmp_path_factory.mktemp("bundle") / "mine", LABELS, SPECS["bicubic, square"]).path


@pytest.mark.parametrize("what", SPECS)
def test_the_network_is_shown_what_linne_shows_it_pixel_for_pixel(example, images, tmp_path, what):
    wanted = SPECS[what]
    mine = write_graph_bundle(tmp_path / "mine", LABELS, wanted).path
    different = {}
    for image in images:
        ended = example.run(mine, image, "--dump", tmp_path / "seen")
        assert ended.returncode == 0, ended.stderr
        seen = np.fromfile(tmp_path / "seen", np.uint8).reshape(wanted.height, wanted.width, wanted.channels)
        expected = to_input(image.read_bytes(), wanted, name=image.name)
        if (seen != expected).any():
            different[image.name] = int(np.abs(seen.astype(int) - expected).max())
    assert different == {}


def answers(ended: subprocess.CompletedProcess[str]) -> dict[str, list[tuple[str, float]]]:
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    return {row["file"]: [(one["label"], one["probability"]) for one in row["predictions"]] for row in rows}


def assert_same_answers(
    found: dict[str, list[tuple[str, float]]], expected: dict[str, list[tuple[str, float]]]
) -> None:
    assert found.keys() == expected.keys()
    for file, ours in expected.items():
        assert [label for label, _ in found[file]] == [label for label, _ in ours], file
        assert [p for _, p in found[file]] == pytest.approx([p for _, p in ours], abs=TOLERANCE), file


def test_it_gives_the_five_labels_of_linne_predict(answering, python, bundle, images):
    expected = answers(python("-m", "linne", "predict", bundle, *images, "--format", "jsonl"))
    assert_same_answers(answers(answering.run(bundle, *images, "--json")), expected)


def test_by_migraphx_it_gives_the_five_labels_of_linne_predict(with_migraphx, python, bundle, images):
    few = images[:3]
    expected = answers(python("-m", "linne", "predict", bundle, *few, "--format", "jsonl"))
    ended = with_migraphx.run(bundle, *few, "--runtime", "migraphx", "--target", "ref", "--json")
    assert_same_answers(answers(ended), expected)


def test_people_get_a_line_a_label(answering, bundle, images):
    ended = answering.run(bundle, images[0], "--top", "2")
    assert re.fullmatch(rf"{re.escape(str(images[0]))}:\n(  [ \d]{{3}}\.\d %  label \d\n){{2}}", ended.stdout), ended


def test_a_graph_for_four_images_at_once_answers_one(answering, python, tmp_path, images):
    mine = write_graph_bundle(tmp_path / "mine", LABELS, SPECS["bicubic, grey"], batch=4).path
    expected = answers(python("-m", "linne", "predict", mine, images[0], "--format", "jsonl"))
    assert_same_answers(answers(answering.run(mine, images[0], "--json")), expected)


@pytest.fixture
def exported(tmp_path):
    """A bundle of weights with an ONNX export."""
    from linne.graphs.session import GraphSession

    wanted = SPECS["bilinear, square"]
    content = image_graph(len(LABELS), wanted).SerializeToString()
    logits = GraphSession(content, "by hand").run(canary_batch(wanted))
    bundle = write_bundle(
        tmp_path / "trained",
        labels=LABELS,
        input=wanted,
        model={"provider": "small", "name": "small", "num_classes": len(LABELS)},
        weights={"weight": np.zeros(1, np.float32)},
        config={"label_names": LABELS, "pretrained_cfg": wanted.to_dict()},
        canary_logits_NK=logits,
        metrics={},
        provenance={},
    )

    def fill(folder: Path) -> str:
        (folder / "model.onnx").write_bytes(content)
        return "model.onnx"

    write_export(bundle, "onnx", "fp32", fill=fill, canary_logits=lambda _: logits.tolist(), facts={})
    return bundle.path


def test_it_runs_the_export_of_a_bundle_of_weights(answering, python, exported, images):
    words = ("predict", exported, *images[:3], "--backend", "onnxruntime", "--format", "jsonl")
    expected = answers(python("-m", "linne", *words))
    assert_same_answers(answers(answering.run(exported, *images[:3], "--json")), expected)


def test_without_a_graph_it_says_how_to_make_one(example, exported, images):
    shutil.rmtree(exported / "exports")
    ended = example.run(exported, images[0])
    expected = f"error: bundle `{exported}`: it holds no graph; make one: linne export {exported} --to onnx\n"
    assert (ended.returncode, ended.stderr) == (1, expected)


def test_a_network_that_answers_otherwise_than_it_did_is_refused(answering, bundle, images, tmp_path):
    shutil.copytree(bundle, tmp_path / "changed")
    change_weight(tmp_path / "changed/model.onnx")
    ended = answering.run(tmp_path / "changed", images[0])
    assert ended.returncode == 1
    assert "it does not answer its canaries as it did when it was made" in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize("name", bad_files())
def test_an_image_that_linne_refuses_ends_with_a_line_that_says_why(example, bundle, tmp_path, name):
    content, reason = bad_files()[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError) if name != "cmyk.jpg" else contextlib.nullcontext():
        to_input(content, SPECS["bicubic, square"], name=name)
    ended = example.run(bundle, tmp_path / name, "--dump", tmp_path / "seen")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: `{tmp_path / name}` cannot be read: ")
    assert reason in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "seen").exists()


def test_a_folder_and_a_missing_file_are_no_images(example, bundle, tmp_path):
    for path, reason in ((tmp_path, "it is a folder"), (tmp_path / "none.jpg", "there is no such file")):
        ended = example.run(bundle, path, "--dump", tmp_path / "seen")
        assert (ended.returncode, ended.stderr) == (1, f"error: `{path}` cannot be read: {reason}\n")


def test_the_other_images_are_answered_all_the_same(answering, bundle, images, tmp_path):
    ended = answering.run(bundle, tmp_path / "none.jpg", images[0], "--json")
    assert ended.returncode == 1
    assert [json.loads(line)["file"] for line in ended.stdout.splitlines()] == [str(images[0])]


WRONG_MANIFESTS: Mapping[str, tuple[dict[str, Any], str]] = {
    "a newer format": ({"format": 3}, "it is of format 3, not known here"),
    "no labels": ({"labels": []}, "`labels` is empty"),
    "labels of another kind": ({"labels": [1, 2]}, "`labels`: "),
    "a label twice": ({"labels": ["a"] * 7}, "`labels` are not all different texts"),
    "another number of labels": ({"labels": ["a", "b"]}, "a canary has not one logit a label"),
    "no input": ({"input": None}, "it has no `channels`"),
    "an unknown filter": ({"input": {"interpolation": "box"}}, "`input.interpolation` is `box`, not known here"),
    "a width of no pixels": ({"input": {"width": 0}}, "`input` has a side of 0, expected 1 to 8192"),
    "half a pixel": ({"input": {"width": 95.5}}, "`width`: a whole number of at most nine digits is expected"),
    "2^32 columns too many": ({"input": {"width": 2**32 + 96}}, "`width`: a whole number of at most nine digits"),
    "a deviation of zero": ({"input": {"std": [0.1, 0.0, 0.1]}}, "`input.std` is not above 0"),
    "a file elsewhere": ({"canaries": [{"file": "../0.png", "logits": {}}]}, "`../0.png` is no file of the bundle"),
    "another size of the graph": ({"files": {"model.onnx": {"size_bytes": 1}}}, "`model.onnx` is missing or not of"),
}


@pytest.mark.parametrize("what", WRONG_MANIFESTS)
def test_a_bundle_of_the_wrong_shape_is_refused(example, bundle, images, tmp_path, what):
    changes, reason = WRONG_MANIFESTS[what]
    shutil.copytree(bundle, tmp_path / "wrong")
    manifest = json.loads((tmp_path / "wrong/bundle.json").read_bytes())
    for key, value in changes.items():
        manifest[key] = {**manifest[key], **value} if isinstance(value, dict) else value
    (tmp_path / "wrong/bundle.json").write_text(json.dumps(manifest))
    ended = example.run(tmp_path / "wrong", images[0], "--dump", tmp_path / "seen")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: bundle `{tmp_path / 'wrong'}`: ")
    assert reason in ended.stderr


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1e999}', "[" * 100_000, '{"a":' * 100 + "1" + "}" * 100]
)
def test_what_is_no_json_object_is_refused(example, images, tmp_path, content):
    (tmp_path / "bundle.json").write_text(content)
    ended = example.run(tmp_path, images[0], "--dump", tmp_path / "seen")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: bundle `{tmp_path}`: `{tmp_path / 'bundle.json'}`")


def test_a_graph_of_another_size_than_the_input_is_refused(answering, bundle, images, tmp_path):
    shutil.copytree(bundle, tmp_path / "wrong")
    manifest = json.loads((tmp_path / "wrong/bundle.json").read_bytes())
    manifest["input"]["width"] = 90
    (tmp_path / "wrong/bundle.json").write_text(json.dumps(manifest))
    ended = answering.run(tmp_path / "wrong", images[0])
    assert "its graph takes N x 3 x 96 x 96, and `input` says 3 x 96 x 90" in ended.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "a bundle and an image are needed"),
        (("b", "i", "--top", "0"), "--top is `0`, expected 1 or more"),
        (("b", "i", "--top"), "--top needs a value"),
        (("b", "i", "--tpo", "1"), "no option `--tpo`"),
        (("b", "i", "j", "--dump", "f"), "--dump takes one image"),
    ],
)
def test_what_is_typed_wrong_is_said_with_the_usage(example, words, reason):
    ended = example.run(*words)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {reason}\nusage: classify BUNDLE IMAGE")
