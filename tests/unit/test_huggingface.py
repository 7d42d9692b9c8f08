"""Sets of the Hugging Face `datasets` library: what is recognised and refused, and that no network is needed."""

import io

import numpy as np
import pytest
from PIL import Image

from linne.data import open_source
from linne.data.files import HASHED_BYTES
from linne.data.index import spread
from linne.data.source import Split
from linne.data.sources.arrow import ArrowStore, arrow_identities
from linne.data.sources.huggingface import open_huggingface
from linne.errors import ImageError, SourceError

datasets = pytest.importorskip("datasets", reason="the extra `hf` is not installed")
pa = pytest.importorskip("pyarrow")


@pytest.fixture(autouse=True)
def _quiet_with_its_own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def jpeg(k, orientation=1):
    pixels = np.full((8, 12, 3), 5 * k % 256, np.uint8)
    pixels[:, :6] = 255
    exif = Image.Exif()
    exif[0x112] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


IMAGE, KINDS = datasets.Image(), datasets.ClassLabel(names=["zebra", "ant", "cow"])
TEXT, NUMBER = datasets.Value("string"), datasets.Value("int64")


def table(count=12, **columns):
    """Return a dataset of `count` images with three classes; `columns` adds or replaces (feature, values)."""
    made = {
        "image": (IMAGE, [{"bytes": jpeg(k), "path": None} for k in range(count)]),
        "label": (KINDS, [k % 3 for k in range(count)]),
    }
    made = {name: column for name, column in {**made, **columns}.items() if column is not None}
    features = datasets.Features({name: feature for name, (feature, _) in made.items()})
    return datasets.Dataset.from_dict({name: values for name, (_, values) in made.items()}, features=features)


def save(root, **splits):
    datasets.DatasetDict(splits).save_to_disk(root)
    return str(root)


def refusal(location):
    with pytest.raises(SourceError) as caught:
        open_huggingface(location, None)
    assert caught.value.message.isprintable()
    return caught.value.message, caught.value.hint


def test_a_saved_set_is_opened_with_its_splits_classes_and_further_columns(tmp_path):
    patients, others = [f"p{k // 3}" for k in range(12)], ["q0", "q0", "q1"]
    train, val = table(patient=(TEXT, patients)), table(3, patient=(TEXT, others))
    saved = save(tmp_path / "set", train=train, validation=val)
    examples = open_huggingface(saved, None)
    assert examples.labels == ("zebra", "ant", "cow"), "in the publisher's order"
    assert {name: len(split) for name, split in examples.given.items()} == {"train": 12, "val": 3}
    assert examples.given["val"].labels_N.tolist() == [0, 1, 2]
    assert examples.given["val"].example_name(2) == "val[2]"
    assert examples.notes == (
        "splits found: train is `train`, val is `validation`",
        "columns: image is `image`, label is `label`",
    )
    assert (examples.channels, examples.image_size, examples.same_size) == (3, (8, 12), True)
    assert list(examples.columns["patient"]) == patients + others
    assert [examples.columns["patient"][k] for k in (5, 14)] == ["p1", "q1"]
    source = open_source(f"hf:{saved}", group_by="patient")
    assert list(source.splits) == ["train", "val"]


def test_images_come_undecoded_so_that_they_become_pixels_by_our_rules(tmp_path):
    rotated = [{"bytes": jpeg(k, orientation=6), "path": None} for k in range(12)]
    train = open_huggingface(save(tmp_path, train=table(image=(IMAGE, rotated))), None).given["train"]
    assert train.load(3) == jpeg(3, orientation=6)
    assert train.pixels(3, 3).shape == (12, 8, 3), "turned by its EXIF orientation"


