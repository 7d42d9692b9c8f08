"""The published sets that linne knows by name: the table behind `linne data get` and `linne data list`."""

from __future__ import annotations

from linne.data.names import printable
from linne.data.places import NamedSet
from linne.data.sources.cifar import CIFAR10, CIFAR100
from linne.data.sources.idx import FASHION_MNIST, MNIST
from linne.data.sources.imagenet import IMAGENET
from linne.data.sources.imagenette import IMAGENETTE
from linne.data.sources.tiny_imagenet import TINY_IMAGENET
from linne.errors import SourceError, suggest

PUBLISHED: dict[str, NamedSet] = {
    named.name: named for named in (MNIST, FASHION_MNIST, CIFAR10, CIFAR100, IMAGENETTE, TINY_IMAGENET, IMAGENET)
}


def published(name: str) -> NamedSet:
    """Return the set of that name.

    Raises:
        SourceError: there is none.
    """
    if name not in PUBLISHED:
        known = f"known: {', '.join(PUBLISHED)}"
        raise SourceError(f"no published set `{printable(name)}`", hint=suggest(name, PUBLISHED) or known)
    return PUBLISHED[name]
