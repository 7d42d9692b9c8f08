"""Arrays of a Python program as a source: lent, checked, and refused with what to type."""

import numpy as np
import pytest

from linne.data.sources.arrays import from_arrays
from linne.errors import RecipeError, SourceError

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(60) % 3


def refusal(*arguments, **options):
    with pytest.raises(SourceError) as caught:
        from_arrays(*arguments, **options)
    assert caught.value.message.isprintable()
    return caught.value.message, caught.value.hint


def test_arrays_become_a_source_that_is_split_and_named_as_any_other():
    source = from_arrays(IMAGES, LABELS)
    assert source.labels == ("0", "1", "2")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 45, "val": 6, "test": 9}
    assert (source.channels, source.image_size, source.same_size, source.name) == (3, (6, 5), True, "arrays")
    for split in source.splits.values():
        for position, label in enumerate(split.labels_N.tolist()):
            original = int(split.example_name(position)[len("train[") : -1])
            assert np.array_equal(split.pixels(position, 3), IMAGES[original])
            assert label == LABELS[original]


@pytest.mark.parametrize(
    "images", [IMAGES, IMAGES[..., 0], IMAGES[::2], np.asfortranarray(IMAGES)], ids=lambda a: str(a.shape)
)
def test_the_memory_is_lent_not_copied_and_never_written(images):
    images.flags.writeable = False
    try:
        source = from_arrays(images, LABELS[: len(images)])
        assert all(np.shares_memory(split.store.array, images) for split in source.splits.values())
        assert source.splits["train"].store.array.shape[3] == source.channels == (1 if images.ndim == 3 else 3)
    finally:
        if images.base is None:
            images.flags.writeable = True


def test_the_fingerprint_is_of_the_pixels_however_they_lie_in_memory():
    images = np.concatenate([IMAGES] * 20)
    labels = np.concatenate([LABELS] * 20)
    fingerprint = from_arrays(images, labels).fingerprint
    assert from_arrays(np.asfortranarray(images), labels).fingerprint == fingerprint
    assert from_arrays(images, labels.tolist()).fingerprint == fingerprint
    images[1150, 5, 4, 2] ^= 1
    assert from_arrays(images, labels).fingerprint != fingerprint


def test_given_splits_are_kept_and_only_missing_ones_made():
    rest = (IMAGES[40:50], LABELS[40:50])
    source = from_arrays(IMAGES[:40], LABELS[:40], val=rest, test=(IMAGES[50:], LABELS[50:]))
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 40, "val": 10, "test": 10}
    assert source.splits["test"].example_name(3) == "test[3]"
    source = from_arrays(IMAGES[:40], LABELS[:40], test=rest, val_fraction=0.3, name="mine")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 28, "val": 12, "test": 10}
    assert source.name == "mine"
    with pytest.raises(RecipeError, match="val_fraction is 2"):
        from_arrays(IMAGES, LABELS, val_fraction=2)


def test_label_names_give_the_classes_and_their_order_whatever_the_labels_are():
    names = ["zebra", "ant", "cow", "dodo"]
    source = from_arrays(IMAGES, LABELS, label_names=names)
    assert source.labels == ("zebra", "ant", "cow")
    assert source.notes[0] == "left out 1 class without images: `dodo`"
    texts = from_arrays(IMAGES, [names[label] for label in LABELS], label_names=names)
    assert texts.labels == source.labels
    assert texts.fingerprint == source.fingerprint
    assert from_arrays(IMAGES, [names[label] for label in LABELS]).labels == ("ant", "cow", "zebra")
    assert from_arrays(IMAGES, LABELS * 6 - 2).labels == ("-2", "4", "10"), "numbers, not texts, decide the order"


def test_val_and_test_have_their_classes_by_name():
    few = LABELS[:30] != 1
    source = from_arrays(IMAGES, LABELS, val=(IMAGES[:30][few], LABELS[:30][few]))
    assert set(source.splits["val"].labels_N.tolist()) == {0, 2}
    assert "val has no images of `1`" in source.notes
    assert (
        refusal(IMAGES[:30][few], LABELS[:30][few], test=(IMAGES, LABELS))[0]
        == "test has `1`, which train does not have"
    )


