"""What a run folder says, read once and put in words and rows; `report.md` and `report.html` show the same."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linne.bundle import Bundle
from linne.errors import LinneError
from linne.recipe import AugmentConfig, Recipe
from linne.report import EvalReport, percent, percent_range

WORTH_MENDING = 0.05
"""Of the time: a share that waiting for data may have without a word."""
Row = Mapping[str, Any]
Rows = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """A run folder's `recipe.json` and `metrics.jsonl`."""

    folder: Path
    linne: str
    """The version that trained."""
    command: tuple[str, ...]
    recipe: Mapping[str, Any]
    reasons: Mapping[str, str]
    """Why a field has its value, by dotted path."""
    device: str
    source: Mapping[str, Any]
    started_from: Mapping[str, Any] | None
    """Pretrained weights: name, sha256 and licence."""
    rows: tuple[Row, ...]

    @property
    def epochs(self) -> list[Row]:
        """The rows of finished epochs."""
        return [row for row in self.rows if row.get("event") == "epoch"]

    @property
    def ending(self) -> str:
        """`finished`, `interrupted`, `diverged`, or `stopped` when nothing says how it ended."""
        ends = [row.get("reason") for row in self.rows if row.get("event") == "end"]
        return str(ends[-1]) if ends else "stopped"

    @property
    def ended_early(self) -> int | None:
        """How many epochs without a higher accuracy ended it before its last epoch; None where that is not why."""
        if self.ending != "finished" or len(self.epochs) >= (self.num_epochs or 0):
            return None
        patience: int | None = self.recipe.get("optim", {}).get("patience")
        return patience

    @property
    def num_epochs(self) -> int | None:
        """How many epochs it was to train, those not counted that its time budget took away."""
        optim = self.recipe.get("optim", {})
        epochs: int | None = optim.get("epochs")
        return math.ceil(optim["shortened"][-1]) if optim.get("shortened") else epochs

    @property
    def seconds(self) -> float | None:
        """How long it trained."""
        times = [row["seconds"] for row in self.rows if row.get("seconds") is not None]
        return times[-1] if times else None  # the end's own, which is not rounded

    @property
    def num_resumes(self) -> int:
        """How often it went on after it had been cut off."""
        return sum(row.get("event") == "resume" for row in self.rows)

    @property
    def rewinds(self) -> list[Row]:
        """The times that it went back to a checkpoint, since a loss or gradient was no number."""
        return [row for row in self.rows if row.get("event") == "rewind"]

    @property
    def kept(self) -> Row | None:
        """The epoch whose weights are in the bundle."""
        return next((row for row in reversed(self.epochs) if row.get("best")), None)

    @property
    def images_per_second(self) -> float | None:
        """The median rate of training steps."""
        rates = [row["images_per_second"] for row in self.rows if row.get("images_per_second")]
        return statistics.median(rates) if rates else None

    @property
    def data_wait(self) -> float | None:
        """The share of training in which the model waited for its next batch."""
        shares = [row["data_wait"] for row in self.epochs if row.get("data_wait") is not None]
        return statistics.fmean(shares) if shares else None


@dataclass(frozen=True, slots=True)
class Headline:
    """The result in plain words."""

    fraction: float | None
    interval: tuple[float, float] | None
    what: str
    """What the fraction is of: "of 450 test images are named right"."""
    sentences: tuple[str, ...]
    warning: str | None


def read_run(folder: Path) -> RunRecord:
    """Return what `folder` says about its run. A last line that was not written to its end is left out.

    Raises:
        LinneError: there is no `recipe.json`, or it cannot be read.
    """
    try:
        document = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
        recipe = document["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LinneError(
            f"`{folder}` is no run folder: its recipe.json cannot be read", hint="`linne train` writes one under runs/"
        ) from error
    return RunRecord(
        folder=folder,
        linne=str(document.get("linne", "?")),
        command=tuple(map(str, document.get("command", ()))),
        recipe=recipe,
        reasons=document.get("reasons", {}),
        device=str(document.get("device", "?")),
        source=document.get("source", {}),
        started_from=document.get("started_from"),
        rows=tuple(_read_rows(folder / "metrics.jsonl")),
    )


