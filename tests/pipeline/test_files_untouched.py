"""No verb changes, adds or takes away a file of the user's, not even for a moment, and none needs to be allowed to."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from museum import exhibits

import linne
from linne.cli import cli
from linne.errors import LinneError

LABELS = ("shown", "odd")
LONG_AGO = 10**9
"""Seconds since 1970, for every file and folder: what is made and removed again leaves its folder younger."""
FAST = {
    "model.name": "mlp",
    "optim.epochs": 1,
    "data.batch_size": 32,
    "data.height": 8,
    "data.width": 8,
    "data.max_bad_images": 1000,
    "device.precision": "fp32",
    "device.num_threads": 1,
}


def tree_of(folder: Path) -> dict[str, str]:
    """Return what is said of every file and folder in `folder`, itself included: kind, mode, time, size and content."""
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (
            f"{stat.filemode(status.st_mode)} {status.st_mtime_ns} {status.st_nlink} {content}"
        )
    return found


def fill(photos: Path) -> None:
    """Write two classes of pictures to `photos`: from the museum what is small, with some that cannot be read."""
    shown = [exhibit for exhibit in exhibits() if exhibit.shows is not None and exhibit.shows.size < 2000][::6]
    refused = [exhibit for exhibit in exhibits() if exhibit.shows is None and 0 < len(exhibit.data) < 5000][::40]
    for label, kept in (("odd", [*shown[1::2], *refused]), ("shown", shown[::2])):
        (photos / label).mkdir(parents=True)
        for exhibit in kept:
            (photos / label / exhibit.name).write_bytes(exhibit.data)


def as_folder(root: Path) -> str:
    fill(root)
    (root / "odd" / "notes.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    return str(root)


def as_list(root: Path) -> str:
    fill(root / "photos")
    paths = sorted((root / "photos").glob("*/*"))
    rows = [f'"photos/{path.parent.name}/{path.name}",{path.parent.name}' for path in paths]
    (root / "all.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return str(root / "all.csv")


def as_shards(root: Path) -> str:
    fill(root / "photos")
    with tarfile.open(root / "all.tar", "w") as tar:
        for number, path in enumerate(sorted((root / "photos").glob("*/*"))):
            (root / "label").write_text(path.parent.name)
            tar.add(path, f"{number:04}{path.suffix}")
            tar.add(root / "label", f"{number:04}.cls")
    (root / "label").unlink()
    shutil.rmtree(root / "photos")
    return str(root / "all.tar")


KINDS = {"folder": as_folder, "list": as_list, "shards": as_shards}
LOADERS = {"folder": "resident", "list": "streaming", "shards": "streaming"}


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, str]]:
    """What to type for a source, and the folder it lies in: read-only, and long since written."""
    root = tmp_path_factory.mktemp("user") / "data"
    root.mkdir()
    name = KINDS[request.param](root)
    paths = [*sorted(root.rglob("*"), reverse=True), root]
    for path in paths:
        os.utime(path, (LONG_AGO, LONG_AGO))
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield name, root, request.param
    for path in reversed(paths):
        path.chmod(0o755)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what the verbs write goes."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(autouse=True)
def _at_work(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setenv("LINNE_CACHE", str(work / "cache"))


@pytest.fixture(scope="module")
def trained(made: tuple[str, Path, str], work: Path) -> tuple[Path, bool]:
    """A bundle of the source at hand, and whether training left every file as it was."""
    name, root, kind = made
    before = tree_of(root)
    result = linne.train(name, output=work / kind, quiet=True, overrides={**FAST, "data.loader": LOADERS[kind]})
    return result.bundle, tree_of(root) == before


def typed(*words: object) -> None:
    """Run a command as it is typed. Some images cannot be read, which `predict` and `data check` tell by exit code."""
    try:
        code = cli.main([str(word) for word in words], standalone_mode=False)
    except LinneError as error:
        code = error.exit_code
    assert code in {"predict": (1,), "check": (None, 3)}.get(str(words[words[0] == "data"]), (None, 0))


VERBS: dict[str, Callable[[str, Path, Path, Path], Sequence[object]]] = {
    "evaluate": lambda name, root, out, bundle: ("evaluate", bundle, name),
    "predict": lambda name, root, out, bundle: ("predict", bundle, root),
    "data list": lambda name, root, out, bundle: ("data", "list"),
    "data check": lambda name, root, out, bundle: (
        *("data", "check", name, "--html", out.with_suffix(".html"), "--quarantine", out.with_suffix(".json")),
    ),
    "data split": lambda name, root, out, bundle: ("data", "split", name, out.with_suffix(".json"), "--folds", "3"),
    "data pack": lambda name, root, out, bundle: (
        *("data", "pack", name, out, "--size", "8", "--max-unreadable", "1000", "--quiet"),
    ),
}


def test_training_leaves_every_file_as_it_was(trained):
    assert trained[1]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_leaves_every_file_as_it_was(verb, made, trained, work, capsys):
    name, root, kind = made
    if (verb, kind) == ("predict", "shards"):
        pytest.skip("a shard is no file of one image")
    before = tree_of(root)
    typed(*VERBS[verb](name, root, work / f"{kind} {verb}", trained[0]))
    assert tree_of(root) == before
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "new").write_bytes(b""),
        lambda root: ((root / "new").write_bytes(b""), (root / "new").unlink()),
        lambda root: (root / "a").write_bytes(b"b"),
        lambda root: (root / "a").chmod(0o600),
        lambda root: os.utime(root / "a"),
        lambda root: (root / "a").rename(root / "b"),
        lambda root: os.link(root / "a", root.parent / "linked"),
    ],
    ids=["a file more", "a file for a moment", "content", "mode", "time", "name", "a link"],
)
def test_a_change_would_have_been_seen(tmp_path, change):
    root = tmp_path / "data"
    root.mkdir()
    (root / "a").write_bytes(b"a")
    for path in (root / "a", root):
        os.utime(path, (LONG_AGO, LONG_AGO))
    before = tree_of(root)
    change(root)
    assert tree_of(root) != before


def test_what_training_saw_was_of_both_kinds(made):
    name, _, _ = made
    source = linne.open_source(name)
    counts = dict.fromkeys(LABELS, 0)
    for split in source.splits.values():
        for label in np.asarray(source.labels)[split.labels_N]:
            counts[label] += 1
    assert min(counts.values()) >= 10
