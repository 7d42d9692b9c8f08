"""Every verb of the command line as a function, with the same names; those of `linne data` are in `data_verbs`."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.errors import CheckFailed, LinneError, SourceError
from linne.host import prepare_for_torch
from linne.log import Narrator, Run, clock

if TYPE_CHECKING:
    from linne.bundle import Bundle
    from linne.data import Source
    from linne.inference.predictor import Prediction
    from linne.models import ModelListing
    from linne.planning import Plan
    from linne.report import EvalReport
    from linne.training.loop import Trained


NUM_NAMED = 10
"""Images that were left out which a run names as it ends; the report has all."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training left behind."""

    run: Path
    """The run folder."""
    bundle: Path | None
    """The bundle in it; None when training was interrupted before its first epoch was done."""
    report: EvalReport | None
    """The final evaluation, on the test split, or on the validation split of a source without one."""
    val_accuracy: float | None
    seconds: float
    """Of training: from the first step to the last, validation included."""
    signal_number: int | None
    """Of the signal that ended it early, 2 for Ctrl-C; None when it ran to its end."""

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended it early."""
        return self.signal_number is not None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "run": str(self.run),
            "bundle": None if self.bundle is None else str(self.bundle),
            "val_accuracy": self.val_accuracy,
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "evaluation": None if self.report is None else self.report.to_dict(),
        }


def train(
    source: str | Source | None = None,
    *,
    model: str | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    device: str | None = None,
    output: str | Path | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    measure_speed: bool = False,
    require_accelerator: bool = False,
    device_check: bool = True,
    quiet: bool = False,
) -> TrainResult:
    """Train a classifier on `source` and return where it is and how good it is.

    Args:
        source: A named set, `folder:DIR` or a path, or what `linne.from_arrays` made; without it, the recipe's.
        recipe: A built-in recipe, `FILE.py:function` or a run's recipe.json; what it leaves open is chosen.
        output: The run folder; `runs/NAME-k` without it.
        overrides: Further recipe fields, as {"optim.weight_decay": 0.01}.
        measure_speed: First time a few steps with and without channels_last and torch.compile, and say the gain.
        require_accelerator: Refuse the CPU, and stop when an operator runs there.
        device_check: Compare the first step on an accelerator with the CPU's, once for each device and model.
        quiet: Say nothing on stderr.

    Raises:
        LinneError: something given cannot be used; the message says what and what to do.
        CheckFailed: the loss stopped being a number. The best epoch before that is in the run's bundle.
    """
    prepare_for_torch()
    _require("torch", "sklearn", "matplotlib")
    from linne.planning import collect, default_output_name, earlier_run, make_plan

    narrator = Narrator(quiet=quiet)
    flags = {
        "model.name": model,
        "optim.epochs": epochs,
        "data.batch_size": batch_size,
        "optim.lr": lr,
        "device.name": device,
        "seed": seed,
    }
    name, opened = _named(source)
    given, reasons = collect(name, recipe, flags, overrides or {})
    plan = make_plan(given, reasons, earlier_run(recipe, given), opened, require_accelerator=require_accelerator)
    run = Run.create(output, default_output_name(plan.recipe))
    try:
        guards = {"require_accelerator": require_accelerator, "device_check": device_check}
        return _train_in(run, plan, narrator, measure_speed=measure_speed, guards=guards)
    finally:
        run.close()


def _named(source: str | Source | None) -> tuple[str | None, Source | None]:
    """Return what a source is called, and the source where it is opened already."""
    from linne.data.source import Source

    if source is None or isinstance(source, str):
        return source, None
    if isinstance(source, Source):
        return source.name, source
    raise LinneError(
        f"the source is a {type(source).__name__}, expected a text or a `Source`",
        hint="`linne.from_arrays(images, labels)` makes a source of arrays",
    )


def _require(*packages: str) -> None:
    """Raise LinneError unless all that training needs is installed: not after an hour, when the plots are drawn."""
    for package in packages:
        if find_spec(package) is None:
            raise LinneError(f"training needs `{package}`, which is not installed", hint="pip install 'linne[train]'")


def _train_in(
    run: Run, plan: Plan, narrator: Narrator, *, measure_speed: bool, guards: Mapping[str, bool]
) -> TrainResult:
    from linne.data import save_manifest
    from linne.run_start import say_plan, warn_of_data, write_plan
    from linne.training.loop import train as run_training

    say_plan(plan, run, narrator)
    warnings = warn_of_data(plan.source, narrator)
    stored = plan.source.splits["train"].store.array is not None
    # Files may be joined by others before the next verb, and lists may be edited.
    if not stored or plan.recipe.data.splits_file or plan.recipe.data.quarantine:
        save_manifest(plan.source, run.path / "splits.json")
    write_plan(plan, run, warnings)
    if measure_speed:
        from linne.training.speed import measure_gains

        narrator.table(measure_gains(plan.recipe, plan.source, plan.device))
    try:
        trained = run_training(plan.recipe, plan.source, run, narrator, **guards)
    except LinneError:
        run.discard()
        raise
    except KeyboardInterrupt:
        narrator.line(f"\ninterrupted: there is no bundle in {run.path}")
        return TrainResult(run.path, None, None, None, 0.0, signal.SIGINT)
    for problem in trained.bad_images[:NUM_NAMED]:
        narrator.warn(f"left out: {problem}")
    if len(trained.bad_images) > NUM_NAMED:
        narrator.warn(f"left out: {len(trained.bad_images) - NUM_NAMED} more, named in the report")
    report, signal_number = None, trained.signal_number
    try:
        report = _conclude(run, plan, trained, narrator)
    except KeyboardInterrupt:
        signal_number = signal.SIGINT
        left = "there is no bundle" if trained.bundle is None else f"the bundle is {trained.bundle.path}"
        narrator.line(f"\ninterrupted: the report is not finished; {left}")
    return TrainResult(
        run=run.path,
        bundle=trained.bundle.path if trained.bundle else None,
        report=report,
        val_accuracy=trained.kept.scores.accuracy if trained.kept and trained.kept.scores else None,
        seconds=trained.seconds,
        signal_number=signal_number,
    )


def _conclude(run: Run, plan: Plan, trained: Trained, narrator: Narrator) -> EvalReport | None:
    """Evaluate the bundle through the same door as any user would, once, and write the reports."""
    from linne.reporting import write_run_report

    kept, bundle = trained.kept, trained.bundle
    if trained.ending != "finished" or kept is None or bundle is None:
        page = write_run_report(run.path, bundle=bundle, report=None, outcomes=None, split=None)
        what = _say_what_is_left(trained, run, narrator)
        narrator.line(f"report  {page}")
        if trained.ending == "diverged":
            hint = f"try a lower learning rate: --lr {plan.recipe.optim.lr / 10:g}"
            raise CheckFailed(f"{trained.problem}; {what}", hint=hint)
        return None
    from linne.bundle import add_metrics
    from linne.evaluation import evaluate as evaluate_bundle
    from linne.inference.predictor import Predictor
    from linne.run_facts import data_advice, read_run

    split = "test" if "test" in plan.source.splits else "val"
    if split not in plan.source.splits:
        narrator.line(f"\nno examples were held out: nothing to evaluate on. The bundle is {bundle.path}")
        write_run_report(run.path, bundle=bundle, report=None, outcomes=None, split=None)
        return None
    predictor = Predictor.open(bundle, device=plan.recipe.device.name)
    report, outcomes = evaluate_bundle(predictor, plan.source, split)
    bundle = add_metrics(bundle, {split: {"accuracy": report.accuracy, "interval": list(report.accuracy_interval)}})
    page = write_run_report(run.path, bundle=bundle, report=report, outcomes=outcomes, split=plan.source.splits[split])
    narrator.line(f"\ntrained in {clock(trained.seconds)}; kept epoch {kept.epoch} of {plan.recipe.optim.epochs}")
    if (advice := data_advice(read_run(run.path))) is not None:
        narrator.line(advice)
    narrator.line(report.one_line())
    narrator.line()
    narrator.table([("bundle", str(bundle.path)), ("report", str(page)), ("plots", str(run.path / "plots"))], "")
    return report


def _say_what_is_left(trained: Trained, run: Run, narrator: Narrator) -> str:
    """Say, and return in a clause, what a training that ended early leaves to be used."""
    kept = trained.kept
    if kept is None:
        what = "there is no bundle, since no epoch was done"
        narrator.line(f"\n{trained.ending} in the first epoch: there is no bundle in {run.path}")
        return what
    of = "" if kept.scores is None else f" ({100 * kept.scores.accuracy:.2f} % right on validation)"
    narrator.line(f"\n{trained.ending}: the weights of epoch {kept.epoch}{of} are kept")
    narrator.line(f"bundle  {run.path / 'bundle'}")
    return f"the weights of epoch {kept.epoch} are kept"


def evaluate(
    bundle: str | Path,
    source: str | Source,
    *,
    split: str = "test",
    device: str = "auto",
    splits_file: str | Path | None = None,
    require_accelerator: bool = False,
    quiet: bool = False,
) -> EvalReport:
    """Return how well `bundle` does on a split of `source`.

    The split is the one the bundle was trained beside: read from `splits_file`, from the `splits.json` of the run that
    the bundle lies in or the split file it was trained by, or else made again by the options in its provenance.

    Raises:
        LinneError: the bundle, the source or the split cannot be used.
    """
    prepare_for_torch()
    from linne.bundle import open_bundle
    from linne.evaluation import evaluate as evaluate_bundle
    from linne.inference.predictor import Predictor

    opened = open_bundle(bundle)
    if isinstance(source, str):
        source = _as_in_training(opened, source, splits_file)
    narrator = Narrator(quiet=quiet)
    for note in source.notes:
        narrator.line(note)
    predictor = Predictor.open(opened, device=device, require_accelerator=require_accelerator)
    report, _ = evaluate_bundle(predictor, source, split)
    return report


def _as_in_training(bundle: Bundle, name: str, splits_file: str | Path | None) -> Source:
    """Return the source `name`, split as it was when `bundle` was trained."""
    from linne.data import open_source

    data = bundle.provenance.get("recipe", {}).get("data", {})
    beside = bundle.path.parent / "splits.json"
    known = bundle.provenance.get("source", {})
    is_same = name == known.get("name")
    if splits_file is None:
        splits_file = _splits_of_training(data, name, beside)
        is_same = is_same or splits_file is not None
    # Where a list says who trained, what made that list is done; where the list is of others, it was asked of those.
    asked = {} if splits_file is not None or beside.is_file() else data
    quarantine = asked.get("quarantine")
    source = open_source(
        name,
        val_fraction=data.get("val_fraction", 0.1),
        test_fraction=data.get("test_fraction", 0.15),
        split_seed=data.get("split_seed", 0),
        group_by=asked.get("group_by"),
        folds=asked.get("folds"),
        fold=asked.get("fold"),
        splits_file=None if splits_file is None else Path(splits_file),
        quarantine=None if quarantine is None else Path(quarantine),
    )
    if is_same and known.get("fingerprint") not in (None, source.fingerprint):
        changed = "the source is not what the bundle was trained beside: images, labels or splits have changed"
        source = replace(source, notes=(f"warning: {changed}", *source.notes))
    return source


def _splits_of_training(data: Mapping[str, Any], name: str, beside: Path) -> Path | None:
    """Return the list of who trained and who tests, None where the recipe alone decides it or `name` is of others.

    Raises:
        SourceError: a split file decided it, and neither that file nor the run's copy of it is at hand.
    """
    from linne.data import knows_most_of

    stated = data.get("splits_file")
    for path in (beside, Path(stated or beside)):
        if knows_most_of(path, name):
            return path
    if stated is None or beside.is_file():
        return None
    raise SourceError(
        f"the bundle was trained by the split file `{stated}`, which does not know `{name}` or is not here",
        hint="the run that made the bundle has a copy: `--splits-file RUN/splits.json`",
    )


def predict(
    bundle: str | Path,
    inputs: str | Path | Iterable[str | Path],
    *,
    top: int = 5,
    device: str = "auto",
    require_accelerator: bool = False,
) -> Iterator[Prediction]:
    """Yield the labels and probabilities of each image in `inputs`, in order.

    Args:
        inputs: Files, folders (their images, with those of sub-folders; hidden ones are ignored), glob patterns,
            or `-` for one image on stdin.
        top: How many labels an image, the most probable first.

    A image that cannot be read is a prediction with `error` set; the others are unaffected.

    Raises:
        LinneError: the bundle cannot be used, or an input names nothing.
    """
    prepare_for_torch()
    from linne.inference.inputs import find_images
    from linne.inference.predictor import Predictor

    if isinstance(inputs, (str, Path)):
        inputs = [inputs]
    images = find_images(list(inputs))
    if top < 1:
        raise LinneError(f"top is {top}, expected 1 or more")
    predictor = Predictor.open(bundle, device=device, require_accelerator=require_accelerator)
    return predictor.predict_files(images, top=top)


def list_models(pattern: str | None = None) -> list[ModelListing]:
    """Return the models whose name matches `pattern`: a part of it, or a glob such as `timm/resnet*`."""
    from linne.models import list_models as listed

    return listed(pattern)