def test_parquet_files_give_the_same_source_as_the_saved_set(tmp_path):
    train, test = table(30), table(6)
    (tmp_path / "files/data").mkdir(parents=True)
    train.select(range(20)).to_parquet(tmp_path / "files/data/train-00000-of-00002.parquet")
    train.select(range(20, 30)).to_parquet(tmp_path / "files/data/train-00001-of-00002.parquet")
    test.to_parquet(tmp_path / "files/data/test-00000-of-00001.parquet")
    saved = open_source(f"hf:{save(tmp_path / 'saved', train=train, test=test)}")
    files = open_source(f"hf:{tmp_path / 'files'}")
    assert files.labels == saved.labels
    assert files.fingerprint == saved.fingerprint
    assert open_source(f"hf:{tmp_path / 'files'}").fingerprint == files.fingerprint
    assert {name: len(split) for name, split in files.splits.items()} == {"train": 27, "val": 3, "test": 6}
    alone = open_huggingface(str(tmp_path / "files/data/train-00001-of-00002.parquet"), None)
    assert len(alone.given["train"]) == 10


@pytest.mark.parametrize("what", ["image", "label", "order"])
def test_the_fingerprint_knows_every_image_and_label(tmp_path, what):
    train = table()
    before = open_source(f"hf:{save(tmp_path / 'before', train=train)}").fingerprint
    images, labels = [{"bytes": jpeg(k), "path": None} for k in range(12)], [k % 3 for k in range(12)]
    if what == "image":
        images[7] = {"bytes": jpeg(7) + b"\0", "path": None}
    elif what == "label":
        labels[7] = 0
    else:
        images[4], images[7] = images[7], images[4]
    changed = save(tmp_path / "after", train=table(image=(IMAGE, images), label=(KINDS, labels)))
    assert open_source(f"hf:{changed}").fingerprint != before


def test_in_a_small_set_every_byte_counts_and_in_a_large_one_every_size():
    def identity(images, *more):
        images = pa.chunked_array([pa.array(images), *more])
        split = Split("train", ArrowStore(images, ("train",), (0,)), np.arange(600), np.zeros(600, np.int64))
        return arrow_identities([split])

    images = [b"%4d" % k for k in range(600)]
    other, longer = [*images[:1], b"abcd", *images[2:]], [*images[:1], b"abcde", *images[2:]]
    first = [b"abcd", *images[1:]]
    assert len({b"".join(identity(some)) for some in (images, other, longer, first)}) == 4
    offsets, zeros = np.array([0, HASHED_BYTES], np.int32), bytes(HASHED_BYTES)
    huge = pa.Array.from_buffers(pa.binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(zeros)])
    rest = pa.array(images[300:-1])
    assert 1 not in spread(600)
    assert 299 not in spread(600)
    of_large = [identity(some[:299], huge, rest, pa.array([b""])) for some in (images, other, longer, first)]
    assert of_large[0] == of_large[1], "the same size, and not among the 256 that are read"
    assert len({b"".join(one) for one in of_large}) == 3


def test_files_that_name_their_split_in_a_folder_are_understood_and_mixed_ones_refused(tmp_path):
    for place in ("train/0000.parquet", "valid/0000.parquet", "other/train/0000.parquet"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        table().to_parquet(tmp_path / place)
    assert refusal(str(tmp_path)) == (
        f"`{tmp_path}` has files of train in several folders: `other/train`, `train`",
        f"name one of them: `hf:{tmp_path}/other/train`",
    )
    (tmp_path / "other/train/0000.parquet").unlink()
    assert set(open_huggingface(str(tmp_path), None).given) == {"train", "val"}
    assert set(open_huggingface(str(tmp_path / "train"), None).given) == {"train"}
    table().to_parquet(tmp_path / "more.parquet")
    assert refusal(str(tmp_path)) == (
        f"`{tmp_path}` has files of `train`, `val`, and others that name no split, such as `more.parquet`",
        "name all files by their split, such as `train-0.parquet`, or none",
    )


def test_several_columns_that_may_be_meant_are_asked_about(tmp_path):
    coarse = datasets.ClassLabel(names=["animal", "insect"])
    images = [{"bytes": jpeg(k), "path": None} for k in range(12)]
    train = table(
        label=None, fine=(KINDS, [k % 3 for k in range(12)]), coarse=(coarse, [int(k % 3 == 1) for k in range(12)])
    )
    saved = save(tmp_path / "labels", train=train)
    assert refusal(saved) == (
        f"`{saved}` has 2 columns that may be the label: `fine`, `coarse`",
        f"say which: `hf:{saved}?label=fine`",
    )
    assert open_huggingface(f"{saved}?label=coarse", None).labels == ("animal", "insect")
    assert refusal(f"{saved}?label=fin") == (
        f"`{saved}` has no column `fin`, which `hf` was to take as label; it has `image`, `fine`, `coarse`",
        "did you mean `fine`?",
    )
    assert refusal(f"{saved}?label=image,image=image")[0].endswith("holds neither classes nor texts nor numbers")
    saved = save(tmp_path / "images", train=table(image=None, left=(IMAGE, images), right=(IMAGE, images)))
    assert refusal(saved)[0] == f"`{saved}` has 2 columns that may be the image: `left`, `right`"
    assert open_huggingface(f"{saved}?image=right", None).notes == ("columns: image is `right`, label is `label`",)


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (("kind", TEXT, ["b", " a", "a"]), ("a", "b")),
        (("class", NUMBER, [10, 2, 2]), ("10", "2")),
        (("target", TEXT, ["é", "e\u0301", "e"]), ("e", "é")),
    ],
)
def test_labels_may_be_texts_or_numbers_and_are_then_sorted_as_texts(tmp_path, column, labels):
    name, feature, values = column
    raw = (datasets.Value("binary"), [jpeg(k) for k in range(3)])
    columns = {"image": None, "label": None, "png": raw, name: (feature, values), "size": (NUMBER, [1, 2, 3])}
    examples = open_huggingface(save(tmp_path, train=table(3, **columns)), None)
    assert examples.labels == labels
    assert examples.notes == (f"columns: image is `png`, label is `{name}`",)
    assert list(examples.columns) == ["size"]


