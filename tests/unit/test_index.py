"""Indexes of large sources: had back while nothing changed, made again otherwise, never trusted when damaged."""

import os
import random
import time

import numpy as np
import pytest

from linne.data.files import Names
from linne.data.index import Found, Index, index_of, load, save, spread

FACTS = {"labels": ["cat", "d\udcffg"], "size": [3, 4], "ok": True}
LATER_NS = 10**10
"""Ten seconds: as if the looking began when all files had long been written."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LINNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/index"


@pytest.fixture
def watched(tmp_path):
    """A folder with a file, as paths."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"12345")
    return [str(folder), str(folder / "a.png")]


def made():
    return Index(FACTS, {"ends": np.arange(50), "text": np.arange(7, dtype=np.uint8), "none": np.zeros(0, np.int64)})


def keep(key, watched):
    return save(key, made(), watched, time.time_ns() + LATER_NS)


def test_an_index_comes_back_as_it_was_kept(watched):
    kept, notes = keep("k", watched)
    assert not notes
    had, notes = load("k")
    assert not notes
    assert had.identity == kept.identity != ""
    assert had.facts == FACTS
    assert had.arrays.keys() == made().arrays.keys()
    for name, array in made().arrays.items():
        assert np.array_equal(had.arrays[name], array)
        assert had.arrays[name].dtype == array.dtype


def test_what_comes_back_cannot_be_changed(watched):
    keep("k", watched)
    with pytest.raises(ValueError, match="read-only"):
        load("k")[0].arrays["ends"][0] = 1


def test_an_unknown_key_has_no_index_and_nothing_to_say(watched):
    keep("k", watched)
    assert load("other") == (None, [])


def test_each_index_has_an_identity_of_its_own(watched):
    assert keep("k", watched)[0].identity != keep("k", watched)[0].identity


def change_content(folder, file):
    file.write_bytes(b"54321")


def change_size_and_set_time_back(folder, file):
    before = file.stat()
    file.write_bytes(b"123456")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def add_file_and_set_time_back(folder, file):
    """As unpacking a second archive of the same folders does."""
    before = folder.stat()
    (folder / "b.png").write_bytes(b"")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove_file(folder, file):
    file.unlink()


def rename_folder(folder, file):
    folder.rename(folder.with_name("gone"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (change_content, "a.png"),
        (change_size_and_set_time_back, "a.png"),
        (add_file_and_set_time_back, "set"),
        (remove_file, "set"),
        (rename_folder, "set"),
    ],
)
def test_an_index_no_longer_holds_when_something_watched_changed(tmp_path, watched, change, named):
    keep("k", watched)
    time.sleep(0.02)  # the clock of a file system may step by a few milliseconds
    change(tmp_path / "set", tmp_path / "set/a.png")
    had, notes = load("k")
    assert had is None
    path = tmp_path / "set" / named if named != "set" else tmp_path / "set"
    assert notes == [f"looked through all files again: `{path}` changed since they were indexed"]


def test_files_that_may_have_changed_while_they_were_looked_at_are_not_indexed(watched):
    index, notes = save("k", made(), watched, time.time_ns())
    assert (index.identity, notes) == ("", [])
    assert load("k") == (None, [])


@pytest.mark.slow
def test_an_index_is_made_once_and_again_when_it_does_not_hold(watched):
    looks = []

    def look():
        looks.append(1)
        return Found(made(), watched)

    time.sleep(2.1)  # so that a time of change is one that can be trusted
    first, second = index_of("k", look), index_of("k", look)
    assert len(looks) == 1
    assert first[0].identity == second[0].identity
    os.utime(watched[1])
    third, notes = index_of("k", look)
    assert len(looks) == 2
    assert notes == [f"looked through all files again: `{watched[1]}` changed since they were indexed"]
    assert third.facts == FACTS


def test_what_is_too_little_is_not_kept(watched, cache):
    index, notes = index_of("k", lambda: Found(made(), watched, keep=False))
    assert (index.identity, notes) == ("", [])
    assert not cache.exists()


def test_any_damage_is_found_and_said(watched, cache):
    keep("k", watched)
    (path,) = cache.iterdir()
    good = path.read_bytes()
    rng = random.Random(0)
    for _ in range(150):
        bad = bytearray(good)
        if rng.random() < 0.3:
            del bad[rng.randrange(len(bad)) :]
        else:
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        had, notes = load("k")
        if had is not None:  # a flip in the padding between header and arrays says nothing
            assert had.facts == FACTS
            assert all(np.array_equal(had.arrays[name], array) for name, array in made().arrays.items())
            continue
        (note,) = notes
        assert note.startswith(f"looked through all files again: the index `{path}` is damaged (")
        assert note.isprintable()
    path.write_bytes(good)
    assert load("k")[0] is not None


def test_a_huge_length_in_a_damaged_index_allocates_nothing(watched, cache):
    keep("k", watched)
    (path,) = cache.iterdir()
    path.write_bytes(b"\xff" * 7 + path.read_bytes()[7:])
    assert "is damaged" in load("k")[1][0]


def test_an_index_under_anothers_name_is_not_taken(watched, cache):
    keep("k", watched)
    (mine,) = cache.iterdir()
    keep("other", watched)
    (others,) = set(cache.iterdir()) - {mine}
    others.replace(mine)
    assert load("k")[1][0].endswith("is damaged (it is another's)")


def test_another_users_index_is_not_taken(watched, cache):
    if not hasattr(os, "getuid") or os.getuid() != 0:
        pytest.skip("only root can give a file away")
    keep("k", watched)
    os.chown(next(cache.iterdir()), 12345, 12345)
    assert load("k") == (None, [])


def test_a_cache_folder_that_cannot_be_written_is_noted_and_no_error(watched, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    index, notes = keep("k", watched)
    assert index.facts == FACTS
    assert notes == [f"the index of the files could not be kept in `{tmp_path}/cache/index`: not a directory"]
    assert load("k")[0] is None


def test_nothing_is_left_of_a_write_that_was_cut_once_a_day_has_passed(watched, cache):
    keep("k", watched)
    for name, age_s in (("old.partial", 2 * 86400), ("new.partial", 60)):
        (cache / name).write_bytes(b"x")
        os.utime(cache / name, (time.time() - age_s,) * 2)
    keep("other", watched)
    assert [path.name for path in cache.glob("*.partial")] == ["new.partial"]


def test_odd_paths_can_be_watched_and_odd_keys_kept(tmp_path):
    odd = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"b\xffd\n"))
    try:
        os.mkdir(odd)
    except OSError:
        pytest.skip("this file system refuses such names")
    keep("k\udcff", [odd])
    assert load("k\udcff")[0] is not None


@pytest.mark.parametrize(("number", "expected"), [(0, []), (1, [0]), (3, [0, 1, 2]), (1000, None)])
def test_a_spread_sample_has_different_positions_from_end_to_end(number, expected):
    positions = spread(number).tolist()
    if expected is not None:
        assert positions == expected
    else:
        assert len(set(positions)) == len(positions) == 256
        assert (positions[0], positions[-1]) == (0, 999)


def test_names_are_texts_by_position_and_survive_any_spelling():
    texts = ["a", "", "é", "b\udcffd", "日本" * 100]
    names = Names.of(texts)
    assert list(names) == texts == [names[k] for k in range(5)] == names[:]
    assert (names[-1], names[-5], names[1:3]) == (texts[-1], "a", ["", "é"])
    assert "é" in names
    for outside in (5, -6):
        with pytest.raises(IndexError):
            names[outside]
    assert list(Names.of([])) == []
