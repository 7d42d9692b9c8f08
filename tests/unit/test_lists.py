"""Lists of images: what is understood, what is refused and where it stands, and what no list can do."""

import csv
import io
import json
import os
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from linne.data import open_source
from linne.data.index import LEAST_FILES
from linne.data.sources.lists import open_list
from linne.errors import SourceError

STREAM = io.BytesIO()
Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(STREAM, "PNG")
ONE = STREAM.getvalue()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LINNE_CACHE", str(tmp_path_factory.mktemp("cache")))


def lay(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(ONE)


def write(root, text, name="list.csv"):
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows_of(examples):
    """Return (path, label, split) of every example, sorted."""
    return sorted(
        (split.example_name(k), examples.labels[label], name)
        for name, split in examples.given.items()
        for k, label in enumerate(split.labels_N.tolist())
    )


def refusal(path, options=""):
    with pytest.raises(SourceError) as caught:
        open_list(f"{path}{options}", None)
    assert caught.value.message.isprintable()
    assert caught.value.hint is None or caught.value.hint.isprintable()
    return caught.value.message, caught.value.hint


FOUR = [("a/1.png", "cat", "train"), ("a/2.png", "dog", "train"), ("b/3.png", "dog", "val"), ("b/4.png", "cat", "test")]


def as_csv(rows, delimiter=","):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue()


def as_parquet(rows):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    stream = io.BytesIO()
    pq.write_table(pa.table(dict(zip(rows[0], map(list, zip(*rows[1:], strict=True)), strict=True))), stream)
    return stream.getvalue()


def as_json(rows):
    return "".join(json.dumps(dict(zip(rows[0], row, strict=True))) + "\n" for row in rows[1:])


WRITERS = {
    "list.csv": as_csv,
    "list.CSV": as_csv,
    "list.tsv": lambda rows: as_csv(rows, "\t"),
    "list.jsonl": as_json,
    "list.ndjson": as_json,
    "list.parquet": as_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_list_gives_the_same_examples_in_the_splits_it_states(tmp_path, name):
    lay(tmp_path, *(row[0] for row in FOUR))
    path = write(tmp_path, WRITERS[name]([("path", "label", "split"), *FOUR]), name)
    examples = open_list(str(path), None)
    assert rows_of(examples) == sorted(FOUR)
    assert examples.labels == ("cat", "dog")
    assert (examples.channels, examples.image_size, examples.same_size) == (3, (8, 8), True)
    assert examples.notes == (
        "columns: path is `path`, label is `label`, split is `split`",
        "splits as the list states them: train 2, val 1, test 1",
        "val has no images of `cat`",
        "test has no images of `dog`",
    )
    assert np.array_equal(examples.given["val"].pixels(0, 3), np.arange(192).reshape(8, 8, 3))


def test_a_list_without_splits_is_split_by_linne_and_its_fingerprint_survives_a_move(tmp_path):
    paths = [f"{kind}/{k}.png" for kind in ("cat", "dog") for k in range(20)]
    lay(tmp_path / "here", *paths)
    write(tmp_path / "here", as_csv([("path", "label"), *((path, path[:3]) for path in paths)]))
    source = open_source(str(tmp_path / "here/list.csv"))
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 30, "val": 4, "test": 6}
    os.rename(tmp_path / "here", tmp_path / "there")
    assert open_source(f"list:{tmp_path}/there/list.csv").fingerprint == source.fingerprint
    (tmp_path / "there/cat/7.png").write_bytes(ONE + b"\0")
    assert open_source(f"list:{tmp_path}/there/list.csv").fingerprint != source.fingerprint


@pytest.mark.parametrize(
    ("header", "recognised"),
    [
        ("file,class", "path is `file`, label is `class`"),
        (" Filename , TARGET ", "path is `Filename`, label is `TARGET`"),
        ("image,label", "path is `image`, label is `label`"),
        ("file_name,label", "path is `file_name`, label is `label`"),
    ],
)
def test_other_names_of_columns_are_recognised_and_said(tmp_path, header, recognised):
    lay(tmp_path, "1.png", "2.png")
    examples = open_list(str(write(tmp_path, f"{header}\n1.png,cat\n2.png,dog\n")), None)
    assert examples.notes == (f"columns: {recognised}",)


def test_further_columns_are_kept_for_grouping(tmp_path):
    lay(tmp_path, *(f"{k}.png" for k in range(40)))
    rows = [(f"{k}.png", "ab"[k % 2], f"p{k // 4}", "x") for k in range(40)]
    path = write(tmp_path, as_csv([("path", "label", "patient", ""), *rows]))
    examples = open_list(str(path), None)
    assert list(examples.columns) == ["patient"]
    assert list(examples.columns["patient"]) == [row[2] for row in rows]
    assert "columns kept for `--group-by`: `patient`" in examples.notes
    source = open_source(str(path), group_by="patient")
    groups = [{int(split.example_name(k)[:-4]) // 4 for k in range(len(split))} for split in source.splits.values()]
    assert len(groups) == 3
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10


def test_options_say_which_columns_and_which_folder_are_meant(tmp_path):
    lay(tmp_path / "images", "1.png", "2.png")
    path = write(tmp_path, "photo,kind,label\n1.png,x,cat\n2.png,y,cat\n")
    examples = open_list(f"{path}?path=photo,label=kind,images={tmp_path}/images", None)
    assert rows_of(examples) == [("1.png", "x", "train"), ("2.png", "y", "train")]
    assert refusal(path, "?lable=kind") == ("`list` has no option `lable`", "did you mean `label`?")
    assert refusal(path, "?label=kin,path=photo") == (
        f"`{path}` has no column `kin`, which `list` was to take as label; it has `photo`, `kind`, `label`",
        "did you mean `kind`?",
    )
    assert refusal(path, "?label=") == ("`list` option `label` has no value", "type `list:PLACE?label=VALUE`")
    assert refusal(path, "?images=nowhere,path=photo")[0] == "no folder `nowhere`"


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_byte_order_mark_quotes_and_any_script_are_understood(tmp_path, name):
    rows = [('the "best", one.png', "größe, m"), ("日本/😀 .png", "two\nlines"), ("e\u0301.png", "größe, m")]
    lay(tmp_path, *(row[0] for row in rows))
    text = WRITERS[name]([("path", "label"), *rows])
    examples = open_list(str(write(tmp_path, b"\xef\xbb\xbf" + text.encode(), name)), None)
    assert examples.labels == ("größe, m", "two\\nlines")
    assert rows_of(examples) == sorted((path, label.replace("\n", "\\n"), "train") for path, label in rows)


def test_a_label_is_one_class_in_every_unicode_spelling_and_without_the_spaces_round_it(tmp_path):
    lay(tmp_path, "1.png", "2.png", "3.png")
    nfd = unicodedata.normalize("NFD", "é")
    examples = open_list(str(write(tmp_path, f"path,label\n1.png,é\n2.png, {nfd} \n3.png,10\n")), None)
    assert examples.labels == ("10", "é")


def test_semicolons_and_tabs_are_taken_where_they_alone_part_the_header_and_that_is_said(tmp_path):
    lay(tmp_path, "1.png", "2.png")
    for mark, shown in ((";", ";"), ("\t", "\\t")):
        path = write(tmp_path, f"path{mark}label\n1.png{mark}a, b\n2.png{mark}c\n")
        examples = open_list(str(path), None)
        assert examples.labels == ("a, b", "c")
        assert f"columns of `{path}` are separated by `{shown}`" in examples.notes


def test_empty_lines_are_passed_over_and_counted_and_lines_keep_their_numbers(tmp_path):
    lay(tmp_path, "1.png", "2.png")
    path = write(tmp_path, "path,label\n\n1.png,a\n,\n2.png,b\n\n")
    assert f"ignored 3 empty lines of `{path}`" in open_list(str(path), None).notes
    write(tmp_path, "path,label\n\n1.png,a\n,\n3.png,b\n\n")
    assert refusal(path)[0] == f"`{path}` names 1 file that is not there: line 5 `3.png`"


def test_paths_have_one_spelling_and_those_within_the_folder_may_be_absolute(tmp_path):
    lay(tmp_path, "a/1.png", "a/2.png", "a/3.png")
    path = write(tmp_path, f"path,label\n./a//1.png,x\nb/../a/2.png,y\n{tmp_path}/a/3.png,y\n")
    assert [row[0] for row in rows_of(open_list(str(path), None))] == ["a/1.png", "a/2.png", "a/3.png"]


@pytest.mark.parametrize(
    "outside", ["../o.png", "/etc/passwd", "a/../../o.png", "..", "{}/../o.png", "{}er/o.png", "."]
)
def test_no_path_leads_out_of_the_folder(tmp_path, outside):
    lay(tmp_path, "list/1.png", "o.png", "lister/o.png")
    named = outside.format(tmp_path / "list")
    path = write(tmp_path / "list", f"path,label\n1.png,x\n{named},y\n")
    assert refusal(path) == (
        f"`{path}` names files outside `{tmp_path}/list`: line 3 `{named}`",
        f"name the folder that holds them all: `list:{path}?images=DIR`; paths are then relative to it",
    )


def test_links_that_the_user_put_below_the_folder_are_followed(tmp_path):
    lay(tmp_path, "far/1.png", "list/2.png")
    (tmp_path / "list/near").symlink_to(tmp_path / "far")
    path = write(tmp_path / "list", "path,label\nnear/1.png,x\n2.png,y\n")
    assert [row[0] for row in rows_of(open_list(str(path), None))] == ["2.png", "near/1.png"]


def test_the_same_row_again_is_left_out_and_noted(tmp_path):
    lay(tmp_path, "1.png", "2.png")
    path = write(tmp_path, "path,label,split,note\n1.png,a,train,k\n2.png,b,train,l\n./1.png,a,training,m\n")
    examples = open_list(str(path), None)
    assert rows_of(examples) == [("1.png", "a", "train"), ("2.png", "b", "train")]
    assert list(examples.columns["note"]) == ["k", "l"]
    assert "left out 1 row that repeat an earlier one: line 4 repeats `1.png`" in examples.notes


FAULTS = {
    "path,label\n1.png,a\n2.png,b\n1.png,b\n": (
        "gives one image two labels: `1.png` is `a` in line 2 and `b` in line 4",
        "keep one of the two rows",
    ),
    "path,label,split\n1.png,a,train\n2.png,b,train\n1.png,a,val\n1.png,a,test\n": (
        "gives one image two splits: `1.png` is `train` in line 2 and `val` in line 4; and 1 more such row",
        "keep one of the two rows",
    ),
    "path,label\n1.png,a\n2.png,\n": (
        "has rows without a label: line 3",
        "fill them in, or remove those rows",
    ),
    "path,label\n1.png,a\n,b\n": ("has rows without a path: line 3", "fill them in, or remove those rows"),
    "path,label,split\n1.png,a,train\n2.png,b,trian\n": (
        "has rows of no known split: line 3 `trian`",
        "did you mean `train`?",
    ),
    "path,label,split\n1.png,a,train\n2.png,b,\n": (
        "has rows of no known split: line 3 ``",
        "known: train, training, val, valid, validation, dev, test, testing",
    ),
    "path,label,split\n1.png,cat,train\n2.png,dog,train\n3.png,cta,val\n": (
        "has labels that no training row has: line 4 `cta`",
        "did you mean `cat`?",
    ),
    "path,label\n1.png,cat\n2.png,dog\n3.png,Cat\n": (
        "has labels that differ only by case: line 2 `cat`, line 4 `Cat`",
        "write them the same",
    ),
    "path,label\n1.png,a\n2.png,b,c\n": (
        "has 2 columns in its header, but line 3 has 3",
        'put quotes around a cell that holds the separator: `"a, b.jpg",cat`',
    ),
    "1.png,a\n2.png,b\n": (
        "has `1.png`, `a`; expected a column called `path` and one called `label`",
        "the first line names the columns: write `path,label` above the others",
    ),
    "path,kind\n1.png,a\n": (
        "has `path`, `kind`; expected a column called `label`",
        "name the columns: `list:{}?label=COLUMN`",
    ),
    "file,image,label\n1.png,2.png,a\n": (
        "has the columns `file`, `image`, any of which may be the path",
        "say which: `list:{}?path=file`",
    ),
    "path,path,label\n1.png,1.png,a\n": ("has two columns called `path`", None),
    "path,label\n": ("has a header and no rows", None),
    "": ("is empty", None),
    "path,label\nhttps://x.org/1.png,a\n2.png,b\n": (
        "names web addresses: line 2 `https://x.org/1.png`",
        "linne reads files only: download the images first",
    ),
    "path,label\n1,a\n2.png,b\n": (
        "names 1 file that is not there: line 2 `1`",
        "`1.png` is there: write paths with their ending",
    ),
    "path,label\n 1.png,a\n2.png,b\n": (
        "names 1 file that is not there: line 2 ` 1.png`",
        "take away the spaces round the path",
    ),
    "path,label\nd,a\n2.png,b\n": (
        "names 1 file that is not there: line 2 `d`",
        "paths are relative to `{dir}/`; `list:{}?images=DIR` names another folder",
    ),
    "path,label\nd\\4.png,a\n2.png,b\n": (
        "names 1 file that is not there: line 2 `d\\\\4.png`",
        "write `/` between folders, not a backslash",
    ),
    "path,label\n1\0.png,a\n2.png,b\n": (
        "names 1 file that is not there: line 2 `1\\x00.png`",
        "paths are relative to `{dir}/`; `list:{}?images=DIR` names another folder",
    ),
    "path,label\n" + "".join(f"{k}.jpg,{k % 2}\n" for k in range(1200)): (
        "names 1,200 files that are not there: line 2 `0.jpg`, line 3 `1.jpg`, line 4 `2.jpg`, line 5 `3.jpg`, "
        "line 6 `4.jpg` and 1,195 more",
        "paths are relative to `{dir}/`; `list:{}?images=DIR` names another folder",
    ),
}


@pytest.mark.parametrize("text", FAULTS, ids=lambda text: repr(text[:40]))
def test_what_cannot_be_used_is_refused_naming_its_line(tmp_path, text):
    lay(tmp_path, "1.png", "2.png", "3.png", "d/4.png")
    path = write(tmp_path, text)
    found, hint = FAULTS[text]
    assert refusal(path) == (f"`{path}` {found}", hint and hint.format(path, dir=tmp_path))


def test_a_list_of_which_nothing_trains_is_opened_to_evaluate_on_and_not_to_train(tmp_path):
    lay(tmp_path, "a.png", "b.png", "c.png")
    place = write(tmp_path, "path,label,split\na.png,cat,test\nb.png,dog,test\nc.png,dog,val\n")
    with pytest.raises(SourceError, match="has rows of `val`, `test` and none of `train`") as caught:
        open_source(str(place))
    assert caught.value.hint.startswith("`linne evaluate` takes it; to train, leave out the column of splits")
    source = open_source(str(place), must_train=False)
    assert {name: len(split) for name, split in source.splits.items()} == {"val": 1, "test": 2}
    assert "splits as the list states them: val 1, test 2" in source.notes


def test_a_list_of_one_class_is_refused(tmp_path):
    lay(tmp_path, "1.png", "2.png")
    path = write(tmp_path, "path,label,kind\n1.png,a,b\n2.png,a,c\n")
    assert refusal(path)[0] == f"`{path}` has only one class, `a`; expected at least two"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"path,label\n1.png,a\n2.png,caf\xe9\n", "is not UTF-8: line 3 has the byte 0xe9"),
        ("path,label\n1.png,a\n".encode("utf-16"), "is UTF-16, expected UTF-8"),
    ],
)
def test_a_list_in_another_encoding_is_refused_with_the_line(tmp_path, data, said):
    path = write(tmp_path, data)
    assert refusal(path) == (f"`{path}` {said}", "save it as UTF-8 (in a spreadsheet: `CSV UTF-8`)")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('path,label\n1.png,a\n"2.png,b\n', "line 3 of `{}` cannot be read: unexpected end of data"),
        ('path,label\n"1.png"x,a\n', "line 2 of `{}` cannot be read: ',' expected after '\"'"),
        (f'path,label\n1.png,"{"x" * 200_000}"\n', "line 2 of `{}` cannot be read: field larger than field limit"),
    ],
)
def test_quotes_that_do_not_close_are_refused_with_the_line(tmp_path, text, said):
    path = write(tmp_path, text)
    assert refusal(path)[0].startswith(said.format(path))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON (Expecting property name"),
        ("[1]", "is not an object"),
        ('{"path": "2.png", "label": NaN}', "is not JSON (NaN is not a JSON value)"),
        ('{"path": "2.png", "label": "a", "label": "b"}', "is not JSON (a field is there twice)"),
        ('{"path": "2.png", "label": "\\ud800"}', "is not JSON ('utf-8' codec"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_not_an_object_a_line_is_refused_with_the_line(tmp_path, line, said):
    path = write(tmp_path, f'{{"path": "1.png", "label": "a"}}\n\n{line}\n', "list.jsonl")
    assert refusal(path)[0].startswith(f"`{path}` cannot be read: line 3 {said}")


def test_json_values_become_the_text_that_stands_there_and_what_is_nested_is_not_used(tmp_path):
    lay(tmp_path, "1.png", "2.png", "3.png")
    lines = [
        {"path": "1.png", "label": 7, "age": 1.5, "boxes": [1], "seen": True},
        {"path": "2.png", "label": "7", "age": None, "late": "x"},
        {"path": "3.png", "label": False},
    ]
    path = write(tmp_path, "\n".join(map(json.dumps, lines)), "list.jsonl")
    examples = open_list(str(path), None)
    assert examples.labels == ("7", "false")
    assert {name: list(values) for name, values in examples.columns.items()} == {
        "age": ["1.5", "", ""],
        "seen": ["true", "", ""],
        "late": ["", "x", ""],
    }
    assert "columns not used, as they hold no text: `boxes`" in examples.notes
    write(tmp_path, '{"path": ["1.png"], "label": 1}\n', "list.jsonl")
    assert refusal(path)[0] == f"`{path}` has `label`, and `path` which hold no text; expected a column called `path`"


def test_a_parquet_list_takes_numbers_categories_and_nothing_and_counts_rows_from_one(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lay(tmp_path, "1.png", "2.png")
    table = {
        "path": pa.array(["1.png", "2.png", "3.png"]).dictionary_encode(),
        "label": pa.array([3, 12, None]),
        "raw": pa.array([b"x", b"y", b"z"]),
    }
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table(table), path)
    assert refusal(path)[0] == f"`{path}` has rows without a label: row 3"
    pq.write_table(pa.table(table).slice(0, 2), path)
    examples = open_list(str(path), None)
    assert examples.labels == ("12", "3")
    assert "columns not used, as they hold no text: `raw`" in examples.notes
    path.write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    assert refusal(path)[0].startswith(f"`{path}` cannot be read as Parquet: ")
    pq.write_table(pa.table({"image": [{"bytes": b"x"}], "label": [1]}), path)
    assert refusal(path)[1] == f"if the images are in the file itself, type `hf:{path}`"


def test_what_is_no_list_is_refused_with_what_to_type(tmp_path):
    write(tmp_path, "x", "list.xls")
    (tmp_path / "folder.csv").mkdir()
    endings = ".csv, .tsv, .jsonl, .ndjson, .parquet"
    assert refusal("") == ("`list:` expects a file", f"type `list:FILE`, with FILE ending in {endings}")
    assert refusal(tmp_path / "list.xls")[0].endswith(f"is not a list by its name; expected one ending in {endings}")
    assert refusal(tmp_path / "folder.csv")[0] == f"`{tmp_path}/folder.csv` is not a regular file"
    assert refusal(tmp_path / "folder.tsv") == (
        f"no list `{tmp_path}/folder.tsv`",
        f"did you mean `{tmp_path}/folder.csv`?",
    )


@pytest.mark.slow
def test_a_large_list_is_had_from_its_index_until_the_list_or_a_folder_changes(tmp_path):
    lay(tmp_path, "one.png")
    (tmp_path / "a").mkdir()
    for k in range(LEAST_FILES):
        (tmp_path / f"a/{k}.png").symlink_to(tmp_path / "one.png")
    rows = [(f"a/{k}.png", f"c{k % 7}", f"p{k % 11}") for k in range(LEAST_FILES)]
    text = as_csv([("path", "label", "patient"), *rows])
    path, twin = write(tmp_path, text), write(tmp_path, text, "twin.csv")
    time.sleep(2.1)  # until the times of change are ones that can be trusted
    first, again, _ = open_list(str(path), None), open_list(str(path), None), open_list(str(twin), None)
    assert len(list((Path(os.environ["LINNE_CACHE"]) / "index").iterdir())) == 2
    assert rows_of(again) == rows_of(first)
    assert list(again.columns["patient"]) == [row[2] for row in rows]
    assert again.notes == first.notes
    write(tmp_path, text.replace("a/5.png,c5", "a/5.png,c4"))
    assert rows_of(open_list(str(path), None)) != rows_of(first)
    (tmp_path / "a/5.png").unlink()  # not among the files that are watched; its folder is
    assert refusal(twin)[0] == f"`{twin}` names 1 file that is not there: line 7 `a/5.png`"


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=10)
# Names that file systems of any kind can hold.
NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\:"), min_size=1, max_size=12)
ROWS = st.dictionaries(
    NAMES.filter(lambda name: name not in (".", "..")),
    st.tuples(TEXTS.filter(lambda text: text.strip()), TEXTS),
    min_size=2,
    max_size=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, name=st.sampled_from(["list.csv", "list.tsv", "list.jsonl", "list.parquet"]))
def test_any_names_labels_and_further_values_are_had_back_as_they_were_written(tmp_path_factory, rows, name):
    root = tmp_path_factory.mktemp("any")
    labels = {unicodedata.normalize("NFC", label.strip()) for label, _ in rows.values()}
    assume(len({label.casefold() for label in labels}) == len(labels) > 1)
    lay(root, *(f"in/{path}" for path in rows))
    table = [("path", "label", "extra"), *((f"in/{path}", label, extra) for path, (label, extra) in rows.items())]
    examples = open_list(str(write(root, WRITERS[name](table), name)), None)
    assert [f"in/{path}" for path in rows] == list(examples.given["train"].store.paths)
    assert list(examples.columns["extra"]) == [extra for _, extra in rows.values()]
    assert len(examples.labels) == len(labels)
