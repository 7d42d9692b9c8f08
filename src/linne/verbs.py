"""Every verb of the command line as a function, with the same names; those of `linne data` are in `data_verbs`."""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linne.errors import LinneError
from linne.host import prepare_for_torch
from linne.log import Narrator, Run

if TYPE_CHECKING:
    from linne.data import Source
    from linne.inference.predictor import Prediction
    from linne.models.listing import ModelListing, WeightsListing
    from linne.recipe import Views
    from linne.report import EvalReport
    from linne.run_processes import Lead
    from linne.run_resume import Asked, Resume, Start
    from linne.training.distributed import World


MOST_MINUTES = 10_000
"""That a training may be allowed to stand still: a week."""


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
    rank: int = 0
    """Which of several processes this one is; the first, 0, has the bundle and the report, and has said it all."""

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
    time_budget: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    device: str | None = None,
    output: str | Path | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    resume: Resume = False,
    allow_change: Collection[str] = (),
    measure_speed: bool = False,
    require_accelerator: bool = False,
    device_check: bool = True,
    stuck_after: float = 60.0,
    trust_code: bool = False,
    quiet: bool = False,
) -> TrainResult:
    """Train a classifier on `source` and return where it is and how good it is.

    Args:
        source: A named set, `folder:DIR` or a path, or what `linne.from_arrays` made; without it, the recipe's.
        time_budget: Minutes that training may take: as many epochs as fit, by their measured speed.
        recipe: A built-in recipe, `FILE.py:function` or a run's recipe.json; what it leaves open is chosen.
        output: The run folder; `runs/NAME-k` without it.
        overrides: Further recipe fields, as {"optim.weight_decay": 0.01}.
        resume: Go on with the run in `output`, bit for bit; "auto" begins it where there is none.
        allow_change: Recipe fields, or `source.fingerprint`, that need not be what they were.
        measure_speed: First time a few steps with and without channels_last and torch.compile, and say the gain.
        require_accelerator: Refuse the CPU, and stop when an operator runs there.
        device_check: Compare the first step on an accelerator with the CPU's, once for each device and model.
        trust_code: Whether the Python file may be run that `python:FILE.py:NAME` names as the network.
        stuck_after: End the process with exit code 1 where nothing moves for so many minutes; 0 waits for ever.
        quiet: Say nothing on stderr.

    Raises:
        LinneError: something given cannot be used; the message says what and what to do.
        CheckFailed: the loss stopped being a number. The best epoch before that is in the run's bundle.
    """
    prepare_for_torch()
    _require("torch", "sklearn", "matplotlib")
    from linne.run_processes import Lead
    from linne.run_resume import Asked
    from linne.training.distributed import joined

    flags = {
        "model.name": model,
        "optim.epochs": epochs,
        "optim.minutes": time_budget,
        "data.batch_size": batch_size,
        "optim.lr": lr,
        "device.name": device,
        "seed": seed,
    }
    if not 0 <= stuck_after <= MOST_MINUTES:
        raise LinneError(
            f"stuck_after is {stuck_after:g} minutes, expected 0 to {MOST_MINUTES:,}",
            hint="0 waits for ever for a step that stands still",
        )
    guards: dict[str, Any] = {"require_accelerator": require_accelerator, "trust_code": trust_code}
    guards |= {"device_check": device_check, "stuck_after": stuck_after}
    asked = Asked(*_named(source), recipe, flags, overrides or {}, require_accelerator, trust_code)
    with joined() as world:
        if not world.is_first:
            return _train_along(world, asked.opened, guards)
        with Lead(world, Narrator(quiet=quiet), guards, measure_speed=measure_speed) as lead:
            return _begin_or_go_on(asked, output, resume, allow_change, lead)


def _train_along(world: World, opened: Source | None, guards: Mapping[str, Any]) -> TrainResult:
    """Train as the first process says, and leave when it does."""
    from linne.run_processes import follow, wait_for_end
    from linne.training.loop import train as run_training

    recipe, source, run, checkpoint = follow(world, opened)
    trained = run_training(recipe, source, run, Narrator(quiet=True), checkpoint, world=world, **guards)
    wait_for_end(world)
    accuracy = trained.kept.scores.accuracy if trained.kept and trained.kept.scores else None
    return TrainResult(run.path, None, None, accuracy, trained.seconds, trained.signal_number, world.rank)


def _begin_or_go_on(
    asked: Asked, output: str | Path | None, resume: Resume, allow_change: Collection[str], lead: Lead
) -> TrainResult:
    """Train what `asked` says in a new run folder, or in that of the run that it means."""
    from linne.run_resume import find_run, plan_to_go_on, prepare
    from linne.run_start import say_source

    run, narrator = find_run(output, resume), lead.narrator
    if run is None:
        return _begin(asked, output, lead)
    try:
        with run.held():
            start = plan_to_go_on(run, asked, resume, allow_change, narrator)
            if start.finished:
                return _as_before(run, narrator)
            say_source(start.plan, run, narrator)
            prepare(run, start, narrator)
            return _train_in(run, start, lead)
    finally:
        run.close()


