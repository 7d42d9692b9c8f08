"""How a bundle's files are written, read and checked: strict JSON, sealed `bundle.json`, sizes, sha256, migrations.

Knows bytes and shapes of data, not what they mean; `linne.bundle` does.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from linne.errors import BundleError, suggest
from linne.hash_ahead import HashAhead

FORMAT_VERSION = 2
MANIFEST = "bundle.json"
GRAPH = "model.onnx"
EXPORTS = "exports"
EXPORT_MANIFEST = "export.json"
AGAIN = "copy or download it again, or train again; nothing in it was used"

Migration = Callable[[Mapping[str, Any]], dict[str, Any]]
MIGRATIONS: Mapping[int, Migration] = {1: dict}
"""Format n to format n + 1: pure functions of the parsed `bundle.json`.

Format 2 lets `model.onnx` stand in the place of `model.safetensors`; every bundle of format 1 is one of format 2.
"""

# ImageNet-21k with its 21,843 names and four canaries makes 4 MB.
MAX_JSON_BYTES = 64 * 2**20
MAX_JSON_DEPTH = 16
MAX_FILES = 1000

_UNSEALED = "0" * 64
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


def parse_json(text: bytes, name: str, *, max_depth: int = MAX_JSON_DEPTH) -> dict[str, Any]:
    """Return the JSON object in `text`.

    Raises:
        BundleError: not UTF-8, not an object, a key twice, NaN or infinity, or nested deeper than `max_depth`.
    """
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_finite,
            parse_float=_finite,
        )
    except RecursionError:
        raise BundleError(f"`{name}` is nested deeper than {max_depth} levels") from None
    except ValueError as error:  # also what cannot be decoded, and numbers of thousands of digits
        raise BundleError(f"`{name}` is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise BundleError(f"`{name}` holds {_kind(value)}, expected an object")
    if _depth(value) > max_depth:
        raise BundleError(f"`{name}` is nested deeper than {max_depth} levels")
    return value


def to_json(value: Mapping[str, Any], name: str) -> bytes:
    """Return `value` as indented JSON with a final newline.

    Raises:
        BundleError: it holds NaN, infinity or something that is not JSON.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        # Paths that are not UTF-8 come as lone surrogates, for which Python's escape is also JSON's.
        return text.encode("utf-8", "backslashreplace") + b"\n"
    except (TypeError, ValueError) as error:
        raise BundleError(f"`{name}` cannot be written as JSON: {error}") from error


def seal(manifest: Mapping[str, Any], name: str = MANIFEST) -> bytes:
    """Return the bytes of file `name`: `manifest` and, last, the sha256 of those bytes with zeros in its place."""
    raw = to_json({**manifest, "checksum": _UNSEALED}, name)
    head, _, tail = raw.rpartition(_UNSEALED.encode())
    return head + hashlib.sha256(raw).hexdigest().encode() + tail


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return `bundle.json` without its seal, brought to `FORMAT_VERSION`; values are not checked yet.

    Raises:
        BundleError: unreadable, altered since it was written, or of a newer format.
    """
    raw = read_bytes(folder, MANIFEST)
    manifest = parse_json(raw, MANIFEST)
    # Before the seal, because a newer format may be sealed in another way.
    check_version(manifest)
    return migrate(unsealed(raw, manifest, MANIFEST))


def unsealed(raw: bytes, manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return `manifest`, which `raw` says, without its seal.

    Raises:
        BundleError: file `name` was altered since `seal` wrote it.
    """
    values = dict(manifest)
    checksum = values.pop("checksum", None)
    if not isinstance(checksum, str) or not _SHA256.fullmatch(checksum) or raw.count(checksum.encode()) != 1:
        raise BundleError(f"`{name}` has no checksum of its own: it was edited or damaged")
    found = hashlib.sha256(raw.replace(checksum.encode(), _UNSEALED.encode())).hexdigest()
    if found != checksum:
        raise BundleError(f"`{name}` was edited or damaged: its sha256 is {found[:12]}..., expected {checksum[:12]}...")
    return values


def check_version(manifest: Mapping[str, Any]) -> None:
    """Raise BundleError unless this linne reads the manifest's format."""
    found = manifest.get("format")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise BundleError(f"`{MANIFEST}` has format `{found}`, expected a whole number from 1 to {FORMAT_VERSION}")
    if found > FORMAT_VERSION:
        writer = manifest.get("linne")
        raise BundleError(
            f"written by linne {writer if isinstance(writer, str) else '(unknown)'} in bundle format {found}; "
            f"this linne reads up to format {FORMAT_VERSION}",
            hint="pip install --upgrade linne",
        )


def migrate(
    manifest: Mapping[str, Any], *, to: int = FORMAT_VERSION, migrations: Mapping[int, Migration] = MIGRATIONS
) -> dict[str, Any]:
    """Return `manifest` brought to format `to`, one version at a time; the argument is left as it is."""
    current = dict(manifest)
    while current["format"] < to:
        version = current["format"]
        if version not in migrations:
            raise BundleError(f"no way from bundle format {version} to {version + 1}")
        current = {**migrations[version](current), "format": version + 1}
    return current


