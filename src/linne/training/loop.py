"""Recipe in, bundle out: the whole story of a training, from the first step to the kept weights."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from linne import models
from linne.bundle import Bundle, canary_batch
from linne.data.loading.loader import Batches, input_spec, make_batches
from linne.data.source import Source
from linne.device import Device
from linne.device.fallbacks import Fallbacks
from linne.errors import CheckFailed, OutOfMemory, RecipeError, SourceError
from linne.log import Narrator, Run
from linne.recipe import Recipe
from linne.training import distributed
from linne.training.agreement import Agreement
from linne.training.budget import as_decided, keep_to_budget
from linne.training.checkpoint import Keeper
from linne.training.checkpoint_format import Checkpoint
from linne.training.clock import make_clock
from linne.training.distributed import ALONE, World
from linne.training.finite import is_good
from linne.training.first_step import check_gradients, prove_device
from linne.training.interrupt import Interrupt
from linne.training.losses import class_counts
from linne.training.measurements import finish_epoch, log_steps
from linne.training.memory_probe import probe_memory
from linne.training.pretrained import start_from_weights
from linne.training.progress import Progress
from linne.training.result import write_result
from linne.training.resume import Recorder, bad_images, seed_others
from linne.training.rewinding import go_back, keep_the_start
from linne.training.starting import prepare
from linne.training.state import Scores, Snapshot, TrainState, place
from linne.training.step import evaluate_model, refresh_average, train_step
from linne.training.watchdog import Watchdog

Ending = Literal["finished", "interrupted", "diverged"]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to."""

    bundle: Bundle | None
    """None when it ended before an epoch was done."""
    kept: Snapshot | None
    ending: Ending
    problem: str | None
    """Where the loss stopped being a number, in words."""
    signal_number: int | None
    """Of the signal that came while training, if one did."""
    bad_images: tuple[str, ...]
    """Unreadable images that were left out: name and reason."""
    seconds: float
    """From the first step to the last, evaluation included, loading and writing not; those before a resume too."""
    checkpoint: Path | None
    """The newest from which training can go on."""
    recipe: Recipe
    """With what a finished training decided by the clock."""


