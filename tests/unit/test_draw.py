"""Held-out examples, groups that stay together and folds: what holds for any names, labels and groups."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linne.data import open_source
from linne.data.draw import NEVER, Groups, deal, deal_groups, hold_out, hold_out_groups, ranks_of
from linne.data.files import FileStore, Names
from linne.data.source import Split
from linne.data.split import Examples, SplitPlan, divide
from linne.errors import RecipeError, SourceError

PIXEL = b"P6 1 1 255\n\0\0\0"

labels_of_some = st.lists(st.integers(0, 4), min_size=1, max_size=60)
grouped = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=60)
"""(label, group) of each example."""


def names(number):
    return [f"cat/{k}.jpg" for k in range(number)]


def with_groups(examples):
    labels_N, ids_N = np.array(examples, np.int64).T
    return labels_N, Groups(tuple(f"patient {k}" for k in range(13)), ids_N)


# Holding out


@given(labels_of_some, st.floats(0.01, 0.99), st.integers(0, 5))
def test_every_class_keeps_an_example_and_gives_its_share(labels, fraction, seed):
    labels_N = np.array(labels)
    held_N = hold_out(ranks_of(names(len(labels)), seed), labels_N, fraction)
    for label in np.unique(labels_N):
        of_class = held_N[labels_N == label]
        least = 1 if len(of_class) >= 5 else 0
        assert of_class.sum() == min(max(round(len(of_class) * fraction), least), len(of_class) - 1)


@given(st.sets(st.text(min_size=1), min_size=6, max_size=40), st.randoms(use_true_random=False))
def test_the_order_of_a_listing_does_not_matter(texts, random):
    ordered = sorted(texts)
    shuffled = random.sample(ordered, len(ordered))
    labels_N = np.zeros(len(ordered), int)
    for choose in (lambda ranks: hold_out(ranks, labels_N, 0.3), lambda ranks: deal(ranks, labels_N, 3)):
        once = dict(zip(ordered, choose(ranks_of(ordered, 0)), strict=True))
        again = dict(zip(shuffled, choose(ranks_of(shuffled, 0)), strict=True))
        assert once == again


def test_an_added_example_moves_at_most_one_other_across_each_line():
    before = names(200)
    for added in ("cat/new.jpg", "cat/another.jpg", "cat/0001.jpg", "cat/z.jpg"):
        after = [*before, added]
        held, now = (hold_out(ranks_of(n, 0), np.zeros(len(n), int), 0.15) for n in (before, after))
        assert (held != now[:-1]).sum() <= 1
        folds, now = (deal(ranks_of(n, 0), np.zeros(len(n), int), 5) for n in (before, after))
        for fold in range(5):
            assert ((folds == fold) != (now[:-1] == fold)).sum() <= 2, "one in and one out"


def test_the_choice_is_the_same_for_ever():
    ranks_N = ranks_of([f"{k}.jpg" for k in range(20)], 0)
    assert np.flatnonzero(hold_out(ranks_N, np.zeros(20, int), 0.2)).tolist() == GOLDEN_HELD
    assert deal(ranks_N, np.arange(20) % 2, 3).tolist() == GOLDEN_FOLDS
    groups = Groups(tuple("abcdefgh"), np.arange(20) % 8)
    assert np.unique(groups.ids_N[hold_out_groups(groups, np.zeros(20, int), 0.3, 0)]).tolist() == GOLDEN_GROUPS
    assert deal_groups(groups, np.zeros(20, int), 3, 0).tolist()[:8] == GOLDEN_GROUP_FOLDS


GOLDEN_HELD = [2, 3, 4, 18]
GOLDEN_FOLDS = [1, 2, 0, 1, 0, 0, 2, 1, 1, 1, 0, 0, 2, 2, 2, 1, 1, 0, 0, 2]
GOLDEN_GROUPS = [3, 5]
GOLDEN_GROUP_FOLDS = [2, 0, 1, 0, 2, 1, 2, 1]
"""What sha256 orders first. If these change, everybody's test images change."""


# Folds