def read_bytes(folder: Path, name: str) -> bytes:
    """Return a small file of the bundle.

    Raises:
        BundleError: missing, a link, not a file, or larger than `MAX_JSON_BYTES` (which is then not read).
    """
    with open_plain(folder, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_JSON_BYTES:
            raise BundleError(f"`{name}` has {size:,} bytes, expected at most {MAX_JSON_BYTES:,}")
        return file.read(MAX_JSON_BYTES)


def describe_file(folder: Path, name: str) -> dict[str, Any]:
    """Return {"sha256", "size_bytes"} of a file of the bundle."""
    with open_plain(folder, name) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "size_bytes": os.fstat(file.fileno()).st_size}


def check_files(
    folder: Path,
    files: Mapping[str, Mapping[str, Any]],
    *,
    later: Collection[str] = (),
    ahead: HashAhead | None = None,
) -> None:
    """Raise BundleError unless every file is there, plain, and has the size and sha256 listed.

    All sizes are compared before the first hash, so that a half-copied bundle is refused in no time. The sha256 of
    those in `later` is left to who reads them; what `ahead` has hashed is not hashed again.
    """
    for name, expected in files.items():
        with open_plain(folder, name) as file:
            size = os.fstat(file.fileno()).st_size
        if size != expected["size_bytes"]:
            problem = "cut short" if size < expected["size_bytes"] else "too long"
            raise BundleError(f"`{name}` is {problem}: {size:,} bytes, expected {expected['size_bytes']:,}")
    for name, expected in files.items():
        if name in later:
            continue
        found = (ahead and ahead.sha256(folder / name)) or describe_file(folder, name)["sha256"]
        if found != expected["sha256"]:
            raise BundleError(
                f"`{name}` was altered or damaged: its sha256 is {found[:12]}..., expected {expected['sha256'][:12]}..."
            )


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Let a BundleError out of the block with the bundle in `folder` named in it, and what to do."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"bundle `{folder}`: {error.message}", hint=error.hint or AGAIN) from error


def parse_files(value: Any) -> dict[str, dict[str, Any]]:
    """Return the list of files, checked for form: plain relative names, sha256 and sizes."""
    files = table(value, "files")
    if len(files) > MAX_FILES:
        raise BundleError(f"`files` lists {len(files):,} files, expected at most {MAX_FILES:,}")
    for name, entry in files.items():
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
            raise BundleError(f"`files` lists `{name}`, which is not a plain relative file name")
        exact_keys(entry, ("sha256", "size_bytes"), f"files.{name}")
        size, digest = entry["size_bytes"], entry["sha256"]
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise BundleError(f"`files.{name}.sha256` is `{digest}`, expected 64 hexadecimal digits")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
            raise BundleError(f"`files.{name}.size_bytes` is `{size}`, expected a size in bytes")
    return files


def exact_keys(value: Any, keys: tuple[str, ...], where: str) -> dict[str, Any]:
    """Return `value`, an object with exactly `keys`."""
    found = table(value, where)
    for key in found:
        if key not in keys:
            raise BundleError(f"unknown key `{key}` in `{where}`", hint=suggest(key, keys))
    for key in keys:
        if key not in found:
            raise BundleError(f"`{where}` has no `{key}`")
    return found


def table(value: Any, where: str) -> dict[str, Any]:
    """Return `value`, which must be a JSON object."""
    if not isinstance(value, dict):
        raise BundleError(f"`{where}` is {_kind(value)}, expected an object")
    return value


def open_plain(folder: Path, name: str) -> BufferedReader:
    """Return file `name` of the bundle, opened for reading.

    Raises:
        BundleError: missing, a link or under one, or not a file. Hard links are not noticed.
    """
    path = folder
    for part in name.split("/"):
        path = path / part
        try:
            mode = path.lstat().st_mode
        except OSError:
            raise BundleError(f"half-written or incomplete: `{name}` is not there") from None
        if stat.S_ISLNK(mode):
            raise BundleError(
                f"`{path.relative_to(folder)}` is a link, expected a file of its own",
                hint="copy the bundle with its links followed: `cp -rL`",
            )
    if not stat.S_ISREG(mode):
        raise BundleError(f"`{name}` is not a file")
    try:
        return open(path, "rb")
    except OSError as error:
        raise BundleError(f"`{name}` cannot be read: {error.strerror}") from error


def write_file(path: Path, content: bytes) -> None:
    """Write `content` and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content`, so that a reader sees the old or the new one, whole."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        write_file(partial, content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk, where the system can say so (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"key `{name}` appears twice")
        values[name] = value
    return values


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"`{text}` is not a finite number")
    return number


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [child for item in level for child in _children(item) if isinstance(child, (dict, list))]
    return depth


def _children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
