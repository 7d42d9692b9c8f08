"""From facts to findings: files, sizes, brightness and classes; copies are in `duplicates`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from linne.checking import containers
from linne.checking.duplicates import BLANK
from linne.checking.facts import Facts
from linne.checking.report import NOTE, STOP, WARNING, Example, Finding, Group, named
from linne.data.images.headers import FORMATS
from linne.data.names import counted
from linne.data.source import Ints, Split

BAD_SHARE, BAD_COUNT = 0.01, 10
"""Unreadable images that training puts up with: one in a hundred, or ten in a small set (`data.max_bad_images`)."""
TINY_CLASS = 10
IMBALANCE = 10
_FENCE = 3.0
"""Quartile ranges beyond a quartile that make an outlier: "far out" in Tukey, Exploratory Data Analysis, 1977."""
_CONVERTED = (
    (
        containers.TURNED,
        "turned",
        "with an EXIF orientation",
        "turned upright here; other programs may show them lying",
    ),
    (containers.ALPHA, "transparent", "with transparency", "put on white"),
    (containers.ANIMATED, "animated", "with several frames", "the first frame is used"),
    (containers.CMYK, "cmyk", "in CMYK", "converted to RGB without a colour profile"),
    (containers.DEEP, "deep", "with more than 8 bits a channel", "scaled to 8 bits"),
    (containers.PROFILE, "profile", "with a colour profile", "the profile is ignored; colours may shift a little"),
)


def single(facts: Facts, labels: Sequence[str], n: int, note: str = "") -> Group:
    """Return image n alone."""
    return Group((example(facts, labels, n),), note)


def example(facts: Facts, labels: Sequence[str], n: int) -> Example:
    """Return what to say of image n."""
    return Example(facts.name(n), labels[facts.labels_N[n]], facts.split(n).name, int(facts.positions_N[n]))


def file_findings(facts: Facts, labels: Sequence[str]) -> Iterator[Finding]:
    """Yield what is wrong or particular with files: unreadable, named otherwise, converted while decoding."""
    if facts.problems:
        num_bad = len(facts.problems)
        groups = [single(facts, labels, n, problem) for n, problem in sorted(facts.problems.items())]
        severity = STOP if num_bad > max(BAD_SHARE * len(facts), BAD_COUNT) else WARNING
        advice = "training leaves them out, and gives up over many; get them again, or keep a list with `--quarantine`"
        title = f"{counted(num_bad, 'image')} cannot be read"
        yield Finding("unreadable", severity, title, advice, tuple(groups))
    rows_N = facts.rows_N
    wrong = np.flatnonzero(rows_N["named_otherwise"])
    if len(wrong):
        groups = [single(facts, labels, n, f"is {FORMATS[rows_N['format'][n]]}") for n in wrong.tolist()]
        advice = "read by what they hold, here and in prediction; some programs go by the name and fail"
        yield Finding("mistyped", NOTE, f"{counted(len(wrong), 'file')} named as another format", advice, tuple(groups))
    for flag, kind, what, done in _CONVERTED:
        found = np.flatnonzero(rows_N["flags"] & flag)
        if len(found):
            groups = [single(facts, labels, n) for n in found.tolist()]
            yield Finding(kind, NOTE, f"{counted(len(found), 'image')} {what}: {done}", "", tuple(groups))


def pixel_findings(facts: Facts, labels: Sequence[str]) -> Iterator[Finding]:
    """Yield images that stand out: of one colour, very small or large, long, dark or bright, grey among colours."""
    rows_N = facts.rows_N
    readable = np.flatnonzero(rows_N["readable"])
    rows_N = rows_N[readable]
    if len(rows_N) == 0:
        return
    height, width, mean = (rows_N[field].astype(np.float64) for field in ("height", "width", "mean"))
    blank = rows_N["deviation"] < BLANK
    short, aspect = np.minimum(height, width), np.log(width / height)
    area = np.log(height * width)
    side = f"{np.median(short):.0f}"
    looked_at = (
        ("blank", WARNING, blank, "of one even colour", "nothing can be learnt from them", mean, "brightness {:.0f}"),
        ("small", WARNING, _far(area, -2 * np.log(3)) & (short < 32), f"much smaller than the rest (median {side} px)",
         "often previews or icons that a download left instead of the image", short, "{:.0f} px"),
        ("large", NOTE, _far(area, 2 * np.log(4)), f"much larger than the rest (median {side} px)",
         "slow to decode; `linne data pack` resizes once", short, "{:.0f} px"),
        ("long", NOTE, _far(aspect, -np.log(2.5)) | _far(aspect, np.log(2.5)), "of an unusual shape",
         "the centre that a model sees may miss what they show", width / height, "width is {:.2g} times the height"),
        ("dark", NOTE, _few(~blank & (mean < 16)), "nearly black", "", mean, "brightness {:.0f} of 255"),
        ("bright", NOTE, _few(~blank & (mean > 240)), "nearly white", "", mean, "brightness {:.0f} of 255"),
    )  # fmt: skip
    for kind, severity, which, what, advice, values, form in looked_at:
        found = np.flatnonzero(which)
        if len(found):
            groups = [single(facts, labels, int(readable[k]), form.format(values[k])) for k in found]
            yield Finding(kind, severity, f"{counted(len(found), 'image')} {what}", advice, tuple(groups))
    yield from _grey(facts, labels, readable[rows_N["colourless"]], readable)


def _far(values: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """Return which values lie far out on the side of `least`, and at least that far from the median."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    reach = _FENCE * (high - low)
    if least < 0:
        return np.asarray(values < min(low - reach, middle + least))
    return np.asarray(values > max(high + reach, middle + least))


