"""`linne data get`: sets made small, served by a real server, in the layouts and archives of the published ones."""

import gzip
import hashlib
import http.server
import io
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from linne.cli import cli
from linne.data import open_source
from linne.data.sources.cifar import CIFAR10, CIFAR100
from linne.data.sources.get import get
from linne.data.sources.idx import FASHION_MNIST, MNIST
from linne.data.sources.imagenet import IMAGENET
from linne.data.sources.imagenette import IMAGENETTE
from linne.data.sources.published import PUBLISHED, published
from linne.data.sources.synsets import class_names
from linne.data.sources.tiny_imagenet import TINY_IMAGENET
from linne.errors import LinneError, SourceError
from linne.lock import exclusive
from linne.log import Narrator

RNG = random.Random(0)
WNIDS = ("n01440764", "n02102040", "n02979186")


@pytest.fixture(autouse=True)
def _own_places(tmp_path, monkeypatch):
    """Neither a developer's proxy, nor their data or cache."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("LINNE_OFFLINE", "LINNE_DATA"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("LINNE_CACHE", str(tmp_path / "cache"))


class Shelf:
    """A server of what is in `files`; `asked` has every path that was asked for."""

    def __init__(self):
        self.files, self.asked = {}, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path[1:]
                outer.asked.append(name)
                data = outer.files.get(name)
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def offers(self, named, files, counts):
        """Return `named` as if its publisher offered `files` here, with so many examples."""
        downloads = tuple(at(self, download, files[download.name]) for download in named.downloads)
        self.files.update(files)
        return replace(named, downloads=downloads, counts=counts)


def at(shelf, download, data):
    urls = tuple(f"http://127.0.0.1:{shelf.http.server_port}/{download.name}" for _ in download.urls[:1])
    return replace(download, urls=urls, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), md5=None)


@pytest.fixture
def shelf():
    made = Shelf()
    yield made
    made.http.shutdown()
    made.http.server_close()


def image():
    """A photo by its content, whatever its name says."""
    return b"P6 6 5 255\n" + RNG.randbytes(90)


def packed(files, mode="w:gz"):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return held.getvalue()


def zipped(files):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return held.getvalue()


def cifar(shelf, rows=20):
    names = (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")
    files = {n: b"".join(bytes([k % 10]) + RNG.randbytes(3072) for k in range(rows)) for n in names}
    archive = packed({f"cifar-10-batches-bin/{name}": data for name, data in files.items()})
    return shelf.offers(CIFAR10, {"cifar-10-binary.tar.gz": archive}, {"train": 5 * rows, "test": rows})


def mnist(shelf, named=MNIST):
    files = {}
    for stem, count in (("train", 60), ("t10k", 20)):
        images = struct.pack(">4I", 0x803, count, 28, 28) + RNG.randbytes(count * 784)
        labels = struct.pack(">2I", 0x801, count) + bytes(k % 10 for k in range(count))
        files[f"{stem}-images-idx3-ubyte.gz"] = gzip.compress(images, 1)
        files[f"{stem}-labels-idx1-ubyte.gz"] = gzip.compress(labels, 1)
    return shelf.offers(named, files, {"train": 60, "test": 20})


def tiny_imagenet_files():
    files, lines = {"wnids.txt": "\n".join(reversed(WNIDS)).encode()}, []
    for number, wnid in enumerate(WNIDS):
        files.update({f"train/{wnid}/images/{wnid}_{k}.JPEG": image() for k in range(5)})
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"x\t0\t0\t1\t1\n"
        for k in range(2):
            files[f"val/images/val_{3 * k + number}.JPEG"] = image()
            lines.append(f"val_{3 * k + number}.JPEG\t{wnid}\t0\t0\t1\t1")
    files["val/val_annotations.txt"] = "\n".join(lines).encode()
    files["test/images/test_0.JPEG"] = image()
    words = ("tench, Tinca tinca", "English springer", "Tench")
    files["words.txt"] = "".join(f"{wnid}\t{text}\n" for wnid, text in zip(WNIDS, words, strict=True)).encode()
    return {f"tiny-imagenet-200/{name}": data for name, data in files.items()}


def bring(named, root, **options):
    return get(named, root=root, narrator=Narrator(quiet=True), **options)


def refusal(named, root, error=SourceError, **options):
    with pytest.raises(error) as caught:
        bring(named, root, **options)
    assert "\n" not in caught.value.message
    return caught.value.message, caught.value.hint


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# The table


def test_every_published_set_says_where_it_is_from_and_how_it_is_checked():
    for name, named in PUBLISHED.items():
        assert named.name == name
        assert named.counts
        for download in named.downloads:
            assert download.sha256 or download.md5
            for digits, length in ((download.sha256, 64), (download.md5, 32)):
                assert digits is None or (len(digits) == length and set(digits) <= set("0123456789abcdef"))
            first, *others = download.urls or ("https://brought",)
            assert first.startswith("https://"), "http only where https failed"
            assert all(url.startswith(("https://", "http://")) for url in others)
            assert (download.unpack is not None) == bool(named.unpacked_bytes)
        archives = [download.name for download in named.downloads if download.unpack is None]
        roles = {names[0] for names in named.files.values()}
        assert set(archives) <= roles, "a file that is not unpacked is one that the opener reads"
        assert named.download_bytes > 0


def test_the_published_counts_are_those_of_the_sets_pages():
    totals = {name: sum(named.counts.values()) for name, named in PUBLISHED.items()}
    assert totals == {
        **dict.fromkeys(("mnist", "fashion-mnist"), 70_000),
        **dict.fromkeys(("cifar10", "cifar100"), 60_000),
        "imagenette": 13_394,
        "tiny-imagenet": 110_000,
        "imagenet": 1_331_167,
    }
    for name, total in totals.items():
        assert f"{total:,}" in PUBLISHED[name].about


# Fetched and unpacked


def test_an_archive_is_fetched_unpacked_opened_and_removed(shelf, tmp_path):
    named = cifar(shelf)
    got = bring(named, tmp_path)
    folder = tmp_path / "cifar10/cifar-10-batches-bin"
    assert (got.folder, dict(got.counts), got.num_classes) == (folder, {"train": 100, "test": 20}, 10)
    assert (got.typed, got.was_here) == (f"cifar10:{tmp_path}", False)
    assert len(open_source(got.typed).splits["test"]) == 20
    assert names(tmp_path / "cifar10") == sorted(
        f"cifar-10-batches-bin/{name}" for name in (*CIFAR10.files, "linne-set.json")
    )
    assert json.loads((folder / "linne-set.json").read_text())["set"] == "cifar10"
    assert sorted(os.listdir(tmp_path)) == ["cifar10"]


def test_a_set_that_is_here_is_not_asked_for_again(shelf, tmp_path):
    named = cifar(shelf)
    bring(named, tmp_path)
    shelf.asked.clear()
    assert bring(named, tmp_path).was_here
    assert shelf.asked == []


def test_without_a_root_it_is_kept_where_it_is_looked_for(shelf, tmp_path, monkeypatch):
    named = cifar(shelf)
    monkeypatch.setenv("LINNE_DATA", str(tmp_path / "mine"))
    got = bring(named, None)
    assert got.folder == tmp_path / "mine/cifar10/cifar-10-batches-bin"
    assert got.typed == "cifar10"
    assert len(open_source("cifar10").splits["test"]) == 20


@pytest.mark.parametrize("named", [MNIST, FASHION_MNIST])
def test_files_that_are_used_as_they_are_are_fetched_one_by_one(shelf, tmp_path, named):
    got = bring(mnist(shelf, named), tmp_path)
    assert got.folder == tmp_path / named.name
    assert names(got.folder) == sorted(download.name for download in named.downloads)
    assert len(shelf.asked) == 4


def test_only_what_is_missing_is_fetched(shelf, tmp_path):
    named = mnist(shelf)
    bring(named, tmp_path)
    (tmp_path / "mnist/t10k-labels-idx1-ubyte.gz").unlink()
    other = tmp_path / "mnist/train-labels-idx1-ubyte.gz"
    (tmp_path / "mnist/train-labels-idx1-ubyte").write_bytes(gzip.decompress(other.read_bytes()))
    other.unlink()
    shelf.asked.clear()
    bring(named, tmp_path)
    assert shelf.asked == ["t10k-labels-idx1-ubyte.gz"], "a file under another of its names will do"


def test_cifar100_is_read_by_its_fine_classes(shelf, tmp_path):
    rows = {
        f"{name}.bin": b"".join(bytes([k % 20, 99 - k]) + RNG.randbytes(3072) for k in range(100))
        for name in ("train", "test")
    }
    rows["fine_label_names.txt"] = "\n".join(f"kind-{k}" for k in range(100)).encode() + b"\n\n"
    archive = packed({f"cifar-100-binary/{name}": data for name, data in rows.items()})
    named = shelf.offers(CIFAR100, {"cifar-100-binary.tar.gz": archive}, {"train": 100, "test": 100})
    bring(named, tmp_path)
    source = open_source(f"cifar100:{tmp_path}", val_fraction=None)
    assert source.labels[:2] == ("kind-0", "kind-1")
    assert source.splits["train"].labels_N.tolist() == list(range(99, -1, -1))
    first = np.frombuffer(rows["train.bin"][2:3074], np.uint8).reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(source.splits["train"].pixels(0, 3), first)


def test_tiny_imagenets_val_images_are_sorted_by_its_table_and_not_moved(shelf, tmp_path):
    files = tiny_imagenet_files()
    named = shelf.offers(TINY_IMAGENET, {"tiny-imagenet-200.zip": zipped(files)}, {"train": 15, "val": 6})
    got = bring(named, tmp_path)
    source = open_source(f"tiny-imagenet:{tmp_path}")
    assert source.labels == ("tench (n01440764)", "English springer", "Tench (n02979186)")
    val = source.splits["val"]
    assert [(val.example_name(k), val.labels_N[k]) for k in range(6)] == [
        (f"val/images/val_{k}.JPEG", k % 3) for k in (0, 3, 1, 4, 2, 5)
    ]
    assert source.splits["train"].pixels(0, 3).shape == (5, 6, 3)
    assert "val is sorted into its classes by `val/val_annotations.txt`; no file was moved" in source.notes
    assert set(names(got.folder)) == {name.partition("/")[2] for name in files} | {"linne-set.json"}


def test_imagenettes_classes_have_their_english_names(shelf, tmp_path):
    files = {
        f"imagenette2-320/{split}/{wnid}/{k}.JPEG": image()
        for split in ("train", "val")
        for wnid in WNIDS
        for k in range(3)
    }
    files["imagenette2-320/noisy_imagenette.csv"] = b"path\n"
    named = shelf.offers(IMAGENETTE, {"imagenette2-320.tgz": packed(files)}, {"train": 9, "val": 9})
    bring(named, tmp_path)
    assert open_source(f"imagenette:{tmp_path}").labels == ("tench", "English springer", "cassette player")


# ImageNet


def devkit(wnids, val_ids):
    """Pack the devkit: classes numbered from the last wnid, and one that is no class."""
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O")]
    rows = [(k, wnid, f"thing {wnid[-3:]}, other", "gloss") for k, wnid in enumerate(reversed(wnids), start=1)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array([*rows, (4, "n00001740", "entity", "all")], dtype=kinds)})
    truth = "".join(f"{k}\n" for k in val_ids)
    data = "ILSVRC2012_devkit_t12/data"
    return packed(
        {f"{data}/meta.mat": meta.getvalue(), f"{data}/ILSVRC2012_validation_ground_truth.txt": truth.encode()}
    )


@pytest.fixture
def imagenet(shelf, tmp_path):
    """ImageNet's three archives, small, in the folder where they are looked for."""
    classes = {f"{w}.tar": packed({f"{w}_{k}.JPEG": image() for k in range(4)}, "w") for w in WNIDS}
    files = {
        "ILSVRC2012_devkit_t12.tar.gz": devkit(WNIDS, [3, 1, 2]),
        "ILSVRC2012_img_val.tar": packed({f"ILSVRC2012_val_{k:08d}.JPEG": image() for k in (1, 2, 3)}, "w"),
        "ILSVRC2012_img_train.tar": packed(classes, "w"),
    }
    home = tmp_path / "imagenet"
    home.mkdir()
    for name, data in files.items():
        (home / name).write_bytes(data)
    named = shelf.offers(IMAGENET, files, {"train": 12, "val": 3})
    return replace(named, unpacked_bytes=10**6)