@given(labels_of_some, st.integers(2, 12), st.integers(0, 5))
def test_folds_share_out_every_class_evenly_and_leave_none_without_training_examples(labels, folds, seed):
    labels_N = np.array(labels)
    folds_N = deal(ranks_of(names(len(labels)), seed), labels_N, folds)
    assert ((folds_N >= NEVER) & (folds_N < folds)).all()
    for label in np.unique(labels_N):
        of_class = folds_N[labels_N == label]
        if len(of_class) == 1:
            assert of_class.tolist() == [NEVER]
            continue
        counts = np.bincount(of_class, minlength=folds)
        assert counts.sum() == len(of_class)
        assert counts.max() - counts.min() <= 1
        assert (counts < len(of_class)).all()


def test_whole_folds_are_even_too_when_every_class_has_one_too_many():
    labels_N = np.repeat(np.arange(40), 11)
    folds_N = deal(ranks_of(names(440), 0), labels_N, 5)
    assert np.bincount(folds_N).tolist() == [88] * 5


# Groups


@given(grouped, st.floats(0.05, 0.6), st.integers(0, 5))
def test_no_group_is_parted_by_holding_out_and_every_class_still_trains(examples, fraction, seed):
    labels_N, groups = with_groups(examples)
    held_N = hold_out_groups(groups, labels_N, fraction, seed)
    assert not set(groups.ids_N[held_N]) & set(groups.ids_N[~held_N])
    assert set(labels_N[~held_N]) == set(labels_N)


@given(grouped, st.integers(2, 5), st.integers(0, 5))
def test_no_group_is_parted_by_folds_and_every_class_trains_whichever_fold_is_held_out(examples, folds, seed):
    labels_N, groups = with_groups(examples)
    folds_N = deal_groups(groups, labels_N, folds, seed)
    assert ((folds_N >= NEVER) & (folds_N < folds)).all()
    for group in set(groups.ids_N.tolist()):
        assert len(set(folds_N[groups.ids_N == group].tolist())) == 1
    for fold in range(folds):
        assert set(labels_N[folds_N != fold]) == set(labels_N)


@given(grouped, st.none() | st.integers(2, 5), st.integers(0, 3), st.data())
def test_no_group_ever_spans_two_splits_whatever_is_asked_for(examples, folds, seed, data):
    labels_N, groups = with_groups(examples)
    store = FileStore("/nowhere", Names.of(names(len(examples))), np.zeros(len(examples), np.int64))
    column = [groups.names[k] for k in groups.ids_N]
    fold = None if folds is None else data.draw(st.integers(1, folds))
    opened = Examples(
        labels=tuple("abcd"),
        given={"train": Split("train", store, np.arange(len(examples)), labels_N)},
        channels=3,
        image_size=(1, 1),
        same_size=True,
        identities=lambda splits: [split.indices_N.tobytes() for split in splits],
        columns={"patient": column},
    )
    try:
        made = divide(opened, SplitPlan(seed=seed, group_by="patient", folds=folds, fold=fold))
    except SourceError as refused:
        made, said = None, refused.message
    if made is None:
        assert said == f"fold {fold} of {folds} is empty: train has too few groups"
        return
    parts = [{column[k] for k in split.indices_N} for split in made.splits.values()]
    assert sum(map(len, parts)) == len(set(column))
    assert sum(map(len, made.splits.values())) == len(examples)
    assert set(made.splits["train"].labels_N) == set(labels_N)


