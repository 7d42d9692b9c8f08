"""`hf:NAME` and `hf:DIR`: sets of the Hugging Face hub, saved with its `datasets` library, or lying as Parquet files.

Images come out of the tables undecoded, so that they become pixels by linne's own rules. No code of a set is run, and
only sets in Parquet or Arrow files are opened: the library's other readers unpack what linne has rules of its own for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from linne.data.names import SPLIT_NAMES, listed, printable
from linne.data.places import nearest_path
from linne.data.sources.hub_tables import examples_of
from linne.data.sources.location import split_options
from linne.data.split import Examples
from linne.download import is_offline
from linne.errors import LinneError, SourceError

if TYPE_CHECKING:
    from datasets import Dataset

_OPTIONS = ("image", "label", "revision")
_HUB_NAME = re.compile(r"(?P<name>[\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?:@(?P<config>[\w.+-]+))?")
_SAFE_READERS = ("parquet", "arrow", "cache")
"""Readers of `datasets` for files whose images are bytes in tables; `cache` has what one of them made before."""


def open_huggingface(location: str | None, root: Path | None) -> Examples:
    """Return the images and labels of a set, with the splits it defines.

    `location` is a folder or a Parquet file, or else `NAME` or `USER/NAME` on the hub with `@CONFIG` behind it where
    the set has several. `?image=COL,label=COL` says which columns are meant, `revision=` which version on the hub.
    Parquet files are converted once, by `datasets`, to memory-mapped files in its own cache folder.

    Raises:
        SourceError: nothing is there, it has no images, or it can be read in two ways.
        LinneError: `datasets` is not installed.
    """
    place, options = split_options("hf", location or "", _OPTIONS)
    if not place:
        raise SourceError("`hf:` expects a set", hint="type `hf:NAME` for one on the hub, or `hf:DIR`")
    path, named = Path(place).expanduser(), _HUB_NAME.fullmatch(place)
    try:
        exists = path.exists()
    except ValueError:  # a NUL in the path
        exists = False
    if not exists and (named is None or place.startswith((".", "~")) or path.suffix == ".parquet"):
        raise SourceError(f"no folder or file `{printable(place)}`", hint=nearest_path(path))
    if exists and "revision" in options:
        raise SourceError(f"`{printable(place)}` is on this disk, and has no revisions")
    _check_installed()
    try:
        if exists or named is None:
            tables = _local(path, printable(place))
            notes = [f"`{printable(place)}` is on this disk; nothing was looked for on the hub"] if named else []
        else:
            tables, notes = _hub(named["name"], named["config"], options.get("revision")), []
        return examples_of(tables, options, printable(place), notes)
    except LinneError:
        raise
    except Exception as error:  # two libraries, a network and a file format raise dozens of types
        raise _not_opened(place, error, offline=not exists and is_offline()) from error


def _not_opened(place: str, error: Exception, *, offline: bool) -> SourceError:
    said = " ".join(str(error).strip().splitlines()[:2]) or type(error).__name__
    hint = None
    if offline:
        hint = "linne is offline (`LINNE_OFFLINE`); open it once with the network, or type `hf:DIR`"
    elif "onfig name is missing" in said or "BuilderConfig" in said:
        hint = f"name one of its configurations: `hf:{printable(place.partition('@')[0])}@CONFIG`"
    return SourceError(f"`hf:{printable(place)}` cannot be opened: {printable(said[:300])}", hint=hint)


def _check_installed() -> None:
    # Read when they are imported: both report to their publisher what is opened by what, unless told not to.
    for setting, value in (("HF_UPDATE_DOWNLOAD_COUNTS", "0"), ("HF_HUB_DISABLE_TELEMETRY", "1")):
        os.environ.setdefault(setting, value)
    try:
        import datasets
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise LinneError(
            f"`hf:` needs `{error.name}`, which is not installed", hint="pip install 'linne[hf]'"
        ) from error
    if int(datasets.__version__.partition(".")[0]) < 4:
        raise LinneError(
            f"`datasets` is {datasets.__version__}; expected 4.0 or later, which never runs a set's own code",
            hint="pip install -U datasets",
        )
    if is_offline():
        # The switches of both libraries, which they read from the environment only once.
        datasets.config.HF_HUB_OFFLINE = True
        huggingface_hub.constants.HF_HUB_OFFLINE = True


def _local(path: Path, shown: str) -> Mapping[str, Dataset]:
    """Return what `save_to_disk` wrote, or Parquet files whose names say their splits."""
    import datasets

    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        loaded = datasets.load_from_disk(str(path))
        return {"train": loaded} if isinstance(loaded, datasets.Dataset) else loaded
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not files or (path.is_file() and path.suffix.lower() != ".parquet"):
        raise SourceError(
            f"`{shown}` is not a saved dataset and holds no Parquet files",
            hint="a folder of images is named by its path, without `hf:`; a list of files as `list:FILE`",
        )
    # Not `load_dataset(DIR)`: the folder's own description could send it to files elsewhere.
    return {
        name or "train": datasets.Dataset.from_parquet(list(map(str, of_split)), split=name or "train")
        for name, of_split in _by_split(path, files, shown).items()
    }


def _by_split(path: Path, files: Sequence[Path], shown: str) -> dict[str, list[Path]]:
    """Return the files of each split, "" for those whose names say none."""
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(_split_of(file.relative_to(path.parent if file == path else path)), []).append(file)
    if "" in found and len(found) > 1:
        raise SourceError(
            f"`{shown}` has files of {listed(sorted(set(found) - {''}))}, and others that name no split, such as "
            f"`{printable(found[''][0].name)}`",
            hint="name all files by their split, such as `train-0.parquet`, or none",
        )
    for name, of_split in found.items():
        folders = [printable(folder) for folder in sorted({file.relative_to(path).parent for file in of_split})]
        if len(folders) > 1:
            raise SourceError(
                f"`{shown}` has files of {name or 'no split'} in several folders: {listed(folders)}",
                hint=f"name one of them: `hf:{shown}/{folders[0]}`",
            )
    return found


def _split_of(path: Path) -> str:
    """Return our name of the split that a file's name or else its folder's names, "" where neither does."""
    for part in (path.stem, *(folder.name for folder in path.parents)):
        found = {SPLIT_NAMES[word] for word in re.split(r"[^a-z]+", part.lower()) if word in SPLIT_NAMES}
        if len(found) == 1:
            return found.pop()
    return ""


def _hub(name: str, config: str | None, revision: str | None) -> Mapping[str, Dataset]:
    import datasets

    builder = datasets.load_dataset_builder(name, config, revision=revision)
    if builder.repo_id is None:
        raise SourceError(f"`hf:{name}` names a reader of `datasets`, not a set", hint="a set is `hf:USER/NAME`")
    reader = type(builder).__module__.rpartition(".")[2]
    if reader not in _SAFE_READERS:
        raise SourceError(
            f"`hf:{name}` is kept as {printable(reader)}, which linne does not open through `datasets`",
            hint=f"the hub has most sets as Parquet too: `hf:{name}?revision=refs/convert/parquet`",
        )
    builder.download_and_prepare()
    prepared = builder.as_dataset()
    return {str(split): table for split, table in prepared.items()}