def train(
    recipe: Recipe,
    source: Source,
    run: Run,
    narrator: Narrator,
    checkpoint: Checkpoint | None = None,
    *,
    require_accelerator: bool = False,
    device_check: bool = True,
    stuck_after: float = 0.0,
    trust_code: bool = False,
    world: World = ALONE,
) -> Trained:
    """Train `recipe` on `source`, keeping everything in `run`, and return what came of it.

    With `device_check` the first step on an accelerator is compared with the CPU's, once for each model and device.
    Where nothing moves for `stuck_after` minutes the process is ended, with its stacks in stuck.txt; 0 waits for ever.
    Goes on from `checkpoint`, if there is one, as if nothing had come between. Ctrl-C, SIGTERM, SIGUSR1 and a loss
    that is no longer a number end the training early: the epoch kept so far becomes the bundle, and signals leave a
    checkpoint of the last step. All processes of a `world` call this with the same recipe, source and checkpoint; the
    first one writes. With `trust_code` the network may be a Python file.

    Raises:
        DeviceError: this process computes no gradients on the device.
        CheckFailed: the device computes wrong numbers, or leaves work to the CPU with `require_accelerator`.
        SourceError: too many images cannot be read, or all of val.
        RecipeError: the network cannot learn from batches of one image, or `checkpoint` is of another one.
        LinneError: checkpoints cannot be written, time after time.
        OutOfMemory: this one of several processes would have to compute fewer images at once.
        KeyboardInterrupt: before the first step, or for the second time.
    """
    device = distributed.pick_device(recipe.device.name, world)
    if device.is_accelerator:
        check_gradients(device)
    with device.repeatable(recipe.seed, recipe.device.num_threads, recipe.device.determinism):
        seed_others(recipe.seed)
        batches = load(source, recipe, device, narrator, bad_images(checkpoint), world)
        ref = models.describe_recipe(recipe, source.num_classes, trust_code=trust_code)
        model = models.build(models.in_training(ref, recipe), trust_code=trust_code)
        model = _placed(model, recipe, source, batches["train"], device, narrator, world, is_new=checkpoint is None)
        fallbacks = Fallbacks(device, allowed=not require_accelerator)
        watchdog = Watchdog(run.path, 60 * stuck_after or None, world.rank)
        with fallbacks.watch(), Interrupt() as interrupt, watchdog:
            clock = make_clock(recipe.optim, batches)
            agreement = Agreement(world, interrupt, watchdog, parted=recipe.device.parallel == "fsdp", clock=clock)
            if device_check and device.is_accelerator:
                prove_device(model, batches["train"], recipe, device, fallbacks, narrator)
            state = _first_state(model, source, batches["train"], recipe, device, narrator, world, trust_code)
            recorder = Recorder(run, recipe, source, device, state, batches)
            progress = Progress.begin(state, device) if checkpoint is None else recorder.restore(checkpoint)
            config = recipe.checkpoint if world.is_first else replace(recipe.checkpoint, keep=None)
            keeper = Keeper.open(run, config, narrator, recorder, checkpoint)
            problem = _run_epochs(state, progress, batches, recipe, device, run, narrator, agreement, keeper, fallbacks)
            keeper.wait()
            seconds, signal_number = time.perf_counter() - progress.run_start, agreement.signal(state.step, now=True)
            ending: Ending = "diverged" if problem else "finished" if signal_number is None else "interrupted"
            kept, unreadable = state.kept, _all_bad_images(batches, world)
            all_done = problem is None and state.is_done(recipe.optim.epochs)
            recipe = as_decided(recipe, state) if all_done and clock is not None else recipe
            row = {"event": "end", "seconds": seconds, "epochs": state.epoch, "best_epoch": kept and kept.epoch}
            run.log({**row, "reason": ending, "unreadable": unreadable, "fallbacks": dict(fallbacks.counts)})
            bundle, left = None, fallbacks.in_words()
            if left is not None:
                narrator.warn(left)
            if kept is not None and world.is_first:
                bundle = write_result(run, ref, kept, source, recipe, device, finished=all_done, trust_code=trust_code)
    return Trained(bundle, kept, ending, problem, signal_number, unreadable, seconds, keeper.newest, recipe)


def _placed(
    model: nn.Module,
    recipe: Recipe,
    source: Source,
    batches: Batches,
    device: Device,
    narrator: Narrator,
    world: World,
    *,
    is_new: bool,
) -> nn.Module:
    """Return `model` on the device with the weights that training starts from; a run that goes on brings its own."""
    if recipe.model.weights is not None and is_new:
        start_from_weights(model, recipe, source.labels, narrator)
    model = place(model, recipe, device)
    prepare(model, recipe, batches, world)
    return model


def _first_state(
    model: nn.Module,
    source: Source,
    batches: Batches,
    recipe: Recipe,
    device: Device,
    narrator: Narrator,
    world: World,
    trust_code: bool,
) -> TrainState:
    """Return the state before the first step, as many images at once as fit the memory of every process."""
    counts_K = class_counts(source)
    at_once = probe_memory(model, batches, recipe, device, counts_K, narrator, world, trust_code=trust_code)
    forward = distributed.spread(model, recipe, device, world)
    state = TrainState.create(model, recipe, device, counts_K, forward, trust_code=trust_code)
    state.micro_batch, state.together = at_once, world.size > 1
    return state