def patients(number, seed=0):
    """A set as hospitals have it: 1 to 9 pictures of each patient, most of one class."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 10, number)
    ids_N = np.repeat(np.arange(number), sizes)
    labels_N = np.where(rng.random(len(ids_N)) < 0.8, (ids_N % 3), rng.integers(0, 3, len(ids_N)))
    return labels_N, Groups(tuple(f"p{k}" for k in range(number)), ids_N)


@pytest.mark.parametrize("seed", range(5))
def test_held_out_groups_come_near_the_share_of_each_class(seed):
    labels_N, groups = patients(200, seed)
    held_N = hold_out_groups(groups, labels_N, 0.15, seed)
    shares_K = np.bincount(labels_N[held_N]) / np.bincount(labels_N)
    assert (abs(shares_K - 0.15) < 0.02).all()  # a group is at most 3 % of a class


@pytest.mark.parametrize("seed", range(5))
def test_folds_of_groups_are_nearly_even_in_every_class(seed):
    labels_N, groups = patients(200, seed)
    folds_N = deal_groups(groups, labels_N, 5, seed)
    for label in range(3):
        counts = np.bincount(folds_N[labels_N == label], minlength=5)
        assert counts.max() - counts.min() <= 9  # one group


def test_the_order_of_the_examples_does_not_change_what_happens_to_a_group():
    labels_N, groups = patients(60)
    order_N = np.random.default_rng(1).permutation(len(labels_N))
    turned = Groups(groups.names, groups.ids_N[order_N])
    for choose in (
        lambda g, labels: hold_out_groups(g, labels, 0.2, 0),
        lambda g, labels: deal_groups(g, labels, 4, 0),
    ):
        assert (choose(groups, labels_N)[order_N] == choose(turned, labels_N[order_N])).all()


def test_when_all_groups_are_large_one_is_held_out_all_the_same():
    groups = Groups(tuple("abcde"), np.repeat(np.arange(5), 20))
    held_N = hold_out_groups(groups, np.tile([0, 1], 50), 0.05, 0)
    assert held_N.sum() == 20


def test_a_group_with_all_of_a_class_always_trains():
    labels_N, ids_N = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 2, 3, 4])
    groups = Groups(tuple("abcde"), ids_N)
    assert (deal_groups(groups, labels_N, 2, 0)[:3] == NEVER).all()
    assert not hold_out_groups(groups, labels_N, 0.5, 0)[:3].any()


# As a user asks for them


@pytest.fixture
def folder(tmp_path):
    """Five pictures of each of sixteen patients, of two classes."""
    root = tmp_path / "set"
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for k in range(40):
            (root / label / f"p{k // 5 + 8 * (label == 'dog')}_{k}.ppm").write_bytes(PIXEL)
    return root


def patients_of(split):
    return {re.search(r"(p\d+)_", split.example_name(position))[1] for position in range(len(split))}


def test_grouped_splits_part_no_group_and_say_so(folder):
    source = open_source(str(folder), group_by=r"(p\d+)_")
    assert source.notes == (
        "test: 10 of 80 examples and 2 of 16 groups held out of train, near 0.15 of each class "
        "(chosen by group and split_seed 0)",
        "val: 10 of 70 examples and 2 of 14 groups held out of train, near 0.1 of each class "
        "(chosen by group and split_seed 0)",
    )
    parts = [patients_of(split) for split in source.splits.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 16
    assert all(set(split.labels_N.tolist()) == {0, 1} for split in source.splits.values())


def test_folds_are_disjoint_cover_what_trains_and_leave_the_test_images_alone(folder):
    sources = [open_source(str(folder), folds=4, fold=fold) for fold in (1, 2, 3, 4)]
    tests = {tuple(source.splits["test"].indices_N) for source in sources}
    assert len(tests) == 1
    assert tests == {tuple(open_source(str(folder)).splits["test"].indices_N)}
    held = np.concatenate([source.splits["val"].indices_N for source in sources])
    assert len(held) == len(set(held.tolist())) == 80 - 12
    for source in sources:
        assert {len(split) for split in source.splits.values()} == {51, 17, 12}
    assert sources[1].notes[-1] == "val: fold 2 of 4, 17 of 68 examples in train (chosen by name and split_seed 0)"


def test_folds_of_groups_part_no_group(folder):
    sources = [open_source(str(folder), folds=4, fold=fold, group_by=r"(p\d+)_") for fold in (1, 2, 3, 4)]
    for source in sources:
        parts = [patients_of(split) for split in source.splits.values()]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 16
    assert set.union(*(patients_of(source.splits["val"]) for source in sources)) | patients_of(
        sources[0].splits["test"]
    ) == {f"p{k}" for k in range(16)}


def refusal(error, folder, **options):
    with pytest.raises(error) as caught:
        open_source(str(folder), **options)
    assert "\n" not in caught.value.message
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 5}, "folds is 5 and fold is none; expected both or neither"),
        ({"fold": 1}, "folds is none and fold is 1; expected both or neither"),
        ({"folds": 1, "fold": 1}, "folds is 1, expected 2 or more"),
        ({"folds": 5, "fold": 0}, "fold is 0, expected 1 to 5"),
        ({"folds": 5, "fold": 6}, "fold is 6, expected 1 to 5"),
        ({"folds": 5, "fold": 1, "val_fraction": None}, "val_fraction is none with folds, which make a val split"),
        ({"group_by": "(p"}, "group_by `(p` is not a regular expression: missing ), unterminated subpattern at pos"),
        (
            {"group_by": "patient"},
            "group_by `patient` is no column, and as a regular expression has no group; the source has no further",
        ),
        ({"group_by": "(a)(b)"}, "group_by `(a)(b)` has 2 groups, expected one"),
    ],
)
def test_options_that_cannot_be_used_are_refused(folder, options, message):
    assert refusal(RecipeError, folder, **options)[0].startswith(message)


def test_an_example_without_a_group_is_an_error_that_names_it(folder):
    (folder / "cat/stray.ppm").write_bytes(PIXEL)
    message, hint = refusal(SourceError, folder, group_by=r"(p\d+)_")
    assert message == r"group_by `(p\d+)_` finds nothing in 1 of 81 examples of train: `cat/stray.ppm`"
    assert hint == "every example needs a group: give those one of their own"


def test_a_set_of_one_group_a_class_makes_no_split_and_says_why(tmp_path):
    for k in range(20):
        for name in (f"cat/p1_{k}.ppm", f"dog/p2_{k}.ppm"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(PIXEL)
    source = open_source(str(tmp_path), group_by=r"(p\d+)_")
    assert list(source.splits) == ["train"]
    assert source.notes == (
        "no test split: 2 groups in train: each holds all examples of some class",
        "no val split: 2 groups in train: each holds all examples of some class",
    )


@pytest.fixture
def table(folder):
    """A list of the same pictures, with the patient in a column."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.ppm"))
    rows = [f"{name},{name.partition('/')[0]},{name[4:].partition('_')[0]}" for name in names]
    (folder / "list.csv").write_text("\n".join(["path,label,patient", *rows]), "utf-8")
    return folder / "list.csv"


