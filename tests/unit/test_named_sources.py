"""Named sets: files in their official layouts are read as published, and everything else is refused by name."""

import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from linne.data import SOURCES, list_sources, open_source
from linne.data.sources.idx import read_idx
from linne.errors import SourceError

RNG = np.random.default_rng(0)
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def gz(data, compresslevel=9):
    """Pack without the time of day, so that test names are the same in every process."""
    return gzip.compress(data, compresslevel, mtime=0)


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist_arrays(num_train=100, num_test=20):
    return {
        "train-images": RNG.integers(0, 256, (num_train, 28, 28), dtype=np.uint8),
        "train-labels": np.arange(num_train, dtype=np.uint8) % 10,
        "t10k-images": RNG.integers(0, 256, (num_test, 28, 28), dtype=np.uint8),
        "t10k-labels": np.arange(num_test, dtype=np.uint8) % 10,
    }


def write_mnist(folder, arrays=None, *, packed=True, mark="-"):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = arrays or mnist_arrays()
    for stem, array in arrays.items():
        data = idx(array)
        name = f"{stem}{mark}idx{array.ndim}-ubyte"
        if packed:
            (folder / f"{name}.gz").write_bytes(gz(data))
        else:
            (folder / name).write_bytes(data)
    return arrays


def write_cifar(folder, rows_a_file=20):
    folder.mkdir(parents=True, exist_ok=True)
    images = RNG.integers(0, 256, (6, rows_a_file, 32, 32, 3), dtype=np.uint8)
    labels = RNG.integers(0, 10, (6, rows_a_file), dtype=np.uint8)
    for k, name in enumerate([*(f"data_batch_{b}.bin" for b in range(1, 6)), "test_batch.bin"]):
        planes = images[k].transpose(0, 3, 1, 2).reshape(rows_a_file, -1)
        (folder / name).write_bytes(np.concatenate([labels[k][:, None], planes], axis=1).tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR) + "\n\n")
    return images, labels


def refusal(name, **options):
    with pytest.raises(SourceError) as caught:
        open_source(name, **options)
    assert "\n" not in caught.value.message
    return caught.value.message, caught.value.hint


def pixels_and_labels(split, channels):
    return np.stack([split.pixels(k, channels) for k in range(len(split))]), split.labels_N


# digits


def test_digits_are_scikit_learns_scans_with_ink_scaled_to_255():
    from sklearn.datasets import load_digits

    source = open_source("digits")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 1211, "val": 136, "test": 450}
    assert (source.labels, source.channels, source.image_size, source.same_size) == (
        tuple("0123456789"),
        1,
        (8, 8),
        True,
    )
    loaded = load_digits()
    store = source.splits["train"].store
    assert np.abs(store.array[..., 0] / 255 - loaded.images / 16).max() <= 0.5 / 255
    assert (store.array.min(), store.array.max()) == (0, 255)
    for split in source.splits.values():
        assert np.array_equal(loaded.target[split.indices_N], split.labels_N)


def test_the_test_digits_do_not_depend_on_the_recipes_fractions():
    test = open_source("digits").splits["test"].indices_N
    assert np.array_equal(open_source("digits", test_fraction=0.5, val_fraction=None).splits["test"].indices_N, test)


def test_digits_take_no_folder():
    assert refusal("digits:/tmp") == ("`digits` takes no folder, got `/tmp`", "type `digits`, or `folder:DIR`")


# mnist and fashion-mnist


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize(("name", "labels"), [("mnist", tuple("0123456789")), ("fashion-mnist", FASHION)])
def test_idx_files_are_read_in_every_official_spelling(tmp_path, packed, mark, name, labels):
    arrays = write_mnist(tmp_path, packed=packed, mark=mark)
    source = open_source(f"{name}:{tmp_path}", val_fraction=None)
    assert source.labels == labels
    assert (source.channels, source.image_size, source.same_size) == (1, (28, 28), True)
    for split, stem in (("train", "train"), ("test", "t10k")):
        images, found = pixels_and_labels(source.splits[split], 1)
        assert np.array_equal(images[..., 0], arrays[f"{stem}-images"])
        assert np.array_equal(found, arrays[f"{stem}-labels"])
    assert source.splits["test"].example_name(3) == "test[3]"