def test_imagenets_archives_are_checked_unpacked_and_kept(imagenet, tmp_path):
    before = {path: path.read_bytes() for path in (tmp_path / "imagenet").iterdir()}
    got = bring(imagenet, tmp_path)
    assert got.folder == tmp_path / "imagenet/ILSVRC/Data/CLS-LOC"
    assert all(path.read_bytes() == data for path, data in before.items())
    source = open_source("imagenet", root=tmp_path)
    assert source.labels == ("thing 764", "thing 040", "thing 186")
    val = source.splits["val"]
    found = {val.example_name(k): int(val.labels_N[k]) for k in range(3)}
    assert found == {
        "val/ILSVRC2012_val_00000001.JPEG": 0,
        "val/ILSVRC2012_val_00000002.JPEG": 2,
        "val/ILSVRC2012_val_00000003.JPEG": 1,
    }
    assert source.splits["train"].example_name(0) == "train/n01440764/n01440764_0.JPEG"
    assert source.notes[0] == f"read from `{got.folder}`"
    assert bring(imagenet, tmp_path).was_here


def test_imagenet_without_its_archives_says_which_to_bring_and_from_where(tmp_path):
    message, hint = refusal(published("imagenet"), tmp_path)
    assert message == (
        "`imagenet` is not fetched by programs, and `ILSVRC2012_devkit_t12.tar.gz`, `ILSVRC2012_img_val.tar` (6.7 GB), "
        f"`ILSVRC2012_img_train.tar` (147.9 GB) are not in `{tmp_path}/imagenet`"
    )
    assert hint == (
        "sign in at https://image-net.org/challenges/LSVRC/2012/2012-downloads.php, put the archives there and type "
        "`linne data get imagenet` again"
    )
    assert names(tmp_path) == []


