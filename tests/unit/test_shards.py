"""WebDataset shards: the convention's samples are read in place, and what breaks it is refused by name."""

import contextlib
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from linne.data import open_source
from linne.data.shards.members import index_shards
from linne.data.shards.names import expand_braces, find_shards, holds_shards, split_of
from linne.errors import ImageError, LinneError, SourceError

RNG = np.random.default_rng(0)


def png(size=6, seed=0):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


PNG = png()


def write(path, entries):
    """Write a tar file of {name: content}; text becomes bytes, and other things JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in entries.items():
            is_plain = isinstance(content, (str, bytes))
            data = content if isinstance(content, bytes) else (content if is_plain else json.dumps(content)).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(count=12, classes=("cat", "dog"), start=0, image=None):
    """Return the members of `count` samples, with their classes in turn as `.cls`."""
    entries = {}
    for k in range(start, start + count):
        entries[f"{k:04d}.png"] = image or png(seed=k)
        entries[f"{k:04d}.cls"] = classes[k % len(classes)]
    return entries


def opened(where, **options):
    return open_source(f"webdataset:{where}", **{"val_fraction": None, **options})


def refusal(where):
    with pytest.raises(SourceError) as caught:
        opened(where)
    assert "\n" not in caught.value.message
    return caught.value.message


def by_name(source):
    return {
        split.example_name(k): source.labels[split.labels_N[k]]
        for split in source.splits.values()
        for k in range(len(split))
    }


# Samples


def test_images_labels_and_names_are_found_and_bytes_are_those_that_were_stored(tmp_path):
    write(tmp_path / "s/a.tar", samples(12))
    source = opened(tmp_path / "s")
    assert source.labels == ("cat", "dog")
    assert by_name(source) == {f"a.tar/{k:04d}.png": ("cat", "dog")[k % 2] for k in range(12)}
    split = source.splits["train"]
    for k in range(len(split)):
        number = int(split.example_name(k)[6:10])
        assert split.load(k) == png(seed=number)
    assert (source.channels, source.image_size, source.same_size) == (3, (6, 6), True)


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ({"cls": "1"}, ("0", "1")),
        ({"cls": "dog\n"}, ("0", "dog")),
        ({"json": {"label": 1, "caption": "x"}}, ("0", "1")),
        ({"json": {"class": "dog"}}, ("0", "dog")),
        ({"txt": " dog "}, ("0", "dog")),
        ({"txt": "a long caption", "cls": "dog"}, ("0", "dog")),
        ({"json": {"nothing": 1}, "cls": "dog"}, ("0", "dog")),
    ],
)
def test_a_label_is_read_from_cls_then_json_then_txt(tmp_path, label, names):
    entries = {"0.png": PNG, "0.cls": "0", "2.png": PNG, "2.cls": "0", "1.png": PNG}
    write(tmp_path / "a.tar", {**entries, **{f"1.{kind}": content for kind, content in label.items()}})
    source = opened(tmp_path / "a.tar")
    assert source.labels == names
    assert by_name(source)["a.tar/1.png"] == names[1]


def test_numbers_are_in_the_order_of_numbers_and_texts_in_that_of_texts(tmp_path):
    write(tmp_path / "numbers.tar", samples(24, ("10", "9", "2")))
    write(tmp_path / "texts.tar", samples(24, ("b10", "b9", "b2")))
    assert opened(tmp_path / "numbers.tar").labels == ("2", "9", "10")
    assert opened(tmp_path / "texts.tar").labels == ("b10", "b2", "b9")


@pytest.mark.parametrize("name", ["classes.txt", "classnames.txt"])
def test_numbers_take_their_names_from_a_file_beside_the_shards(tmp_path, name):
    write(tmp_path / "s/train/0.tar", samples(12, ("2", "0")))
    (tmp_path / "s" / name).write_text("ant\nbee\ncow\n")
    source = opened(tmp_path / "s")
    assert source.labels == ("ant", "bee", "cow")
    assert by_name(source)["train/0.tar/0000.png"] == "cow"
    assert "train has no images of `bee`" in source.notes
    assert opened(f"{tmp_path}/s/train/{{0..0}}.tar").labels == source.labels


def test_a_number_without_a_name_is_refused(tmp_path):
    write(tmp_path / "s/a.tar", samples(12, ("0", "7")))
    (tmp_path / "s/classes.txt").write_text("ant\nbee\n")
    assert refusal(tmp_path / "s") == "train has the label `7`, not among the 2 class names"


def test_members_in_folders_and_upper_case_endings_are_samples_too(tmp_path):
    write(tmp_path / "a.tar", {"x.y/1.PNG": PNG, "x.y/1.CLS": "a", "x/1.png": PNG, "x/1.cls": "b", "x.y/2.png": PNG,
                               "x.y/2.cls": "a"})  # fmt: skip
    assert set(by_name(opened(tmp_path / "a.tar"))) == {"a.tar/x.y/1.PNG", "a.tar/x/1.png", "a.tar/x.y/2.png"}


def test_what_belongs_to_no_image_is_passed_over_and_counted(tmp_path):
    more = {"README": "x", "._0001.png": "mac", "__index__/x.png": PNG, "meta.yaml": "a: 1"}
    write(tmp_path / "a.tar", {**samples(12), **more})
    source = opened(tmp_path / "a.tar")
    assert len(by_name(source)) == 12
    assert "ignored 4 members that belong to no image" in source.notes


def test_embeddings_and_masks_beside_an_image_are_not_taken_for_it(tmp_path):
    entries = samples(12)
    write(tmp_path / "a.tar", {**entries, "0011.npy": b"x", "0011.seg.png": PNG, "0011.emb.npz": b"x"})
    assert len(by_name(opened(tmp_path / "a.tar"))) == 12


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"1.png": PNG, "1.cls": ""}, "`1` in `a.tar` has a label of 0 characters, expected 1 to 1,000"),
        ({"1.png": PNG, "1.cls": b"\xff"}, "the `.cls` of `1` in `a.tar` is not UTF-8"),
        ({"1.png": PNG, "1.cls": "x" * 1001}, "`1.cls` of `1` in `a.tar` has 1,001 bytes, expected at most 1,000"),
        ({"1.png": PNG, "1.yaml": "x"}, "`1` in `a.tar` has no label, only `.png`, `.yaml`"),
        ({"1.png": PNG, "1.json": {"id": 3}}, "the JSON of `1` in `a.tar` has none of `label`, `cls`, `class`"),
        ({"1.png": PNG, "1.json": {"label": True}}, "the JSON of `1` in `a.tar` has a `label` that is neither"),
        ({"1.png": PNG, "1.json": "[" * 100_000}, "the JSON of `1` in `a.tar` cannot be read: "),
        ({"1.png": PNG, "1.jpg": PNG, "1.cls": "a"}, "`1` in `a.tar` has several images: `.png`, `.jpg`"),
        ({"1.cls": "a"}, "`1` in `a.tar` has no image, only `.cls`"),
        ({"a.1.png": PNG, "a.1.cls": "x"}, "`a` in `a.tar` has no image, only `.1.png`, `.1.cls`"),
        ({"x.png": PNG, "x.PNG": PNG, "x.cls": "a"}, "`x.PNG` is twice in `a.tar`"),
        ({"b.png": PNG, "b.cls": "a", "c.png": PNG, "c.cls": "b", "./b.png": PNG, "./b.cls": "a"},
         "`a.tar/b.png` is there twice"),
        ({"a.txt": "x"}, "no images in `a.tar`"),
    ],
)  # fmt: skip
def test_a_sample_that_breaks_the_convention_is_named(tmp_path, entries, said):
    write(tmp_path / "a.tar", entries)
    assert refusal(tmp_path / "a.tar").startswith(said)


def test_captions_are_not_taken_for_classes(tmp_path):
    captions = [f"c{k}" for k in range(300)]
    write(tmp_path / "a.tar", {name.replace("cls", "txt"): data for name, data in samples(300, captions).items()})
    said = "has 300 different labels, such as `c0`, `c1`, `c2` and 297 more: no classes"
    assert refusal(tmp_path / "a.tar").endswith(said)


def test_labels_that_differ_only_by_case_are_refused(tmp_path):
    write(tmp_path / "a.tar", samples(classes=("Cat", "cat", "dog")))
    assert refusal(tmp_path) == f"`{tmp_path}` has the labels `Cat`, `cat`, which differ only by case"


def test_an_info_file_with_numbers_that_are_none_is_refused_in_our_words(tmp_path):
    write(tmp_path / "a.tar", samples())
    (tmp_path / "_info.json").write_text('{"splits": {"train": {"filenames": ["a.tar"], "shard_lengths": [1e999]}}}')
    assert refusal(tmp_path).startswith(f"`{tmp_path}/_info.json` does not list shards as timm and linne do: ")


def test_one_class_is_refused(tmp_path):
    write(tmp_path / "a.tar", samples(3, ("cat",)))
    assert refusal(tmp_path / "a.tar").endswith("has only one class, `cat`; expected at least two")


class Canary:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_nothing_in_a_shard_is_ever_unpickled(tmp_path):
    canary = tmp_path / "canary"
    gadget = pickle.dumps(Canary(str(canary)))
    objects = io.BytesIO()
    np.save(objects, np.array([[Canary(str(canary))]], object), allow_pickle=True)
    entries = {**samples(12), "0011.pyd": gadget, "0011.pkl": gadget, "0011.pth": gadget, "0011.ten": gadget}
    write(tmp_path / "a.tar", {**entries, "12.npy": objects.getvalue(), "12.cls": "cat"})
    source = opened(tmp_path / "a.tar")
    places = [(split, k) for split in source.splits.values() for k in range(len(split))]
    refused = []
    for split, k in places:
        try:
            split.pixels(k, 3)
        except ImageError as error:
            refused.append(error.message)
    assert refused == [
        "`a.tar/12.npy` cannot be read: not a NumPy file of uint8 H x W x C pixels in C order, with 1 or 3 channels"
    ]
    assert not canary.exists()
    pickle.loads(gadget).close()  # noqa: S301
    assert canary.exists(), "the gadget does what it would have done"


def test_pixels_are_read_from_npy_members(tmp_path):
    images = RNG.integers(0, 256, (12, 5, 7, 3), np.uint8)
    entries = {}
    for k, image in enumerate(images):
        stream = io.BytesIO()
        np.save(stream, image)
        entries |= {f"{k}.npy": stream.getvalue(), f"{k}.cls": str(k % 2)}
    write(tmp_path / "a.tar", entries)
    source = opened(tmp_path / "a.tar")
    assert (source.image_size, source.same_size) == ((5, 7), True)
    for split in source.splits.values():
        for k in range(len(split)):
            assert np.array_equal(split.pixels(k, 3), images[int(split.example_name(k).split("/")[1].split(".")[0])])


def test_a_damaged_image_is_named_when_it_is_loaded_and_the_others_are_read(tmp_path):
    write(tmp_path / "a.tar", {**samples(12), "12.png": PNG[:40], "12.cls": "cat"})
    source = opened(tmp_path / "a.tar", test_fraction=0.001)
    split = source.splits["train"]
    names = [split.example_name(k) for k in range(len(split))]
    with pytest.raises(ImageError, match=r"`a\.tar/12\.png` cannot be read"):
        split.pixels(names.index("a.tar/12.png"), 3)


def test_a_shard_cut_after_it_was_opened_is_an_error_and_not_half_an_image(tmp_path):
    path = write(tmp_path / "a.tar", samples(12))
    split = opened(path).splits["train"]
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ImageError, match="cannot be read: its shard was cut short since it was opened"):
        split.load(len(split) - 1)


# Shards


def test_a_cut_shard_is_named(tmp_path):
    write(tmp_path / "s/a.tar", samples(12))
    path = write(tmp_path / "s/b.tar", samples(12, start=12))
    path.write_bytes(path.read_bytes()[:5000])
    assert refusal(tmp_path / "s").startswith("`b.tar` is cut short: ")


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("a", ["a"]),
        ("t-{08..11}.tar", ["t-08.tar", "t-09.tar", "t-10.tar", "t-11.tar"]),
        ("t-{8..10}", ["t-8", "t-9", "t-10"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
        ("x{y}z{", ["x{y}z{"]),
    ],
)
def test_braces_stand_for_what_they_do_in_webdataset(pattern, paths):
    assert expand_braces(pattern) == paths


@pytest.mark.parametrize("pattern", ["{0..9999999999}", "{0..9999}{0..9999}"])
def test_braces_cannot_fill_the_memory(pattern):
    with pytest.raises(SourceError, match="stands for"):
        expand_braces(pattern)


def test_patterns_take_what_they_name_and_miss_what_is_missing(tmp_path):
    for k in range(3):
        write(tmp_path / f"p-{k:03d}.tar", samples(12, start=12 * k))
    assert len(by_name(opened(f"{tmp_path}/p-{{000..001}}.tar"))) == 24
    assert len(by_name(opened(f"{tmp_path}/p-*.tar"))) == 36
    assert refusal(f"{tmp_path}/p-{{001..004}}.tar") == (
        f"2 of 4 shards are not there: `{tmp_path}/p-003.tar`, `{tmp_path}/p-004.tar`"
    )
    assert refusal(f"{tmp_path}/q-*.tar") == f"no file matches `{tmp_path}/q-*.tar`"
    assert refusal(f"{tmp_path}/p-{{000,000}}.tar").endswith(f"names `{tmp_path}/p-000.tar` twice")


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("", "`webdataset` needs the shards"),
        ("https://host/a.tar", "`https://host/a.tar` is not on this machine; shards are read from disk"),
        ("pipe:touch canary", "`pipe:touch canary` is not on this machine; shards are read from disk"),
        ("no.tar", "the shard is not there: `no.tar`"),
    ],
)
def test_what_is_not_on_disk_is_refused_and_no_shell_is_started(location, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(location) == said
    assert not (tmp_path / "canary").exists()


def test_compressed_shards_are_named_with_what_to_do(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s/a.tar.gz").write_bytes(b"\x1f\x8b")
    assert refusal(tmp_path / "s") == f"`{tmp_path}/s` holds no `.tar` files, and 1 compressed one (`a.tar.gz`)"
    write(tmp_path / "s/b.tar", samples(12))
    assert "ignored 1 compressed archive: `a.tar.gz`" in opened(tmp_path / "s").notes


def test_a_folder_of_shards_is_told_from_one_of_images(tmp_path):
    write(tmp_path / "flat/a.tar", samples())
    write(tmp_path / "split/train/a.tar", samples())
    write(tmp_path / "images/backup.tar", samples())
    (tmp_path / "images/cat").mkdir()
    (tmp_path / "images/train/cat").mkdir(parents=True)
    assert [holds_shards(str(tmp_path / name)) for name in ("flat", "split", "images", "images/train", "none")] == [
        True, True, False, False, False
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_shard_with_any_bytes_changed_opens_or_is_refused_in_our_words(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "fuzzed.tar"
    write(path, {"1.png": PNG, "1.json": {"label": "a"}, "2.png": PNG, "2.cls": "b", "3.png": PNG, "3.txt": "b"})
    data = bytearray(path.read_bytes())
    for position, value in changes:
        data[position] = value
    path.write_bytes(data)
    with contextlib.suppress(LinneError):
        opened(path)


# Splits


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-000.tar", "train"),
        ("imagenet1k-validation-07.tar", "val"),
        ("x_test001.tar", "test"),
        ("valid/0.tar", "val"),
        ("training/testimony.tar", "train"),
        ("contest-000.tar", None),
        ("000.tar", None),
    ],
)
def test_a_shards_split_stands_in_its_name(path, split):
    assert split_of(path) == split


def test_splits_are_those_of_the_names_and_classes_those_of_train(tmp_path):
    write(tmp_path / "s/train-0.tar", samples(12, ("cat", "dog", "emu")))
    write(tmp_path / "s/val-0.tar", samples(4))
    write(tmp_path / "s/test-0.tar", samples(3))
    source = opened(tmp_path / "s")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 12, "val": 4, "test": 3}
    assert "shards of each split: train 1, val 1, test 1" in source.notes
    assert "val has no images of `emu`" in source.notes
    write(tmp_path / "s/val-1.tar", samples(4, ("cat", "fox")))
    assert refusal(tmp_path / "s") == "val has the label `fox`, which train does not have"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("train-0", "other"), "`other.tar` names no split, and other shards do"),
        (("train-val-0",), "`train-val-0.tar` names `train`, `val`; expected one split"),
        (("val-0", "test-0"), "the shards are of `test`, `val`, and none of train"),
    ],
)
def test_split_names_that_can_be_read_in_two_ways_are_refused(tmp_path, names, said):
    for k, name in enumerate(names):
        write(tmp_path / f"s/{name}.tar", samples(12, start=12 * k))
    assert refusal(tmp_path / "s") == said


def test_shards_of_one_split_are_one_set(tmp_path):
    write(tmp_path / "s/val-0.tar", samples(20))
    source = opened(tmp_path / "s")
    assert "all shards are of val: they are read as one set" in source.notes
    assert len(source.splits["train"]) + len(source.splits["test"]) == 20


def test_splits_are_those_of_timms_info_file(tmp_path):
    for k, name in enumerate(("x-0", "x-1")):
        write(tmp_path / f"s/{name}.tar", samples(12, start=12 * k))
    parts = {"train": "x-0.tar", "validation": "x-1.tar", "train_half": "x-0.tar"}
    info = {n: {"name": n, "num_samples": 12, "filenames": [f], "shard_lengths": [12]} for n, f in parts.items()}
    (tmp_path / "s/_info.json").write_text(json.dumps({"splits": info}))
    assert {name: len(split) for name, split in opened(tmp_path / "s").splits.items()} == {"train": 12, "val": 12}
    info["train"]["shard_lengths"] = [13]
    (tmp_path / "s/_info.json").write_text(json.dumps({"splits": info}))
    assert refusal(tmp_path / "s") == "`x-0.tar` has 12 images; `_info.json` says 13"
    (tmp_path / "s/_info.json").write_text('{"splits": [')
    assert refusal(tmp_path / "s").startswith(f"`{tmp_path}/s/_info.json` is not JSON: ")


def test_the_fingerprint_knows_every_byte_of_every_image(tmp_path):
    path = write(tmp_path / "a.tar", samples(12))
    before = opened(path).fingerprint
    assert opened(path).fingerprint == before
    write(path, {**samples(12), "0003.png": png(seed=99)})
    assert opened(path).fingerprint != before


@pytest.mark.slow
def test_a_large_set_is_indexed_once(tmp_path, monkeypatch):
    """Slow because an index of files younger than two seconds is not kept."""
    import time

    monkeypatch.setenv("LINNE_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "s/a.tar", samples(20_000, image=PNG))
    time.sleep(2.5)
    first, again = (index_shards(find_shards(str(tmp_path / "s")), packed=False)[0] for _ in range(2))
    assert first.identity == again.identity != ""
    write(tmp_path / "s/a.tar", samples(20_002, image=PNG))
    assert len(by_name(opened(tmp_path / "s"))) == 20_002


@pytest.mark.slow
def test_what_webdatasets_own_writer_writes_is_read(tmp_path):
    wds = pytest.importorskip("webdataset")
    with wds.ShardWriter(f"file:{tmp_path}/s-%03d.tar", maxcount=5, verbose=0) as writer:
        for k in range(12):
            writer.write({"__key__": f"{k:04d}", "jpg": RNG.integers(0, 256, (9, 8, 3), np.uint8), "cls": k % 3})
    source = opened(f"{tmp_path}/s-{{000..002}}.tar")
    assert source.labels == ("0", "1", "2")
    assert by_name(source)["s-001.tar/0007.jpg"] == "1"
    assert source.splits["train"].pixels(0, 3).shape == (9, 8, 3)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("{}" * 5000 + ".tar", "5,000 braces, expected at most 100"), ("a-{0.." + "9" * 5000 + "}.tar", "not there")],
)
def test_absurd_patterns_are_refused(pattern, said):
    with pytest.raises(SourceError, match=said):
        open_source(f"webdataset:{pattern}")
