"""What `linne.bundle` writes, and everything it refuses to open."""

from __future__ import annotations

import copy
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from linne.bundle import Bundle, add_metrics, canary_batch, canary_images, model_card, open_bundle, write_bundle
from linne.bundle_format import MAX_JSON_BYTES, describe_file, migrate, seal
from linne.errors import BundleError
from linne.inference.backends.null import NullBackend, null_weights, write_null_bundle
from linne.preprocess import InputSpec

LABELS = ("cat", "dog", "owl")
SPEC = InputSpec(
    channels=3, height=6, width=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), interpolation="bicubic", crop_pct=0.75
)
GREY = InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,))
METRICS = {"val": {"accuracy": 0.9375, "accuracy_interval": [0.9, 0.96], "num_examples": 320}}
PROVENANCE = {
    "seed": 3,
    "created": "2026-01-02T03:04:05+00:00",
    "source": {"name": "pets", "fingerprint": "ab12", "num_train": 900},
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_null_bundle(tmp_path / "pets", LABELS, SPEC, metrics=METRICS, provenance=PROVENANCE)


def parts(**changes: Any) -> dict[str, Any]:
    """Everything `write_bundle` wants, consistent, with `changes`."""
    weights = null_weights(len(LABELS), SPEC)
    logits_NK = NullBackend(weights["weight"], weights["bias"]).run(canary_batch(SPEC))
    whole: dict[str, Any] = {
        "labels": LABELS,
        "input": SPEC,
        "model": {"provider": "null", "name": "linear"},
        "weights": weights,
        "config": {"label_names": list(LABELS)},
        "canary_logits_NK": logits_NK,
        "metrics": {},
        "provenance": {},
    }
    return {**whole, **changes}


def rewrite(bundle: Bundle, change: Callable[[dict[str, Any]], Any] = lambda manifest: None) -> None:
    """Change `bundle.json` and give it hashes and a checksum that fit, as a careful forger would."""
    manifest = json.loads((bundle.path / "bundle.json").read_bytes())
    del manifest["checksum"]
    for name in manifest["files"]:
        manifest["files"][name] = describe_file(bundle.path, name)
    change(manifest)
    (bundle.path / "bundle.json").write_bytes(seal(manifest))


def refusal(folder: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    return caught.value


def listed_files() -> list[str]:
    return ["config.json", "model.safetensors", "README.md", *(f"canaries/{i}.png" for i in range(4))]


# What is written


def test_a_bundle_reads_back_as_it_was_written(bundle: Bundle) -> None:
    opened = open_bundle(str(bundle.path))
    assert opened == bundle
    assert opened.labels == LABELS
    assert opened.input == SPEC
    assert opened.metrics == METRICS
    assert opened.provenance == PROVENANCE
    assert opened.model == {"provider": "null", "name": "linear", "num_classes": 3}
    written = null_weights(3, SPEC)
    assert set(opened.weights()) == set(written)
    for name, value in opened.weights().items():
        np.testing.assert_array_equal(value, written[name])


def test_a_bundle_holds_exactly_the_documented_files(bundle: Bundle) -> None:
    found = {p.relative_to(bundle.path).as_posix() for p in bundle.path.rglob("*") if p.is_file()}
    assert found == {"bundle.json", *listed_files()}
    assert set(bundle.files) == set(listed_files())
    modes = {stat.S_IMODE((bundle.path / name).stat().st_mode) for name in found}
    assert len(modes) == 1, "whoever may read one file may read all"


def test_nothing_but_the_bundle_is_left_beside_it(bundle: Bundle) -> None:
    assert os.listdir(bundle.path.parent) == ["pets"]


def test_weights_keep_shape_type_and_order_whatever_their_memory_layout(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    weights = {
        "turned": base.transpose(2, 0, 1),
        "strided": base[:, ::2],
        "scalar": np.array(7),
        "half": base.astype("f2"),
    }
    opened = write_bundle(tmp_path / "b", **parts(weights=weights)).weights()
    for name, value in weights.items():
        assert opened[name].shape == value.shape
        assert opened[name].dtype == value.dtype
        np.testing.assert_array_equal(opened[name], value)


def test_canary_logits_survive_the_text_form_exactly(tmp_path: Path) -> None:
    logits_NK = parts()["canary_logits_NK"]
    bundle = write_bundle(tmp_path / "b", **parts())
    np.testing.assert_array_equal(np.array([c.logits for c in bundle.canaries], np.float32), logits_NK)
    assert [c.label for c in bundle.canaries] == [LABELS[k] for k in logits_NK.argmax(axis=1)]


@pytest.mark.parametrize("spec", [SPEC, GREY])
def test_canaries_are_files_of_the_generated_pictures(tmp_path: Path, spec: InputSpec) -> None:
    bundle = write_null_bundle(tmp_path / "b", LABELS, spec)
    for canary, pixels_HWC in zip(bundle.canaries, canary_images(spec), strict=True):
        with Image.open(bundle.path / canary.file) as image:
            np.testing.assert_array_equal(np.asarray(image).reshape(pixels_HWC.shape), pixels_HWC)


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 6, 8), (3, 224, 224), (3, 32, 200)])
def test_canary_pictures_are_larger_than_the_input_not_square_and_repeatable(
    channels: int, height: int, width: int
) -> None:
    spec = InputSpec(channels=channels, height=height, width=width, mean=(0.5,) * channels, std=(0.5,) * channels)
    images, again = canary_images(spec), canary_images(spec)
    for first, second in zip(images, again, strict=True):
        assert first.dtype == np.uint8
        assert first.shape[0] > height
        assert first.shape[1] > width
        assert first.shape[2] == channels
        assert first.shape[0] / height != first.shape[1] / width
        np.testing.assert_array_equal(first, second)