def test_an_archive_of_imagenet_that_is_not_the_published_one_is_refused(imagenet, tmp_path):
    path = tmp_path / "imagenet/ILSVRC2012_img_val.tar"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    message, hint = refusal(imagenet, tmp_path)
    assert message.startswith(f"`{path}` is not the published archive: its sha256 is ")
    assert hint == "get it again from its publisher"
    assert len(names(tmp_path / "imagenet")) == 3


def test_imagenet_of_kaggle_and_of_torchvision_is_read_where_it_lies(tmp_path):
    root = tmp_path / "kaggle/ILSVRC/Data/CLS-LOC"
    for wnid in WNIDS:
        (root / "train" / wnid).mkdir(parents=True)
        (root / "train" / wnid / f"{wnid}_1.JPEG").write_bytes(image())
    (root / "val").mkdir()
    for k in (1, 2):
        (root / f"val/ILSVRC2012_val_{k:08d}.JPEG").write_bytes(image())
    rows = (
        "ImageId,PredictionString",
        *(f"ILSVRC2012_val_0000000{k},{WNIDS[w]} 1 2 3 4 " for k, w in ((2, 0), (1, 2))),
    )
    (tmp_path / "kaggle/LOC_val_solution.csv").write_text("\n".join(rows))
    (tmp_path / "kaggle/LOC_synset_mapping.txt").write_text(f"{WNIDS[0]} tench, Tinca tinca\n{WNIDS[1]} dog\n")
    source = open_source(f"imagenet:{tmp_path}/kaggle")
    assert source.labels == ("tench", "dog", "n02979186")
    assert source.splits["val"].labels_N.tolist() == [0, 2]
    assert source.splits["val"].example_name(0) == "val/ILSVRC2012_val_00000002.JPEG"
    assert f"classes are named by `{tmp_path}/kaggle/LOC_synset_mapping.txt`" in source.notes
    (tmp_path / "kaggle/LOC_val_solution.csv").unlink()
    with pytest.raises(SourceError) as caught:
        open_source(f"imagenet:{root}")
    assert caught.value.message == f"nothing says what the images in `{root}/val` show"
    for wnid in WNIDS[:2]:
        (root / "val" / wnid).mkdir()
        next((root / "val").glob("*.JPEG")).rename(root / "val" / wnid / "x.JPEG")
    assert open_source(f"imagenet:{root}").splits["val"].labels_N.tolist() == [0, 1]


