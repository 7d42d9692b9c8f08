"""How much of a network a file fills, how much of the file it uses, and which network would fit better."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import nn

from linne.errors import LinneError
from linne.models import OWN, load_provider
from linne.models.provider import ModelRef
from linne.weights.naming import name_for
from linne.weights.roles import Roles, is_derived, is_spare, roles_of

LEAST_SHARE = 0.9
"""A network of which less is filled, classifier apart, is another one than the weights are of; the file likewise."""
MAX_GUESSES = 24
"""Networks built to find out which one weights are of: about a tenth of a second each, and no memory."""
COMMON = ("resnet18", "resnet50", "mobilenet_v2", "mobilenetv2_100", "efficientnet_b0", "vit_base_patch16_224")


@dataclass(frozen=True, slots=True)
class Share:
    """Fractions 0-1 of numbers, the classifier and what a network works out by itself apart."""

    filled: float
    """Of the network's, those that the file has."""
    used: float
    """Of the file's, those that have a place in the network."""

    @property
    def enough(self) -> bool:
        """Whether these are weights of this network."""
        return min(self.filled, self.used) >= LEAST_SHARE

    def __str__(self) -> str:
        return (
            f"{self.filled:.0%} of its numbers are in the file and {self.used:.0%} of the file's are in it, "
            "the classifier apart"
        )


def share_of(
    network: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], roles: Roles, misfits: frozenset[str]
) -> Share:
    """Return the share to which `found` and the tensors of `network` are the same, but for `misfits`."""
    apart = roles.classifier | roles.auxiliary
    body = {name: own.numel() for name, own in network.items() if name not in apart and not is_derived(name)}
    filled = sum(size for name, size in body.items() if name in found and name not in misfits)
    # What self-supervised training puts in the classifier's place may be as large as the network.
    heads = tuple(f"{name.rpartition('.')[0]}." for name in roles.classifier)
    of_file = {
        name: tensor.numel()
        for name, tensor in found.items()
        if not name.startswith(heads) and not is_spare(name) and not is_derived(name)
    }
    used = sum(size for name, size in of_file.items() if name in network)
    return Share(filled / max(sum(body.values()), 1), used / max(sum(of_file.values()), 1))


def network_like(tensors: Mapping[str, torch.Tensor], full_name: str, origin: str) -> str | None:
    """Return the full name of a network that the tensors are weights of, or None when none of a few candidates is."""
    for provider, name in _candidates(full_name, origin):
        ref = ModelRef(provider=provider, name=name, num_classes=1000, channels=3, height=224, width=224, options={})
        try:
            with torch.device("meta"):
                network = load_provider(provider).build(ref)
        except (LinneError, RuntimeError, NotImplementedError):  # some cannot be built on shapes alone
            continue
        if _fits(network, tensors):
            return ref.full_name
    return None


def _fits(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> bool:
    # Their shapes are enough, and the values may be gigabytes.
    found = name_for(network, {name: tensor.to("meta") for name, tensor in tensors.items()}).tensors
    own = network.state_dict()
    misfits = frozenset(name for name in own if name in found and own[name].shape != found[name].shape)
    return share_of(own, found, roles_of(network), misfits).enough


def _candidates(full_name: str, origin: str) -> Iterator[tuple[str, str]]:
    """Yield up to `MAX_GUESSES` (provider, name).

    In order: the network that was asked for, what the file is called, what most people use, relatives.
    """
    own_provider, _, bare = full_name.rpartition("/")
    providers = sorted(("timm", "torchvision"), key=lambda provider: provider != own_provider)
    known = {p: load_provider(p).names() for p in providers if load_provider(p).why_unavailable() is None}
    file_name = re.split(r"[\\/]", origin.rstrip("\\/"))[-1].lower()
    stem = re.match(r"[a-z]*", bare)
    family = stem.group() if stem else bare
    called, relatives = list[str](), list[str]()
    for names in known.values():
        called += sorted((name for name in names if file_name.startswith(name)), key=len, reverse=True)[:2]
        relatives += get_close_matches(bare, [name for name in names if family in name], n=6, cutoff=0.5)
    pairs = [(p, name) for name in dict.fromkeys([*called, *COMMON, *relatives]) for p in known if name in known[p]]
    # First the network itself, in its plain form and at the size it was designed for.
    yield from list(dict.fromkeys([(own_provider or OWN, bare), *pairs]))[:MAX_GUESSES]
