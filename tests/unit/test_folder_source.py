"""Folders of images: what is recognised, what is ignored, and what is said of those that cannot be used."""

import hashlib
import io
import os
import random
import stat
import unicodedata

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from linne.data import open_source, save_manifest
from linne.data.sources.walk import is_hidden
from linne.errors import ImageError, SourceError


def png(seed=0, size=(8, 8), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "PNG")
    return stream.getvalue()


ONE = png()


def lay(root, *names, content=None):
    """Write each name below `root`; a number after a `*` repeats it, as in `cat/{}.png*3`."""
    for name in names:
        pattern, _, times = name.partition("*")
        for k in range(int(times or 1)):
            path = root / pattern.format(k)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(ONE if content is None else content)


def names_of(split):
    return [split.example_name(position) for position in range(len(split))]


def refusal(source, **options):
    with pytest.raises(SourceError) as caught:
        open_source(str(source), **options)
    assert "\n" not in caught.value.message
    return caught.value.message, caught.value.hint


def tree_hash(root):
    """Return a hash over every name, content, mode and time of change below `root`."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        digest.update(
            f"{path}\0{status.st_mode}\0{status.st_mtime_ns}\0{status.st_size}".encode("utf-8", "surrogateescape")
        )
        if stat.S_ISREG(status.st_mode):
            digest.update(path.read_bytes())
    return digest.hexdigest()


# Layouts


@pytest.mark.parametrize("form", ["folder:{}", "{}", "{}/"])
def test_one_folder_a_class_is_split_by_linne(tmp_path, form):
    lay(tmp_path, "dog/{}.png*20", "cat/{}.png*40")
    source = open_source(form.format(tmp_path))
    assert source.labels == ("cat", "dog")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 46, "val": 5, "test": 9}
    assert source.notes == (
        "test: 9 of 60 examples held out of train, 0.15 of each class (chosen by name and split_seed 0)",
        "val: 5 of 51 examples held out of train, 0.1 of each class (chosen by name and split_seed 0)",
    )


def test_an_example_has_the_label_of_its_folder_in_every_split(tmp_path):
    lay(tmp_path, "b/{}.png*9", "a/{}.png*9", "c/{}.png*9")
    source = open_source(str(tmp_path))
    for split in source.splits.values():
        assert [source.labels[label] for label in split.labels_N] == [name.split("/")[0] for name in names_of(split)]
    assert sum(map(len, source.splits.values())) == 27


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "val", "TEST"),
        ("training", "valid", "testing"),
        ("train", "validation", "test"),
        ("Training", "Validation", "Testing"),
        ("train", "DEV", "test"),
    ],
)
def test_split_folders_are_recognised_in_every_spelling_and_printed(tmp_path, train, val, test):
    lay(
        tmp_path,
        f"{train}/a/{{}}.png*3",
        f"{train}/b/{{}}.png*3",
        f"{val}/a/{{}}.png*2",
        f"{val}/b/{{}}.png",
        f"{test}/a/{{}}.png",
        f"{test}/b/{{}}.png",
    )
    source = open_source(str(tmp_path))
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 6, "val": 3, "test": 2}
    assert source.notes == (f"split folders found: train is `{train}`, val is `{val}`, test is `{test}`",)
    assert names_of(source.splits["val"])[0] == f"{val}/a/0.png"


def test_two_folders_for_one_split_are_refused_with_both_names(tmp_path):
    lay(tmp_path, "train/a/{}.png", "train/b/{}.png", "val/a/{}.png", "valid/a/{}.png")
    assert refusal(tmp_path) == (
        f"`val` and `valid` in `{tmp_path}` both name the val split",
        "remove or rename one of them",
    )


def test_train_and_test_folders_give_a_val_split_out_of_train(tmp_path):
    lay(tmp_path, "train/a/{}.png*20", "train/b/{}.png*20", "test/a/{}.png*2", "test/b/{}.png*2")
    source = open_source(str(tmp_path))
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 36, "val": 4, "test": 4}
    assert {name.split("/")[0] for name in names_of(source.splits["val"])} == {"train"}


def test_train_and_val_folders_give_no_test_split_and_say_so(tmp_path):
    lay(tmp_path, "train/a/{}.png*20", "train/b/{}.png*20", "val/a/{}.png*2", "val/b/{}.png*2")
    source = open_source(str(tmp_path))
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 40, "val": 4}
    assert source.notes[-1] == (
        "no test split: the files define train and val only, so nothing was taken out of train to make one"
    )


def test_a_train_folder_alone_gives_all_three(tmp_path):
    lay(tmp_path, "train/a/{}.png*20", "train/b/{}.png*20")
    assert {n: len(s) for n, s in open_source(str(tmp_path)).splits.items()} == {"train": 30, "val": 4, "test": 6}


def test_split_folders_without_train_are_refused(tmp_path):
    lay(tmp_path, "val/a/{}.png", "val/b/{}.png", "test/a/{}.png")
    message, hint = refusal(tmp_path)
    assert message == f"`{tmp_path}` has `test`, `val` but no `train` with class folders"
    assert hint == "rename the folder of the training images to `train`, or name a folder of classes"


def test_split_folders_of_loose_images_are_refused(tmp_path):
    lay(tmp_path, "train/{}.png*3", "test/{}.png*3")
    message, hint = refusal(tmp_path)
    assert message == f"`test` in `{tmp_path}` holds no class folders"
    assert hint == "put each class's images in a folder of its own, such as `test/cat/1.jpg`"


def test_an_unlabelled_test_folder_is_not_used_and_a_test_split_is_made(tmp_path):
    lay(tmp_path, "train/a/{}.png*20", "train/b/{}.png*20", "test/{}.png*7")
    source = open_source(str(tmp_path))
    assert "`test` is not used: it holds 7 images and no class folders" in source.notes
    assert {name.split("/")[0] for name in names_of(source.splits["test"])} == {"train"}


def test_a_class_called_train_is_a_class_among_classes(tmp_path):
    lay(tmp_path, "bus/{}.png*9", "car/{}.png*9", "train/{}.png*9")
    source = open_source(str(tmp_path))
    assert source.labels == ("bus", "car", "train")
    assert "`train` is read as a class: it holds no folders" in source.notes


def test_a_folder_that_can_be_read_in_two_ways_is_refused(tmp_path):
    lay(tmp_path, "bus/{}.png*9", "train/steam/{}.png*9", "train/diesel/{}.png*9")
    message, hint = refusal(tmp_path)
    assert message == (
        f"`{tmp_path}` can be read in two ways: `train` holds folders, as a split does, "
        "and beside it are `bus`, as classes are"
    )
    assert hint == "rename `train` if it is a class; move the others elsewhere if it is the train split"


def test_a_folder_named_for_a_split_among_classes_is_refused_unless_it_is_plainly_one_of_them(tmp_path):
    lay(tmp_path, "design/{}.png*9", "dev/2023/{}.png*9", "ops/{}.png*9")
    message, hint = refusal(tmp_path)
    assert message == (
        f"`{tmp_path}` can be read in two ways: `dev` holds folders, as a split does, "
        "and beside it are `design`, `ops`, as classes are"
    )
    assert hint == "rename `dev` if it is a class; move the others elsewhere if it is the val split"
    (tmp_path / "dev/2023").rename(tmp_path / "flat")
    (tmp_path / "dev").rmdir()
    (tmp_path / "flat").rename(tmp_path / "dev")
    assert open_source(str(tmp_path)).labels == ("design", "dev", "ops")


def test_folders_beside_the_splits_are_not_used_and_named(tmp_path):
    lay(
        tmp_path,
        "train/a/{}.png*2",
        "train/b/{}.png*2",
        "test/a/{}.png",
        "test/b/{}.png",
        "unsorted/{}.png*4",
        "docs/x.txt",
    )
    source = open_source(str(tmp_path), val_fraction=None)
    assert "not used: `unsorted`, beside the split folders" in source.notes
    assert len(source.splits["train"]) == 4


def test_nested_folders_belong_to_their_class(tmp_path):
    lay(tmp_path, "a/2023/may/{}.png*4", "a/{}.png*2", "b/{}.png*6")
    source = open_source(str(tmp_path), val_fraction=None, test_fraction=0.01)
    assert source.notes[0] == "images in 1 folder inside class folders belong to those classes: `a/2023/may`"
    everything = [name for split in source.splits.values() for name in names_of(split)]
    assert sorted(name for name in everything if name.startswith("a/"))[:3] == [
        "a/0.png",
        "a/1.png",
        "a/2023/may/0.png",
    ]


# Classes by name


def test_labels_are_sorted_by_name_and_mapped_by_name(tmp_path):
    lay(tmp_path, "train/10/{}.png*2", "train/2/{}.png*2", "train/1/{}.png*2", "test/10/{}.png", "test/2/{}.png")
    source = open_source(str(tmp_path), val_fraction=None)
    assert source.labels == ("1", "10", "2")
    assert [source.labels[label] for label in source.splits["test"].labels_N] == ["10", "2"]
    assert "test has no images of `1`" in source.notes


def test_a_test_class_that_train_lacks_is_an_error_that_names_it(tmp_path):
    lay(tmp_path, "train/cat/{}.png*2", "train/dog/{}.png*2", "test/cat/{}.png", "test/dgo/{}.png")
    message, hint = refusal(tmp_path)
    assert message == "`test/dgo` is a class which `train` does not have"
    assert hint == "did you mean `dog`?"


def test_an_empty_class_folder_of_val_is_a_missing_class_not_an_unknown_one(tmp_path):
    lay(tmp_path, "train/cat/{}.png*2", "train/dog/{}.png*2", "val/cat/{}.png")
    (tmp_path / "val/dog").mkdir()
    (tmp_path / "val/horse").mkdir()
    assert "val has no images of `dog`" in open_source(str(tmp_path)).notes


def test_a_split_folder_without_any_image_is_as_if_it_were_not_there(tmp_path):
    lay(tmp_path, "train/cat/{}.png*9", "train/dog/{}.png*9", "test/cat/{}.png", "test/dog/{}.png")
    (tmp_path / "val/cat").mkdir(parents=True)
    source = open_source(str(tmp_path))
    assert "`val` is not used: its class folders hold no images" in source.notes
    assert {name.split("/")[0] for name in names_of(source.splits["val"])} == {"train"}


def test_classes_that_differ_by_case_are_refused_with_both_names(tmp_path):
    lay(tmp_path, "Cat/{}.png*2", "cat/{}.png*2")
    if len(os.listdir(tmp_path)) == 1:
        pytest.skip("this file system does not tell them apart")
    message, hint = refusal(tmp_path)
    assert message == "the class folders `Cat`, `cat` differ only by case or Unicode spelling"
    assert hint == "put the images of both into one of them: not every system can tell them apart"


def test_classes_that_differ_by_unicode_spelling_are_refused_with_what_tells_them_apart(tmp_path):
    lay(tmp_path, "caf\u00e9/{}.png", "cafe\u0301/{}.png")
    if len(os.listdir(tmp_path)) == 1:
        pytest.skip("this file system does not tell them apart")
    message, _ = refusal(tmp_path)
    assert message == r"the class folders `cafe\u0301`, `caf\xe9` differ only by case or Unicode spelling"


def test_a_test_folder_copied_by_another_system_has_the_same_classes(tmp_path):
    lay(tmp_path, "train/caf\u00e9/{}.png*2", "train/x/{}.png*2", "test/cafe\u0301/{}.png")
    source = open_source(str(tmp_path), val_fraction=None)
    assert source.labels == (unicodedata.normalize("NFC", "café"), "x")
    assert source.splits["test"].labels_N.tolist() == [0]


# What cannot be used


def test_a_class_without_images_is_an_error_that_names_it(tmp_path):
    lay(tmp_path, "cat/{}.png*3", "dog/notes.txt", "dog/1.heic")
    (tmp_path / "emu").mkdir()
    message, hint = refusal(tmp_path)
    assert message == "classes `dog`, `emu` have no images (2 other files: .heic, .txt)"
    assert hint == "add images, or remove the folder if it is not a class"


def test_an_empty_folder_is_an_error(tmp_path):
    message, hint = refusal(tmp_path)
    assert message == f"`{tmp_path}` holds no images"
    assert hint == "linne expects one folder a class, such as `DIR/cat/1.jpg` and `DIR/dog/1.jpg`"


def test_a_folder_of_loose_images_is_an_error(tmp_path):
    lay(tmp_path, "{}.png*12")
    message, hint = refusal(tmp_path)
    assert message == f"`{tmp_path}` holds 12 images but no class folders"
    assert hint == "put each class's images in a folder of its own, such as `DIR/cat/1.jpg`"


def test_one_class_only_is_an_error(tmp_path):
    lay(tmp_path, "cat/{}.png*3")
    assert refusal(tmp_path) == (
        f"`{tmp_path}` has only one class, `cat`; expected at least two",
        "add a folder for each other class",
    )


def test_a_wrapper_around_the_class_folders_is_seen(tmp_path):
    lay(tmp_path, "dataset/cat/{}.png*3", "dataset/dog/{}.png*3")
    message, hint = refusal(tmp_path)
    assert message == f"`{tmp_path}` has only one class, `dataset`; expected at least two"
    assert hint == f"did you mean `{tmp_path}/dataset`?"


def test_a_missing_path_is_an_error_with_the_nearest_name(tmp_path):
    (tmp_path / "flowers").mkdir()
    assert refusal(tmp_path / "flower") == (f"no folder `{tmp_path}/flower`", f"did you mean `{tmp_path}/flowers`?")
    assert refusal(tmp_path / "x/y") == (f"no folder `{tmp_path}/x/y`", None)
    assert refusal("folder:") == ("`folder:` expects a folder", "type `folder:DIR`, with one sub-folder a class in DIR")
    assert refusal("folder:a\0b") == (r"no folder `a\x00b`", None)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("set.zip", "unpack it first, then name the folder"),
        ("cat.png", "to classify one image: `linne predict BUNDLE FILE`"),
    ],
)
def test_a_file_instead_of_a_folder_is_an_error(tmp_path, name, hint):
    lay(tmp_path, name)
    assert refusal(tmp_path / name) == (
        f"`{tmp_path}/{name}` is a file; expected a folder with one sub-folder a class",
        hint,
    )


def test_a_folder_that_may_not_be_listed_is_an_error(tmp_path):
    lay(tmp_path, "cat/{}.png*3", "dog/{}.png*3")
    (tmp_path / "dog").chmod(0)
    try:
        if os.access(tmp_path / "dog", os.R_OK):
            pytest.skip("this user may list every folder")
        assert refusal(tmp_path) == (f"`{tmp_path}/dog` cannot be listed: permission denied", None)
    finally:
        (tmp_path / "dog").chmod(0o755)


# What is ignored


def test_what_systems_leave_behind_is_ignored_and_listed(tmp_path):
    lay(tmp_path, "cat/{}.png*5", "dog/{}.png*5")
    lay(tmp_path, ".ipynb_checkpoints/1.png", "__MACOSX/cat/1.png", ".DS_Store", "cat/.DS_Store", "cat/Thumbs.db")
    lay(tmp_path, "dog/desktop.ini", "dog/._1.png", "dog/@eaDir/1.png")
    source = open_source(str(tmp_path))
    assert source.labels == ("cat", "dog")
    assert sum(map(len, source.splits.values())) == 10
    assert source.notes[0] == (
        "ignored 8 hidden entries: `.DS_Store`, `.ipynb_checkpoints`, `__MACOSX`, `Thumbs.db`, `._1.png` and 2 more"
    )


def test_files_that_are_not_images_by_name_are_ignored_and_counted(tmp_path):
    lay(tmp_path, "a/{}.png*5", "b/{}.png*5", "a/notes.txt", "a/{}.heic*2", "README", "b/x.txt")
    notes = open_source(str(tmp_path)).notes
    assert notes[0] == "ignored 5 files that are not images by name: .heic (2), .txt (2), without extension (1)"


def test_images_beside_the_class_folders_are_ignored_and_counted(tmp_path):
    lay(tmp_path, "a/{}.png*5", "b/{}.png*5", "{}.png*3")
    assert open_source(str(tmp_path)).notes[0] == (
        f"ignored 3 images directly in `{tmp_path}`: they belong to no class"
    )


def test_images_beside_split_folders_and_beside_their_classes_are_counted_apart(tmp_path):
    lay(
        tmp_path, "train/a/{}.png*3", "train/b/{}.png*3", "test/a/{}.png", "test/b/{}.png", "train/{}.png*2", "{}.png*3"
    )
    notes = open_source(str(tmp_path)).notes
    assert "ignored 2 images directly in `train`: they belong to no class" in notes
    assert f"ignored 3 images directly in `{tmp_path}`: they belong to no class" in notes


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".Png", ".webp", ".TIF", ".bmp", ".gif", ".ppm"])
def test_image_extensions_count_in_any_case(tmp_path, suffix):
    lay(tmp_path, f"a/1{suffix}", f"b/1{suffix}")
    assert names_of(open_source(str(tmp_path)).splits["train"]) == [f"a/1{suffix}", f"b/1{suffix}"]


def test_links_to_folders_and_out_of_the_folder_are_not_followed_and_loops_end(tmp_path):
    root, outside = tmp_path / "set", tmp_path / "outside"
    lay(root, "a/{}.png*2", "b/{}.png*2")
    lay(outside, "secret.png", "more/1.png")
    try:
        (root / "a/up").symlink_to(root, target_is_directory=True)
        (root / "b/other").symlink_to(outside / "more", target_is_directory=True)
        (root / "b/secret.png").symlink_to(outside / "secret.png")
        (root / "b/gone.png").symlink_to(root / "nothing.png")
        (root / "c").symlink_to(root / "a", target_is_directory=True)
        (root / "b/same.png").symlink_to("../a/0.png")
    except OSError:
        pytest.skip("this user may not make symbolic links")
    source = open_source(str(root))
    assert names_of(source.splits["train"]) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png", "b/same.png"]
    assert source.notes[0] == (
        "did not follow 5 links to folders or out of the folder: `c`, `a/up`, `b/gone.png` and 2 more"
    )


def test_a_class_of_links_that_lead_out_says_so(tmp_path):
    lay(tmp_path, "set/a/{}.png*2", "pool/{}.png*2")
    (tmp_path / "set/b").mkdir()
    (tmp_path / "set/b/0.png").symlink_to(tmp_path / "pool/0.png")
    assert refusal(tmp_path / "set")[0] == "class `b` has no images (1 link not followed)"


def test_the_folder_itself_may_be_reached_by_a_link(tmp_path):
    lay(tmp_path, "real/a/{}.png*2", "real/b/{}.png*2")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert len(open_source(str(tmp_path / "link")).splits["train"]) == 4


def test_a_named_pipe_called_jpg_is_ignored(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    lay(tmp_path, "a/{}.png*2", "b/{}.png*2")
    os.mkfifo(tmp_path / "a/pipe.jpg")
    assert len(open_source(str(tmp_path)).splits["train"]) == 4


# Names


ODD_NAMES = [
    "with space",
    "emoji 🐈",
    "new\nline",
    "tab\tbed",
    "日本",
    "back`tick",
    "esc\x1b[31m",
    "$HOME",
    "%s{0}",
    "bad\udcff",
]


@pytest.mark.parametrize("odd", ODD_NAMES)
def test_odd_names_work_and_are_shown_on_one_line(tmp_path, odd):
    try:
        lay(tmp_path, f"{odd}/{odd}.png".replace("{", "{{").replace("}", "}}"), "plain/{}.png")
    except (OSError, UnicodeError):
        pytest.skip("this file system refuses such names")
    source = open_source(str(tmp_path))
    split = source.splits["train"]
    assert all(text.isprintable() for text in (*source.labels, *names_of(split), *source.notes))
    assert split.pixels(0, 3).shape == split.pixels(1, 3).shape == (8, 8, 3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.text(st.characters(blacklist_characters="/\0"), min_size=1, max_size=12), min_size=2, max_size=5))
@example({"\\n", "\n"})
@example({"\\x1b", "\x1b", "\\"})
def test_any_two_folder_names_give_two_labels_or_a_refusal(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("names")
    try:
        for name in names:
            (root / name).mkdir()
            (root / name / "1.png").write_bytes(ONE)
    except (OSError, UnicodeError, ValueError):
        return  # not a name here: `.`, too long, a lone surrogate
    visible = [name for name in names if not is_hidden(name)]
    try:
        source = open_source(f"folder:{root}")
    except SourceError as refused:
        said = refused.message
    else:
        said = "".join(source.labels)
        assert len(set(source.labels)) == len(source.labels) == len(visible)
        assert len(set(names_of(source.splits["train"]))) == len(visible)
    assert said.isprintable()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.binary(min_size=1, max_size=20).filter(lambda name: not set(name) & set(b"/\0")), max_size=12))
def test_files_of_any_name_load_keep_names_apart_and_are_found_again_by_a_split_file(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("files")
    lay(root, "a/{}.jpg*2", "b/{}.jpg*8")
    try:
        for name in names:
            with open(os.path.join(os.fsencode(root), b"b", name + b".png"), "wb") as file:
                file.write(ONE)
    except OSError:
        return  # not a name here
    source = open_source(str(root))
    seen = [name for split in source.splits.values() for name in names_of(split)]
    assert len(set(seen)) == len(seen) == 10 + sum(not is_hidden(os.fsdecode(name + b".png")) for name in names)
    assert all(name.isprintable() for name in seen)
    assert all(split.load(len(split) - 1) == ONE for split in source.splits.values())
    save_manifest(source, root / "splits.json")
    assert open_source(str(root), splits_file=root / "splits.json").fingerprint == source.fingerprint


# What is known without decoding


def test_size_and_colour_come_from_headers(tmp_path):
    lay(tmp_path, "a/{}.png*3", content=png(size=(12, 8), mode="L"))
    lay(tmp_path, "b/{}.png*3", content=png(size=(12, 8), mode="L"))
    source = open_source(str(tmp_path))
    assert (source.channels, source.image_size, source.same_size) == (1, (8, 12), True)
    lay(tmp_path, "b/colour.png", content=png(size=(20, 30)))
    source = open_source(str(tmp_path))
    assert (source.channels, source.image_size, source.same_size) == (3, (8, 12), False)


def test_a_turned_photo_counts_with_its_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.new("RGB", (30, 20)).save(stream, "JPEG", exif=exif)
    lay(tmp_path, "a/1.jpg", "b/1.jpg", content=stream.getvalue())
    assert open_source(str(tmp_path)).image_size == (30, 20)


def test_a_large_set_is_sampled_and_the_sample_is_noted(tmp_path):
    lay(tmp_path, "a/{}.png*200", "b/{}.png*200")
    assert "size and colour are known from a sample: 256 of 400 images" in open_source(str(tmp_path)).notes


def test_unreadable_images_do_not_stop_opening_and_fail_by_name_when_loaded(tmp_path):
    lay(tmp_path, "a/{}.png*4", "b/{}.png*4")
    (tmp_path / "a/0.png").write_bytes(b"<html>not found</html>")
    source = open_source(str(tmp_path), val_fraction=None, test_fraction=0.01)
    assert source.notes[0] == (
        "`a/0.png` cannot be read: it holds HTML; expected JPEG, PNG, GIF, BMP, WebP, TIFF or PPM "
        "(the first of 1 among 8 images tried)"
    )
    train = source.splits["train"]
    with pytest.raises(ImageError, match=r"^`a/0\.png` cannot be read: it holds HTML; expected JPEG"):
        train.pixels(names_of(train).index("a/0.png"), 3)


def test_a_folder_without_a_readable_image_is_an_error(tmp_path):
    lay(tmp_path, "a/{}.png*2", "b/{}.png*2", content=b"")
    message, _ = refusal(tmp_path)
    assert message == f"none of 4 images tried in `{tmp_path}` can be read; `a/0.png` cannot be read: the file is empty"


# Fingerprints


def test_a_fingerprint_survives_a_copy_and_sees_every_change(tmp_path):
    first, copy = tmp_path / "first", tmp_path / "elsewhere"
    for root in (first, copy):
        lay(root, "a/{}.png*6", "b/{}.png*6")
        os.utime(root / "a/0.png", (1, 1) if root is copy else None)
    original = open_source(str(first)).fingerprint
    assert open_source(str(copy)).fingerprint == original
    assert open_source(str(first), split_seed=1).fingerprint != original, "another split"
    flipped = bytearray(ONE)
    flipped[-1] ^= 1
    (copy / "a/0.png").write_bytes(flipped)
    assert open_source(str(copy)).fingerprint != original, "one bit of one image"
    (copy / "a/0.png").write_bytes(ONE)
    assert open_source(str(copy)).fingerprint == original
    (copy / "a/0.png").rename(copy / "b/6.png")
    assert open_source(str(copy)).fingerprint != original, "one label"


def test_a_large_set_is_fingerprinted_by_names_and_sizes(tmp_path):
    lay(tmp_path, "a/{}.png*6", "b/{}.png*6")
    with open(tmp_path / "a/big.png", "wb") as file:
        file.truncate(257 * 2**20)
    original = open_source(str(tmp_path)).fingerprint
    with open(tmp_path / "a/0.png", "ab") as file:
        file.write(b"x")
    assert open_source(str(tmp_path)).fingerprint != original


# Files are the user's


def test_no_file_is_touched_by_opening_and_decoding(tmp_path):
    rng = random.Random(0)
    lay(tmp_path, "a/{}.png*6", "b/{}.png*6", "a/notes.txt", ".DS_Store")
    for k in range(10):
        lay(tmp_path, f"b/cut{k}.png", content=ONE[: rng.randrange(len(ONE) - 60)])
    lay(tmp_path, "a/page.jpg", content=b"<html>")
    before = tree_hash(tmp_path)
    source = open_source(str(tmp_path))
    num_bad = 0
    for split in source.splits.values():
        for position in range(len(split)):
            try:
                split.pixels(position, 3)
            except ImageError:
                num_bad += 1
    assert num_bad == 11
    assert tree_hash(tmp_path) == before
