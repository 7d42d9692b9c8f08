"""Which entry of a checkpoint holds the network's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from linne.errors import LinneError

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema")
"""Running means of the weights, which classify better than the last ones: taken where a file has both."""
PLAIN = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights", "teacher")
MAX_DEPTH = 4


def tensors_in(checkpoint: Mapping[str, Any], origin: str) -> tuple[dict[str, torch.Tensor], str | None]:
    """Return the network's tensors in `checkpoint` and the path of the entry they are, None for the file as a whole.

    Raises:
        LinneError: no entry looks like a network's tensors.
    """
    found = next(_candidates(checkpoint, "", 0), None)
    if found is None:
        keys = ", ".join(f"`{key}`" for key in list(checkpoint)[:8]) or "nothing"
        raise LinneError(
            f"`{origin}` holds {keys}, none of which is a network's tensors by name",
            hint=f"known entries: {', '.join((*AVERAGED, *PLAIN))}; save `model.state_dict()` on its own",
        )
    path, mapping = found
    tensors = {name: value.detach() for name, value in mapping.items() if isinstance(value, torch.Tensor)}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise LinneError(f"`{origin}`: `{name}` is sparse, quantised or without values, expected plain numbers")
        # A view that repeats a few stored numbers could claim any size.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise LinneError(f"`{origin}`: `{name}` claims more numbers than the file holds")
    return tensors, path or None


def _candidates(value: Mapping[Any, Any], path: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield entries that hold tensors by name, the best first."""
    if depth > MAX_DEPTH:
        return
    for key in (*AVERAGED, *PLAIN):
        if isinstance(value.get(key), Mapping):
            yield from _candidates(value[key], f"{path}.{key}" if path else key, depth + 1)
    if any(isinstance(item, torch.Tensor) and item.ndim > 0 for item in value.values()) and all(
        isinstance(key, str) for key in value
    ):
        yield path, value