def test_a_column_of_a_list_groups_as_the_same_part_of_the_names_does(folder, table):
    by_column = open_source(str(table), group_by="patient")
    by_name = open_source(str(folder), group_by=r"(p\d+)_")
    for name in ("train", "val", "test"):
        assert sorted(map(by_column.splits[name].example_name, range(len(by_column.splits[name])))) == sorted(
            map(by_name.splits[name].example_name, range(len(by_name.splits[name])))
        )


def test_a_misspelt_column_is_an_error_with_the_nearest_name(table):
    message, hint = refusal(RecipeError, table, group_by="patiant")
    assert message.endswith("no column, and as a regular expression has no group; the source has the columns `patient`")
    assert hint == "did you mean `patient`?"


def test_an_empty_cell_in_the_column_is_an_error_that_names_the_example(table):
    table.write_text(table.read_text("utf-8").replace("cat/p0_0.ppm,cat,p0", "cat/p0_0.ppm,cat,"), "utf-8")
    message, _ = refusal(SourceError, table, group_by="patient")
    assert message == "column `patient` is empty in 1 of 80 examples of train: `cat/p0_0.ppm`"


def test_a_fold_without_examples_is_an_error(tmp_path):
    for name in ("a/1.ppm", "a/2.ppm", "b/1.ppm", "b/2.ppm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PIXEL)
    message, hint = refusal(SourceError, tmp_path, folds=9, fold=9)
    assert message == "fold 9 of 9 is empty: train has too few examples"
    assert hint == "ask for fewer folds"


def test_folds_of_a_source_with_its_own_val_split_are_refused(tmp_path, folder):
    folder.rename(tmp_path / "train")
    (tmp_path / "val/cat").mkdir(parents=True)
    (tmp_path / "val/cat/1.ppm").write_bytes(PIXEL)
    message, hint = refusal(SourceError, tmp_path, folds=5, fold=1)
    assert message == "folds=5 would make a val split, and this source has its own"
    assert hint == "leave out folds, or put the validation images among the training images"


def test_a_group_in_two_of_the_users_own_splits_is_an_error_that_names_it(tmp_path, folder):
    folder.rename(tmp_path / "train")
    for name in ("cat/p3_9.ppm", "dog/p99_1.ppm"):
        (tmp_path / "test" / name).parent.mkdir(parents=True)
        (tmp_path / "test" / name).write_bytes(PIXEL)
    message, hint = refusal(SourceError, tmp_path, group_by=r"/(p\d+)_")
    assert message == r"1 group of `/(p\d+)_` in both train and test of the source's own splits: `p3`"
    assert hint == "move them into one split, or leave out group_by"
    (tmp_path / "test/cat/p3_9.ppm").rename(tmp_path / "test/cat/p98_9.ppm")
    assert set(open_source(str(tmp_path), group_by=r"/(p\d+)_").splits) == {"train", "val", "test"}