def test_classes_that_share_a_word_are_told_apart_by_their_number():
    words = {
        "n02012849": "crane",
        "n03126707": "crane",
        "n02113186": "Cardigan, Cardigan Welsh corgi",
        "n02963159": "cardigan",
    }
    assert class_names([*words, "n09999999"], words) == (
        "crane (n02012849)",
        "crane (n03126707)",
        "Cardigan (n02113186)",
        "cardigan (n02963159)",
        "n09999999",
    )


# Partial states


def test_a_set_of_ours_that_lost_a_file_is_made_whole(shelf, tmp_path):
    named = cifar(shelf)
    folder = bring(named, tmp_path).folder
    (folder / "data_batch_3.bin").unlink()
    assert not bring(named, tmp_path).was_here
    os.truncate(folder / "data_batch_4.bin", 3073 * 7)
    assert dict(bring(named, tmp_path).counts) == {"train": 100, "test": 20}, "fewer images than published"
    assert len(shelf.asked) == 3


def test_what_a_killed_call_left_is_used_or_cleared(shelf, tmp_path):
    named = cifar(shelf)
    home = tmp_path / "cifar10"
    for left in (".new/unpacked", ".old/x"):
        (home / left).mkdir(parents=True)
    (home / "cifar-10-binary.tar.gz.partial").write_bytes(shelf.files["cifar-10-binary.tar.gz"][:1000])
    bring(named, tmp_path)
    assert sorted(os.listdir(home)) == ["cifar-10-batches-bin"]