def test_canaries_of_a_huge_input_stay_small() -> None:
    spec = InputSpec(channels=3, height=8192, width=8192, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert max(max(image.shape) for image in canary_images(spec)) == 1024


# What is refused on opening


@pytest.mark.parametrize("name", ["bundle.json", *listed_files()])
def test_one_flipped_bit_anywhere_is_refused(bundle: Bundle, name: str) -> None:
    path = bundle.path / name
    good = path.read_bytes()
    for offset in sorted({int(share * (len(good) - 1)) for share in np.linspace(0, 1, 16)}):
        for bit in (0, 5):
            damaged = bytearray(good)
            damaged[offset] ^= 1 << bit
            path.write_bytes(damaged)
            error = refusal(bundle.path)
            assert name in error.message, f"byte {offset}: {error.message}"
    path.write_bytes(good)
    assert open_bundle(bundle.path) == bundle


@pytest.mark.parametrize("name", listed_files())
def test_a_file_cut_short_or_too_long_is_refused_with_both_sizes(bundle: Bundle, name: str) -> None:
    path = bundle.path / name
    good = path.read_bytes()
    path.write_bytes(good[:-3])
    assert f"`{name}` is cut short: {len(good) - 3:,} bytes, expected {len(good):,}" in refusal(bundle.path).message
    path.write_bytes(good + b"\n")
    assert f"`{name}` is too long: {len(good) + 1:,} bytes, expected {len(good):,}" in refusal(bundle.path).message


def test_an_altered_file_is_named_with_what_to_do(bundle: Bundle) -> None:
    path = bundle.path / "model.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 64
    path.write_bytes(damaged)
    error = refusal(bundle.path)
    assert error.message.startswith(
        f"bundle `{bundle.path}`: `model.safetensors` was altered or damaged: its sha256 is "
    )
    assert error.hint == "copy or download it again, or train again; nothing in it was used"


@pytest.mark.parametrize("name", listed_files())
def test_a_missing_file_is_called_half_written(bundle: Bundle, name: str) -> None:
    (bundle.path / name).unlink()
    assert refusal(bundle.path).message == f"bundle `{bundle.path}`: half-written or incomplete: `{name}` is not there"


def test_an_edited_manifest_is_refused(bundle: Bundle) -> None:
    path = bundle.path / "bundle.json"
    path.write_bytes(path.read_bytes().replace(b"0.9375", b"0.9975"))
    assert "`bundle.json` was edited or damaged: its sha256 is " in refusal(bundle.path).message


def test_a_manifest_without_its_checksum_is_refused(bundle: Bundle) -> None:
    manifest = json.loads((bundle.path / "bundle.json").read_bytes())
    del manifest["checksum"]
    (bundle.path / "bundle.json").write_text(json.dumps(manifest))
    assert "`bundle.json` has no checksum of its own: it was edited or damaged" in refusal(bundle.path).message


def test_a_newer_bundle_is_refused_naming_the_versions(bundle: Bundle) -> None:
    rewrite(bundle, lambda m: m.update(format=3, linne="9.1.0", more="unknown today"))
    error = refusal(bundle.path)
    assert error.message == (
        f"bundle `{bundle.path}`: written by linne 9.1.0 in bundle format 3; this linne reads up to format 2"
    )
    assert error.hint == "pip install --upgrade linne"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "`bundle.json` is not valid JSON: "),
        (b"[1, 2]", "`bundle.json` holds a list, expected an object"),
        (b'{"format": 1, "format": 1}', "`bundle.json` is not valid JSON: key `format` appears twice"),
        (b'{"format": 1, "metrics": NaN}', "`bundle.json` is not valid JSON: `NaN` is not a finite number"),
        (b'{"format": 1, "metrics": 1e999}', "`bundle.json` is not valid JSON: `1e999` is not a finite number"),
        (b'{"format": 1, "metrics": ' + b"9" * 9000 + b"}", "`bundle.json` is not valid JSON: "),
        (b'{"format": 1, "labels": "\xff"}', "`bundle.json` is not valid JSON: 'utf-8' codec"),
        (b'{"a":' * 20 + b"1" + b"}" * 20, "`bundle.json` is nested deeper than 16 levels"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "`bundle.json` is nested deeper than 16 levels"),
        (b"{}", "`bundle.json` has format `None`, expected a whole number from 1 to 2"),
        (b'{"format": true}', "`bundle.json` has format `True`, expected a whole number from 1 to 2"),
        (b'{"format": 0}', "`bundle.json` has format `0`, expected a whole number from 1 to 2"),
    ],
)
def test_a_manifest_that_is_not_strict_json_is_refused(bundle: Bundle, content: bytes, text: str) -> None:
    (bundle.path / "bundle.json").write_bytes(content)
    assert text in refusal(bundle.path).message


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.update(author="me"), "unknown key `author` in `bundle.json`"),
        (lambda m: m.pop("canaries"), "`bundle.json` has no `canaries`"),
        (lambda m: m.update(task="detection"), "the task is `detection`, expected `image-classification`"),
        (lambda m: m.update(labels=["cat", "dog", "cat"]), "label `cat` appears twice"),
        (lambda m: m.update(labels=["cat", "dog", ""]), "`labels` must be a list of texts, none empty"),
        (lambda m: m.update(labels=["cat", "\ud800", "owl"]), r"label '\ud800' is not Unicode text"),
        (lambda m: m.update(labels=[]), "`labels` must be a list of texts, none empty"),
        (lambda m: m["model"].update(num_classes=4), "the model has 4 classes and the bundle 3 labels"),
        (lambda m: m["input"].update(gamma=2), "unknown key `gamma` in `input`"),
        (lambda m: m["input"].update(height="6"), "`input.height` is `6`, expected a whole number"),
        (lambda m: m["input"].update(height=10**9), "input spec asks for 1000000000 x 8 pixels, expected 1 to 8192"),
        (lambda m: m["input"].update(mean=0.5), "`input.mean` is `0.5`, expected a list"),
        (lambda m: m.update(canaries=[]), "`canaries` must be a list of 1 to 64"),
        (lambda m: m["canaries"][0].update(label="dog?"), "`canaries.0` is labelled `dog?`, but its logits say other"),
        (lambda m: m["canaries"][0]["logits"].update(cat="1"), "`canaries.0.logits` must be numbers"),
        (lambda m: m["canaries"][0]["logits"].pop("cat"), "`canaries.0.logits` has no `cat`"),
        (lambda m: m["canaries"][0].update(file="x.png"), "`files` does not list `x.png`"),
        (lambda m: m["files"].pop("model.safetensors"), "`files` does not list `model.safetensors`"),
        (lambda m: m["files"]["README.md"].update(mode=1), "unknown key `mode` in `files.README.md`"),
        (lambda m: m["files"]["README.md"].update(size_bytes=10**30), "`files.README.md.size_bytes` is `1000000000"),
        (lambda m: m["files"]["README.md"].update(size_bytes=-1), "`files.README.md.size_bytes` is `-1`, expected a"),
        (lambda m: m["files"]["README.md"].update(sha256="0"), "`files.README.md.sha256` is `0`, expected 64 hexadec"),
        (lambda m: m["files"].update({f"f{i}": {} for i in range(1000)}), "`files` lists 1,007 files, expected at mo"),
        (lambda m: m["files"].update({"../x": {}}), "`files` lists `../x`, which is not a plain relative file name"),
        (lambda m: m["files"].update({"/etc/hosts": {}}), "`files` lists `/etc/hosts`, which is not a plain relative"),
        (lambda m: m["files"].update({"a//b": {}}), "`files` lists `a//b`, which is not a plain relative file name"),
        (lambda m: m["files"].update({"a\\b": {}}), "`files` lists `a\\b`, which is not a plain relative file name"),
        (lambda m: m["files"].update({"bundle.json": {}}), "`files` lists `bundle.json`, which is not a plain"),
    ],
)
def test_a_manifest_with_wrong_content_is_refused(
    bundle: Bundle, change: Callable[[dict[str, Any]], Any], text: str
) -> None:
    rewrite(bundle, change)
    assert text in refusal(bundle.path).message