def test_train_and_val_share_one_array_and_test_is_never_touched(tmp_path):
    arrays = write_mnist(tmp_path)
    source = open_source(f"mnist:{tmp_path}")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 90, "val": 10, "test": 20}
    assert source.splits["train"].store is source.splits["val"].store
    assert np.bincount(source.splits["val"].labels_N).tolist() == [1] * 10, "stratified"
    assert np.array_equal(source.splits["test"].store.array[..., 0], arrays["t10k-images"])


def test_the_array_may_be_handed_to_torch_without_a_copy(tmp_path):
    write_mnist(tmp_path)
    array = open_source(f"mnist:{tmp_path}").splits["train"].store.array
    assert array.flags.writeable
    assert array.flags.c_contiguous


@pytest.mark.parametrize(
    ("typed", "where"),
    [
        ("mnist:{}", "."),
        ("mnist:{}", "mnist"),
        ("mnist:{}", "MNIST/raw"),
        ("mnist:{}/MNIST", "MNIST/raw"),
        ("fashion-mnist:{}", "FashionMNIST/raw"),
        ("fashion-mnist:{}", "fashion-mnist"),
    ],
)
def test_a_folder_is_searched_for_the_layouts_in_use(tmp_path, typed, where):
    write_mnist(tmp_path / where)
    source = open_source(typed.format(tmp_path))
    assert source.notes[0] == f"read from `{tmp_path / where}`"


@pytest.mark.parametrize("where", ["mnist", "mnist/MNIST/raw", "MNIST/raw"])
def test_without_a_folder_the_root_is_searched(tmp_path, where):
    write_mnist(tmp_path / where)
    assert len(open_source("mnist", root=tmp_path).splits["test"]) == 20


def test_linne_data_is_searched_before_the_users_data_folder(tmp_path, monkeypatch):
    write_mnist(tmp_path / "mnist")
    monkeypatch.setenv("LINNE_DATA", str(tmp_path))
    assert open_source("mnist").notes[0] == f"read from `{tmp_path}/mnist`"
    monkeypatch.setenv("LINNE_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    message, _ = refusal("fashion-mnist")
    assert message.startswith(f"`fashion-mnist` is not here; looked in `{tmp_path}/nothing/fashion-mnist`, ")


def test_one_set_is_never_taken_for_the_other(tmp_path):
    write_mnist(tmp_path / "FashionMNIST/raw")
    assert refusal("mnist", root=tmp_path)[0].startswith("`mnist` is not here; looked in ")


def test_a_missing_set_says_where_it_looked_what_it_needs_and_what_to_type(tmp_path):
    message, hint = refusal("mnist", root=tmp_path)
    assert message == (
        f"`mnist` is not here; looked in `{tmp_path}/mnist`, `{tmp_path}/mnist/MNIST/raw`, `{tmp_path}/MNIST/raw`"
    )
    assert (
        hint
        == "type `linne data get mnist`, or `mnist:DIR` for a folder with the files of http://yann.lecun.com/exdb/mnist"
    )


def test_an_incomplete_set_says_what_is_missing(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert refusal(f"mnist:{tmp_path}")[0] == f"`mnist` is incomplete: `{tmp_path}` lacks `t10k-labels-idx1-ubyte.gz`"


def test_a_folder_that_is_not_there_is_said_first(tmp_path):
    (tmp_path / "mnist").mkdir()
    assert refusal(f"mnist:{tmp_path}/mnits") == (f"no folder `{tmp_path}/mnits`", f"did you mean `{tmp_path}/mnist`?")
    (tmp_path / "mnist.zip").write_bytes(b"PK")
    message, hint = refusal(f"mnist:{tmp_path}/mnist.zip")
    assert message == f"`{tmp_path}/mnist.zip` is a file; `mnist` expects the folder with its files"
    assert hint == "unpack archives first, then type `linne train mnist:DIR`"


LIE = bytes((0, 0, 8, 3)) + struct.pack(">3I", 60_000, 28, 28)
"""A header of 47 MB of images."""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not an idx file: it begins ``, expected `00000803`"),
        (b"\x89PNG\r\n\x1a\n", "is not an idx file: it begins `89504e47`, expected `00000803`"),
        (idx(np.zeros(5, np.uint8)), "is not an idx file: it begins `00000801`, expected `00000803`"),
        (LIE[:9], "ends within its header"),
        (LIE + bytes(99), "says it holds 47,040,000 bytes, more than its 115 bytes can"),
        (gz(LIE + bytes(99)), "says it holds 47,040,000 bytes, more than its "),
        (
            bytes((0, 0, 8, 3)) + b"\xff" * 12 + bytes(9),
            "says it holds 79,228,162,458,924,105,385,300,197,375 bytes, more",
        ),
        (idx(np.zeros((4, 2, 2), np.uint8)) + b"x", "should hold 16 bytes and holds more"),
        (gz(idx(np.zeros((4, 2, 2), np.uint8))[:-3]), "should hold 16 bytes and holds 13"),
        (gz(idx(np.zeros((4, 2, 2), np.uint8)))[:-6], "is damaged: "),
        (gz(idx(RNG.integers(0, 256, (99, 9, 9), dtype=np.uint8)))[:-2000], "is damaged: "),
        (b"\x1f\x8bnot gzip after all", "is damaged: "),
        (idx(np.zeros((0, 2, 2), np.uint8)), "holds nothing: its size is 0 x 2 x 2"),
    ],
)
def test_an_idx_file_that_lies_is_refused(tmp_path, data, said):
    path = tmp_path / "images"
    path.write_bytes(data)
    with pytest.raises(SourceError) as caught:
        read_idx(path, dimensions=3)
    assert caught.value.message.startswith(f"`{path}` {said}")