def _run_epochs(
    state: TrainState,
    progress: Progress,
    batches: Mapping[str, Batches],
    recipe: Recipe,
    device: Device,
    run: Run,
    narrator: Narrator,
    agreement: Agreement,
    keeper: Keeper,
    fallbacks: Fallbacks,
) -> str | None:
    """Train until the last epoch or an interrupt; return where the numbers stopped being numbers, or None."""
    narrator.epoch_header()
    rewinds, following = recipe.optim.nonfinite == "rewind", None
    try:
        with narrator.progress("training", state.num_steps(recipe.optim.epochs, len(batches["train"]))):
            narrator.advance(state.step)
            if rewinds:
                keep_the_start(progress, keeper, agreement)
            while not state.is_done(recipe.optim.epochs):
                problem = None
                try:
                    following = _train_epoch(
                        state, progress, batches, recipe, device, run, narrator, agreement, keeper, fallbacks
                    )
                except CheckFailed as error:
                    if not rewinds:
                        raise
                    problem, reached = error.message, state.step
                if problem is not None:  # outside of the handler: the traceback holds the step that failed
                    progress = go_back(problem, progress, keeper, agreement)
                    narrator.advance(state.step - reached)
                elif following is None:
                    return None
                else:
                    progress = following
            if recipe.checkpoint.keep_after or agreement.signal(state.step, now=True) is not None:
                _save_now(keeper, progress, recipe, agreement)
    except CheckFailed as error:
        return error.message
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # torch's words for batch norm
            raise
        raise RecipeError(
            f"`{recipe.model.name}` cannot learn from a batch of one image: its batch norm needs two",
            hint="use --batch-size 2 or more",
        ) from error
    return None


