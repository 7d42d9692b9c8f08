"""Archives: honest ones come out whole, hostile ones write nothing outside and stop at the limits."""

import bz2
import gzip
import io
import lzma
import os
import random
import stat
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linne.archive import MAX_RATIO, extract, safe_parts
from linne.archive_members import BadArchive, tar_members
from linne.errors import SourceError

NOISE = random.Random(0).randbytes(600_000)
FILES = {"set/a/1.jpg": b"one", "set/b/é.jpg": NOISE, "set/words.txt": b"", "top.txt": b"x" * 511}


def tar(members, mode="w", **options):
    """Pack `members`: a mapping, or a list of (TarInfo, bytes)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode, **options) as archive:
        pairs = (
            [(info(name, size=len(data)), data) for name, data in members.items()]
            if isinstance(members, dict)
            else members
        )
        for member, data in pairs:
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def info(name, kind=tarfile.REGTYPE, size=0, **fields):
    made = tarfile.TarInfo(name)
    made.type, made.size = kind, size
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def zipped(members, method=zipfile.ZIP_DEFLATED):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice, on purpose
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return packed.getvalue()


def entry(name, mode=0, **fields):
    """A zip's entry that keeps its name as it is given."""
    made = zipfile.ZipInfo("x")
    made.filename, made.external_attr, made.create_system = name, mode << 16, 3
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def unpack(data, folder, **options):
    archive = folder / "archive"
    archive.write_bytes(data)
    return extract(archive, folder / "into", **options)