def test_a_set_whose_images_or_labels_are_not_there_is_refused(tmp_path):
    def saved(name, **columns):
        return save(tmp_path / name, train=table(**columns))

    place = saved("none", image=None)
    assert refusal(place)[0] == f"`{place}` has no column of images, but `label`"
    place = saved("partly", label=(KINDS, [None, *[0, 1] * 5, 2]))
    assert refusal(place)[0] == f"1 of 12 examples of train in `{place}` have no label"
    table(0).to_parquet(tmp_path / "train.parquet")
    place = f"{tmp_path}/train.parquet"
    assert refusal(place)[0] == f'`hf:{place}` cannot be opened: Instruction "train" corresponds to no data!'
    place = saved("one", label=(KINDS, [1] * 12))
    assert refusal(place)[0] == f"`{place}` has only one class, `ant`; expected at least two"
    place = saved("case", label=(TEXT, ["Cat", "cat"] * 6))
    assert refusal(place)[0] == f"`{place}` has the classes `Cat`, `cat`, which differ only by case"


def test_a_path_in_a_table_is_never_followed(tmp_path):
    from pyarrow import parquet

    (tmp_path / "1.jpg").write_bytes(jpeg(1))
    images = [{"bytes": None, "path": str(tmp_path / "1.jpg")}] * 4
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    file = tmp_path / "train.parquet"
    parquet.write_table(pa.table({"image": pa.array(images, kind), "label": ["a", "b"] * 2}), file)
    assert refusal(str(file)) == (
        f"`{file}` names its images by paths and does not hold them",
        "save it again with `save_to_disk` or `push_to_hub`, which put the images in",
    )
    images[2] = {"bytes": jpeg(2), "path": None}
    parquet.write_table(pa.table({"image": pa.array(images, kind), "label": ["a", "b"] * 2}), file)
    train = open_huggingface(str(file), None).given["train"]
    with pytest.raises(ImageError, match=r"^`train\[1\]` cannot be read: its row holds no image$"):
        train.load(1)


def test_splits_by_different_writers_are_one_set_and_a_text_that_is_none_is_refused(tmp_path):
    from pyarrow import parquet

    def put(name, count, kind, labels):
        images = pa.array([{"bytes": jpeg(k)} for k in range(count)], pa.struct({"bytes": kind}))
        parquet.write_table(pa.table({"image": images, "label": labels}), tmp_path / name)

    put("train.parquet", 12, pa.large_binary(), pa.array(["a", "b", "c"] * 4, pa.string()))
    put("test.parquet", 3, pa.binary(), pa.array(["a", "b", "c"], pa.string()))
    examples = open_huggingface(str(tmp_path), None)
    assert examples.given["test"].load(2) == examples.given["train"].load(2) == jpeg(2)
    broken = pa.array([b"a", b"\xff"] * 6).view(pa.string())
    put("train.parquet", 12, pa.binary(), broken)
    assert refusal(str(tmp_path))[0].startswith(f"`hf:{tmp_path}` cannot be opened: ")