def _read_rows(path: Path) -> list[Row]:
    rows: list[Row] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
    return rows


def headline(run: RunRecord, report: EvalReport | None) -> Headline:
    """Return how good the result is, how sure that is, and what stands against it."""
    warning = _warning(run)
    if report is None:
        return _headline_without_report(run, warning)
    low, high = report.accuracy_interval
    if report.split == "val":
        honest = "These images chose the epoch that was kept, so expect a little less on new ones."
    else:
        honest = "None of them was used to train or to choose the epoch."
    commonest = max(report.per_class, key=lambda row: row.count)
    sentences = (
        f"{honest} On more images like these, {percent_range(low, high)} can be expected (95 % interval).",
        f"Always answering “{commonest.label}”, the most frequent class, "
        f"would be right {percent(commonest.count / report.num_examples)} of the time.",
    )
    images = f"{report.num_examples:,} {report.split} images{report.also_seen and report.also_seen + ','}"
    what = f"of {images} are named right"
    return Headline(report.accuracy, (low, high), what, sentences, warning)


def _headline_without_report(run: RunRecord, warning: str | None) -> Headline:
    kept = run.kept
    if kept is None:
        return Headline(None, None, "No epoch was finished, so there is no result.", (), warning)
    if kept.get("val_accuracy") is None:
        what = "No images were held out, so nothing says how good this classifier is."
        hint = "Evaluate it on images that it has not seen: linne evaluate BUNDLE SOURCE."
        return Headline(None, None, what, (hint,), warning)
    honest = "These images chose the epoch that was kept, so expect a little less on new ones. There is no test result."
    what = f"of the val images were named right after epoch {kept['epoch']}"
    return Headline(float(kept["val_accuracy"]), None, what, (honest,), warning)


def _warning(run: RunRecord) -> str | None:
    planned = run.recipe.get("optim", {}).get("epochs", "?")
    so_far = f"after {len(run.epochs)} of {planned} epochs"
    kept = "" if run.kept is None else f" The weights of epoch {run.kept['epoch']} were kept."
    return {
        "finished": None,
        "interrupted": f"Training was interrupted {so_far}.{kept}",
        "diverged": f"Training stopped {so_far}: the loss was no longer a number.{kept} Try a lower learning rate.",
    }.get(run.ending, f"Training ended {so_far} without a word why.{kept}")


def facts(run: RunRecord, bundle: Bundle | None) -> Rows:
    """Return what was trained on what, and how long it took, as (name, value)."""
    data, model = run.recipe.get("data", {}), run.recipe.get("model", {})
    colour = "grey" if data.get("channels") == 1 else "RGB"
    labels = run.source.get("labels", ())
    counts = ", ".join(f"{count:,} {name}" for name, count in run.source.get("counts", {}).items())
    rows = [
        ("model", f"{model.get('name', '?')}, input {data.get('height')} x {data.get('width')} {colour}"),
        ("source", f"{run.source.get('name', data.get('source', '?'))}: {len(labels)} classes; {counts} images"),
        ("device", run.device),
        ("training", _training_in_words(run)),
        *(("starts from", said) for said in [_start_in_words(run)] if said),
        *(("data", said) for said in [data_in_words(run)] if said),
        *(("on the CPU", said) for said in [_fallbacks_in_words(run)] if said),
    ]
    if bundle is not None:
        size = sum(entry.get("size_bytes", 0) for name, entry in bundle.files.items() if name.endswith(".safetensors"))
        rows.append(("weights", bytes_in_words(size)))
    return rows + [("notes", note) for note in run.source.get("notes", ())]


