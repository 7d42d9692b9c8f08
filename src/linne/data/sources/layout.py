"""How a folder of images is read: split folders or none, class folders, labels by name.

DIR/cat/1.jpg  DIR/dog/2.jpg                             classes; linne makes the splits
DIR/train/cat/1.jpg  DIR/val/cat/2.jpg  DIR/test/...     splits of classes, by any of `names.SPLIT_NAMES`
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linne.data.names import SPLIT_NAMES, counted, label_of, listed, printable
from linne.data.sources.walk import Entries, join, list_folder, walk
from linne.data.split import SPLITS
from linne.errors import SourceError, suggest

Images = Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Layout:
    """The images of a folder, sorted into splits and classes."""

    root: str
    labels: tuple[str, ...]
    splits: Mapping[str, Mapping[str, Images]]
    """For each split, for each label that has any, the path and size of its images."""
    seen: Entries
    """Everything that was met in the folders that are used."""
    notes: tuple[str, ...]
    folders: tuple[str, ...]
    """Every folder that was looked into, the root as an empty text: what changes in none of them changes nothing."""


def read_layout(root: str, shown: str) -> Layout:
    """Return how the folder `root` (a real path) is laid out; `shown` is what to call it in messages.

    The classes are those of train, sorted by name, whatever the other splits hold.

    Raises:
        SourceError: it holds no classes, only one, empty ones, ones that differ only by case or Unicode spelling, a
            class in val or test that train does not have, or split folders that can be read in two ways.
    """
    top = list_folder(root, "")
    folders, notes, looked = _split_folders(root, top, shown)
    in_splits = folders != {"train": ""}
    seen = [top]
    found: dict[str, dict[str, Entries]] = {}
    for name, folder in folders.items():
        own = list_folder(root, folder) if in_splits else top
        found[name] = {path: walk(root, path) for path in own.folders}
        seen += [own] * in_splits + list(found[name].values())
        notes += _say_loose(own, printable(folder) or shown) if own.folders else []
    notes += _say_loose(top, shown) if in_splits else []
    splits = {name: _by_label(classes) for name, classes in found.items()}
    labels = _labels(splits["train"], root, shown, top)
    for name in [name for name in splits if name != "train"]:
        if any(entries.images for entries in splits[name].values()):
            notes += _match(splits[name], labels, name, folders)
        else:
            del splits[name]
            notes.append(f"`{printable(folders[name])}` is not used: its class folders hold no images")
    images = {n: {label: c.images for label, c in sorted(s.items()) if c.images} for n, s in splits.items()}
    met = join(seen)
    listed_once = tuple(dict.fromkeys((*met.listed, *looked)))
    return Layout(root, labels, images, met, (*notes, *_say_nested(splits)), listed_once)


def _say_loose(entries: Entries, where: str) -> list[str]:
    """Return a note on images that lie beside class folders."""
    number = counted(len(entries.images), "image")
    return [f"ignored {number} directly in `{where}`: they belong to no class"] if entries.images else []


def _split_folders(root: str, top: Entries, shown: str) -> tuple[dict[str, str], list[str], Sequence[str]]:
    """Return the folder of each split, in the order of `SPLITS`, `{"train": ""}` where the top holds classes.

    Also notes, and the folders that were looked into to decide it.
    """
    named = [folder for folder in top.folders if folder.casefold() in SPLIT_NAMES]
    with_classes = [folder for folder in named if list_folder(root, folder).folders]
    others = [folder for folder in top.folders if folder not in named]
    if not with_classes:
        if named and not others:
            raise SourceError(
                f"`{printable(named[0])}` in `{shown}` holds no class folders",
                hint=f"put each class's images in a folder of its own, such as `{printable(named[0])}/cat/1.jpg`",
            )
        notes = [f"`{printable(folder)}` is read as a class: it holds no folders" for folder in named]
        return {"train": ""}, notes, named
    folders: dict[str, str] = {}
    for folder in with_classes:
        name = SPLIT_NAMES[folder.casefold()]
        if name in folders:
            raise SourceError(
                f"`{printable(folders[name])}` and `{printable(folder)}` in `{shown}` both name the {name} split",
                hint="remove or rename one of them",
            )
        folders[name] = folder
    if "train" not in folders:
        classes = [folder for folder in others if walk(root, folder).images]
        if classes:
            raise _two_readings(shown, *folders.popitem(), classes)
        raise SourceError(
            f"`{shown}` has {listed([printable(f) for f in with_classes])} but no `train` with class folders",
            hint="rename the folder of the training images to `train`, or name a folder of classes",
        )
    notes, looked = _pass_over(root, folders, [f for f in named if f not in with_classes], others, shown)
    ordered = {name: folders[name] for name in SPLITS if name in folders}
    recognised = ", ".join(f"{name} is `{printable(folder)}`" for name, folder in ordered.items())
    return ordered, [f"split folders found: {recognised}", *notes], (*named, *looked)


def _pass_over(
    root: str, folders: Mapping[str, str], flat: Sequence[str], others: Sequence[str], shown: str
) -> tuple[list[str], Sequence[str]]:
    """Return notes on the folders beside the splits that are not used, and all folders that were looked into."""
    notes = []
    for folder in flat:
        number = counted(len(list_folder(root, folder).images), "image")
        notes.append(f"`{printable(folder)}` is not used: it holds {number} and no class folders")
    met = {folder: walk(root, folder) for folder in others}
    with_images = [folder for folder, entries in met.items() if entries.images]
    if with_images and len(folders) == 1:
        raise _two_readings(shown, "train", folders["train"], with_images)
    if with_images:
        notes.append(f"not used: {listed([printable(f) for f in with_images])}, beside the split folders")
    return notes, join(met.values()).listed


def _two_readings(shown: str, split: str, folder: str, classes: Sequence[str]) -> SourceError:
    name = printable(folder)
    return SourceError(
        f"`{shown}` can be read in two ways: `{name}` holds folders, as a split does, and beside it are "
        f"{listed([printable(one) for one in classes])}, as classes are",
        hint=f"rename `{name}` if it is a class; move the others elsewhere if it is the {split} split",
    )


def _by_label(classes: Mapping[str, Entries]) -> dict[str, Entries]:
    """Return the classes of one split by label; `classes` is by path."""
    spelt: dict[str, str] = {}
    by_label = {}
    for path, entries in classes.items():
        label = label_of(os.path.basename(path))
        other = spelt.setdefault(label.casefold(), path)
        if other != path:
            raise SourceError(
                f"the class folders {listed(_tell_apart(other, path))} differ only by case or Unicode spelling",
                hint="put the images of both into one of them: not every system can tell them apart",
            )
        by_label[label] = entries
    return by_label


def _tell_apart(one: str, other: str) -> list[str]:
    """Return both paths printable; as code points where they would look the same."""
    shown = [printable(one), printable(other)]
    return shown if label_of(one) != label_of(other) else [path.encode("unicode_escape").decode() for path in shown]


def _labels(classes: Mapping[str, Entries], root: str, shown: str, top: Entries) -> tuple[str, ...]:
    """Return the labels of the training classes, sorted."""
    labels = tuple(sorted(classes))
    if not labels and top.images:
        raise SourceError(
            f"`{shown}` holds {counted(len(top.images), 'image')} but no class folders",
            hint="put each class's images in a folder of its own, such as `DIR/cat/1.jpg`",
        )
    if not any(entries.images for entries in classes.values()):
        raise SourceError(f"`{shown}` holds no images{_explain(join(classes.values()), top)}", hint=_LAYOUT_HINT)
    empty = [label for label in labels if not classes[label].images]
    if empty:
        verb = "has" if len(empty) == 1 else "have"
        why = _explain(join(classes[label] for label in empty))
        raise SourceError(
            f"{'class' if len(empty) == 1 else 'classes'} {listed(empty, 5)} {verb} no images{why}",
            hint="add images, or remove the folder if it is not a class",
        )
    if len(labels) == 1:
        inside = _inner(root, classes[labels[0]])
        raise SourceError(
            f"`{shown}` has only one class, `{labels[0]}`; expected at least two",
            hint=f"did you mean `{shown.rstrip('/')}/{inside}`?" if inside else "add a folder for each other class",
        )
    return labels


_LAYOUT_HINT = "linne expects one folder a class, such as `DIR/cat/1.jpg` and `DIR/dog/1.jpg`"


def _inner(root: str, only: Entries) -> str | None:
    """Return the folder that holds the classes where the only class is a wrapper around them."""
    parents = {os.path.dirname(folder) for folder in only.folders}
    inner = min(parents, key=len, default=None)
    return printable(inner) if inner and len(only.folders) > 1 else None


def _explain(*met: Entries) -> str:
    """Return what there is instead of images, in parentheses."""
    seen = join(met)
    kinds = sorted({os.path.splitext(path)[1].lower() or "without extension" for path in seen.others})
    found = [f"{counted(len(seen.others), 'other file')}: {printable(', '.join(kinds[:5]))}"] if kinds else []
    if seen.links:
        found.append(f"{counted(len(seen.links), 'link')} not followed")
    return f" ({'; '.join(found)})" if found else ""


def _match(classes: Mapping[str, Entries], labels: Sequence[str], name: str, folders: Mapping[str, str]) -> list[str]:
    """Return notes on classes that the split `name` lacks; raise for those that train lacks."""
    unknown = [label for label, entries in classes.items() if entries.images and label not in labels]
    if unknown:
        shown = [f"{printable(folders[name])}/{label}" for label in unknown]
        lacks = f"which `{printable(folders['train'])}` does not have"
        raise SourceError(
            f"{listed(shown, 5)} {'is a class' if len(unknown) == 1 else 'are classes'} {lacks}",
            hint=suggest(unknown[0], labels) or "add training images of it, or remove it",
        )
    missing = [label for label in labels if label not in classes or not classes[label].images]
    return [f"{name} has no images of {listed(missing, 5)}"] if missing else []


def _say_nested(splits: Mapping[str, Mapping[str, Entries]]) -> list[str]:
    nested = [folder for classes in splits.values() for entries in classes.values() for folder in entries.folders]
    if not nested:
        return []
    shown = listed([printable(folder) for folder in nested])
    return [f"images in {counted(len(nested), 'folder')} inside class folders belong to those classes: {shown}"]