def test_splits_without_labels_are_not_used_and_unknown_ones_named(tmp_path):
    unlabelled = table(3, label=(KINDS, [-1] * 3))
    examples = open_huggingface(save(tmp_path / "a", train=table(), test=unlabelled, extra=table(3)), None)
    assert set(examples.given) == {"train"}
    assert "test is not used: none of its 3 examples has a label" in examples.notes
    assert "splits not used: `extra`" in examples.notes
    only = open_huggingface(save(tmp_path / "b", full=table()), None)
    assert only.notes[0] == "its only split, `full`, is read as train"
    saved = save(tmp_path / "c", test=table())
    assert refusal(saved) == (f"`{saved}` has `test` and no split called train", "nothing would be learnt from")
    saved = save(tmp_path / "d", train=table(), val=table(), validation=table())
    assert refusal(saved)[0] == f"`{saved}` has the splits `val` and `validation`, both of which name val"


def test_classes_are_those_of_train_by_name(tmp_path):
    few = table(label=(KINDS, [0, 2] * 6))
    examples = open_huggingface(save(tmp_path / "a", train=few, test=table(2, label=(KINDS, [2, 2]))), None)
    assert examples.labels == ("zebra", "cow")
    assert examples.given["test"].labels_N.tolist() == [1, 1]
    assert "left out 1 class without images: `ant`" in examples.notes
    assert "test has no images of `zebra`" in examples.notes
    saved = save(tmp_path / "b", train=few, test=table())
    assert refusal(saved)[0] == f"test of `{saved}` has `ant`, which train does not have"


def test_what_is_neither_a_set_nor_a_name_is_refused_without_asking_the_hub(tmp_path):
    (tmp_path / "folder/cat").mkdir(parents=True)
    assert refusal("") == ("`hf:` expects a set", "type `hf:NAME` for one on the hub, or `hf:DIR`")
    assert refusal(f"{tmp_path}/foldr") == (
        f"no folder or file `{tmp_path}/foldr`",
        f"did you mean `{tmp_path}/folder`?",
    )
    assert refusal("./user/name")[0] == "no folder or file `./user/name`"
    assert refusal(f"{tmp_path}/folder") == (
        f"`{tmp_path}/folder` is not a saved dataset and holds no Parquet files",
        "a folder of images is named by its path, without `hf:`; a list of files as `list:FILE`",
    )
    assert refusal(f"{tmp_path}/folder?revision=1")[0].endswith("is on this disk, and has no revisions")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not really")
    assert refusal(f"{tmp_path}/train.parquet")[0].startswith(f"`hf:{tmp_path}/train.parquet` cannot be opened: ")


WATCHED = """
import sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        print("network:", event, args)
sys.addaudithook(watch)
from linne.data.sources.huggingface import open_huggingface
from linne.errors import SourceError
print(*open_huggingface(sys.argv[1], None).given)
print(*open_huggingface(sys.argv[2], None).given)
print(*({"torch", "torchvision", "timm"} & set(sys.modules)))
try:
    open_huggingface("somebody/something", None)
except SourceError as error:
    print(error.message, error.hint, sep="; ")
"""


def test_what_is_here_is_opened_without_the_network_and_offline_a_name_asks_nothing(tmp_path, python, monkeypatch):
    monkeypatch.setenv("LINNE_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    saved = save(tmp_path / "saved", train=table())
    table().to_parquet(tmp_path / "images.parquet")
    ended = python("-c", WATCHED, saved, tmp_path / "images.parquet")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "train",
        "train",
        "",
        "`hf:somebody/something` cannot be opened: Couldn't reach 'somebody/something' on the Hub "
        "(OfflineModeIsEnabled); linne is offline (`LINNE_OFFLINE`); open it once with the network, or type `hf:DIR`",
    ]
