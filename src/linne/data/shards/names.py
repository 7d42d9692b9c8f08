"""Which tar files a user means by a folder, a file or a pattern, and which split each is for.

DIR                        every `.tar` in it, or in its split folders: DIR/train/000.tar
photos/train-{000..009}.tar   braces as WebDataset has them; a missing shard is an error
'photos/val-*.tar'         wildcards; what is there is taken
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linne.data.names import SPLIT_NAMES, counted, listed, printable
from linne.data.sources.walk import is_hidden
from linne.data.split import SPLITS
from linne.errors import SourceError

INFO = "_info.json"
"""What timm and `linne data pack` describe a folder of shards in."""
UNFINISHED = "unfinished.jsonl"
"""What `linne data pack` keeps its progress in until `_info.json` is written."""
INFOS = (INFO, "info.json")
CLASSES = ("classes.txt", "classnames.txt")
INFO_FILES = (*INFOS, *CLASSES)
"""All that is read beside shards; of each kind the first that is there."""
_COMPRESSED = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
_MOST = 1_000_000
_MOST_BRACES = 100
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_WORDS = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Shards:
    """Tar files that together are one source."""

    root: str
    """The folder that all lie below."""
    paths: tuple[str, ...]
    """Relative to `root`, with `/`, in the order of their samples."""
    whole: bool
    """Whether they are all that `root` has, rather than some picked by a pattern."""
    notes: tuple[str, ...] = ()


def holds_shards(folder: str) -> bool:
    """Return whether `folder` is one of shards, and not one of images beside which an archive lies.

    It is where tar files are all it has, or all that its split folders have; and where `linne data pack` wrote.
    """
    try:
        if os.path.isfile(os.path.join(folder, UNFINISHED)):
            return True
        folders, tars = _entries(folder)
        if tars:
            return not folders or os.path.isfile(os.path.join(folder, INFO))
        if not all(name.casefold() in SPLIT_NAMES for name in folders):
            return False
        inner = [_entries(os.path.join(folder, name)) for name in folders]
        return bool(inner) and all(tars and not nested for nested, tars in inner)
    except OSError:
        return False


def find_shards(location: str | None) -> Shards:
    """Return the tar files that `location` names: a folder, a file, or a pattern with braces or wildcards.

    Raises:
        SourceError: there are none, some of a range are missing, or they are not on this machine.
    """
    if not location:
        raise SourceError("`webdataset` needs the shards", hint=_TYPE)
    if location.startswith("pipe:") or "://" in location:
        raise SourceError(f"`{printable(location)}` is not on this machine; shards are read from disk", hint=_COPY)
    path = os.path.expanduser(location)
    if os.path.isdir(path):
        return _in_folder(path)
    paths = [path] if os.path.exists(path) else _matching(path)
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        number = f"{len(missing):,} of {len(paths):,} shards are" if len(paths) > 1 else "the shard is"
        raise SourceError(f"{number} not there: {listed([printable(path) for path in missing])}", hint=_TYPE)
    twice = sorted({path for path in paths if paths.count(path) > 1}) if len(set(paths)) < len(paths) else []
    if twice:
        raise SourceError(f"`{printable(location)}` names {listed([printable(path) for path in twice])} twice")
    full = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in full])
    if os.path.basename(root).casefold() in SPLIT_NAMES:  # DIR/train/*.tar: what describes them lies in DIR
        root = os.path.dirname(root)
    _check_finished(root)
    return Shards(root, tuple(_relative(path, root) for path in full), whole=False)


_TYPE = "type `webdataset:DIR`, or a pattern in quotes: `'webdataset:DIR/train-{000..009}.tar'`"
_COPY = "copy or download them first, then type `webdataset:DIR`"


def _relative(path: str, root: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def _entries(folder: str) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the tar files in `folder`, sorted, without what is hidden."""
    with os.scandir(folder) as scanned:
        entries = sorted((entry for entry in scanned if not is_hidden(entry.name)), key=lambda entry: entry.name)
    folders = [entry.name for entry in entries if entry.is_dir()]
    return folders, [entry.name for entry in entries if entry.name.lower().endswith(".tar") and entry.is_file()]


def _check_finished(folder: str) -> None:
    if os.path.isfile(os.path.join(folder, UNFINISHED)):
        raise SourceError(
            f"`{printable(folder)}` was not packed to its end",
            hint="type the same `linne data pack` again: it goes on where it stopped",
        )