def test_a_call_may_be_killed_at_any_moment(shelf, tmp_path):
    named = cifar(shelf, rows=200)
    code = f"""
import pathlib, sys
from dataclasses import replace
from linne.data.sources.cifar import CIFAR10
from linne.data.sources.get import get
from linne.data.places import Download
from linne.log import Narrator
named = replace(CIFAR10, counts={dict(named.counts)!r}, downloads=({named.downloads[0]!r},))
print("ready", flush=True)
get(named, root=pathlib.Path({str(tmp_path)!r}), narrator=Narrator(quiet=True))
"""
    for pause_s in (0.0, 0.04):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(pause_s)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert dict(bring(named, tmp_path).counts) == {"train": 1000, "test": 200}
    left = set(os.listdir(tmp_path / "cifar10"))
    assert left <= {"cifar-10-batches-bin", "cifar-10-binary.tar.gz"}, "an archive that was fetched whole may stay"


@pytest.mark.parametrize("left", ["cifar-10-binary.tar.gz.partial.json", "cifar-10-binary.tar.gz.lock"])
def test_what_a_call_killed_after_the_last_byte_left_is_cleared_away(shelf, tmp_path, left):
    named = cifar(shelf)
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10/cifar-10-binary.tar.gz").write_bytes(shelf.files["cifar-10-binary.tar.gz"])
    (tmp_path / "cifar10" / left).write_text("{}")
    bring(named, tmp_path)
    assert set(os.listdir(tmp_path / "cifar10")) == {"cifar-10-batches-bin", "cifar-10-binary.tar.gz"}


def test_force_makes_it_anew(shelf, tmp_path):
    named = mnist(shelf)
    bring(named, tmp_path)
    path = tmp_path / "mnist/t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">4I", 0x803, 20, 28, 28) + bytes(20 * 784)))
    assert bring(named, tmp_path).was_here, "it has the right shape; what is in it only a hash tells"
    shelf.asked.clear()
    bring(named, tmp_path, force=True)
    assert shelf.asked == [path.name]
    assert path.read_bytes() == shelf.files[path.name]
    archived = cifar(shelf)
    bring(archived, tmp_path)
    shelf.asked.clear()
    bring(archived, tmp_path, force=True)
    assert shelf.asked == ["cifar-10-binary.tar.gz"]


def test_a_wrong_archive_leaves_the_set_as_it_was(shelf, tmp_path):
    named = cifar(shelf)
    folder = bring(named, tmp_path).folder
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    shelf.files["cifar-10-binary.tar.gz"] = b"\0" + shelf.files["cifar-10-binary.tar.gz"][1:]
    message, _ = refusal(named, tmp_path, force=True)
    assert "gave another file, twice: its sha256 is " in message
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before