def test_a_flipped_bit_in_a_packed_file_is_found_by_its_checksum(tmp_path):
    data = bytearray(gz(idx(RNG.integers(0, 256, (50, 9, 9), dtype=np.uint8)), compresslevel=0))
    data[len(data) // 2] ^= 4
    (tmp_path / "images").write_bytes(data)
    with pytest.raises(SourceError, match="is damaged: CRC check failed"):
        read_idx(tmp_path / "images", dimensions=3)


def test_a_packed_bomb_takes_no_more_memory_than_its_header_promises(tmp_path):
    header = bytes((0, 0, 8, 3)) + struct.pack(">3I", 4, 28, 28)
    (tmp_path / "images").write_bytes(gz(header + bytes(60 * 2**20), compresslevel=1))
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="should hold 3,136 bytes and holds more"):
            read_idx(tmp_path / "images", dimensions=3)
        assert tracemalloc.get_traced_memory()[1] < 5 * 2**20
    finally:
        tracemalloc.stop()


def test_images_and_labels_must_be_as_many(tmp_path):
    arrays = mnist_arrays()
    write_mnist(tmp_path, {**arrays, "train-labels": arrays["train-labels"][:-1]})
    message, _ = refusal(f"mnist:{tmp_path}")
    assert message == f"`{tmp_path}/train-images-idx3-ubyte.gz` has 100 images and 99 labels"


def test_a_label_beyond_the_classes_is_refused(tmp_path):
    arrays = mnist_arrays()
    write_mnist(tmp_path, {**arrays, "t10k-labels": arrays["t10k-labels"] + 1})
    assert refusal(f"mnist:{tmp_path}")[0] == f"`{tmp_path}/t10k-images-idx3-ubyte.gz` has label 10, expected 0 to 9"


def test_train_and_test_images_must_have_one_size(tmp_path):
    arrays = mnist_arrays()
    write_mnist(tmp_path, {**arrays, "t10k-images": arrays["t10k-images"][:, :20]})
    assert refusal(f"mnist:{tmp_path}")[0] == "`mnist` has train images of 28 x 28 and test images of 20 x 28 pixels"


# cifar10


