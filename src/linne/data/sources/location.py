"""The options behind a source's place, as in `hf:NAME?image=photo,label=kind`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from linne.data.names import listed, printable
from linne.errors import SourceError, suggest


def split_options(kind: str, location: str, known: Sequence[str]) -> tuple[str, Mapping[str, str]]:
    """Return the place in `location` and the options behind its last `?`: `a.csv?label=kind` is `a.csv`, label `kind`.

    Commas stand between options, as in `synthetic:classes=4,size=16`: a shell has other plans with `&`. A `?` that no
    `name=` follows belongs to the place.

    Raises:
        SourceError: an option is unknown, empty or there twice.
    """
    place, mark, text = location.rpartition("?")
    if not mark or "=" not in text:
        return location, {}
    options: dict[str, str] = {}
    for option in text.split(","):
        name, _, value = option.partition("=")
        if name not in known:
            hint = suggest(name, known) or f"known: {', '.join(known)}"
            raise SourceError(f"`{kind}` has no option `{printable(name)}`", hint=hint)
        if not value or name in options:
            problem = "is given twice" if name in options else "has no value"
            raise SourceError(f"`{kind}` option `{name}` {problem}", hint=f"type `{kind}:PLACE?{name}=VALUE`")
        options[name] = value
    return place, options


def choose_column(kind: str, role: str, names: Sequence[str], stated: str, where: str) -> str:
    """Return `stated`, the column that an option names for `role`, where it is among `names`.

    Raises:
        SourceError: there is no such column in `where`.
    """
    if stated in names:
        return stated
    shown = [printable(name) for name in names]
    raise SourceError(
        f"`{where}` has no column `{printable(stated)}`, which `{kind}` was to take as {role}; it has "
        f"{listed(shown, 20)}",
        hint=suggest(stated, shown),
    )
