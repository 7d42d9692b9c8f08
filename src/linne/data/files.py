"""Images that are files below one folder: what folders, lists and published sets of files have in common."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from linne.data.images.decode import read_file
from linne.data.names import printable
from linne.data.source import Ints, Split, UInt8

HASHED_BYTES = 256 * 2**20
"""Sets up to this size are fingerprinted by content, larger ones by names and sizes: reading them would take long."""


class Names(Sequence[str]):
    """Many texts as one run of bytes: a million paths take milliseconds to open from a file, as a tuple a second."""

    def __init__(self, text: NDArray[np.uint8], ends_N: Ints) -> None:
        self.text = text
        """The texts one after another, in the file system's encoding; may be a memory map."""
        self.ends_N = ends_N
        """Where each text ends."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Names:
        """Return `texts` packed; texts that are not valid Unicode, as file names may be, survive."""
        encoded = [os.fsencode(text) for text in texts]
        ends_N = np.cumsum([len(data) for data in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends_N)

    def __len__(self) -> int:
        return len(self.ends_N)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        return os.fsdecode(self.encoded(index))

    def encoded(self, index: int) -> bytes:
        """Return text `index` in the file system's encoding."""
        position = index + len(self) if index < 0 else index
        if position < 0:
            raise IndexError(index)
        end = self.ends_N.item(position)
        start = self.ends_N.item(position - 1) if position else 0
        return self.text[start:end].tobytes()

    def __iter__(self) -> Iterator[str]:
        data, start = self.text.tobytes(), 0
        for end in self.ends_N.tolist():
            yield os.fsdecode(data[start:end])
            start = end


@dataclass(frozen=True, eq=False, slots=True)
class FileStore:
    """Image files below a folder, read when asked for."""

    root: str
    paths: Names
    """Relative to `root`, with `/`."""
    sizes_N: Ints
    """In bytes, when the files were listed."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def array(self) -> UInt8 | None:
        return None

    def path(self, index: int) -> str:
        """Return where image `index` is."""
        return os.path.join(self.root, self.paths[index])

    def load(self, index: int) -> bytes | UInt8:
        """Return the bytes of file `index`.

        Raises:
            ImageError: the file cannot be read; the message begins with its name.
        """
        return read_file(self.path(index), name=self.name(index))

    def name(self, index: int) -> str:
        return printable(self.paths[index])


def file_identities(splits: Sequence[Split]) -> list[bytes]:
    """Return bytes for each split that change when the name or the size of one of its images does.

    Where all images together have no more than 256 MiB, they change with every byte of every image; beyond, a change
    that keeps a file's size is not seen. Times of change do not count: a copy of a folder has the same fingerprint.
    """
    sizes = [int(split.store.sizes_N[split.indices_N].sum()) for split in splits if isinstance(split.store, FileStore)]
    return [_identity(split, by_content=sum(sizes) <= HASHED_BYTES) for split in splits]


def _identity(split: Split, *, by_content: bool) -> bytes:
    store = split.store
    assert isinstance(store, FileStore)
    digest = hashlib.sha256()
    for index, size in zip(split.indices_N.tolist(), store.sizes_N[split.indices_N].tolist(), strict=True):
        content = _content(store.path(index), size) if by_content else b""
        digest.update(b"%s\0%d\0%s\n" % (store.paths.encoded(index), size, content))
    return digest.digest()


def _content(path: str, size: int) -> bytes:
    try:
        # Plain descriptors: for many small files, `open` costs more than the reading.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            return hashlib.sha256(os.read(descriptor, size + 1)).digest()
        finally:
            os.close(descriptor)
    except OSError:
        return b"unreadable"