def test_a_hostile_archive_with_the_right_hash_leaves_nothing(shelf, tmp_path):
    archive = packed({"cifar-10-batches-bin/a": b"", "../../victim": b"!"})
    named = shelf.offers(CIFAR10, {"cifar-10-binary.tar.gz": archive}, {"train": 1})
    message, _ = refusal(named, tmp_path / "deep/root")
    assert message.endswith("is not unpacked: `../../victim` leads upward")
    assert names(tmp_path) == ["deep/root/cifar10/cifar-10-binary.tar.gz"]


# What is the user's stays the user's


@pytest.mark.parametrize("where", ["cifar10", "."])
def test_an_archive_that_the_user_brought_is_unpacked_offline_and_kept(shelf, tmp_path, where):
    named = cifar(shelf)
    archive = tmp_path / where / "cifar-10-binary.tar.gz"
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(shelf.files[archive.name])
    bring(named, tmp_path, offline=True)
    assert archive.read_bytes() == shelf.files[archive.name]
    assert shelf.asked == []


def test_a_copy_that_linne_did_not_make_is_never_replaced(shelf, tmp_path):
    named = cifar(shelf)
    for place in ("cifar10/cifar-10-batches-bin", "other/cifar10"):
        (tmp_path / place).mkdir(parents=True)
        for name in CIFAR10.files:
            (tmp_path / place / name).write_bytes(bytes(3073))
    before = names(tmp_path)
    message, hint = refusal(named, tmp_path)
    assert message == f"`{tmp_path}/cifar10/cifar-10-batches-bin` was not made by `linne data get`"
    assert hint == "move it away and type `linne data get cifar10` again, or name another place with --root"
    message, _ = refusal(named, tmp_path / "other", force=True)
    assert message == f"`{tmp_path}/other/cifar10` holds a copy of `cifar10` that was not made by `linne data get`"
    assert names(tmp_path) == before
    assert shelf.asked == []


def test_a_file_that_is_not_the_published_one_is_named_and_kept(shelf, tmp_path):
    named = mnist(shelf)
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/train-images-idx3-ubyte.gz").write_bytes(b"mine")
    message, _ = refusal(named, tmp_path)
    assert message.startswith(
        f"`{tmp_path}/mnist/train-images-idx3-ubyte.gz` is not the published file: it has 4 bytes"
    )
    assert (tmp_path / "mnist/train-images-idx3-ubyte.gz").read_bytes() == b"mine"


# Refusals


def test_offline_says_what_to_bring_and_asks_nobody(shelf, tmp_path):
    named = cifar(shelf)
    message, hint = refusal(named, tmp_path, offline=True)
    assert message == f"`{tmp_path}/cifar10/cifar-10-binary.tar.gz` is not here, and linne is offline"
    assert hint.startswith(f"get {named.downloads[0].urls[0]} elsewhere, put it there")
    assert shelf.asked == []
    assert names(tmp_path) == []


def test_a_disk_without_room_is_said_before_anything_is_fetched(shelf, tmp_path):
    message, hint = refusal(replace(cifar(shelf), unpacked_bytes=10**18), tmp_path)
    assert message.startswith(f"`{tmp_path}` has ")
    assert message.endswith("MB for `cifar10`")
    assert hint == "make room, or name a folder on another disk with --root"
    assert shelf.asked == []


def test_two_at_once_do_not_disturb_each_other(shelf, tmp_path):
    named = cifar(shelf)
    with exclusive(tmp_path / "cifar10"):
        message, _ = refusal(named, tmp_path, LinneError)
    assert message == f"another process is at work on `{tmp_path}/cifar10`"
    bring(named, tmp_path)


def test_an_archive_with_fewer_images_than_published_is_said(shelf, tmp_path):
    message, _ = refusal(replace(cifar(shelf), counts={"train": 100, "test": 21}), tmp_path)
    assert (
        message
        == f"`{tmp_path}/cifar10/cifar-10-batches-bin` holds 100 of 100 train images, 20 of 21 test images of `cifar10`"
    )