def _begin(asked: Asked, output: str | Path | None, lead: Lead) -> TrainResult:
    """Train what `asked` says in a new run folder."""
    from linne.planning import default_output_name, plan_anew
    from linne.run_resume import Start
    from linne.run_start import save_splits, say_plan, warn_of_data, write_plan

    plan = plan_anew(
        asked.source,
        asked.recipe,
        asked.flags,
        asked.overrides,
        asked.opened,
        require_accelerator=asked.require_accelerator,
        trust_code=asked.trust_code,
        num_processes=lead.world.size,
        say=lead.narrator.line,
    )
    run, start = Run.create(output, default_output_name(plan.recipe)), Start(plan, None, finished=False)
    try:
        with run.held(), run.discarded_unless_begun():
            say_plan(plan, run, lead.narrator)
            warnings = warn_of_data(plan.source, lead.narrator)
            save_splits(plan, run)
            write_plan(plan, run, warnings)
            return _train_in(run, start, lead)
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


def _train_in(run: Run, start: Start, lead: Lead) -> TrainResult:
    """Train in a folder in which everything is written down that decides the result."""
    from linne.run_end import conclude, write_outcome
    from linne.training.checkpoint import clear
    from linne.training.loop import train as run_training

    plan, narrator = start.plan, lead.narrator
    if lead.measure_speed:
        from linne.training.speed import measure_gains

        narrator.table(measure_gains(plan.recipe, plan.source, plan.device, trust_code=lead.guards["trust_code"]))
    try:
        lead.tell(start, run)
        trained = run_training(
            plan.recipe, plan.source, run, narrator, start.checkpoint, world=lead.world, **lead.guards
        )
        lead.training_ended()
    except KeyboardInterrupt as interrupt:
        left = "an earlier bundle" if (run.path / "bundle").exists() else "no bundle"
        narrator.line(f"\ninterrupted: there is {left} in {run.path}")
        return TrainResult(run.path, None, None, None, 0.0, _number_of(interrupt))
    report, signal_number = None, trained.signal_number
    try:
        write_outcome(run, plan, trained)
        report = conclude(run, plan, trained, narrator, trust_code=lead.guards["trust_code"])
        if trained.ending == "finished" and not plan.recipe.checkpoint.keep_after:
            clear(run.checkpoints)
    except KeyboardInterrupt as interrupt:
        signal_number = _number_of(interrupt)
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


def _number_of(interrupt: KeyboardInterrupt) -> int:
    """Return the signal that interrupted; Python's own handler, for Ctrl-C, does not say it."""
    return int(interrupt.args[0]) if interrupt.args else signal.SIGINT


def _as_before(run: Run, narrator: Narrator) -> TrainResult:
    """Return what a run left behind that has nothing left to do, and say so."""
    from linne.run_resume import read_result

    record, report = read_result(run)
    narrator.line(f"run     {run.path} is finished: nothing is left to do")
    if report is not None:
        narrator.line(report.one_line())
    narrator.line(f"bundle  {run.path / 'bundle'}")
    accuracy = None if record.kept is None else record.kept.get("val_accuracy")
    return TrainResult(run.path, run.path / "bundle", report, accuracy, record.seconds or 0.0, None)


def evaluate(
    bundle: str | Path,
    source: str | Source,
    *,
    split: str = "test",
    device: str = "auto",
    splits_file: str | Path | None = None,
    tta: Views | None = None,
    require_accelerator: bool = False,
    trust_code: bool = False,
    quiet: bool = False,
) -> EvalReport:
    """Return how well `bundle` does on a split of `source`.

    The split is the one the bundle was trained beside: read from `splits_file`, from the `splits.json` of the run that
    the bundle lies in or the split file it was trained by, or else made again by the options in its provenance. With
    `tta="flip"` answers are means over an image and its mirror image, with "crops" over shifted copies as well. With
    `trust_code` the Python file may be run that a bundle of your own network names.

    Raises:
        LinneError: the bundle, the source or the split cannot be used.
    """
    prepare_for_torch()
    from linne.bundle import open_bundle
    from linne.evaluation import evaluate as evaluate_bundle
    from linne.inference.predictor import Predictor

    opened = open_bundle(bundle)
    if isinstance(source, str):
        from linne.trained_on import as_in_training

        source = as_in_training(opened, source, splits_file)
    narrator = Narrator(quiet=quiet)
    for note in source.notes:
        narrator.line(note)
    predictor = Predictor.open(
        opened, device=device, require_accelerator=require_accelerator, tta=tta, trust_code=trust_code
    )
    report, _ = evaluate_bundle(predictor, source, split)
    return report


def predict(
    bundle: str | Path,
    inputs: str | Path | Iterable[str | Path],
    *,
    top: int = 5,
    tta: Views | None = None,
    device: str = "auto",
    require_accelerator: bool = False,
    trust_code: bool = False,
) -> Iterator[Prediction]:
    """Yield the labels and probabilities of each image in `inputs`, in order.

    Args:
        inputs: Files, folders (their images, with those of sub-folders; hidden ones are ignored), glob patterns,
            or `-` for one image on stdin.
        top: How many labels an image, the most probable first.
        tta: "flip" for the mean over an image and its mirror image, "crops" over shifted copies as well.
        trust_code: Whether the Python file may be run that a bundle of your own network names.

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
    predictor = Predictor.open(
        bundle, device=device, require_accelerator=require_accelerator, tta=tta, trust_code=trust_code
    )
    return predictor.predict_files(images, top=top)


def list_models(pattern: str | None = None) -> list[ModelListing]:
    """Return the models whose name matches `pattern`: a part of it, or a glob such as `timm/resnet*`."""
    from linne.models.listing import list_models as listed

    return listed(pattern)


def list_weights(pattern: str | None = None) -> list[WeightsListing]:
    """Return the published weights of the models that match `pattern`, with their licence; nothing is fetched."""
    from linne.models.listing import list_weights as listed

    return listed(pattern)