def test_names_and_groups_decide_what_is_held_out():
    names = [f"{k:02d}.png" for k in range(60)]
    source = from_arrays(IMAGES, LABELS, names=names)
    held = {source.splits["test"].example_name(k) for k in range(9)}
    shuffled = np.random.default_rng(1).permutation(60)
    again = from_arrays(IMAGES[shuffled], LABELS[shuffled], names=[names[k] for k in shuffled])
    assert {again.splits["test"].example_name(k) for k in range(9)} == held < set(names)
    grouped = from_arrays(IMAGES, LABELS, groups=[f"g{k // 4}" for k in range(60)])
    numbered = from_arrays(IMAGES, LABELS, groups=np.arange(60) // 4, names=np.arange(60))
    assert numbered.splits["test"].example_name(0).isdigit()
    for other in (grouped, numbered):
        of_split = [{int(k) // 4 for k in split.indices_N} for split in other.splits.values()]
        assert sum(map(len, of_split)) == len(set.union(*of_split)) == 15
    assert len(of_split) == 3


@pytest.mark.parametrize(
    ("images", "found", "hint"),
    [
        (IMAGES / 255, "are float64, expected uint8", '`(images * 255).round().astype("uint8")`'),
        (IMAGES.astype("f4"), "are float32, expected uint8", '`images.round().astype("uint8")`'),
        (IMAGES / 64 - 2, "are float64, expected uint8", "they go from -2 to 1.98438: bring them to 0 to 255 first"),
        (IMAGES * np.nan, "are float64, expected uint8", "they go from nan to nan: bring them to 0 to 255 first"),
        (IMAGES.astype("i8"), "are int64, expected uint8", '`images.astype("uint8")`'),
        (
            IMAGES.astype("u2") * 257,
            "are uint16, expected uint8",
            '`(images // 257).astype("uint8")`, where they go up to 65535',
        ),
        (IMAGES > 9, "are bool, expected uint8", '`images.astype("uint8") * 255`'),
        (["a.png"] * 60, "are <U5, expected uint8", None),
        ([IMAGES[0], IMAGES[1, 1:]], "have different sizes; expected one array of them", "resize them, or write files"),
        (
            IMAGES.transpose(0, 3, 1, 2),
            "have the shape (60, 3, 6, 5)",
            "channels go last: `images.transpose(0, 2, 3, 1)`",
        ),
        (IMAGES[..., [0, 1, 2, 2]], "have the shape (60, 6, 5, 4)", "leave out the transparency: `images[..., :3]`"),
        (IMAGES[:, 0, 0], "have the shape (60, 3)", None),
        (IMAGES[:0], "have the shape (0, 6, 5, 3)", None),
        (IMAGES[:, :0], "have the shape (60, 0, 5, 3)", None),
    ],
)
def test_what_are_no_uint8_images_is_refused_with_what_to_type(images, found, hint):
    message, said = refusal(images, LABELS)
    assert message.startswith(f"train images {found}")
    assert said == hint


@pytest.mark.parametrize(
    ("labels", "options", "found", "hint"),
    [
        (LABELS[:, None], {}, "train labels have the shape (60, 1), expected one label an image", "`labels.ravel()`"),
        (
            np.eye(3)[LABELS],
            {},
            "train labels have the shape (60, 3), expected one label an image",
            "`labels.argmax(axis=1)`",
        ),
        (LABELS / 1, {}, "train labels are float64, expected texts or whole numbers", '`labels.astype("int64")`'),
        (LABELS > 0, {}, "train labels are bool, expected texts or whole numbers", '`labels.astype("int64")`'),
        ([None, *LABELS[1:]], {}, "train labels are object, expected texts or whole numbers", None),
        (LABELS[:-1], {}, "train has 60 images and 59 labels", None),
        (LABELS, {"label_names": ["a", "b"]}, "train has label 2, expected 0 to 1", None),
        (LABELS - 1, {"label_names": ["a", "b"]}, "train has label -1, expected 0 to 1", None),
        (["a", "b", "c"] * 20, {"label_names": ["a", "b"]}, "train has `c`, which `label_names` does not have", None),
        (["a", "b", " "] * 20, {}, "train has 20 examples without a label", None),
        (["a", "b", "A"] * 20, {}, "the classes `A`, `a` differ only by case, or not at all", None),
        (
            LABELS,
            {"label_names": ["a", "b", "a"]},
            "the classes `a`, `b`, `a` differ only by case, or not at all",
            None,
        ),
        (LABELS * 0, {}, "train has only one class, `0`; expected at least two", None),
        (LABELS, {"names": ["a", "b"]}, "`names` has 2 texts, expected one for each of 60 images", None),
        (LABELS, {"names": ["a", "b"] * 30}, "`names` has `a` more than once, expected different ones", None),
        (LABELS, {"groups": [*"ab", None] * 20}, "`groups` has None, expected texts or whole numbers", None),
        (LABELS, {"names": np.arange(60) / 2}, "`names` has 0.0, expected texts or whole numbers", None),
        (LABELS, {"groups": ["a"]}, "`groups` has 1 value, expected 60, one an image", None),
        (
            LABELS,
            {"groups": ["a"] * 60, "val": (IMAGES, LABELS)},
            "`groups` has 60 values, expected none beside `val` or `test`",
            None,
        ),
        (
            LABELS,
            {"val": (IMAGES[:, 1:], LABELS)},
            "the splits have images of different shapes: (5, 5, 3), (6, 5, 3)",
            None,
        ),
    ],
)
def test_labels_names_and_groups_that_do_not_fit_are_refused(labels, options, found, hint):
    assert refusal(IMAGES, labels, **options) == (found, hint)