@pytest.mark.parametrize(
    ("typed", "where"),
    [
        ("cifar10:{}", "."),
        ("cifar10:{}", "cifar-10-batches-bin"),
        ("cifar10:{}/cifar-10-batches-bin", "cifar-10-batches-bin"),
    ],
)
def test_cifar_binaries_are_read_in_colour_order(tmp_path, typed, where):
    images, labels = write_cifar(tmp_path / where)
    source = open_source(typed.format(tmp_path), val_fraction=None)
    assert source.labels == CIFAR
    assert (source.channels, source.image_size, source.same_size) == (3, (32, 32), True)
    found, found_labels = pixels_and_labels(source.splits["train"], 3)
    assert np.array_equal(found, images[:5].reshape(-1, 32, 32, 3))
    assert np.array_equal(found_labels, labels[:5].ravel())
    assert np.array_equal(pixels_and_labels(source.splits["test"], 3)[0], images[5])


def test_cifar_in_grey_is_pillows_luma(tmp_path):
    images, _ = write_cifar(tmp_path)
    grey = open_source(f"cifar10:{tmp_path}").splits["test"].pixels(4, 1)
    assert np.array_equal(grey[..., 0], np.asarray(Image.fromarray(images[5, 4]).convert("L")))


def test_cifar_class_names_come_from_its_own_list(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "batches.meta.txt").write_text("\n".join(f"kind {k}" for k in range(10)))
    assert open_source(f"cifar10:{tmp_path}").labels[3] == "kind 3"
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\ncat\n")
    assert refusal(f"cifar10:{tmp_path}")[0] == f"`{tmp_path}/batches.meta.txt` names 2 different classes, expected 10"
    (tmp_path / "batches.meta.txt").unlink()
    assert open_source(f"cifar10:{tmp_path}").labels == CIFAR


@pytest.mark.parametrize("where", ["cifar-10-batches-py", "."])
def test_pickled_cifar_is_refused_with_the_reason_and_never_opened(tmp_path, where):
    folder = tmp_path / where
    folder.mkdir(exist_ok=True)
    (folder / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    message, hint = refusal(f"cifar10:{tmp_path}")
    assert message == (
        f"`{folder}` is the pickled version of `cifar10`, and unpickling a file can run any program hidden in it; "
        "expected the binary version"
    )
    assert hint == (
        "type `linne data get cifar10`, or get it from "
        "https://www.cs.toronto.edu/~kriz/cifar.html (`cifar-10-binary.tar.gz`)"
    )
    assert not (tmp_path / "ran").exists()


def test_cifar_beside_its_pickled_version_is_read(tmp_path):
    write_cifar(tmp_path / "cifar-10-batches-bin")
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py/data_batch_1").write_bytes(b"")
    assert len(open_source(f"cifar10:{tmp_path}").splits["test"]) == 20


def test_a_cut_cifar_file_is_refused(tmp_path):
    write_cifar(tmp_path)
    data = (tmp_path / "data_batch_3.bin").read_bytes()
    (tmp_path / "data_batch_3.bin").write_bytes(data[:-5])
    message, hint = refusal(f"cifar10:{tmp_path}")
    assert message == f"`{tmp_path}/data_batch_3.bin` has 61,455 bytes, expected images of 3,073 bytes each"
    assert hint == "the copy is incomplete or another file; type `linne data get cifar10 --force`"


# synthetic


def test_synthetic_images_are_as_asked_for_and_the_same_every_time():
    source = open_source("synthetic:classes=3,height=10,width=12,channels=1,count=60,seed=7", val_fraction=None)
    assert source.labels == ("stripes-0", "stripes-1", "stripes-2")
    assert (source.channels, source.image_size) == (1, (10, 12))
    assert sum(map(len, source.splits.values())) == 60
    again = open_source("synthetic:classes=3,height=10,width=12,channels=1,count=60,seed=7", val_fraction=None)
    assert again.fingerprint == source.fingerprint
    other = open_source("synthetic:classes=3,height=10,width=12,channels=1,count=60,seed=8", val_fraction=None)
    assert other.fingerprint != source.fingerprint


@pytest.mark.parametrize("channels", [1, 3])
def test_synthetic_classes_can_be_learned(channels):
    source = open_source(f"synthetic:classes=4,size=12,count=300,channels={channels}", val_fraction=None)
    train, train_labels = pixels_and_labels(source.splits["train"], channels)
    test, test_labels = pixels_and_labels(source.splits["test"], channels)
    tints = np.stack([train[train_labels == k].mean(axis=(0, 1, 2)) for k in range(4)])
    nearest = np.abs(test.mean(axis=(1, 2))[:, None] - tints).sum(axis=2).argmin(axis=1)
    assert (nearest == test_labels).mean() > 0.95, "the class with the nearest mean colour"


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ("clases=3", "`synthetic` has no option `clases`", "did you mean `classes`?"),
        ("x=3", "`synthetic` has no option `x`", "known: classes, height, width, channels, count, seed, size"),
        ("classes=1", "`synthetic` has classes=`1`, expected a whole number from 2 to 1000", None),
        ("size=big", "`synthetic` has size=`big`, expected a whole number from 4 to 1024", None),
        ("channels=2", "`synthetic` has channels=`2`, expected 1 or 3", None),
        ("count", "`synthetic` has count=``, expected a whole number from 2 to 10000000", None),
        ("classes=10,count=9", "`synthetic` has count=9, expected at least one for each of 10 classes", None),
        ("size=1024,count=1000", "`synthetic` would take more than 1024 MiB", "lower count or size"),
    ],
)
def test_an_option_that_synthetic_does_not_take_is_refused(options, message, hint):
    assert refusal(f"synthetic:{options}") == (message, hint)


