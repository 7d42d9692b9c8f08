"""Images and texts in columns of Arrow tables, which lie memory-mapped on disk: opened at once, read when asked for."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

from linne.data.files import HASHED_BYTES
from linne.data.index import spread
from linne.data.source import Ints, Split, UInt8
from linne.errors import ImageError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False, slots=True)
class ArrowStore:
    """Encoded images in one column of bytes, the splits one after another."""

    images: pa.ChunkedArray
    """Arrow `binary` or `large_binary`."""
    prefixes: tuple[str, ...]
    """`train` makes the images `train[0]`, `train[1]` ..."""
    starts: tuple[int, ...]
    """Where the images of each prefix begin."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def array(self) -> UInt8 | None:
        return None

    def load(self, index: int) -> bytes | UInt8:
        """Return the bytes of image `index`.

        Raises:
            ImageError: the row is empty; the message names it.
        """
        data = self.images[index].as_py()
        if data is None:
            raise ImageError(f"`{self.name(index)}` cannot be read: its row holds no image")
        return bytes(data)

    def name(self, index: int) -> str:
        which = bisect_right(self.starts, index) - 1
        return f"{self.prefixes[which]}[{index - self.starts[which]}]"


@dataclass(frozen=True, eq=False, slots=True)
class ArrowTexts(Sequence[str]):
    """A column as texts; what is null is ""."""

    texts: pa.ChunkedArray
    """Of Arrow type `string`, without nulls."""

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return ArrowTexts(self.texts[index])
        return str(self.texts[index])

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts.to_pylist())


def arrow_identities(splits: Sequence[Split]) -> list[bytes]:
    """Return bytes for each split that change when one of its images does.

    Where all images together have no more than 256 MiB, they change with every byte. Beyond, they hang on the number,
    order and sizes of the images and on the bytes of 256 of them, so that a change elsewhere that keeps every size is
    not seen. Where the tables lie and how they are cut into files does not count.
    """
    import pyarrow.compute as pc

    store = splits[0].store
    assert isinstance(store, ArrowStore)
    sizes_N = pc.fill_null(pc.binary_length(store.images), 0).to_numpy().astype("<i8")
    total = sum(int(sizes_N[split.indices_N].sum()) for split in splits)
    return [_identity(split, sizes_N[split.indices_N].tobytes(), total <= HASHED_BYTES) for split in splits]


def _identity(split: Split, sizes: bytes, by_content: bool) -> bytes:
    store = split.store
    assert isinstance(store, ArrowStore)
    digest = hashlib.sha256(split.indices_N.astype("<i8").tobytes() + sizes)
    chosen_N = split.indices_N if by_content else split.indices_N[spread(len(split))]
    for index in chosen_N.tolist():
        digest.update(store.images[index].as_py() or b"")
    return digest.digest()


def joined(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return columns of one kind one after another; their content is not copied."""
    import pyarrow as pa

    if len({column.type for column in columns}) > 1:  # one writer's `binary` is another's `large_binary`
        columns = [column.cast(pa.large_binary()) for column in columns]
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)


def numbered(texts: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Return for each row the position of its text among the different texts, and these."""
    encoded = texts.dictionary_encode().unify_dictionaries()
    codes_N = np.concatenate([chunk.indices.to_numpy().astype(np.int64) for chunk in encoded.chunks])
    return codes_N, encoded.chunk(0).dictionary.to_pylist()
