"""What every source in the table promises, whatever it reads."""

import io
import struct
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from linne.data import SOURCES, list_sources, open_source, save_manifest

RNG = np.random.default_rng(0)


def make_folder(root):
    for label in ("ant", "bee", "cow"):
        (root / label).mkdir(parents=True)
        for k in range(12):
            (root / label / f"{k}.ppm").write_bytes(b"P6 6 5 255\n" + RNG.bytes(90))
    return f"folder:{root}", root / "bee/3.ppm"


def make_idx(name):
    def make(root):
        root.mkdir()
        for stem, count in (("train", 60), ("t10k", 20)):
            images = struct.pack(">4I", 0x803, count, 28, 28) + RNG.bytes(count * 784)
            labels = struct.pack(">2I", 0x801, count) + bytes(k % 10 for k in range(count))
            (root / f"{stem}-images-idx3-ubyte").write_bytes(images)
            (root / f"{stem}-labels-idx1-ubyte").write_bytes(labels)
        return f"{name}:{root}", root / "train-images-idx3-ubyte"

    return make


def make_cifar(root):
    root.mkdir()
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        (root / name).write_bytes(b"".join(bytes([k % 10]) + RNG.bytes(3072) for k in range(20)))
    return f"cifar10:{root}", root / "data_batch_2.bin"


def make_cifar100(root):
    root.mkdir()
    for name in ("train.bin", "test.bin"):
        (root / name).write_bytes(b"".join(bytes([k % 20, k % 100]) + RNG.bytes(3072) for k in range(600)))
    (root / "fine_label_names.txt").write_text("\n".join(f"kind-{k}" for k in range(100)) + "\n")
    return f"cifar100:{root}", root / "test.bin"


WNIDS = ("n01440764", "n02102040", "n02979186")


def make_wnid_folders(name):
    """Make ImageNet's layout, and Imagenette's; the ending is as published, the content is sniffed."""

    def make(root):
        for split, number in (("train", 8), ("val", 4)):
            for wnid in WNIDS:
                for k in range(number):
                    path = root / split / wnid / f"{wnid}_{k}.JPEG"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(b"P6 6 5 255\n" + RNG.bytes(90))
        return f"{name}:{root}", root / "val" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"

    return make


def make_tiny_imagenet(root):
    lines = []
    for number, wnid in enumerate(WNIDS):
        for k in range(8):
            path = root / "train" / wnid / "images" / f"{wnid}_{k}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"P6 6 5 255\n" + RNG.bytes(90))
        lines += [f"val_{number}{k}.JPEG\t{wnid}\t0\t0\t1\t1" for k in range(4)]
    (root / "val/images").mkdir(parents=True)
    for line in lines:
        (root / "val/images" / line.partition("\t")[0]).write_bytes(b"P6 6 5 255\n" + RNG.bytes(90))
    (root / "val/val_annotations.txt").write_text("\n".join(lines) + "\n")
    (root / "wnids.txt").write_text("\n".join(WNIDS))
    (root / "words.txt").write_text("".join(f"{wnid}\tword {k}, other\n" for k, wnid in enumerate(WNIDS)))
    return f"tiny-imagenet:{root}", root / "val/images/val_10.JPEG"