def _training_in_words(run: RunRecord) -> str:
    done = f"{len(run.epochs)} epoch{'s' if len(run.epochs) != 1 else ''}"
    parts = [done if run.seconds is None else f"{done} in {duration(run.seconds)}"]
    if run.images_per_second:
        parts.append(f"{run.images_per_second:,.0f} images/s")
    if (patience := run.ended_early) is not None:
        parts.append(f"ended early, of {run.num_epochs} epochs: {patience} brought no higher validation accuracy")
    if (shortened := run.recipe.get("optim", {}).get("shortened")) and shortened[-1] < run.recipe["optim"]["epochs"]:
        planned, minutes = run.recipe["optim"]["epochs"], run.recipe["optim"].get("minutes")
        budget = "" if minutes is None else f" by its budget of {duration(60 * minutes)}"
        parts.append(f"shortened from {planned} epochs to {shortened[-1]:.3g}{budget}")
    if run.kept is not None:
        parts.append(f"weights of epoch {run.kept['epoch']} kept")
    if run.num_resumes:
        parts.append("resumed once" if run.num_resumes == 1 else f"resumed {run.num_resumes} times")
    if run.rewinds:
        often = "once" if len(run.rewinds) == 1 else f"{len(run.rewinds)} times"
        factor = run.rewinds[-1].get("lr_factor")
        parts.append(f"went back {often} since a loss or gradient was no number, learning rate x {factor} in the end")
    return ", ".join(parts)


def _start_in_words(run: RunRecord) -> str | None:
    """Return which pretrained weights it began with; None where there were none."""
    origin = run.started_from
    return None if origin is None else f"{origin.get('weights')} (licence: {origin.get('licence') or 'not stated'})"


def _fallbacks_in_words(run: RunRecord) -> str | None:
    """Return the operators that the device left to the CPU; None where there were none."""
    ends = [row["fallbacks"] for row in run.rows if row.get("event") == "end" and row.get("fallbacks")]
    return ", ".join(f"{name} ({count:,} times)" for name, count in ends[-1].items()) if ends else None


def data_in_words(run: RunRecord) -> str | None:
    """Return how the batches came and what the model waited for them; None where no epoch was finished."""
    data, share = run.recipe.get("data", {}), run.data_wait
    if share is None:
        return None
    if data.get("loader") != "streaming":
        return f"held in memory; making batches took {percent(share)} of the time"
    return data_advice(run) or f"decoded ahead by {_threads(data)}; waited for {percent(share)} of the time"


def data_advice(run: RunRecord, num_cores: int | None = None) -> str | None:
    """Return what to do about waiting for data; None where it is not worth a word.

    A set that was streamed because the user said so may fit in memory. Training that waits for a third of its time
    would be fed by half as many threads again, where there are cores.
    """
    data, share = run.recipe.get("data", {}), run.data_wait
    if share is None or share < WORTH_MENDING or data.get("loader") != "streaming":
        return None
    said = f"waiting for data {percent(share)} of the time: `linne data pack` it"
    threads, cores = int(data.get("num_workers", 0)), num_cores or os.cpu_count() or 1
    wanted = min(math.ceil(max(threads, 1) / max(1 - share, 0.01)), cores)
    if wanted > threads:
        said += f", or --set data.num_workers={wanted}"
    by_choice = run.reasons.get("data.loader", "").startswith(("given", "recipe"))
    if by_choice and run.recipe.get("augment", {}).get("resized_crop_area") is None:
        count = sum(run.source.get("counts", {}).get(name, 0) for name in ("train", "val"))
        size = bytes_in_words(count * data.get("height", 0) * data.get("width", 0) * data.get("channels", 3))
        said += f", or --set data.loader=resident where {size} of memory are free"
    return said


def _threads(data: Mapping[str, Any]) -> str:
    number = int(data.get("num_workers", 0))
    return f"{number} thread{'s' if number != 1 else ''}"


def recipe_rows(run: RunRecord) -> list[tuple[str, str, str]]:
    """Return (field, value, reason) of every field, sections in order; the reason is "" where nobody gave one."""
    defaults = Recipe.from_dict({"data": {"source": "?"}}).to_dict()
    rows = []
    for section, values in run.recipe.items():
        fields = values if isinstance(values, Mapping) else {"": values}
        for name, value in fields.items():
            path = f"{section}.{name}" if name else section
            default = defaults.get(section, {}).get(name) if name else defaults.get(section)
            rows.append((path, value_text(value), run.reasons.get(path, "default" if value == default else "")))
    return rows