def test_hostile_values_anywhere_in_the_manifest_never_raise_anything_but_a_refusal(bundle: Bundle) -> None:
    manifest = json.loads((bundle.path / "bundle.json").read_bytes())
    del manifest["checksum"]
    num_refused = 0
    for path in list(paths_in(manifest)):
        for value in (None, True, -1, 2**70, 1e300, "", "\ud800", "x", [], {}, [[]], {"a": []}):
            changed = copy.deepcopy(manifest)
            holder: Any = changed
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = value
            (bundle.path / "bundle.json").write_bytes(seal(changed))
            try:
                open_bundle(bundle.path)
            except BundleError:
                num_refused += 1
    assert num_refused > 500


def paths_in(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*prefix, key)
        yield from paths_in(child, (*prefix, key))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, bytes]:
    bundle = write_null_bundle(tmp_path_factory.mktemp("sealed") / "b", LABELS, GREY)
    return bundle, (bundle.path / "bundle.json").read_bytes()


@given(st.data())
def test_any_other_byte_anywhere_in_the_manifest_is_refused(sealed: tuple[Bundle, bytes], data: st.DataObject) -> None:
    bundle, good = sealed
    changed = bytearray(good)
    offset = data.draw(st.integers(0, len(good) - 1))
    changed[offset] = data.draw(st.integers(0, 255).filter(lambda value: value != good[offset]))
    (bundle.path / "bundle.json").write_bytes(changed)
    refusal(bundle.path)