def tree(folder):
    """Return every path below `folder`, with the bytes of files."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


# Honest archives


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(zipped(FILES), id="zip"),
        pytest.param(zipped(FILES, zipfile.ZIP_STORED), id="zip stored"),
        pytest.param(tar(FILES), id="tar"),
        pytest.param(tar(FILES, format=tarfile.GNU_FORMAT), id="tar gnu"),
        pytest.param(tar(FILES, "w:gz"), id="tar.gz"),
        pytest.param(tar(FILES, "w:bz2"), id="tar.bz2"),
        pytest.param(tar(FILES, "w:xz", preset=0), id="tar.xz"),
        pytest.param(tar({"./": b""} and {f"./{name}": data for name, data in FILES.items()}), id="tar of ."),
    ],
)
def test_every_kind_comes_out_as_it_went_in(tmp_path, data):
    seen = []
    out = unpack(data, tmp_path, progress=seen.append)
    into = tmp_path / "into"
    assert {name: data for name, data in tree(into).items() if data is not None} == FILES
    assert (out.num_files, out.size_bytes) == (4, sum(map(len, FILES.values())))
    assert seen == sorted(seen)
    assert seen[-1] >= out.size_bytes
    assert sorted(os.listdir(tmp_path)) == ["archive", "into"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_single_packed_file_comes_out_under_its_name_without_the_ending(tmp_path, pack):
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(pack(NOISE))
    extract(tmp_path / "images-idx3-ubyte.gz", tmp_path / "into")
    assert tree(tmp_path / "into") == {"images-idx3-ubyte": NOISE}


def test_long_names_empty_folders_and_many_members_come_out(tmp_path):
    long = "/".join(["d" * 200] * 5) + "/" + "é" * 120
    members = [(info("empty/", tarfile.DIRTYPE), b""), (info(long, size=3), b"abc")]
    members += [(info(f"many/{k}.txt", size=1), b"x") for k in range(300)]
    for number, form in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)):
        (tmp_path / str(number)).mkdir()
        out = unpack(tar(members, format=form), tmp_path / str(number))
        assert out.num_files == 301
        assert (tmp_path / str(number) / "into" / long).read_bytes() == b"abc"
        assert (tmp_path / str(number) / "into/empty").is_dir()


def test_a_zip_whose_directory_only_its_wide_record_describes_comes_out(tmp_path):
    data = zipped(FILES)
    _, _, _, _, num, size, at, _ = struct.unpack("<4s4H2LH", data[-22:])
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, num, num, size, at)
    where = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(data) - 22, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    unpack(data[:-22] + wide + where + end, tmp_path)
    assert {name: data for name, data in tree(tmp_path / "into").items() if data is not None} == FILES


def test_a_zip_with_sizes_in_its_wide_fields_comes_out(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive, archive.open("a", "w", force_zip64=True) as file:
        file.write(b"data")
    unpack(packed.getvalue(), tmp_path)
    assert tree(tmp_path / "into") == {"a": b"data"}


def test_tars_inside_a_tar_stay_files_unless_asked_for(tmp_path):
    data = tar({"n01.tar": tar({"1.JPEG": b"one", "2.JPEG": NOISE}), "n02.tar": tar({"1.JPEG": b"two"}), "x": b""})
    unpack(data, tmp_path)
    assert list(tree(tmp_path / "into")) == ["n01.tar", "n02.tar", "x"]
    extract(tmp_path / "archive", tmp_path / "flat", inner_tars=True)
    files = {name: data for name, data in tree(tmp_path / "flat").items() if data is not None}
    assert files == {"n01/1.JPEG": b"one", "n01/2.JPEG": NOISE, "n02/1.JPEG": b"two", "x": b""}


def test_rights_and_owners_are_the_systems(tmp_path):
    unpack(tar([(info("a", size=1, mode=0o4777, uid=99), b"x")]), tmp_path)
    mode = (tmp_path / "into/a").stat().st_mode
    assert stat.S_IMODE(mode) == 0o666 & ~umask()
    assert (tmp_path / "into/a").stat().st_uid == os.getuid()


def umask():
    now = os.umask(0)
    os.umask(now)
    return now


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    (tmp_path / "into").mkdir()
    with pytest.raises(SourceError, match="is there already; expected a new folder to unpack `archive` to"):
        unpack(tar(FILES), tmp_path)
    assert tree(tmp_path / "into") == {}


# Hostile archives


def links():
    for kind, name in ((tarfile.SYMTYPE, "symlink"), (tarfile.LNKTYPE, "hardlink")):
        for target in ("../../victim", "/etc/hostname", "a"):
            yield f"tar {name} to {target}", tar([(info("a", kind, linkname=target), b"")])
    yield (
        "tar file through symlink",
        tar([(info("d", tarfile.SYMTYPE, linkname=".."), b""), (info("d/victim", size=1), b"!")]),
    )
    chain = [(info(f"{'x' * 240}/{k}", tarfile.SYMTYPE, linkname="x" * 240 + "/../" * 20), b"") for k in range(20)]
    yield "tar chain of links up to PATH_MAX", tar([*chain, (info("last", size=1), b"!")])
    yield "tar device", tar([(info("zero", tarfile.CHRTYPE, devmajor=1, devminor=5), b"")])
    yield "tar block device", tar([(info("disk", tarfile.BLKTYPE, devmajor=8), b"")])
    yield "tar pipe", tar([(info("pipe", tarfile.FIFOTYPE), b"")])
    yield "tar kind of tomorrow", tar([(info("odd", b"9"), b"")])
    yield "tar sparse", tar([(info("holes", tarfile.GNUTYPE_SPARSE, size=0), b"")], format=tarfile.GNU_FORMAT)
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "h", "GNU.sparse.realsize": "99"}
    yield "tar sparse by pax", tar([(info("holes", size=512, pax_headers=pax), b"0\n".ljust(512, b"\0"))])
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK):
        yield f"zip mode {kind:o}", zipped([(entry("a", kind | 0o777), b"../../victim")])


NAMES = {
    "upward": "../victim",
    "upward twice": "../../victim",
    "upward inside": "a/../../victim",
    "upward at the end": "a/..",
    "absolute": "/tmp/linne-victim",
    "absolute doubled": "//tmp/linne-victim",
    "drive": "C:/victim",
    "drive relative": "C:victim",
    "share": "\\\\server\\share\\victim",
    "backslash upward": "..\\victim",
    "stream": "a:stream",
    "newline": "a\nb",
    "escape": "\x1b[2J",
    "del": "a\x7f",
    "long": "a" * 256,
    "long in utf-8": "é" * 128,
}


def names():
    for what, name in NAMES.items():
        yield f"tar {what}", tar({name: b"!"})
        yield f"zip {what}", zipped([(entry(name), b"!")])
    yield "zip NUL", zipped([(entry("name"), b"!")]).replace(b"name", b"na\0e")
    yield "tar pax NUL", tar([(info("a", size=1, pax_headers={"path": "a\0b"}), b"!")])
    yield "tar pax upward", tar([(info("a", size=1, pax_headers={"path": "../victim"}), b"!")])
    yield "tar name that is not Unicode", tar([(info("a\udcff", size=1), b"!")], format=tarfile.GNU_FORMAT)
    yield "tar nameless", tar([(info("./", size=1), b"!")])


def collisions():
    for one, other in (
        ("a", "a"),
        ("a/x", "A/y"),
        ("ß", "ss"),
        ("é", "e\u0301"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("D/", "d"),
    ):
        pairs = [(info(n, tarfile.DIRTYPE if n.endswith("/") else tarfile.REGTYPE), b"") for n in (one, other)]
        yield f"tar {one!a} and {other!a}", tar(pairs)
        yield f"zip {one!a} and {other!a}", zipped([(entry(one), b""), (entry(other), b"")])


def headers():
    body = tar({"a": b"data" * 300})
    bad = bytearray(body)
    bad[124:136] = b"\xff" * 12  # a size of -1
    yield "tar negative size", fix(bad)
    bad[124:136] = b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7
    yield "tar size of 2**63", fix(bad)
    bad[124:136] = b"77777777777\0"
    yield "tar size beyond its end", fix(bad)
    yield "tar cut in a member", body[:700]
    yield "tar cut in a header", body[:2048] + body[:100]
    yield "tar without its end", body[:2048]
    yield "tar junk for a header", body[:2048] + b"junk" * 128 + bytes(1024)
    yield "tar checksum", body[:2048] + bytes([body[0] ^ 1]) + body[1:]
    yield "pax size negative", tar([(info("a", size=1, pax_headers={"size": "-512"}), b"!")])
    yield "pax size of 5,000 digits", tar([(info("a", size=1, pax_headers={"size": "9" * 5000}), b"!")])
    yield "pax recursion", b"".join(b for _ in range(900) for b in (pax_block(b"9 a=bbbb\n"),)) + body
    yield "gz cut", gzip.compress(body)[:-9]
    yield "gz bit", flip(gzip.compress(tar({"a": NOISE}), 0))
    yield "bz2 cut", bz2.compress(body)[:-9]
    yield "bz2 bit", flip(bz2.compress(tar({"a": NOISE[:9999]})))
    yield "xz cut", lzma.compress(body)[:-9]
    yield "xz two streams", lzma.compress(body) * 2
    yield "xz that wants four gigabytes", greedy_xz()
    whole = zipped({"a": NOISE[:5000], "b": b"x"}, zipfile.ZIP_STORED)
    yield "zip bit", flip(whole, 3000)
    yield "zip cut", whole[:-30]
    yield "zip without its directory", whole[: whole.index(b"PK\x01\x02")]
    yield "zip directory beyond its end", whole[:-6] + struct.pack("<L", 2**31) + whole[-2:]
    yield "zip entry elsewhere", whole.replace(struct.pack("<L", 5031) + b"b", struct.pack("<L", 77) + b"b")
    yield "zip encrypted", zip_field(whole, 8, 1)
    yield "zip method 99", zip_field(whole, 10, 99)
    yield "zip says more than there is", zip_field(zipped({"a": b"data" * 99}), 24, 10**9)
    yield "zip of bzip2", zipped({"a": b"data"}, zipfile.ZIP_BZIP2)
    yield "text", b"<html>not found</html>" * 99
    yield "nothing", b""
    yield "rar", b"Rar!\x1a\x07\x01\x00" + bytes(600)


def fix(header):
    """Return the tar with the checksum of its first header put right."""
    header = bytearray(header)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


def pax_block(record):
    return fix(info("x", b"x", len(record)).tobuf(tarfile.USTAR_FORMAT)) + record.ljust(512, b"\0")


def flip(data, at=None):
    at = len(data) // 2 if at is None else at
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def zip_field(data, offset, value):
    """Return the zip with a field of its first directory entry changed."""
    at = data.index(b"PK\x01\x02") + offset
    width = 4 if offset >= 16 else 2
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


def greedy_xz():
    data = bytearray(lzma.compress(b"x", preset=0))
    size = (data[12] + 1) * 4
    assert data[14:16] == b"\x21\x01", "LZMA2 with one byte of properties"
    data[16] = 40
    data[12 + size - 4 : 12 + size] = struct.pack("<L", zlib.crc32(data[12 : 12 + size - 4]))
    return bytes(data)


HOSTILE = dict([*links(), *names(), *collisions(), *headers()])


def test_there_are_more_than_forty_of_them():
    assert len(HOSTILE) > 90


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_leaves_nothing_inside_and_nothing_outside(tmp_path, what):
    box = tmp_path / "deep/deeper"
    box.mkdir(parents=True)
    (tmp_path / "victim").write_bytes(b"untouched")
    (tmp_path / "deep/victim").write_bytes(b"untouched")
    (box / "archive").write_bytes(HOSTILE[what])
    before = tree(tmp_path)
    with pytest.raises(SourceError) as caught:
        extract(box / "archive", box / "into")
    assert tree(tmp_path) == before
    assert not os.path.lexists("/tmp/linne-victim")
    assert caught.value.message.startswith(f"`{box}/archive` is not unpacked: ")
    assert caught.value.message.isprintable()
    assert caught.value.message.isascii()
    assert caught.value.hint == "get it again, from its publisher"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("tar symlink to a", "`a` is a symbolic link"),
        ("tar hardlink to a", "`a` is a hard link"),
        ("tar device", "`zero` is a device"),
        ("tar sparse by pax", "`h` is a file with holes"),
        ("zip mode 120000", "`a` is a symbolic link"),
        ("tar upward inside", "`a/../../victim` leads upward"),
        ("zip absolute", "`/tmp/linne-victim` is an absolute path"),
        ("zip drive", "`C:/victim` holds a backslash or a colon"),
        ("tar newline", "`a\\nb` holds a control character, or is not Unicode"),
        ("tar long", f"`{'a' * 100}...` has a part of more than 255 bytes"),
        ("tar 'a' and 'a'", "`a` is there twice, in two spellings (case, accents), or as file and folder"),
        ("zip 'a/x' and 'A/y'", "`A` is there twice, in two spellings (case, accents), or as file and folder"),
        ("tar cut in a member", "it is damaged: it ends too early"),
        ("tar without its end", "it is damaged: it ends without its end mark"),
        ("gz bit", "it is damaged: crc check failed"),
        ("xz that wants four gigabytes", "it is damaged: memory usage limit exceeded"),
        ("zip bit", "it is damaged: `a` does not have the bytes it should"),
        ("zip encrypted", "`a` is encrypted"),
        ("zip method 99", "`a` is packed by method 99, expected 0 or 8 (deflate)"),
        ("text", "it is neither zip nor tar, nor packed by gzip, bzip2 or xz"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, what, said):
    with pytest.raises(SourceError) as caught:
        unpack(HOSTILE[what], tmp_path)
    assert caught.value.message.removeprefix(f"`{tmp_path}/archive` is not unpacked: ").startswith(said)


@given(st.text(alphabet=st.sampled_from("./\\:a\0é\u0301C~ "), max_size=12))
def test_no_name_ever_leads_out(name):
    try:
        parts = safe_parts(name)
    except BadArchive:
        return
    path = os.path.normpath(os.path.join("/root", *parts))
    assert path == "/root" or path.startswith("/root/")
    assert not any(part in ("", ".", "..") or set(part) & set("/\\:\0") for part in parts)


# Bombs


ZEROS = bytes(40 * 2**20)
BOMBS = {
    "gz": lambda: gzip.compress(ZEROS, 1),
    "bz2": lambda: bz2.compress(ZEROS, 1),
    "xz": lambda: lzma.compress(ZEROS, preset=0),
    "tar.gz": lambda: gzip.compress(tar({"a": ZEROS}), 1),
    "zip": lambda: zipped({"a": ZEROS}),
    "zip of many": lambda: zipped({f"{k}": ZEROS[: 2**20] for k in range(40)}),
    "skipped": lambda: gzip.compress(tar([(info("d/", tarfile.DIRTYPE, size=0), b"")])[:512] + ZEROS, 1),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_stops_within_a_tenth_of_the_limit_and_takes_no_memory(tmp_path, what):
    data = BOMBS[what]()
    limit = max(10**7, MAX_RATIO * len(data))
    seen = []
    tracemalloc.start()
    try:
        with pytest.raises(SourceError):
            unpack(data, tmp_path, progress=seen.append)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(seen, default=0) <= 1.1 * limit
    assert peak < len(data) + 12 * 2**20
    assert os.listdir(tmp_path) == ["archive"]


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_asks_for_a_gigabyte_gets_a_megabyte(tmp_path, kind):
    data = gzip.compress(fix(info("x", kind, 2**30).tobuf(tarfile.GNU_FORMAT)) + ZEROS, 1)
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="a member has headers of more than 1,048,576 bytes"):
            unpack(data, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < len(data) + 8 * 2**20
    finally:
        tracemalloc.stop()


def test_members_are_not_remembered():
    data = fix(info("a").tobuf()) * 5000 + bytes(1024)
    tracemalloc.start()
    try:
        assert sum(1 for _ in tar_members(iter([data]))) == 5000
        assert tracemalloc.get_traced_memory()[1] < 2**19
    finally:
        tracemalloc.stop()


def test_bytes_and_files_have_limits_of_their_own(tmp_path):
    data = tar({f"d/{k}": NOISE[:1000] for k in range(50)})
    with pytest.raises(SourceError, match="it holds more than 20,000 bytes"):
        unpack(data, tmp_path, max_bytes=20_000)
    with pytest.raises(SourceError, match="it holds more than 50 files and folders"):
        unpack(data, tmp_path, max_files=50)
    assert unpack(data, tmp_path, max_files=51).num_files == 50


def test_a_disk_that_cannot_hold_it_is_said_and_left_clean(tmp_path, python):
    (tmp_path / "archive").write_bytes(tar({"a": NOISE}))
    code = """
import resource, signal
from pathlib import Path
from linne.archive import extract
from linne.errors import SourceError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    extract(Path("archive"), Path("into"))
except SourceError as error:
    print(error.message)
"""
    ended = python("-c", code, cwd=tmp_path)
    assert ended.stdout.strip() == "`archive` cannot be unpacked to `into`: file too large", ended.stderr
    assert os.listdir(tmp_path) == ["archive"]
