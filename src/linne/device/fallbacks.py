"""Operators that a device left to the CPU: counted, named, and never silent.

torch's backends that fall back warn of it: DirectML, MPS and NPU with the operator's name, XPU where it is asked to
(`PYTORCH_DEBUG_XPU_FALLBACK`). All but NPU's say it once a process, unless torch is told to repeat itself.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

from linne.device.record import Device
from linne.errors import DeviceError

if TYPE_CHECKING:
    from torch._ops import OpOverload

_NAMED = re.compile(r"The operator '(\S+?)(?:'|\s?on the) .*(?:fall back|falling back) to run on the CPU", re.DOTALL)
_UNNAMED = re.compile(r"Aten Op fallback from \w+ to CPU")
_NO_NAME = "an operator that torch does not name"
NUM_NAMED = 5
"""Operators named in one line; the run's record has all."""


class Fallbacks:
    """The operators that one device left to the CPU so far, and how often each."""

    def __init__(self, device: Device, *, allowed: bool = True) -> None:
        self.device = device
        self.allowed = allowed
        self.counts: Counter[str] = Counter()

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Count what falls back inside. Other warnings go where they went before; nothing is watched on the CPU."""
        if not self.device.is_accelerator:
            yield
            return
        import torch

        repeats = torch.is_warn_always_enabled()
        torch.set_warn_always(True)
        try:
            with warnings.catch_warnings():
                for pattern in (_NAMED, _UNNAMED):
                    warnings.filterwarnings("always", message=f"(?s).*{pattern.pattern}")
                show = warnings.showwarning

                def count(
                    message: Warning | str,
                    category: type[Warning],
                    filename: str,
                    lineno: int,
                    file: TextIO | None = None,
                    line: str | None = None,
                ) -> None:
                    if not self.note(str(message)):
                        show(message, category, filename, lineno, file, line)

                warnings.showwarning = count
                yield
        finally:
            torch.set_warn_always(repeats)

    def note(self, text: str) -> bool:
        """Count the operator that a warning names, and return whether the warning was of a fallback."""
        named = _NAMED.search(text)
        if named is not None:
            self.counts[named[1]] += 1
        elif _UNNAMED.search(text):
            self.counts[_NO_NAME] += 1
        else:
            return False
        return True

    def add(self, operators: Iterable[str]) -> None:
        """Count operators that were found in another way."""
        self.counts.update(operators)

    def in_words(self) -> str | None:
        """Return what ran on the CPU, the most frequent first; None where nothing did."""
        if not self.counts:
            return None
        named = [f"{name} ({count:,} times)" for name, count in self.counts.most_common(NUM_NAMED)]
        more = len(self.counts) - len(named)
        listed = ", ".join(named) + (f" and {more} more" if more > 0 else "")
        return f"`{self.device.address}` left operators to the CPU: {listed}"

    def check(self) -> None:
        """Raise DeviceError if anything ran on the CPU that was not allowed to: `--require-accelerator`."""
        if self.counts and not self.allowed:
            raise DeviceError(
                f"{self.in_words()}, and an accelerator is required",
                hint="choose a model without them, update torch, or leave out --require-accelerator",
            )


def without_a_kernel(operators: Iterable[OpOverload[..., Any]], device: Device) -> list[str]:
    """Return which operators torch hands to the general fallback of a backend from outside, sorted by name.

    Such a backend may fall back without a word. Where it has no general fallback an operator without a kernel raises,
    and the dispatcher need not be asked; its questions are private to torch.
    """
    import torch

    asks: Any = torch._C
    key = "PrivateUse1"
    if device.torch_type not in (asks._get_privateuse1_backend_name(), "privateuseone"):
        return []
    if not asks._dispatch_has_backend_fallback(asks.DispatchKey.PrivateUse1):
        return []
    keys = (key, "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional", "CompositeImplicitAutograd")
    has_kernel = asks._dispatch_has_kernel_for_dispatch_key
    names = {str(cast(Any, operator).name()) for operator in operators}
    return sorted(name for name in names if not any(has_kernel(name, k) for k in keys))