def test_a_path_that_is_not_unicode_travels_in_the_provenance(tmp_path: Path) -> None:
    source = {"source": {"name": "folder:caf\udce9"}}
    bundle = write_null_bundle(tmp_path / "b", LABELS, GREY, provenance=source)
    assert open_bundle(bundle.path).provenance == source


def test_labels_exchanged_in_one_of_the_two_files_are_refused(bundle: Bundle) -> None:
    config = json.loads((bundle.path / "config.json").read_bytes())
    config["label_names"] = ["dog", "cat", "owl"]
    (bundle.path / "config.json").write_text(json.dumps(config))
    rewrite(bundle)
    assert "label 0 is `cat` in `bundle.json` and `dog` in `config.json`" in refusal(bundle.path).message
    config["label_names"] = ["cat", "dog"]
    (bundle.path / "config.json").write_text(json.dumps(config))
    rewrite(bundle)
    assert "`config.json` has 2 label_names and `bundle.json` 3 labels" in refusal(bundle.path).message


def test_input_settings_that_timm_would_read_differently_are_refused(bundle: Bundle) -> None:
    config = json.loads((bundle.path / "config.json").read_bytes())
    config["pretrained_cfg"]["interpolation"] = "bilinear"
    (bundle.path / "config.json").write_text(json.dumps(config))
    rewrite(bundle)
    assert "interpolation is bicubic in `bundle.json` and bilinear in `config.json`" in refusal(bundle.path).message