def _train_epoch(
    state: TrainState,
    progress: Progress,
    batches: Mapping[str, Batches],
    recipe: Recipe,
    device: Device,
    run: Run,
    narrator: Narrator,
    agreement: Agreement,
    keeper: Keeper,
    fallbacks: Fallbacks,
) -> Progress | None:
    """Train what is left of the epoch at hand and validate; return the next one's progress, or None for a signal."""
    num_steps = len(batches["train"])
    state.start_epoch(int(state.planned_step(state.epoch * num_steps, num_steps, recipe.optim.epochs) // num_steps))
    try:
        _train_steps(state, progress, batches["train"], recipe, device, run, narrator, agreement, keeper, fallbacks)
    except OutOfMemory as error:
        again = f"--output {run.path} --resume auto --set device.micro_batch={error.micro_batch}"
        error.hint = f"start all processes again with: {again}; under `linne launch` that happens by itself"
        raise
    scores = _validate(state, batches, recipe, device, agreement)
    fallbacks.check()
    if agreement.signal(state.step, now=True) is not None:  # the steps are not all done, or the scores are of a part
        _save_now(keeper, progress, recipe, agreement)
        return None
    state.epoch, state.batch = state.epoch + 1, 0
    finish_epoch(progress, state, scores, recipe, run, narrator)
    progress = Progress.begin(state, device, progress.run_start)
    if _is_time_to_save(keeper.is_due(state, at_epoch_end=True), state, progress, recipe, agreement):
        keeper.save(progress)
    return progress


def _is_time_to_save(is_due: bool, state: TrainState, progress: Progress, recipe: Recipe, agreement: Agreement) -> bool:
    """Return whether a checkpoint is taken now: where training may go back to it, of finite numbers alone."""
    if recipe.optim.nonfinite != "rewind":
        return agreement.is_time_to_save(is_due)
    return agreement.is_time_to_save(is_due, lambda: is_good(progress.unread, state.parameters))


def _save_now(keeper: Keeper, progress: Progress, recipe: Recipe, agreement: Agreement) -> None:
    """Have a checkpoint written before training ends, to which other processes may have to give a part."""
    keeper.wait()  # it may be this step's that is being written
    due = keeper.config.keep is not None and not keeper.is_stored()
    if not _is_time_to_save(due, keeper.recorder.state, progress, recipe, agreement):
        return
    if agreement.world.is_first:
        keeper.save_now(progress)
    else:
        keeper.save(progress)


def _train_steps(
    state: TrainState,
    progress: Progress,
    batches: Batches,
    recipe: Recipe,
    device: Device,
    run: Run,
    narrator: Narrator,
    agreement: Agreement,
    keeper: Keeper,
    fallbacks: Fallbacks,
) -> None:
    """Train what is left of the epoch at hand, or until a signal comes."""
    num_steps, clock = len(batches), agreement.clock
    last = state.num_steps(recipe.optim.epochs, num_steps)
    if clock is not None:
        clock.start_steps(state.step)
    todo = batches.epoch(state.epoch, state.batch) if state.step < last else iter(())
    for batch in progress.waiting.timed(todo):
        keeper.keep_up()
        agreement.world.seed(recipe.seed, state.step, device)
        loss = train_step(state, batch, recipe, device, num_steps)
        state.batch = batch.number + 1
        progress.add(loss, len(batch.labels_N))
        if recipe.log_samples and batch.positions_N is not None:
            run.log_samples(state.step, state.epoch, batch.positions_N.tolist())
        if len(progress.unread) >= recipe.log_every:
            log_steps(progress, state, recipe, num_steps, run, narrator, agreement.world)
            fallbacks.check()
        if agreement.signal(state.step) is not None:
            return
        if clock is not None:
            last = keep_to_budget(state, last, num_steps, progress, recipe, device, run, narrator, agreement)
        if state.step >= last:
            break
        if state.batch < num_steps and _is_time_to_save(keeper.is_due(state), state, progress, recipe, agreement):
            keeper.save(progress)
    state.batch = num_steps
    log_steps(progress, state, recipe, num_steps, run, narrator, agreement.world)
    progress.end_steps()
    if clock is not None:
        clock.end_steps()


def load(
    source: Source,
    recipe: Recipe,
    device: Device,
    narrator: Narrator,
    known_bad: Mapping[tuple[str, int], str] | None = None,
    world: World = ALONE,
) -> dict[str, Batches]:
    """Return the batches of `train`, and of `val` where there is one, showing the progress of decoding."""
    total = len(source.splits["train"]) + len(source.splits.get("val", ()))
    with narrator.progress("decoding", total), world.one_at_a_time():
        made = make_batches(source, recipe, device, narrator.advance, narrator.line, known_bad, world.share)
    return {name: split for name, split in zip(("train", "val"), made, strict=True) if split is not None}


def _all_bad_images(batches: Mapping[str, Batches], world: World) -> tuple[str, ...]:
    """Return the unreadable images that any process met, each once."""
    mine = [why for split in batches.values() for why in split.bad_images.values()]
    return tuple(dict.fromkeys(why for found in world.from_all(mine) for why in found))


def _validate(
    state: TrainState, batches: Mapping[str, Batches], recipe: Recipe, device: Device, agreement: Agreement
) -> Scores | None:
    """Return what validation finds after the epoch at hand, until a signal comes; None without a validation split.

    The weights are averaged before, where the recipe asks for that.

    Raises:
        CheckFailed: the network's answers are no numbers any more.
        SourceError: none of the images can be read.
    """
    if agreement.signal(state.step) is not None:
        return None
    epoch, val_batches = state.epoch + 1, batches.get("val")
    refresh_average(state, batches["train"], recipe, device, agreement)
    distributed.share_buffers(state.networks, recipe, agreement.world)
    if not state.is_finite(device.put(torch.from_numpy(canary_batch(input_spec(recipe))))):
        raise CheckFailed(f"the model's answers became infinite or undefined in epoch {epoch}")
    if val_batches is None:
        return None
    scores = evaluate_model(state, agreement.until(val_batches.in_order()), recipe, device, agreement.world)
    if scores.num_examples == 0 and agreement.signal(state.step) is None:
        raise SourceError(
            f"none of the {len(val_batches.bad_images):,} images of split `val` can be read: no epoch is better "
            "than another",
            hint="replace them, or take that split out of the source",
        )
    if not math.isfinite(scores.loss):
        raise CheckFailed(f"the validation loss became {scores.loss} after epoch {epoch}")
    return scores
