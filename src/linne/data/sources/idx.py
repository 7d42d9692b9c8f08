"""`mnist` and `fashion-mnist`: the official idx files, packed by gzip or not.

Format: http://yann.lecun.com/exdb/mnist (0, 0, type 8 = unsigned byte, number of dimensions; each dimension as
big-endian 32 bits; the bytes).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from linne.data.names import printable
from linne.data.places import Download, NamedSet, locate
from linne.data.source import UInt8
from linne.data.sources.arrays import array_identities, array_split, check_labels
from linne.data.split import Examples
from linne.errors import SourceError

_MAX_BYTES = 2**31
_DEFLATE_LIMIT = 1032
"""Bytes that one byte of deflate can stand for, at most: https://zlib.net/zlib_tech.html."""


def _spellings(stem: str, dimensions: int) -> tuple[str, ...]:
    names = (f"{stem}-idx{dimensions}-ubyte", f"{stem}.idx{dimensions}-ubyte")
    return (f"{names[0]}.gz", names[0], names[1], f"{names[1]}.gz")


_FILES = {
    "train images": _spellings("train-images", 3),
    "train labels": _spellings("train-labels", 1),
    "test images": _spellings("t10k-images", 3),
    "test labels": _spellings("t10k-labels", 1),
}
_MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
_FASHION_MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # the publisher's own, which has no https
)


def _download(mirrors: tuple[str, ...], name: str, size_bytes: int, md5: str, sha256: str) -> Download:
    urls = tuple(mirror + name for mirror in mirrors)
    return Download(name=name, urls=urls, size_bytes=size_bytes, md5=md5, sha256=sha256)


# Sizes and sha256: tensorflow/datasets, `url_checksums`. md5: torchvision for MNIST, whose publisher gives none, and
# the publisher's README for Fashion-MNIST.
_MNIST_HASHES = {
    "train-images-idx3-ubyte.gz": (
        *(9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train-labels-idx1-ubyte.gz": (
        *(28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "t10k-images-idx3-ubyte.gz": (
        *(1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        *(4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}
_FASHION_HASHES = {
    "train-images-idx3-ubyte.gz": (
        *(26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    "train-labels-idx1-ubyte.gz": (
        *(29_515, "25c81989df183df01b3e8a0aad5dffbe"),
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    "t10k-images-idx3-ubyte.gz": (
        *(4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        *(5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}
MNIST = NamedSet(
    name="mnist",
    about="70,000 handwritten digits, 28 x 28 grey",
    page="http://yann.lecun.com/exdb/mnist",
    official="MNIST/raw",
    files=_FILES,
    downloads=tuple(_download(_MNIST_MIRRORS, name, *rest) for name, rest in _MNIST_HASHES.items()),
    counts={"train": 60_000, "test": 10_000},
)
FASHION_MNIST = NamedSet(
    name="fashion-mnist",
    about="70,000 photos of clothes in ten kinds, 28 x 28 grey",
    page="https://github.com/zalandoresearch/fashion-mnist",
    official="FashionMNIST/raw",
    files=_FILES,
    downloads=tuple(_download(_FASHION_MIRRORS, name, *rest) for name, rest in _FASHION_HASHES.items()),
    counts={"train": 60_000, "test": 10_000},
)
_FASHION_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def open_mnist(location: str | None, root: Path | None) -> Examples:
    """Return MNIST with its official train and test splits; labels are `0` to `9`.

    Raises:
        SourceError: the files are not found, damaged, or not what their names say.
    """
    return _open(MNIST, tuple("0123456789"), location, root)


def open_fashion_mnist(location: str | None, root: Path | None) -> Examples:
    """Return Fashion-MNIST with its official train and test splits.

    Raises:
        SourceError: the files are not found, damaged, or not what their names say.
    """
    return _open(FASHION_MNIST, _FASHION_LABELS, location, root)


def _open(named: NamedSet, labels: tuple[str, ...], location: str | None, root: Path | None) -> Examples:
    paths = locate(named, location, root)
    given = {}
    for name in ("train", "test"):
        images_NHW = read_idx(paths[f"{name} images"], dimensions=3)
        labels_N = read_idx(paths[f"{name} labels"], dimensions=1).astype(np.int64)
        check_labels(labels_N, len(images_NHW), len(labels), f"`{printable(paths[f'{name} images'])}`")
        given[name] = array_split(name, images_NHW[..., None], labels_N, name)
    shapes = [split.pixels(0, 1).shape for split in given.values()]
    if shapes[0] != shapes[1]:
        train, test = (f"{height} x {width}" for height, width, _ in shapes)
        raise SourceError(f"`{named.name}` has train images of {train} and test images of {test} pixels")
    return Examples(
        labels=labels,
        given=given,
        channels=1,
        image_size=(shapes[0][0], shapes[0][1]),
        same_size=True,
        identities=array_identities,
        notes=(f"read from `{printable(paths['train images'].parent)}`",),
    )


def read_idx(path: Path, *, dimensions: int) -> UInt8:
    """Return the array in an idx file of unsigned bytes; gzip is recognised by content.

    The header is believed only as far as the file bears it out: a size that the file's length cannot hold is refused
    before memory is taken for it.

    Raises:
        SourceError: the file is not idx of that many dimensions, is damaged, or is longer or shorter than it says.
    """
    name = printable(path)
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        length = path.stat().st_size
        with gzip.open(path) if packed else open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            shape = _shape(header, dimensions, name)
            size = math.prod(shape)
            available = length * _DEFLATE_LIMIT if packed else length - len(header)
            if size > min(available, _MAX_BYTES):
                raise SourceError(f"`{name}` says it holds {size:,} bytes, more than its {length:,} bytes can")
            body = bytearray()
            # In pieces: memory follows what the file really holds, and one byte more than promised is enough to know.
            while len(body) <= size and (piece := file.read(min(2**20, size + 1 - len(body)))):
                body += piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"`{name}` is damaged: {error}", hint="get the file again") from error
    except OSError as error:
        raise SourceError(f"`{name}` cannot be read: {(error.strerror or str(error)).lower()}") from error
    if len(body) != size:
        amount = f"{len(body):,}" if len(body) < size else "more"
        raise SourceError(f"`{name}` should hold {size:,} bytes and holds {amount}", hint="get the file again")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _shape(header: bytes, dimensions: int, name: str) -> tuple[int, ...]:
    expected = bytes((0, 0, 8, dimensions))
    if header[:4] != expected:
        raise SourceError(f"`{name}` is not an idx file: it begins `{header[:4].hex()}`, expected `{expected.hex()}`")
    if len(header) < 4 + 4 * dimensions:
        raise SourceError(f"`{name}` ends within its header", hint="get the file again")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if min(shape) == 0:
        raise SourceError(f"`{name}` holds nothing: its size is {' x '.join(map(str, shape))}")
    return shape