def environment(run: RunRecord, bundle: Bundle | None) -> Rows:
    """Return versions, seed and fingerprints as (name, value)."""
    known = {} if bundle is None else bundle.provenance
    rows = [("command", command_line(run)), ("device", run.device), ("seed", str(run.recipe.get("seed", "?")))]
    rows += [(name, str(version)) for name, version in known.get("versions", {}).items() if version]
    rows += [("trained", str(known["created"]))] if "created" in known else []
    rows += [("source fingerprint", str(run.source.get("fingerprint", "?")))]
    if bundle is not None:
        rows += [(f"sha256 of {name}", str(entry["sha256"])) for name, entry in bundle.files.items() if "model" in name]
    return rows


def command_line(run: RunRecord) -> str:
    """Return the command as it can be typed again, without the folder the program lies in."""
    program, *arguments = run.command or ("linne",)
    name = Path(program).name
    return shlex.join([*(("python", "-m", "linne") if name == "__main__.py" else (name,)), *arguments])


def curves_note(run: RunRecord) -> str:
    """Return what to know when the training loss is compared with the validation loss, "" if nothing."""
    if not any(row.get("val_loss") is not None for row in run.epochs):
        return ""
    augment = run.recipe.get("augment", {})
    optim = run.recipe.get("optim", {})
    reasons = ["label smoothing"] if optim.get("label_smoothing") else []
    reasons += {"bce": ["binary cross entropy"], "focal": ["focal loss"]}.get(optim.get("loss"), [])
    reasons += ["class weights"] if optim.get("class_balance") else []
    reasons += ["a teacher's answers"] if run.recipe.get("distill", {}).get("bundle") else []
    reasons += ["the disagreement between views"] if augment.get("consistency") else []
    reasons += ["adjusted logits"] if optim.get("logit_adjustment") else []
    unchanged = dataclasses.asdict(AugmentConfig())
    reasons += ["augmented images"] if any(value != unchanged.get(name) for name, value in augment.items()) else []
    if not reasons:
        return ""
    *most, last = reasons
    listed = f"{', '.join(most)} and {last}" if most else last
    return f"The train loss is taken with {listed}, the val loss without: it may well be the lower one."


def usage(run: RunRecord, bundle: Bundle | None) -> list[tuple[str, str]]:
    """Return (what it does, code) for everything one may want to do next."""
    again = ("Train the same again", f"linne train --recipe {shlex.quote(str(run.folder / 'recipe.json'))}")
    if bundle is None:
        return [again]
    tta = run.recipe.get("tta")
    path, source = shlex.quote(str(bundle.path)), shlex.quote(str(run.source.get("name", "SOURCE")))
    python = (
        "import linne\n\n"
        f'for answer in linne.predict({json.dumps(str(bundle.path), ensure_ascii=False)}, ["picture.jpg"]):\n'
        "    print(answer.labels[0], answer.probabilities[0])"
    )
    uses = [
        ("Name what is in a picture, or in every picture of a folder", f"linne predict {path} picture.jpg photos/"),
        ("The same in Python", python),
        ("Measure it again", f"linne evaluate {path} {source}{'' if tta is None else f' --tta {tta}'}"),
        again,
    ]
    if bundle.model.get("provider") == "timm":
        model = json.dumps(f"local-dir:{bundle.path}", ensure_ascii=False)
        uses.append(("Load it with timm", f"import timm\n\nmodel = timm.create_model({model}, pretrained=True)"))
    return uses


def duration(seconds: float) -> str:
    """Return "8.3 s", "2 min 5 s" or "1 h 2 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def bytes_in_words(size_bytes: int) -> str:
    """Return "312 kB", in powers of 1,000."""
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1e3:.0f} kB"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:.2f} GB"


def value_text(value: Any) -> str:
    """Return a recipe value as it is typed after `--set`."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(value_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