@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors", "canaries", "canaries/0.png"])
def test_a_link_inside_a_bundle_is_refused_even_to_the_right_file(bundle: Bundle, tmp_path: Path, name: str) -> None:
    (bundle.path / name).rename(tmp_path / "elsewhere")
    (bundle.path / name).symlink_to(tmp_path / "elsewhere")
    error = refusal(bundle.path)
    assert error.message == f"bundle `{bundle.path}`: `{name}` is a link, expected a file of its own"
    assert error.hint == "copy the bundle with its links followed: `cp -rL`"


def test_a_link_to_a_whole_bundle_is_followed(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(bundle.path)
    assert open_bundle(tmp_path / "latest").labels == LABELS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_instead_of_a_file_is_refused_without_waiting_for_it(bundle: Bundle) -> None:
    (bundle.path / "config.json").unlink()
    os.mkfifo(bundle.path / "config.json")
    assert "`config.json` is not a file" in refusal(bundle.path).message


def test_a_gigabyte_of_manifest_is_refused_unread(bundle: Bundle) -> None:
    with open(bundle.path / "bundle.json", "r+b") as file:
        file.truncate(2**30)
    assert f"`bundle.json` has 1,073,741,824 bytes, expected at most {MAX_JSON_BYTES:,}" in refusal(bundle.path).message


def test_files_that_the_manifest_does_not_list_are_ignored(bundle: Bundle) -> None:
    (bundle.path / "notes.txt").write_text("kept by its owner")
    assert open_bundle(bundle.path) == bundle


def test_a_missing_folder_a_file_and_another_folder_are_told_apart(bundle: Bundle, tmp_path: Path) -> None:
    missing = refusal(tmp_path / "nowhere")
    assert missing.message == f"no bundle at `{tmp_path / 'nowhere'}`: there is no such folder"
    manifest = bundle.path / "bundle.json"
    file = refusal(manifest)
    assert file.message == f"`{manifest}` is a file, expected a bundle's folder"
    assert file.hint == f"give its folder, `{bundle.path}`"
    manifest.unlink()
    other = refusal(bundle.path)
    assert other.message == f"`{bundle.path}` is not a bundle: it has no `bundle.json`"
    assert other.hint == "`linne train` writes bundles"


def test_a_run_folder_points_to_the_bundle_inside(tmp_path: Path) -> None:
    run = tmp_path / "digits-1"
    inside = write_null_bundle(run / "bundle", LABELS, GREY)
    assert refusal(run).hint == f"did you mean `{inside.path}`?"


# What is refused on writing


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dangling link"])
def test_a_bundle_never_replaces_what_is_there(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "taken"
    if kind == "file":
        target.write_text("mine")
    elif kind == "dangling link":
        target.symlink_to(tmp_path / "nowhere")
    else:
        target.mkdir()
        if kind == "folder":
            (target / "mine.txt").write_text("mine")
    before = [(p.name, p.read_text()) for p in sorted(tmp_path.rglob("*")) if p.is_file()]
    with pytest.raises(BundleError) as caught:
        write_bundle(target, **parts())
    assert caught.value.message == f"`{target}` exists already, and a bundle is never overwritten"
    assert before == [(p.name, p.read_text()) for p in sorted(tmp_path.rglob("*")) if p.is_file()]


class Breaking(Mapping[str, Any]):
    """Weights that can be listed but not read to the end, as from a device that was lost."""

    def __init__(self, failure: Callable[[], Any]) -> None:
        self.failure = failure

    def __getitem__(self, name: str) -> Any:
        return np.zeros(3, np.float32) if name == "first" else self.failure()

    def __iter__(self) -> Iterator[str]:
        return iter(("first", "second"))

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize("stop", [RuntimeError("device lost"), KeyboardInterrupt()])
def test_a_failure_while_writing_leaves_nothing_behind(tmp_path: Path, stop: BaseException) -> None:
    def fail() -> None:
        raise stop

    with pytest.raises(type(stop)):
        write_bundle(tmp_path / "b", **parts(weights=Breaking(fail)))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"canary_logits_NK": np.zeros((2, 3), np.float32)}, "canary logits have shape (2, 3), expected (4, 3)"),
        ({"canary_logits_NK": np.full((4, 3), np.nan, np.float32)}, "the model answers the canaries with numbers that"),
        ({"weights": {"fc": np.array([1.0, np.nan])}}, "weights `fc` hold values that are not numbers"),
        ({"metrics": {"loss": float("nan")}}, "`bundle.json` cannot be written as JSON: "),
        ({"provenance": {"run": object()}}, "`bundle.json` cannot be written as JSON: "),
        ({"config": {"label_names": ["cat", "owl", "dog"]}}, "label 1 is `dog` in `bundle.json` and `owl` in `config"),
        ({"labels": ("cat", "cat", "owl")}, "label `cat` appears twice"),
        ({"labels": ("cat", "\udcff", "owl")}, r"label '\udcff' is not Unicode text"),
    ],
)
def test_parts_that_cannot_make_a_bundle_are_refused_and_leave_nothing(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(BundleError) as caught:
        write_bundle(tmp_path / "b", **parts(**changes))
    assert f"bundle `{tmp_path / 'b'}` cannot be written: {text}" in caught.value.message
    assert os.listdir(tmp_path) == []


def test_a_parent_that_is_a_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(BundleError) as caught:
        write_bundle(tmp_path / "runs" / "b", **parts())
    assert caught.value.message.startswith(f"bundle `{tmp_path / 'runs' / 'b'}` cannot be written: ")


def test_a_disk_that_takes_no_more_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"weight": np.ones((3, 200_000), np.float32)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(BundleError) as caught:
            write_bundle(tmp_path / "b", **parts(weights=big))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written: " in caught.value.message
    assert "File too large" in caught.value.message
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_process_killed_while_writing_leaves_no_bundle_and_a_leftover_that_is_named(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from test_bundle import Breaking, parts, write_bundle\n"
        "die = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_bundle(Path(sys.argv[1]), **parts(weights=Breaking(die)))\n"
    )
    target = tmp_path / "b"
    words = [sys.executable, "-c", program, str(target), str(Path(__file__).parent)]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    error = refusal(target)
    assert error.message == f"no bundle at `{target}`, only the half-written `{leftover}`"
    assert error.hint == "a run was stopped while writing it; delete it and train again"
    assert refusal(leftover).message == f"`{leftover}` is a half-written bundle"


# Migrations, metrics, the card


def test_migrations_run_one_version_at_a_time_and_leave_the_original_alone() -> None:
    table = {
        1: lambda m: {**m, "steps": [*m["steps"], "1 to 2"]},
        2: lambda m: {**m, "steps": [*m["steps"], "2 to 3"]},
    }
    original = {"format": 1, "steps": []}
    assert migrate(original, to=3, migrations=table) == {"format": 3, "steps": ["1 to 2", "2 to 3"]}
    assert migrate({"format": 2, "steps": []}, to=3, migrations=table) == {"format": 3, "steps": ["2 to 3"]}
    assert original == {"format": 1, "steps": []}


def test_a_gap_in_the_migrations_is_an_error() -> None:
    with pytest.raises(BundleError, match="no way from bundle format 1 to 2"):
        migrate({"format": 1}, to=3, migrations={2: dict})


def test_added_metrics_are_in_the_bundle_and_in_its_card(bundle: Bundle) -> None:
    updated = add_metrics(bundle, {"test": {"accuracy": 0.8125}})
    assert open_bundle(bundle.path) == updated
    assert updated.metrics == {**METRICS, "test": {"accuracy": 0.8125}}
    assert "| test.accuracy | 0.8125 |" in (bundle.path / "README.md").read_text()
    assert updated.canaries == bundle.canaries
    again = add_metrics(bundle, {"speed": 5})
    assert set(again.metrics) == {"val", "test", "speed"}, "what is on disk counts, not what the caller still holds"
    assert not list(bundle.path.glob(".*"))


def test_metrics_that_are_not_json_change_nothing(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"metrics cannot be added: `bundle.json` cannot be written as JSON"):
        add_metrics(bundle, {"loss": float("inf")})
    assert open_bundle(bundle.path) == bundle


def test_metrics_are_not_added_to_an_edited_bundle(bundle: Bundle) -> None:
    path = bundle.path / "bundle.json"
    path.write_bytes(path.read_bytes().replace(b"0.9375", b"0.9975"))
    with pytest.raises(BundleError, match=r"metrics cannot be added: `bundle.json` was edited or damaged"):
        add_metrics(bundle, {"test": 1})


def test_adding_metrics_does_not_hide_damaged_weights(bundle: Bundle) -> None:
    path = bundle.path / "model.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    add_metrics(bundle, {"test": 1})
    assert "`model.safetensors` was altered or damaged" in refusal(bundle.path).message


def test_a_stop_while_metrics_are_added_leaves_a_bundle_that_opens(bundle: Bundle) -> None:
    # A folder in the card's place stops the second of the three steps.
    (bundle.path / "README.md").unlink()
    (bundle.path / "README.md").mkdir()
    (bundle.path / "README.md" / "in the way").touch()
    with pytest.raises(BundleError, match="metrics cannot be added"):
        add_metrics(bundle, {"test": 1})
    opened = open_bundle(bundle.path)
    assert opened.metrics == {**METRICS, "test": 1}
    assert "README.md" not in opened.files


def test_the_card_says_what_it_is_how_good_on_what_data_and_its_limits(bundle: Bundle) -> None:
    card = (bundle.path / "README.md").read_text()
    assert card == model_card(bundle)
    for text in (
        "`cat`, `dog`, `owl`.",
        "| val.accuracy | 0.9375 |",
        "| val.accuracy_interval | 0.9 to 0.96 |",
        "linne predict path/to/this/folder image.jpg",
        "6 x 8 pixels (height x width), RGB, resized (bicubic) to cover that size / 0.75 and cut to its centre.",
        "mean 0.5, 0.4, 0.3 is taken off and the rest divided by 0.2, 0.25, 0.3",
        "- source: `pets`",
        "- fingerprint of the data: `ab12`",
        "- date: `2026-01-02T03:04:05+00:00`",
        "an image of something else gets one too",
    ):
        assert text in card
    assert "timm" not in card


@pytest.mark.parametrize(
    ("crop_mode", "crop_pct", "said"),
    [
        ("center", 0.875, "resized (bicubic) to cover that size / 0.875 and cut to its centre. "),
        ("squash", 1.0, "stretched (bicubic) to that size. "),
        ("squash", 0.9, "stretched (bicubic) to that size / 0.9 and cut to its centre. "),
    ],
)
def test_the_card_says_how_an_image_is_brought_to_its_size(
    tmp_path: Path, crop_mode: str, crop_pct: float, said: str
) -> None:
    spec = replace(SPEC, crop_mode=crop_mode, crop_pct=crop_pct, interpolation="bicubic")
    assert said in model_card(write_null_bundle(tmp_path / "b", LABELS, spec))


def test_the_card_says_what_training_started_from_and_under_which_licence(tmp_path: Path) -> None:
    origin = {"weights": "timm/resnet18.a1_in1k", "sha256": "ab12", "licence": "apache-2.0"}
    card = model_card(write_bundle(tmp_path / "b", **parts(provenance={**PROVENANCE, "started_from": origin})))
    said = "- started from the pretrained weights `timm/resnet18.a1_in1k`, sha256 `ab12`, licence `"
    assert f"{said}apache-2.0`\n" in card
    unknown = {**PROVENANCE, "started_from": {**origin, "licence": None}}
    assert f"{said}not stated`\n" in model_card(write_bundle(tmp_path / "c", **parts(provenance=unknown)))


def test_the_card_lists_twenty_labels_and_counts_the_rest(tmp_path: Path) -> None:
    names = [f"kind {i}" for i in range(120)]
    card = model_card(write_null_bundle(tmp_path / "b", names, GREY))
    assert "`kind 19` and 100 more; all are in `config.json`." in card
    assert "kind 20" not in card
    assert "8 x 8 pixels (height x width), grey" in card


def test_the_card_of_a_timm_model_shows_timm_and_transformers(tmp_path: Path) -> None:
    card = model_card(write_bundle(tmp_path / "b", **parts(model={"provider": "timm", "name": "resnet18"})))
    assert card.startswith("---\nlibrary_name: timm\n")
    assert "# timm/resnet18, 3 labels" in card
    assert 'timm.create_model("local-dir:path/to/this/folder", pretrained=True)' in card
    assert 'pipeline("image-classification", model="path/to/this/folder")' in card


def test_labels_cannot_break_out_of_the_card(tmp_path: Path) -> None:
    labels = ("a`b", "two\n# lines", "plain")
    card = model_card(write_null_bundle(tmp_path / "b", labels, GREY))
    assert "`` a`b ``, `two # lines`, `plain`." in card