def test_a_root_that_cannot_be_made_says_so(shelf, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    message, hint = refusal(cifar(shelf), tmp_path / "file/root")
    assert message == f"`{tmp_path}/file/root` cannot be made: not a directory"
    assert hint == "name a folder with --root"


# Openers on changed copies


@pytest.fixture
def tiny(tmp_path):
    for name, data in tiny_imagenet_files().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "tiny-imagenet-200"


def test_tiny_imagenet_that_was_sorted_by_a_script_is_read_as_well(tiny):
    before = open_source(f"tiny-imagenet:{tiny}")
    pixels = [before.splits["val"].pixels(k, 3) for k in range(6)]
    for line in (tiny / "val/val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        (tiny / "val" / wnid).mkdir(exist_ok=True)
        (tiny / "val/images" / name).rename(tiny / "val" / wnid / name)
    (tiny / "val/images").rmdir()
    after = open_source(f"tiny-imagenet:{tiny}")
    assert after.labels == before.labels
    assert "val has been sorted into class folders, which are used" in after.notes
    assert np.array_equal(after.splits["val"].labels_N, before.splits["val"].labels_N)
    for k in range(6):
        assert np.array_equal(after.splits["val"].pixels(k, 3), pixels[k])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("val_9.JPEG\tn01440764\t0", "there is no image `val/images/val_9.JPEG`, or twice"),
        ("val_0.JPEG\tn01440764\t0", "there is no image `val/images/val_0.JPEG`, or twice"),
        ("../../wnids.txt\tn01440764", "there is no image `val/images/../../wnids.txt`, or twice"),
        ("val_1.JPEG\tn99999999", "there is no class `n99999999`"),
        ("no tabs", "there is no class ``"),
    ],
)
def test_a_line_of_the_table_that_fits_no_image_is_named(tiny, line, said):
    table = tiny / "val/val_annotations.txt"
    table.write_text(table.read_text() + "\n" + line)
    with pytest.raises(SourceError) as caught:
        open_source(f"tiny-imagenet:{tiny}")
    assert caught.value.message == f"line 7 of `{tiny}/val/val_annotations.txt`: {said}"
    assert "linne data get tiny-imagenet" in caught.value.hint


def test_val_images_that_the_table_does_not_name_are_counted(tiny):
    (tiny / "val/images/extra.JPEG").write_bytes(image())
    assert "not used: 1 val image that the table does not name" in open_source(f"tiny-imagenet:{tiny}").notes


def test_a_class_without_images_is_named(tiny):
    for path in (tiny / "train/n02102040/images").iterdir():
        path.unlink()
    with pytest.raises(SourceError) as caught:
        open_source(f"tiny-imagenet:{tiny}")
    assert caught.value.message == f"`{tiny}/train/n02102040` holds no images"


# The verb


def test_the_verb_prints_where_it_is_and_what_to_type_next(tmp_path):
    root = tmp_path / "data"
    (root / "mnist").mkdir(parents=True)
    runner = CliRunner()
    refused = runner.invoke(cli, ["data", "get", "mnst"])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == "error: no published set `mnst`\n\nhint: did you mean `mnist`?\n"
    assert "known: mnist, fashion-mnist, cifar10, " in runner.invoke(cli, ["data", "get", "zzz"]).stderr
    for stem, count in (("train", 60_000), ("t10k", 10_000)):
        (root / f"mnist/{stem}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, count, 1, 1) + bytes(count))
        (root / f"mnist/{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + bytes(count))
    done = runner.invoke(cli, ["data", "get", "mnist", "--root", str(root), "--offline"])
    assert done.output == (
        f"mnist: 60,000 train, 10,000 test; 10 classes, in {root}/mnist\nnext: linne train mnist:{root}\n"
    )
    as_json = runner.invoke(cli, ["data", "get", "mnist", "--root", str(root), "--json"])
    assert json.loads(as_json.output)["was_here"] is True


def test_the_listing_says_how_much_there_is_to_get(tmp_path, monkeypatch):
    monkeypatch.setenv("LINNE_DATA", str(tmp_path))
    lines = CliRunner().invoke(cli, ["data", "list"]).output.splitlines()
    found = {line.split()[0]: line for line in lines}
    assert "not here, 170 MB to get" in found["cifar10"]
    assert "not here, 155 GB to get" in found["imagenet"]
