"""The verbs of `linne data` as functions: fetch, show, check, split and pack what is learned from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.log import Narrator

if TYPE_CHECKING:
    from linne.checking import CheckReport
    from linne.data import Source, SourceListing
    from linne.data.shards.pack import PackResult
    from linne.data.sources.get import Got
    from linne.data.split_files import SplitFile


def list_sources() -> list[SourceListing]:
    """Return what can be given as a source: what it is, where it is looked for, and whether it is there."""
    from linne.data import list_sources as listed

    return listed()


def get_data(
    name: str, *, root: str | Path | None = None, offline: bool = False, force: bool = False, quiet: bool = False
) -> Got:
    """Fetch the published set `name`, checked and unpacked, and return where it is and what is in it.

    Args:
        root: Folder that holds named sets, instead of `$LINNE_DATA` and the user's data folder.
        offline: Open no connection; archives that lie in ROOT/NAME or ROOT are unpacked.
        force: Fetch and unpack it even where it is here already.
        quiet: Say nothing on stderr.

    Raises:
        SourceError: it is not known, cannot be fetched, or is not what was published.
    """
    from linne.data.sources.get import get
    from linne.data.sources.published import published

    folder = None if root is None else Path(root)
    return get(published(name), root=folder, offline=offline, force=force, narrator=Narrator(quiet=quiet))


def check_data(
    source: str | Source,
    *,
    html: str | Path | None = None,
    quarantine: str | Path | None = None,
    without: str | Path | None = None,
    splits_file: str | Path | None = None,
    group_by: str | None = None,
    quiet: bool = False,
) -> CheckReport:
    """Look at every image of `source`, and return what is wrong with it; `severity` says whether it should stop you.

    Args:
        html: Write a page with the images found.
        quarantine: Write a list of images better left out, with those of `without`.
        without: Leave out what such a list names, as training will.
        splits_file: Splits to judge leaks by; `group_by` likewise makes them. Neither goes with a `Source`.
        quiet: Show no progress on stderr.

    Raises:
        LinneError: something given cannot be used, or a file would be replaced that is not linne's.
    """
    from linne.checking import check, write_page
    from linne.checking.page import check_replaceable
    from linne.data.quarantine import check_free, read_quarantine, save_quarantine

    for path, ready in ((quarantine, check_free), (html, check_replaceable)):
        if path is not None:
            ready(Path(path))
    if isinstance(source, str):
        source = _open(source, splits_file=splits_file, quarantine=without, group_by=group_by)
    report = check(source, narrator=Narrator(quiet=quiet))
    if html is not None:
        write_page(Path(html), report, source)
    if quarantine is not None:
        before = {} if without is None else read_quarantine(Path(without))
        images = {**before, **report.quarantine}
        save_quarantine(Path(quarantine), images, source=source.name, fingerprint=report.fingerprint)
    return report


def show_data(
    source: str | Source,
    output: str | Path,
    *,
    split: str = "train",
    count: int = 25,
    seed: int = 0,
    quiet: bool = False,
) -> None:
    """Write a figure of `count` images of a split with their labels to `output`.

    Args:
        output: A PNG file; one that linne wrote is replaced, nothing else is.
        seed: Decides which images.
        quiet: Say nothing on stderr: neither the source's notes nor which images could not be read.

    Raises:
        LinneError: something given cannot be used, or none of the images can be read.
    """
    from linne.showing import draw_examples, require_count, require_place, write_figure

    require_count(count)
    require_place(Path(output))
    narrator = Narrator(quiet=quiet)
    if isinstance(source, str):
        source = _open(source, splits_file=None, quarantine=None)
    for note in source.notes:
        narrator.line(note)
    figure, unread = draw_examples(source, split, count, seed)
    for problem in unread:
        narrator.warn(f"left out: {problem}")
    write_figure(Path(output), figure)


def split_data(source: str, file: str | Path, *, folds: int | None = None, **options: Any) -> Sequence[SplitFile]:
    """Write which example of `source` is in which split to `file`, and return what was written.

    Args:
        folds: Write as many files, each with one fold for val and all with the same test.
        options: As for `linne.open_source`: `val_fraction`, `test_fraction`, `split_seed`, `group_by`, `quarantine`.

    Raises:
        SourceError: the source cannot be used, or a file is there already.
        RecipeError: an option cannot be used.
    """
    from linne.data.split_files import write_splits

    return write_splits(source, Path(file), folds=folds, **options)


def pack_data(
    source: str | Source,
    out: str | Path,
    *,
    size: int | None = 256,
    image_format: str | None = None,
    quality: int = 90,
    shard_size_mb: int = 256,
    max_unreadable: int | None = None,
    splits_file: str | Path | None = None,
    quarantine: str | Path | None = None,
    quiet: bool = False,
) -> PackResult:
    """Write `source` to the folder `out` as WebDataset shards of resized images, and return what is there then.

    Args:
        size: Pixels of the shorter edge; None keeps every image at its size.
        image_format: `jpg`, `png` or `raw`; None for jpg, or png for a source that is pixels.
        max_unreadable: Images that cannot be read and may be left out; None for a thousandth, or 10 if that is more.
        splits_file, quarantine: As for `linne.open_source`; neither goes with a `Source`.
        quiet: Show no progress on stderr.

    Raises:
        SourceError: `out` holds something else, or lies inside the source.
        CheckFailed: too many images cannot be read.
    """
    from linne.data.shards.pack import pack
    from linne.data.shards.pack_image import PackSettings, usual_format

    if isinstance(source, str):
        source = _open(source, splits_file=splits_file, quarantine=quarantine)
    return pack(
        source,
        out,
        PackSettings(size=size, format=image_format or usual_format(source), quality=quality),
        shard_size_bytes=shard_size_mb * 10**6,
        max_unreadable=max_unreadable,
        narrator=Narrator(quiet=quiet),
    )


def _open(
    name: str, *, splits_file: str | Path | None, quarantine: str | Path | None, group_by: str | None = None
) -> Source:
    from linne.data import open_source

    return open_source(
        name,
        splits_file=None if splits_file is None else Path(splits_file),
        quarantine=None if quarantine is None else Path(quarantine),
        group_by=group_by,
    )