def _in_folder(folder: str) -> Shards:
    _check_finished(folder)
    shown = printable(folder)
    try:
        folders, top = _entries(folder)
        in_splits = [name for name in folders if name.casefold() in SPLIT_NAMES]
        below = [f"{name}/{tar}" for name in in_splits for tar in _entries(os.path.join(folder, name))[1]]
        packed = sorted(name for name in os.listdir(folder) if name.lower().endswith(_COMPRESSED))
    except OSError as error:
        raise SourceError(f"`{shown}` cannot be listed: {(error.strerror or str(error)).lower()}") from error
    if top and below:
        raise SourceError(
            f"`{shown}` holds shards twice: {listed([printable(name) for name in top])} in it, and "
            f"{listed([printable(name) for name in below])} in split folders",
            hint="name those that are meant by a pattern, or take the others elsewhere",
        )
    if not top and not below:
        raise SourceError(
            f"`{shown}` holds no `.tar` files"
            + (f", and {counted(len(packed), 'compressed one')} ({listed(packed)})" if packed else ""),
            hint="unpack the compression, not the archives: `gunzip DIR/*.tar.gz`" if packed else _TYPE,
        )
    notes = [f"ignored {counted(len(packed), 'compressed archive')}: {listed(packed)}"] if packed else []
    return Shards(os.path.abspath(folder), tuple(top or below), whole=True, notes=tuple(notes))


def _matching(pattern: str) -> list[str]:
    """Return the paths that a pattern stands for; those without wildcards whether they are there or not."""
    paths: list[str] = []
    for expanded in expand_braces(pattern):
        if not glob.has_magic(expanded):
            paths.append(expanded)
            continue
        found = sorted(glob.glob(expanded))
        if not found:
            raise SourceError(f"no file matches `{printable(expanded)}`", hint=_TYPE)
        paths += found
    return paths


def expand_braces(pattern: str) -> list[str]:
    """Return what `pattern` stands for: `{08..11}` counts, keeping leading zeros, `{a,b}` are alternatives.

    Raises:
        SourceError: it stands for more than a million paths.
    """
    if pattern.count("{") > _MOST_BRACES:
        raise SourceError(f"a pattern of shards has {pattern.count('{'):,} braces, expected at most {_MOST_BRACES}")
    before, brace, rest = pattern.partition("{")
    inner, closing, after = rest.partition("}")
    if not brace or not closing:
        return [pattern]
    counting = _RANGE.fullmatch(inner)
    if counting is not None:
        first, last = int(counting[1]), int(counting[2])
        if abs(last - first) >= _MOST:
            raise SourceError(f"`{{{inner}}}` stands for {abs(last - first) + 1:,} shards, more than {_MOST:,}")
        width = len(counting[1]) if counting[1].startswith("0") or counting[2].startswith("0") else 0
        step = 1 if first <= last else -1
        choices = [f"{number:0{width}d}" for number in range(first, last + step, step)]
    elif "," in inner:
        choices = inner.split(",")
    else:
        choices = [f"{{{inner}}}"]  # not ours to read: left as typed
    tails = expand_braces(after)
    if len(choices) * len(tails) > _MOST:
        raise SourceError(f"`{printable(pattern)}` stands for more than {_MOST:,} shards")
    return [before + choice + tail for choice in choices for tail in tails]


def split_of(path: str) -> str | None:
    """Return the split that a shard is for by its folder or file name: `train/000.tar`, `imagenet-validation-07.tar`.

    Raises:
        SourceError: its name has two splits in it.
    """
    folder = os.path.basename(os.path.dirname(path)).casefold()
    if folder in SPLIT_NAMES:
        return SPLIT_NAMES[folder]
    found = {SPLIT_NAMES[word] for word in _WORDS.findall(os.path.basename(path).casefold()) if word in SPLIT_NAMES}
    if len(found) > 1:
        named = [name for name in SPLITS if name in found]
        raise SourceError(f"`{printable(path)}` names {listed(named)}; expected one split", hint="rename the shard")
    return next(iter(found), None)


def divide_shards(paths: Sequence[str], stated: Mapping[str, str]) -> tuple[dict[str, list[int]], list[str]]:
    """Return the positions in `paths` of each split's shards, and notes; `stated` is what an info file says.

    Where no shard names a split, or all name the same one, all are train.

    Raises:
        SourceError: only some shards name a split, or none of several splits is train.
    """
    named = [stated[path] if path in stated else split_of(path) for path in paths]
    without = [printable(path) for path, split in zip(paths, named, strict=True) if split is None]
    found = {split for split in named if split is not None}
    if without and found:
        raise SourceError(
            f"{listed(without)} {'names' if len(without) == 1 else 'name'} no split, and other shards do",
            hint="rename them, for example to `train-000.tar`, or leave them out by a pattern",
        )
    everything = {"train": list(range(len(paths)))}
    if not found:
        return everything, []
    if len(found) == 1:
        (only,) = found
        notes = [] if only == "train" else [f"all shards are of {only}: they are read as one set"]
        return everything, notes
    if "train" not in found:
        raise SourceError(f"the shards are of {listed(sorted(found))}, and none of train", hint=_TYPE)
    splits = {name: [k for k, split in enumerate(named) if split == name] for name in SPLITS if name in found}
    counts = ", ".join(f"{name} {len(positions):,}" for name, positions in splits.items())
    return splits, [f"shards of each split: {counts}"]
