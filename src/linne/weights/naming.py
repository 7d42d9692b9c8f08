"""A file's names of tensors turned into the network's: wrappers' prefixes, old spellings, the authors' layouts."""

from __future__ import annotations

import importlib
import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

Tensors = dict[str, torch.Tensor]

PREFIXES = (
    "module.",
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
    "model.",
    "timm_model.",
    "backbone.",
    "net.",
    "network.",
    "encoder.",
    "teacher.",
    "student.",
)
"""What wrappers (DDP, compile, FSDP, Lightning, transformers, training scripts) put before every name."""
MAX_PREFIXES = 6
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d+)\.")
"""torchvision's densenets were saved when a layer could have a dot in its name."""


@dataclass(frozen=True, slots=True)
class Named:
    """A file's tensors under the network's names, as far as that could be found out."""

    tensors: Tensors
    resized: Mapping[str, torch.Size]
    """The shapes that tensors had before timm changed them to the network's."""
    notes: tuple[str, ...]
    """What was done."""


def name_for(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Named:
    """Return `tensors` under names of `network`. A step is taken only where more names match after it than before."""
    wanted = set(network.state_dict())
    named, notes = dict(tensors), []
    taken_off = ""
    for _ in range(MAX_PREFIXES):
        prefix, stripped = _best(named, wanted, _strips(named))
        if not prefix:
            break
        named, taken_off = stripped, taken_off + prefix
    if taken_off:
        notes.append(f"`{taken_off}` taken off the names")
    added, extended = _best(named, wanted, _extensions(network, named))
    # A file of the body alone, as transformers saves it. One name in a thousand matches by chance.
    if added and _matches(extended, wanted) > len(named) / 2:
        named = extended
        notes.append(f"`{added}` put before the names")
    respelt = {OLD_DENSENET.sub(r"\1\2.", name): tensor for name, tensor in named.items()}
    if _matches(respelt, wanted) > _matches(named, wanted):
        named = respelt
        notes.append("old densenet names respelt")
    if type(network).__module__.startswith("transformers.models."):
        return _by_transformers(network, named, wanted, notes)
    return _by_timm(network, named, wanted, notes)


def _best(tensors: Tensors, wanted: Collection[str], ways: Iterable[tuple[str, Tensors]]) -> tuple[str, Tensors]:
    """Return the way after which most names match, the first of equals, or ("", tensors) where none is better."""
    best, best_count, result = "", _matches(tensors, wanted), tensors
    for prefix, changed in ways:
        count = _matches(changed, wanted)
        if count > best_count:
            best, best_count, result = prefix, count, changed
    return best, result


def _strips(tensors: Tensors) -> Iterator[tuple[str, Tensors]]:
    """Yield the tensors without one known prefix, or several: names match only when the last is off."""
    starts = {name.partition(".")[0] + "." for name in tensors}
    for first in (prefix for prefix in PREFIXES if prefix in starts):
        taken, names = first, [name.removeprefix(first) for name in tensors if name.startswith(first)]
        yield taken, _strip(tensors, taken)
        for _ in range(MAX_PREFIXES):
            # The next one is the known prefix that most of the names go on with.
            counts = {prefix: sum(name.startswith(prefix) for name in names) for prefix in PREFIXES}
            following = max(counts, key=lambda prefix: counts[prefix])
            if not counts[following]:
                break
            taken, names = taken + following, [n.removeprefix(following) for n in names if n.startswith(following)]
            yield taken, _strip(tensors, taken)


def _strip(tensors: Tensors, prefix: str) -> Tensors:
    """Return the tensors without `prefix`; one with it wins over another that had the name already."""
    plain = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    return plain | {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _extensions(network: nn.Module, tensors: Tensors) -> Iterator[tuple[str, Tensors]]:
    """Yield the tensors under the paths of the network's outer modules."""
    for path, module in network.named_modules():
        if path and path.count(".") < 2 and any(module.children()):
            yield f"{path}.", {f"{path}.{name}": tensor for name, tensor in tensors.items()}


def _matches(tensors: Collection[str], wanted: Collection[str]) -> int:
    return sum(name in wanted for name in tensors)


def _by_timm(network: nn.Module, tensors: Tensors, wanted: Collection[str], notes: list[str]) -> Named:
    """Return the tensors after timm's own conversion for the network's family, where it has one.

    It turns the original authors' names into timm's and resizes position embeddings for the network's input size.
    """
    convert = _converter(network)
    if convert is None:
        return Named(tensors, {}, tuple(notes))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about how timm interpolates
            converted = convert(dict(tensors), network)
    except Exception as error:  # it expects files of its own family, and these may be of any other
        return Named(tensors, {}, (*notes, f"timm's conversion for this network failed: {error!r:.120}"))
    before = _matches(tensors, wanted)
    if not isinstance(converted, dict) or _matches(converted, wanted) < before:
        return Named(tensors, {}, tuple(notes))
    if _matches(converted, wanted) > before:
        notes.append("names converted from the authors' layout by timm")
    found = {name: tensor for name, tensor in converted.items() if isinstance(tensor, torch.Tensor)}
    resized = {n: tensors[n].shape for n in found if n in tensors and tensors[n].shape != found[n].shape}
    return Named(found, resized, tuple(notes))


def _by_transformers(network: nn.Module, tensors: Tensors, wanted: Collection[str], notes: list[str]) -> Named:
    """Return the tensors under the names that this release of transformers gives them.

    Its networks are saved under the names of older releases, and renamed as they are loaded: a second network of the
    same kind is loaded with them, and asked. What has another shape there keeps the file's name and shape.
    """
    from transformers.utils import logging as theirs

    before, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=[]):
            loaded, found = type(network).from_pretrained(  # type: ignore[attr-defined]
                None,
                config=network.config,
                state_dict=dict(tensors),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except Exception as error:  # it expects tensors of its own kind, and these may be of any other
        return Named(tensors, {}, (*notes, f"transformers' conversion for this network failed: {error!r:.120}"))
    finally:
        theirs.set_verbosity(before)
        if bars:
            theirs.enable_progress_bar()  # type: ignore[no-untyped-call]
    other_shape = {name for name, *_ in found["mismatched_keys"]}
    drawn = {*found["missing_keys"], *other_shape}
    named = {name: tensor for name, tensor in loaded.state_dict().items() if name not in drawn}
    named |= {name: tensors[name] for name in other_shape if name in tensors}
    if _matches(named, wanted) < _matches(tensors, wanted):
        return Named(tensors, {}, tuple(notes))
    left = {name: tensors[name] for name in found["unexpected_keys"] if name in tensors}
    return Named(named | left, {}, tuple(notes))


def _converter(network: nn.Module) -> Callable[[Tensors, nn.Module], Tensors] | None:
    """Return the function beside the network's class with which timm reads foreign files of that family, or None.

    It is a convention of timm's modules, not an interface: what it returns is checked, and doing without it is fine.
    """
    module = type(network).__module__
    if not module.startswith("timm.models."):
        return None
    found: Callable[[Tensors, nn.Module], Tensors] | None = getattr(
        importlib.import_module(module), "checkpoint_filter_fn", None
    )
    return found