# Names


@pytest.mark.parametrize(
    ("typed", "message", "hint"),
    [
        ("digit", "no source or folder `digit`", "did you mean `digits`?"),
        ("cifar1000", "no source or folder `cifar1000`", "did you mean `cifar100`?"),
        (
            "qqqqqq",
            "no source or folder `qqqqqq`",
            "`linne data list` shows what there is; a folder is named by its path",
        ),
        ("", "no source or folder ``", "`linne data list` shows what there is; a folder is named by its path"),
        ("cifar:/data", "no kind of source `cifar`", "did you mean `cifar10`?"),
        ("s3:bucket", "no kind of source `s3`", "`linne data list` shows what there is; a folder is named by its path"),
        ("no/such/place", "no folder `no/such/place`", None),
    ],
)
def test_a_source_that_is_not_known_is_refused(tmp_path, monkeypatch, typed, message, hint):
    monkeypatch.chdir(tmp_path)
    assert refusal(typed) == (message, hint)


def test_a_named_set_is_not_shadowed_by_a_folder_of_its_name(tmp_path, monkeypatch):
    for name in ("synthetic/a/1.ppm", "synthetic/b/1.ppm"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"P6 1 1 255\n\0\0\0")
    monkeypatch.chdir(tmp_path)
    source = open_source("synthetic")
    assert source.labels[0] == "stripes-0"
    assert source.notes[0] == "`synthetic` is the named set; for the folder of that name type `./synthetic`"
    assert open_source("./synthetic").labels == ("a", "b")


def test_a_source_keeps_the_name_that_was_typed(tmp_path):
    write_cifar(tmp_path)
    assert open_source(f"cifar10:{tmp_path}").name == f"cifar10:{tmp_path}"


def test_the_listing_has_every_source_and_tells_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("LINNE_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "none"))
    write_mnist(tmp_path / "mnist")
    listings = {listing.name: listing for listing in list_sources()}
    assert [name.partition(":")[0] for name in listings] == list(SOURCES)
    assert listings["mnist"].found == str(tmp_path / "mnist")
    assert listings["mnist"].looked_in[0] == str(tmp_path / "mnist")
    assert listings["cifar10"].found is None
    assert listings["digits"].found == "in scikit-learn"


# Published files, where LINNE_TEST_DATA leads to them


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mnist", [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]),
        ("fashion-mnist", [7000] * 10),
        ("cifar10", [6000] * 10),
    ],
)
def test_the_published_files_hold_what_is_published(name, counts):
    root = os.environ.get("LINNE_TEST_DATA")
    if root is None:
        pytest.skip("LINNE_TEST_DATA does not name a folder with the published files")
    source = open_source(name, root=Path(root), val_fraction=None)
    labels_N = np.concatenate([split.labels_N for split in source.splits.values()])
    assert np.bincount(labels_N).tolist() == counts
    assert len(source.splits["test"]) == 10_000