def _few(which: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return `which` where it holds for one in a thousand at most, or three: more than that is how the set is."""
    return which if which.sum() <= max(3, len(which) // 1000) else np.zeros_like(which)


def _grey(facts: Facts, labels: Sequence[str], grey: Ints, readable: Ints) -> Iterator[Finding]:
    """Yield how many images are grey where others have colour; and classes that colour alone would tell apart."""
    if len(grey) in (0, len(readable)):
        return
    counts_K = np.bincount(facts.labels_N[readable], minlength=len(labels))
    grey_K = np.bincount(facts.labels_N[grey], minlength=len(labels))
    share_K = grey_K / np.maximum(counts_K, 1)
    telling = [labels[k] for k in np.flatnonzero((share_K > 0.9) & (counts_K >= TINY_CLASS)).tolist()]
    title = f"{counted(len(grey), 'image')} without colour among {len(readable):,}"
    groups = tuple(single(facts, labels, n) for n in grey.tolist())
    if telling and len(grey) < len(readable) / 2:
        advice = f"nearly all of {named(telling)} are grey: a model may learn that instead of what they show"
        yield Finding("grey", WARNING, title, advice, groups)
    else:
        yield Finding("grey", NOTE, title, "", groups)


def class_findings(splits: Sequence[Split], labels: Sequence[str]) -> Iterator[Finding]:
    """Yield what the counts of classes say: absent from a split, tiny, or far from equal. Needs no pixels."""
    counts = {split.name: np.bincount(split.labels_N, minlength=len(labels)) for split in splits}
    train_K = counts["train"]
    for name, counts_K in counts.items():
        absent = [label for label, count in zip(labels, counts_K, strict=True) if count == 0]
        if absent:
            of = f"{counted(len(absent), 'class', 'classes')} of {len(labels):,}"
            title = f"{name} has no image of {of}: {named(absent)}"
            advice = f"its score says nothing about them; add images, or check the names of the folders of {name}"
            if name == "train":
                advice = "they cannot be learnt"
            yield Finding("absent-class", STOP if name == "train" else WARNING, title, advice)
    tiny = [f"{label} ({count})" for label, count in zip(labels, train_K, strict=True) if 0 < count < TINY_CLASS]
    if tiny:
        title = f"{counted(len(tiny), 'class', 'classes')} with fewer than {TINY_CLASS} training images: {named(tiny)}"
        yield Finding("tiny-class", WARNING, title, "too few to learn from; fifty and more make a difference")
    present_K = np.maximum(train_K, 1)
    if present_K.max() > IMBALANCE * present_K.min():
        most, least = int(train_K.argmax()), int(present_K.argmin())
        title = (
            f"classes are far from equal: `{labels[most]}` has {train_K[most]:,} training images, "
            f"`{labels[least]}` {train_K[least]:,}"
        )
        share = f"{100 * train_K[most] / train_K.sum():.0f} %"
        advice = (
            f"always answering `{labels[most]}` would be right {share} of the time: read the report class by class, "
            "and add images of the small classes before anything else"
        )
        yield Finding("imbalance", WARNING, title, advice)
