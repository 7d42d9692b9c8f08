"""A checkpoint on disk is whole or not there, and every damaged byte of it is noticed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from linne.bundle_format import seal
from linne.errors import BundleError, LinneError
from linne.training import checkpoint_format
from linne.training.checkpoint_format import (
    KEPT,
    MANIFEST,
    STATE,
    Contents,
    find_checkpoints,
    from_plain,
    newest_good,
    read_checkpoint,
    to_plain,
    write_checkpoint,
)

STATE_DICT = {
    "optimizer": {
        "state": {0: {"step": torch.tensor(7.0), "momentum_buffer": torch.randn(3, 4)}, 1: {"momentum_buffer": None}},
        "param_groups": [{"betas": (0.9, 0.999), "params": [0, 1], "fused": True, "lr_max": -1.0, "last": math.inf}],
    },
    "model": {"weight": torch.randn(4, 3, dtype=torch.bfloat16), "count": torch.tensor(3), "none": torch.empty(0)},
}


def same(first: object, second: object) -> bool:
    """Return whether two state dicts hold the same values, of the same types."""
    if type(first) is not type(second):
        return False
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second or (first != first and second != second)


def make_contents(step: int = 12, value: float = 1.0, kept: dict | None = None) -> Contents:
    tensors: dict[str, torch.Tensor] = {}
    state = to_plain({**STATE_DICT, "value": torch.full((50, 40), value)}, "state", tensors)
    return Contents(epoch=1, step=step, batch=2, facts={"seed": 3}, state=state, tensors=tensors, kept=kept)


def test_a_state_dict_comes_back_as_it_was_after_a_way_over_the_disk(tmp_path):
    path = write_checkpoint(tmp_path / "checkpoints", make_contents())
    assert path.name == "epoch-0001-step-00000012"
    assert (path.parent / "latest").read_text() == "epoch-0001-step-00000012\n"
    found = read_checkpoint(path)
    assert (found.epoch, found.step, found.batch, found.facts, found.kept) == (1, 12, 2, {"seed": 3}, None)
    assert same({name: found.state[name] for name in STATE_DICT}, STATE_DICT)


leaves = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text()
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(trees)
def test_every_tree_of_plain_values_comes_back_from_json(tree):
    plain = json.loads(json.dumps(to_plain(tree, "x", {}), allow_nan=False))
    assert same(from_plain(plain, {}), tree)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", [print]], ids=["object", "set", "bytes", "function"])
def test_what_only_a_pickle_could_hold_is_refused(value):
    with pytest.raises(TypeError, match="a checkpoint cannot hold a "):
        to_plain({"a": value}, "state", {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_no_numbers_are_noticed_and_nothing_else_is(dtype):
    bad = torch.tensor([1.0, math.nan], dtype=dtype)
    for state, expected in (
        ({"model": {"w": bad}}, True),
        ({"progress": {"unread": bad}}, False),  # of a step that was left out
        ({"model": {"w": torch.tensor([1.0, math.inf], dtype=dtype)}, "optimizer": {"w": bad}}, False),
    ):
        tensors: dict[str, torch.Tensor] = {}
        plain = to_plain(state, "state", tensors)
        contents = Contents(epoch=0, step=1, batch=1, facts={}, state=plain, tensors=tensors, kept=None)
        assert contents.holds_nan() is expected


def test_values_that_are_no_numbers_come_back_as_they_were(tmp_path):
    tensors: dict[str, torch.Tensor] = {}
    plain = to_plain({"w": torch.tensor([math.nan, -math.inf])}, "state", tensors)
    contents = Contents(epoch=0, step=1, batch=1, facts={}, state=plain, tensors=tensors, kept=None)
    found = read_checkpoint(write_checkpoint(tmp_path / "checkpoints", contents)).state["w"]
    assert math.isnan(found[0])
    assert found[1] == -math.inf


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A checkpoint with kept weights, not to be altered for longer than a test."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    return write_checkpoint(folder, make_contents(kept={"weight": torch.randn(30, 20)}))


def test_every_flipped_bit_is_noticed(written):
    draw = random.Random(0)
    files = [path for path in written.iterdir() for _ in range(60)]
    for path in files:
        before = path.read_bytes()
        damaged = bytearray(before)
        damaged[draw.randrange(len(before))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(BundleError):
            read_checkpoint(written)
        path.write_bytes(before)
    assert len(files) == 180
    read_checkpoint(written)


def test_every_cut_is_noticed_and_so_is_every_missing_file(written):
    draw = random.Random(0)
    for path in list(written.iterdir()):
        before = path.read_bytes()
        for size in [0, len(before) - 1, *(draw.randrange(len(before)) for _ in range(10))]:
            path.write_bytes(before[:size])
            with pytest.raises(BundleError):
                read_checkpoint(written)
        path.unlink()
        with pytest.raises(BundleError, match="is not there"):
            read_checkpoint(written)
        path.write_bytes(before)
    read_checkpoint(written)


def test_a_newer_format_is_refused_and_never_taken_for_damage(written):
    text = (written / MANIFEST).read_bytes()
    manifest = json.loads(text)
    del manifest["checksum"]
    (written / MANIFEST).write_bytes(seal({**manifest, "format": 2, "linne": "9.0"}, MANIFEST))
    with pytest.raises(LinneError, match=r"was written by linne 9\.0 in format 2; this linne reads format 1") as caught:
        newest_good(written.parent)
    assert caught.value.hint == "pip install --upgrade linne"
    assert not isinstance(caught.value, BundleError)
    (written / MANIFEST).write_bytes(text.replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(BundleError, match="was edited or damaged"):
        read_checkpoint(written)
    (written / MANIFEST).write_bytes(text)


def test_the_newest_whole_checkpoint_is_found_and_what_is_wrong_with_newer_ones_is_said(tmp_path):
    folder = tmp_path / "checkpoints"
    for step in (5, 10, 15):
        write_checkpoint(folder, make_contents(step))
    newest = find_checkpoints(folder)[0]
    os.truncate(newest / STATE, 100)
    (folder / ".epoch-0001-step-00000020.partial-abcd").mkdir()
    found, problems = newest_good(folder)
    assert found.step == 10
    assert len(problems) == 1
    assert f"checkpoint `{newest}` cannot be used: `{STATE}` is cut short: 100 bytes, expected" in problems[0]


def test_a_latest_that_is_gone_is_noticed(tmp_path):
    folder = tmp_path / "checkpoints"
    write_checkpoint(folder, make_contents(5))
    shutil.rmtree(write_checkpoint(folder, make_contents(10)))
    found, problems = newest_good(folder)
    assert found.step == 5
    assert problems == [f"`{folder / 'latest'}` names `epoch-0001-step-00000010`, which is not there"]
    assert newest_good(tmp_path / "none") == (None, [])


def test_epochs_and_steps_are_ordered_by_number_and_not_by_digits(tmp_path):
    for epoch, step in ((9999, 5), (10000, 4), (3, 99999999), (3, 100000000)):
        (tmp_path / checkpoint_format.name_of(epoch, step)).mkdir()
    (tmp_path / "epoch-1").mkdir()
    found = [tuple(map(int, path.name.split("-")[1::2])) for path in find_checkpoints(tmp_path)]
    assert found == [(10000, 4), (9999, 5), (3, 100000000), (3, 99999999)]


def test_kept_weights_are_shared_with_an_older_checkpoint_unless_they_were_damaged_there(tmp_path):
    folder, kept = tmp_path / "checkpoints", {"weight": torch.randn(30, 20)}
    first = write_checkpoint(folder, make_contents(5, kept=kept))
    second = write_checkpoint(folder, make_contents(10, kept=kept), shared=first)
    assert (second / KEPT).samefile(first / KEPT)
    (first / KEPT).write_bytes(b"damaged")  # in both, since it is one file
    third = write_checkpoint(folder, make_contents(15, kept=kept), shared=first)
    assert not (third / KEPT).samefile(first / KEPT)
    assert torch.equal(read_checkpoint(third).kept["weight"], kept["weight"])
    shutil.rmtree(first)
    fourth = write_checkpoint(folder, make_contents(20, kept=kept), shared=first)
    assert torch.equal(read_checkpoint(fourth).kept["weight"], kept["weight"])


def test_a_run_that_comes_again_to_where_a_checkpoint_was_damaged_replaces_it(tmp_path):
    folder = tmp_path / "checkpoints"
    path = write_checkpoint(folder, make_contents(value=1.0))
    os.truncate(path / STATE, 10)
    assert write_checkpoint(folder, make_contents(value=2.0)) == path
    assert read_checkpoint(path).state["value"][0, 0] == 2.0
    assert {entry.name for entry in folder.iterdir()} == {path.name, "latest"}


def test_a_write_that_fails_leaves_the_older_checkpoint_and_nothing_else(tmp_path):
    folder = tmp_path / "checkpoints"
    path = write_checkpoint(folder, make_contents(5))
    unwritable = dataclasses.replace(make_contents(10), facts={"not": math.nan})
    with pytest.raises(BundleError, match="cannot be written as JSON"):
        write_checkpoint(folder, unwritable)
    assert {entry.name for entry in folder.iterdir()} == {path.name, "latest"}
    assert newest_good(folder)[0].step == 5
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write_checkpoint(tmp_path / "file", make_contents(5))


def test_others_may_read_a_checkpoint_who_may_read_its_folder(tmp_path):
    tmp_path.chmod(0o755)
    path = write_checkpoint(tmp_path / "checkpoints", make_contents())
    folder_mode = path.stat().st_mode & 0o666
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {folder_mode & 0o644}