def make_list(root):
    _, photo = make_folder(root)
    rows = [f"{label}/{k}.ppm,{label}" for label in ("ant", "bee", "cow") for k in range(12)]
    (root / "all.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return f"list:{root / 'all.csv'}", photo


def make_shards(root):
    _, photo = make_folder(root / "photos")
    shard = root / "all.tar"
    with tarfile.open(shard, "w") as tar:
        for path in sorted((root / "photos").glob("*/*.ppm"), key=lambda path: path != photo):  # so that it is first
            tar.add(path, f"{path.parent.name}-{path.stem}.ppm")
            label = tarfile.TarInfo(f"{path.parent.name}-{path.stem}.cls")
            label.size = 3
            tar.addfile(label, io.BytesIO(path.parent.name.encode()))
    return f"webdataset:{shard}", shard


def make_saved_dataset(root):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    images = [{"bytes": b"P6 6 5 255\n" + RNG.bytes(90), "path": None} for _ in range(40)]
    saved = datasets.Dataset.from_dict({"image": images, "label": [k % 2 for k in range(40)]}, features=features)
    saved.save_to_disk(root)
    return f"hf:{root}", None


CASES = {
    "digits": lambda root: ("digits", None),
    "folder": make_folder,
    "mnist": make_idx("mnist"),
    "fashion-mnist": make_idx("fashion-mnist"),
    "cifar10": make_cifar,
    "cifar100": make_cifar100,
    "imagenette": make_wnid_folders("imagenette"),
    "tiny-imagenet": make_tiny_imagenet,
    "imagenet": make_wnid_folders("imagenet"),
    "list": make_list,
    "webdataset": make_shards,
    "hf": make_saved_dataset,
    "synthetic": lambda root: ("synthetic:classes=3,size=8,count=60", None),
}
SPLIT_ALREADY = ("imagenette", "tiny-imagenet", "imagenet")
"""Sets whose publisher made train and val, so that there is nothing for a seed to choose."""


@pytest.fixture(scope="module", params=SOURCES)
def made(request, tmp_path_factory):
    """What to type for a source, and a file of it to change (None where it has no file)."""
    return CASES[request.param](tmp_path_factory.mktemp("sources") / request.param)


@pytest.fixture(scope="module")
def source(made):
    return open_source(made[0])


def test_every_source_has_a_case_here_and_a_line_in_the_listing():
    assert list(CASES) == list(SOURCES)
    assert [listing.name.partition(":")[0] for listing in list_sources()] == list(SOURCES)


def test_labels_are_different_texts_in_an_order_that_opening_again_keeps(source, made):
    assert len(set(source.labels)) == len(source.labels) == source.num_classes >= 2
    assert all(label and label.isprintable() for label in source.labels)
    assert open_source(made[0]).labels == source.labels


def is_split_already(source):
    return source.name.partition(":")[0] in SPLIT_ALREADY


def test_there_is_a_train_split_and_nothing_else_than_val_and_test(source):
    assert list(source.splits) == ["train", "val", "test"][: 2 if is_split_already(source) else 3]
    assert all(split.name == name for name, split in source.splits.items())


def test_splits_are_disjoint_and_their_examples_have_names_of_their_own(source):
    names = [split.example_name(k) for split in source.splits.values() for k in range(len(split))]
    assert len(set(names)) == len(names)
    assert all(name.isprintable() for name in names)
    places = [(id(split.store), index) for split in source.splits.values() for index in split.indices_N.tolist()]
    assert len(set(places)) == len(places)


def test_a_split_has_one_label_an_example_within_the_classes(source):
    for split in source.splits.values():
        assert len(split) == len(split.indices_N) == len(split.labels_N) > 0
        assert split.labels_N.dtype == split.indices_N.dtype == np.int64
        assert 0 <= split.labels_N.min() <= split.labels_N.max() < source.num_classes
        assert 0 <= split.indices_N.min() <= split.indices_N.max() < len(split.store)


def test_every_class_is_trained_on(source):
    assert set(source.splits["train"].labels_N.tolist()) == set(range(source.num_classes))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_height_by_width_by_the_channels_asked_for(source, channels):
    for split in source.splits.values():
        pixels = split.pixels(len(split) - 1, channels)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == channels
        assert not source.same_size or pixels.shape[:2] == source.image_size
        assert np.array_equal(split.pixels(len(split) - 1, channels), pixels), "the same every time"


def test_the_array_of_a_store_is_its_pixels(source):
    split = source.splits["train"]
    if split.store.array is None:
        pytest.skip("this source's images are files")
    stored = split.store.array
    assert stored.shape == (len(split.store), *source.image_size, source.channels)
    assert np.array_equal(stored[split.indices_N[7]], split.pixels(7, source.channels))


def test_splits_made_of_one_set_share_its_store(source):
    assert source.splits["train"].store is source.splits["val"].store


def test_a_grey_source_has_grey_images(source):
    if source.channels == 3:
        pytest.skip("this source has colours")
    colour = source.splits["train"].pixels(0, 3)
    assert (colour == colour[..., :1]).all()


def test_threads_may_load_at_once(source):
    for split in source.splits.values():
        alone = [split.load(position) for position in range(len(split))]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(split.load, range(len(split))))
        assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_the_fingerprint_is_the_same_every_time_and_knows_the_split(source, made):
    assert len(bytes.fromhex(source.fingerprint)) == 32
    assert open_source(made[0]).fingerprint == source.fingerprint
    if is_split_already(source):
        return
    assert open_source(made[0], split_seed=1).fingerprint != source.fingerprint
    assert open_source(made[0], val_fraction=None).fingerprint != source.fingerprint


def test_one_changed_pixel_changes_the_fingerprint(source, made):
    typed, file = made
    if file is None:
        pytest.skip("this source has no file to change")
    original = file.read_bytes()
    changed = bytearray(original)
    # A tar ends with zeros; its first image begins with its own header.
    changed[original.index(b"P6 6 5 255") + 40 if file.suffix == ".tar" else -20] ^= 1
    try:
        file.write_bytes(changed)
        assert open_source(typed).fingerprint != source.fingerprint
    finally:
        file.write_bytes(original)
    assert open_source(typed).fingerprint == source.fingerprint


def test_a_saved_split_is_had_again(source, made, tmp_path):
    other = open_source(made[0], split_seed=9)
    save_manifest(other, tmp_path / "splits.json")
    again = open_source(made[0], splits_file=tmp_path / "splits.json")
    assert again.fingerprint == other.fingerprint
    assert (other.fingerprint == source.fingerprint) == is_split_already(source)
    assert again.labels == other.labels


def test_notes_are_one_line_each(source):
    assert all(note and note.isprintable() for note in source.notes)
