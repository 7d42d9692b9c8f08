"""Packing: the same examples, names, labels and splits in shards, whatever happens on the way."""

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from linne.cli.data_pack import command
from linne.data import open_source, save_manifest
from linne.data.shards.pack import pack
from linne.data.shards.pack_image import PackSettings, pack_image
from linne.data.source import ImageStore, Source
from linne.data.sources.arrays import array_split
from linne.errors import CheckFailed, ImageError, LinneError, RecipeError, SourceError
from linne.preprocess import InputSpec

RNG = np.random.default_rng(0)
RAW = PackSettings(size=32, format="raw")


def photo(height, width, channels=3):
    """Return smooth random pixels, which JPEG keeps well."""
    small = RNG.integers(0, 256, (5, 5, 3), np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image if channels == 3 else image.convert("L"))


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty photos of many sizes in two classes, one too small to resize in each."""
    root = tmp_path_factory.mktemp("photos")
    for k in range(20):
        save(root / f"cat/a.{k}.jpg", photo(40 + 3 * k, 90 - k), quality=95)
        save(root / f"dog/b {k}.png", photo(64 + k, 40 + k))
    save(root / "cat/tiny.jpg", photo(20, 30))
    save(root / "dog/tiny.bmp", photo(20, 30))
    return root


@pytest.fixture(scope="module")
def source(folder):
    return open_source(str(folder))


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def facts(source):
    return {
        name: {split.example_name(k): source.labels[split.labels_N[k]] for k in range(len(split))}
        for name, split in source.splits.items()
    }


# What is kept


def test_names_labels_and_splits_are_those_of_the_source_and_train_is_shuffled(source, tmp_path):
    result = pack(source, tmp_path / "out", RAW, shard_size_bytes=60_000)
    packed = open_source(str(tmp_path / "out"))
    assert facts(packed) == facts(source)
    assert packed.labels == source.labels
    assert (result.num_images, result.num_kept, result.left_out) == (42, 0, ())
    assert result.num_shards == len(list((tmp_path / "out").glob("*.tar"))) > 3
    order = list(facts(packed)["train"])
    assert order != list(facts(source)["train"])
    assert list(facts(packed)["test"]) == list(facts(source)["test"])
    assert f"(fingerprint {source.fingerprint[:12]})" in packed.notes[-1]


def test_other_fractions_do_not_move_a_packed_example_to_another_split(source, tmp_path):
    pack(source, tmp_path / "out", RAW)
    packed = open_source(str(tmp_path / "out"), val_fraction=0.5, test_fraction=0.5, split_seed=9)
    assert facts(packed) == facts(source)


SPECS = [
    {"height": 32, "width": 32},
    {"height": 28, "width": 28, "crop_pct": 0.875},
    {"height": 16, "width": 16, "crop_pct": 0.5},
]


@pytest.mark.parametrize("lossless", ["raw", "png"])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_model_resized_to_the_packed_size_gets_the_same_pixels_to_the_bit(source, tmp_path, lossless, spec):
    pack(source, tmp_path / "out", PackSettings(size=32, format=lossless))
    packed = open_source(str(tmp_path / "out"))
    spec = InputSpec(channels=3, mean=(0.5,) * 3, std=(0.5,) * 3, **spec)
    for name, split in source.splits.items():
        there = {packed.splits[name].example_name(k): k for k in range(len(split))}
        for k in range(len(split)):
            again = packed.splits[name].cropped(there[split.example_name(k)], spec)
            assert np.array_equal(again, split.cropped(k, spec))


def test_jpeg_at_quality_90_is_near(source, tmp_path):
    pack(source, tmp_path / "out", PackSettings(size=32))
    packed = open_source(str(tmp_path / "out"))
    split, again = source.splits["test"], packed.splits["test"]
    spec = InputSpec(channels=3, height=32, width=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    differences = [
        np.abs(again.cropped(k, spec).astype(int) - split.cropped(k, spec)).mean() for k in range(len(split))
    ]
    assert 0 < max(differences) < 3, "levels of 255; 1.75 on photos, see docs/guides/packing.md"


def packed_one(path, **settings):
    """Return what is stored for one image file."""
    root = path.parent.parent
    save(root / "other/x.png", photo(50, 50))
    split = open_source(str(root), test_fraction=0.001, val_fraction=None).splits["train"]
    names = [split.example_name(k) for k in range(len(split))]
    return pack_image(split, names.index(f"{path.parent.name}/{path.name}"), PackSettings(**{"size": 32, **settings}))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_bytes_are_kept_where_nothing_is_resized(tmp_path, suffix):
    path = save(tmp_path / f"a/1.{suffix}", photo(32, 40))
    stored = packed_one(path)
    assert (stored.suffix, stored.data) == (suffix, path.read_bytes())
    assert packed_one(path, size=None).data == path.read_bytes()
    assert packed_one(path, size=31).data != path.read_bytes()
    assert packed_one(path, format="raw").suffix == "npy"


@pytest.mark.parametrize("suffix", ["bmp", "tif", "gif", "ppm"])
def test_formats_that_few_read_are_encoded_anew(tmp_path, suffix):
    path = save(tmp_path / f"a/1.{suffix}", photo(20, 24))
    assert packed_one(path).suffix == "jpg"
    assert packed_one(path, format="png").suffix == "png"


def test_a_turned_photo_is_stored_upright_and_a_wide_one_keeps_its_shape(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    stored = packed_one(save(tmp_path / "a/1.jpg", photo(50, 101), exif=turned))
    assert (stored.height, stored.width) == (64, 32)
    assert Image.open(io.BytesIO(stored.data)).size == (32, 64)


def test_grey_stays_grey(tmp_path):
    stored = packed_one(save(tmp_path / "a/1.png", photo(50, 50, channels=1)), format="png")
    assert Image.open(io.BytesIO(stored.data)).mode == "L"


def test_an_image_too_long_to_be_resized_is_refused_by_name(tmp_path):
    long = save(tmp_path / "a/1.png", np.zeros((40, 20_000), np.uint8))
    with pytest.raises(ImageError) as caught:
        packed_one(long)
    assert caught.value.message == "`a/1.png` would be packed as 32 x 16,000 pixels, more than 8,192 a side"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 0}, "size is 0, expected 1 to 8192"),
        ({"format": "gif"}, "no format `gif`; known: jpg, png, raw"),
        ({"quality": 101}, "quality is 101, expected 1 to 100"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(RecipeError) as caught:
        PackSettings(**settings)
    assert caught.value.message == said


def pixel_source(num_images=30, size=8, store=None):
    images = np.random.default_rng(1).integers(0, 256, (num_images, size, size, 1), np.uint8)
    split = array_split("train", images, np.arange(num_images) % 3, "train")
    if store is not None:
        split = replace(split, store=store(split.store))
    return Source("x", ("10", "2", "z"), {"train": split}, "f" * 64, 1, (size, size), True)


def test_a_source_of_pixels_is_packed_without_loss(tmp_path):
    source = pixel_source()
    pack(source, tmp_path / "out")
    packed = open_source(str(tmp_path / "out"), test_fraction=0.001, val_fraction=None)
    split = packed.splits["train"]
    assert (packed.channels, packed.image_size, packed.same_size, packed.labels) == (1, (8, 8), True, ("10", "2", "z"))
    for k in range(len(split)):
        original = int(split.example_name(k)[6:-1])
        assert split.labels_N[k] == original % 3
        assert np.array_equal(split.pixels(k, 1), source.splits["train"].pixels(original, 1))


# Other programs


def test_pythons_tarfile_finds_the_members_of_the_convention(source, tmp_path):
    pack(source, tmp_path / "out", PackSettings(size=32))
    with tarfile.open(tmp_path / "out/test-00000.tar") as tar:
        names = tar.getnames()
        label, about = (tar.extractfile(name).read() for name in names[1:3])
    assert [name.partition(".")[::2] for name in names[:3]] == [(f"{0:09d}", kind) for kind in ("jpg", "cls", "json")]
    split = source.splits["test"]
    expected = {"name": split.example_name(0), "label": int(split.labels_N[0]), "class_name": "cat"}
    assert (int(label), json.loads(about)) == (expected["label"], expected)
    assert (tmp_path / "out/classes.txt").read_text() == "cat\ndog\n"


OTHERS = """
import sys, webdataset
from timm.data import create_dataset
url, root = sys.argv[1:]
whole = webdataset.WebDataset(url, shardshuffle=False).decode("rgb8").to_tuple("jpg;png", "cls")
print(sorted(label for image, label in whole if image.dtype == "uint8"))
print(sorted(label for _, label in create_dataset("wds/", root, split="train", is_training=False, batch_size=1)))
"""


@pytest.mark.slow
def test_webdataset_and_timm_read_a_pack(source, tmp_path, python):
    """In a child process: both leave files open, and say much."""
    pytest.importorskip("webdataset")
    pack(source, tmp_path / "out", PackSettings(size=32, format="png"), shard_size_bytes=60_000)
    number = len(list((tmp_path / "out").glob("train-*.tar")))
    ended = python("-c", OTHERS, f"file:{tmp_path}/out/train-{{00000..{number - 1:05d}}}.tar", tmp_path / "out")
    assert ended.stdout.splitlines() == [str(sorted(source.splits["train"].labels_N.tolist()))] * 2, ended.stderr


# Unreadable images


def test_an_unreadable_image_is_named_left_out_and_counted(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "in")
    (tmp_path / "in/cat/broken.jpg").write_bytes((folder / "cat/a.1.jpg").read_bytes()[:300])
    source = open_source(str(tmp_path / "in"), val_fraction=None, test_fraction=0.001)
    result = pack(source, tmp_path / "out", RAW)
    ((name, reason),) = result.left_out
    assert name == "cat/broken.jpg"
    assert reason.startswith("`cat/broken.jpg` cannot be read: ")
    packed = open_source(str(tmp_path / "out"), val_fraction=None)
    names = {name for split in facts(packed).values() for name in split}
    assert names == {name for split in facts(source).values() for name in split} - {"cat/broken.jpg"}
    assert packed.notes[-1].endswith("; 1 unreadable left out")
    with pytest.raises(CheckFailed) as caught:
        pack(source, tmp_path / "strict", RAW, max_unreadable=0)
    assert caught.value.message == "1 image cannot be read, more than the 0 that may be left out: `cat/broken.jpg`"
    again = pack(source, tmp_path / "strict", RAW, max_unreadable=1)
    assert again.left_out == result.left_out


# Killed, damaged, repeated


@dataclass(frozen=True)
class Eventful:
    """A store in which something happens when its n-th image is asked for, counting from 1."""

    store: ImageStore
    when: int
    happens: Callable[[], None]
    asked: list = field(default_factory=list)

    def __len__(self):
        return len(self.store)

    @property
    def array(self):
        return self.store.array

    def load(self, index):
        self.asked.append(index)
        if len(self.asked) == self.when:
            self.happens()
        return self.store.load(index)

    def name(self, index):
        return self.store.name(index)


def eventful(source, when, happens):
    split = source.splits["train"]
    return replace(source, splits={"train": replace(split, store=Eventful(split.store, when, happens))})


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 31, 45, 60, 89])
def test_a_pack_that_was_stopped_goes_on_and_ends_with_the_same_bytes(tmp_path, after):
    source = pixel_source(60)
    options = {"shard_size_bytes": 40_000, "num_threads": 1}
    pack(source, tmp_path / "whole", **options)
    stopping = eventful(source, after, interrupt)
    with pytest.raises(KeyboardInterrupt):
        pack(stopping, tmp_path / "out", **options)
    assert not list(tmp_path.glob("out/.*")), "nothing half-written is left"
    if after > 60:  # the first sixty only measure
        for typed in (tmp_path / "out", f"webdataset:{tmp_path}/out", *tmp_path.glob("out/*.tar")):
            with pytest.raises(SourceError, match="was not packed to its end"):
                open_source(str(typed))
    num_done = len(list(tmp_path.glob("out/*.tar")))
    result = pack(source, tmp_path / "out", **options)
    assert result.num_kept == num_done
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_killed_writers_half_shard_and_half_line_are_written_again(tmp_path):
    source = pixel_source(60)
    pack(source, tmp_path / "out", shard_size_bytes=40_000)
    whole = contents(tmp_path / "out")
    own = json.loads(whole["_info.json"])["linne"]
    order = {"source": "x", "fingerprint": source.fingerprint, "settings": own["settings"], "labels": own["labels"]}
    lines = [{**order, "per_shard": own["per_shard"]}, *({"name": n, **s} for n, s in own["shards"].items())]
    text = "".join(json.dumps(line) + "\n" for line in lines[:3]) + json.dumps(lines[3])[:-5]
    (tmp_path / "out/_info.json").unlink()
    (tmp_path / "out/unfinished.jsonl").write_text(text)
    for name in ("train-00002.tar", "unfinished.jsonl"):
        (tmp_path / f"out/.{name}.partial").write_bytes(b"half")
    result = pack(source, tmp_path / "out", shard_size_bytes=40_000)
    assert result.num_kept == 2
    assert contents(tmp_path / "out") == whole


PACK = """
import sys
from linne.data import open_source
from linne.data.shards.pack import pack
from linne.data.shards.pack_image import PackSettings
source = open_source("synthetic:classes=3,size=48,count=600")
print("go", flush=True)
pack(source, sys.argv[1], PackSettings(size=32, format="png"), shard_size_bytes=150_000, num_threads=2)
"""


@pytest.mark.slow
def test_a_pack_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path, python):
    assert python("-c", PACK, tmp_path / "whole").returncode == 0
    kills = 0
    for delay in RNG.uniform(0.02, 0.4, 8):
        with subprocess.Popen([sys.executable, "-c", PACK, str(tmp_path / "out")], stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            try:
                child.wait(delay)
            except subprocess.TimeoutExpired:
                child.kill()
                kills += 1
    assert kills >= 3
    assert python("-c", PACK, tmp_path / "out").returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_packing_again_verifies_and_mends_only_what_is_wrong(tmp_path):
    source = pixel_source(60)
    pack(source, tmp_path / "out", shard_size_bytes=40_000)
    whole, shards = contents(tmp_path / "out"), sorted(tmp_path.glob("out/*.tar"))
    times = [path.stat().st_mtime_ns for path in tmp_path.glob("out/*")]
    assert pack(source, tmp_path / "out", shard_size_bytes=40_000).num_kept == len(shards)
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("out/*")] == times
    data = bytearray(shards[1].read_bytes())
    data[600] ^= 1
    shards[1].write_bytes(data)
    shards[2].unlink()
    with pytest.raises(SourceError, match=r"lacks `train-00002\.tar`"):
        open_source(str(tmp_path / "out"))
    assert pack(source, tmp_path / "out", shard_size_bytes=40_000).num_kept == len(shards) - 2
    assert contents(tmp_path / "out") == whole


def test_a_shard_that_reads_back_otherwise_than_it_was_written_is_not_kept(tmp_path):
    source, partial = pixel_source(60), tmp_path / "out/.train-00000.tar.partial"

    def fault():
        with partial.open("r+b") as file:
            file.seek(520)
            file.write(b"x")

    faulty = eventful(source, 120, fault)  # sixty to measure, and the last of the shard
    with pytest.raises(LinneError, match="reads back as something else than was written"):
        pack(faulty, tmp_path / "out", num_threads=1)
    assert not list(tmp_path.glob("out/*.tar"))
    assert pack(source, tmp_path / "out").num_images == 60


def test_the_number_of_threads_changes_no_byte(source, tmp_path):
    for threads in (1, 3):
        pack(source, tmp_path / str(threads), PackSettings(size=32), num_threads=threads)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_shards_that_were_changed_or_do_not_belong_are_refused_on_opening(source, tmp_path):
    out = tmp_path / "out"
    pack(source, out, RAW)
    (out / "extra.tar").write_bytes(b"")
    with pytest.raises(SourceError, match=r"does not list `extra\.tar`"):
        open_source(str(out))
    (out / "extra.tar").unlink()
    with (out / "test-00000.tar").open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(SourceError, match=r"`test-00000\.tar` has [\d,]+ bytes, expected"):
        open_source(str(out))


# Refused


def test_a_folder_that_holds_something_else_is_left_alone(source, folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x")
    with pytest.raises(SourceError, match="holds something else than a pack of linne"):
        pack(source, tmp_path / "mine", RAW)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(SourceError, match="lies inside the source; packing would change it"):
        pack(source, folder / "packed", RAW)


def test_a_pack_of_something_else_or_made_otherwise_is_not_mixed_with(source, tmp_path):
    out = tmp_path / "out"
    pack(source, out, RAW)
    whole = contents(out)
    for other, settings, said in [
        (source, replace(RAW, size=48), f"`{out}` holds a pack of the same source with `size 32`"),
        (
            replace(source, fingerprint="0" * 64),
            RAW,
            f"`{out}` holds a pack of `{source.name}` as it was, with the fingerprint {source.fingerprint[:12]}",
        ),
    ]:
        with pytest.raises(SourceError) as caught:
            pack(other, out, settings)
        assert caught.value.message == said
    assert contents(out) == whole


def test_a_pack_may_lie_beside_the_images_of_a_list(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "in")
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(tmp_path.glob("in/*/*"))]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    source = open_source(str(tmp_path / "list.csv"))
    pack(source, tmp_path / "out", RAW)
    assert facts(open_source(str(tmp_path / "out"))) == facts(source)


def test_names_that_cannot_be_printed_stay_the_same_names(tmp_path):
    for number in range(12):
        save(tmp_path / f"in/{'ab'[number % 2]}/x\n\\{number}.v2.png", photo(8, 8))
    (tmp_path / "in/a/\udcff.png").write_bytes((tmp_path / "in/a/x\n\\0.v2.png").read_bytes())
    source = open_source(str(tmp_path / "in"))
    pack(source, tmp_path / "out", RAW)
    assert facts(open_source(str(tmp_path / "out"))) == facts(source)


def test_a_disk_too_small_is_said_before_anything_is_written(tmp_path):
    images = np.broadcast_to(np.uint8(0), (10**6, 1500, 1500, 3))
    split = array_split("train", images, np.arange(10**6) % 2, "train")
    huge = Source("huge", ("a", "b"), {"train": split}, "f" * 64, 3, (1500, 1500), True)
    huge = eventful(huge, 100, lambda: pytest.fail("it began to fill the disk"))
    with pytest.raises(LinneError, match=r"packing needs about 6,7[56]\d\.\d GB and"):
        pack(huge, tmp_path / "out", PackSettings(size=None, format="raw"))
    assert not (tmp_path / "out").exists()


# The command


def run(*words):
    return CliRunner().invoke(command, [str(word) for word in words])


def test_the_command_packs_and_says_what_to_type_next(folder, tmp_path):
    words = (folder, tmp_path / "out", "--size", "none", "--quality", 80, "--shard-size-mb", 1, "--quiet")
    lines = run(*words).stdout.splitlines()
    assert re.fullmatch(r"42 images in 3 shards, 0\.\d MB", lines[0])
    assert lines[1] == f"linne train {tmp_path}/out"
    own = json.loads((tmp_path / "out/_info.json").read_text())["linne"]
    assert own["settings"] == {"size": None, "format": "jpg", "quality": 80, "shard_size_bytes": 10**6}
    again = json.loads(run(*words, "--json").stdout)
    assert (again["num_images"], again["num_shards"], again["num_kept"], again["left_out"]) == (42, 3, 3, [])


def test_pixels_are_packed_as_png_unless_it_is_said_otherwise(tmp_path):
    source = "synthetic:classes=3,size=8,count=60"
    for words, expected in (((), "png"), (("--format", "raw"), "raw")):
        run(source, tmp_path / expected, *words)
        assert json.loads((tmp_path / expected / "_info.json").read_text())["linne"]["settings"]["format"] == expected


def test_the_command_refuses_a_size_that_is_none(tmp_path):
    ended = run("digits", tmp_path / "out", "--size", "big")
    assert (ended.exit_code, "`big` is not a number of pixels or `none`" in ended.stderr) == (2, True)


def test_splits_written_before_are_kept(folder, tmp_path):
    other = open_source(str(folder), split_seed=5)
    save_manifest(other, tmp_path / "splits.json")
    run(folder, tmp_path / "out", "--splits-file", tmp_path / "splits.json", "--quiet")
    assert facts(open_source(str(tmp_path / "out"))) == facts(other) != facts(open_source(str(folder)))
