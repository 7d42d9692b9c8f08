"""Tar archives: every member is found where it lies, and a cut archive is never read as a shorter one."""

import io
import tarfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linne.data.shards.tar import BLOCK, members
from linne.errors import SourceError


def archive(*entries, form=tarfile.GNU_FORMAT):
    """Return a tar file of (name, bytes) or ready `TarInfo`s, as Python's own writer makes it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for entry in entries:
            info, data = (entry, b"") if isinstance(entry, tarfile.TarInfo) else (tarfile.TarInfo(entry[0]), entry[1])
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def found(data):
    return [(m.name, data[m.offset : m.offset + m.size]) for m in members(io.BytesIO(data), "a.tar")]


def refusal(data):
    with pytest.raises(SourceError) as caught:
        found(data)
    return caught.value.message


names = st.text(
    st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), min_size=1, max_size=300
).filter(lambda name: name not in (".", ".."))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_found_where_they_lie(form):
    entries = [("a.jpg", b"x" * 513), ("d/" * 40 + "long.cls", b""), ("é.txt", b"y" * 512)]
    assert found(archive(*entries, form=form)) == entries


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@given(st.lists(st.tuples(names, st.binary(max_size=1100)), max_size=4, unique_by=lambda entry: entry[0]))
@settings(max_examples=40, deadline=None)
def test_any_names_and_contents_are_read_as_pythons_reader_reads_them(form, entries):
    assert found(archive(*entries, form=form)) == entries


def test_a_leading_dot_slash_is_dropped_and_folders_are_passed_over():
    folder = tarfile.TarInfo("./d")
    folder.type = tarfile.DIRTYPE
    assert found(archive(folder, ("./d/a.jpg", b"1"))) == [("d/a.jpg", b"1")]


def test_sizes_past_octal_are_read():
    info = tarfile.TarInfo("big")
    info.size = 9 * 2**30
    assert (
        refusal(info.tobuf(tarfile.GNU_FORMAT)) == "`a.tar` is cut short: `big` has 9,663,676,416 bytes and 0 are left"
    )
    assert refusal(info.tobuf(tarfile.PAX_FORMAT)).endswith("`big` has 9,663,676,416 bytes and 0 are left")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.FIFOTYPE, "a named pipe"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"Z", "of the unknown kind `Z`"),
    ],
)
def test_what_is_not_a_plain_file_is_refused_by_name(kind, what):
    info = tarfile.TarInfo("x.jpg")
    info.type, info.linkname = kind, "/etc/passwd"
    data = info.tobuf(tarfile.USTAR_FORMAT) + bytes(2 * BLOCK)
    assert refusal(data) == f"`x.jpg` in `a.tar` is {what}; expected plain files only"


def test_a_sparse_file_in_pax_clothes_is_refused():
    info = tarfile.TarInfo("x.jpg")
    info.pax_headers = {"GNU.sparse.major": "1"}
    assert refusal(archive(info, form=tarfile.PAX_FORMAT)) == "`a.tar` holds a sparse file; expected plain files only"


def test_a_megabyte_of_small_pax_records_takes_no_seconds():
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**20 // BLOCK * BLOCK
    records = b"6 a=b\n" * ((info.size - 16) // 6)
    records += b"%d path=b.jpg\n" % 14 + bytes(info.size - len(records) - 14)
    start = time.perf_counter()
    assert found(info.tobuf() + records + archive(("a.jpg", b"1"))) == [("b.jpg", b"1")]
    assert time.perf_counter() - start < 1, "four seconds when each record copied the rest"


WHOLE = archive(("a.jpg", b"1" * 700), ("a.cls", b"3"), ("b" * 120 + ".jpg", b"2" * 10))
END = len(WHOLE.rstrip(b"\0")) // BLOCK * BLOCK + BLOCK
"""Where the blocks of the last member end."""


@pytest.mark.parametrize("cut", [*range(0, END + 1, 256), END + 1, END + BLOCK - 1])
def test_an_archive_cut_anywhere_is_an_error(cut):
    assert refusal(WHOLE[:cut]).startswith("`a.tar` is cut short: ")


def test_pythons_own_reader_does_lose_members_without_a_word():
    """Why this module exists; the day this fails, ask whether it still must."""
    second = 3 * BLOCK
    with tarfile.open(fileobj=io.BytesIO(WHOLE[:second])) as tar:
        assert tar.getnames() == ["a.jpg"]
    damaged = WHOLE[:second] + b"\x01" + WHOLE[second + 1 :]
    with tarfile.open(fileobj=io.BytesIO(damaged)) as tar:
        assert tar.getnames() == ["a.jpg"]
    assert refusal(damaged) == "`a.tar` is damaged: at byte 1,536 is no header of a member"


def test_what_follows_the_end_mark_is_not_overlooked():
    assert refusal(WHOLE + WHOLE) == "`a.tar` goes on after its end: were two archives joined?"
    assert len(found(WHOLE + bytes(10_000))) == 3


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "`a.tar` is cut short: it ends after 0 bytes without the empty block that closes an archive"),
        (b"\x1f\x8b" + bytes(600), "`a.tar` is compressed; images are read from anywhere in a shard, which"),
        (b"PK\x03\x04" + bytes(600), "`a.tar` is not a tar archive"),
    ],
)
def test_what_is_no_archive_is_refused(data, said):
    assert refusal(data).startswith(said)


@given(st.integers(0, END - 1), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_in_a_header_is_always_found(position, change):
    data = bytearray(WHOLE)
    data[position] ^= change
    plain = found(WHOLE)
    try:
        after = found(bytes(data))
    except SourceError:
        return
    # Only contents may differ: a name, a size or a place never does, the header's sum guards them.
    assert [len(content) for _, content in after] == [len(content) for _, content in plain]
    in_long_name = 6 * BLOCK <= position < 7 * BLOCK  # a name of its own block is content to the header's sum
    assert in_long_name or [name for name, _ in after] == [name for name, _ in plain]
