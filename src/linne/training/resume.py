"""From everything that a run changes to a checkpoint's contents, and back, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from linne.data.loading.loader import Batches
from linne.data.source import Source
from linne.device import Device, describe_versions
from linne.errors import RecipeError
from linne.log import Run
from linne.models.loading import load_weights
from linne.recipe import Recipe
from linne.training.checkpoint_format import Checkpoint, Contents, Tensors, to_plain
from linne.training.distributed import parted_as, whole
from linne.training.ema import MovingAverage
from linne.training.epoch_mean import EpochMean
from linne.training.finite import Skips
from linne.training.mixout import Mixout
from linne.training.patience import Patience
from linne.training.progress import Progress
from linne.training.schedule import Plateau
from linne.training.schedule_free import ScheduleFreeMean
from linne.training.state import Scores, Snapshot, TrainState


class Recorder:
    """Takes copies of a run that its training does not touch afterwards.

    The memory of a copy is used again for the next one, which must not be taken before the one before is written.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        source: Source,
        device: Device,
        state: TrainState,
        batches: Mapping[str, Batches],
    ) -> None:
        """`state` is as its recipe makes it, before anything is restored; `batches` are those of each split."""
        self.run, self._device, self.state, self._batches = run, device, state, batches
        self._facts: dict[str, Any] = {
            "recipe": recipe.to_dict(),
            "fingerprint": source.fingerprint,
            "versions": describe_versions(),
            "device": f"{device.address} ({device.name})",
            "batches_an_epoch": len(batches["train"]),
        }
        self._memory: Tensors = {}

    def take(self, progress: Progress) -> Contents:
        """Return a copy of everything, on the host; waits until the device has done what is queued."""
        state, device, tensors = self.state, self._device, Tensors()
        bad = [[name, *item] for name, split in self._batches.items() for item in split.bad_images.items()]
        kept = None if state.kept is None else {"epoch": state.kept.epoch, "scores": _scores(state.kept.scores)}
        plain = to_plain(
            {
                "model": state.model.state_dict(),
                "optimizer": state.stepper.state(),
                **{name: None if part is None else part.state() for name, part in _parts(state).items()},
                "scaler": None if state.scaler is None else state.scaler.state_dict(),
                "random": random_state(device),
                "lr": state.lr,
                "cuts": list(state.cuts),
                "micro_batch": state.micro_batch,
                "skips": asdict(state.skips),
                "rewinds": state.rewinds,
                "best_accuracy": state.best_accuracy,
                "kept": kept,
                "progress": progress.to_plain(),
                "bad_images": bad,
                "log_bytes": self.run.sizes(),
            },
            "state",
            tensors,
        )
        return Contents(
            epoch=state.epoch,
            step=state.step,
            batch=state.batch,
            facts=self._facts,
            state=plain,
            tensors={name: self._copy(name, tensor) for name, tensor in tensors.items()},
            kept=None if state.kept is None else state.kept.weights,
        )

    def _copy(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        tensor = whole(tensor)
        mine = self._memory.get(name)
        if mine is None or mine.shape != tensor.shape or mine.dtype != tensor.dtype:
            mine = self._memory[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
        return mine.copy_(tensor)

    def restore(self, checkpoint: Checkpoint) -> Progress:
        """Bring the run to where `checkpoint` was taken, and return the measurements of its epoch.

        Raises:
            RecipeError: the checkpoint is of another model or optimiser.
        """
        state, saved = self.state, checkpoint.state
        if state.mixout is not None and saved.get("mixout") is None:
            raise RecipeError(
                f"checkpoint `{checkpoint.path}` holds no pretrained weights for model.mixout to mix in",
                hint="train anew in another folder, with --output DIR, or use --set model.mixout=0",
            )
        try:
            own, weights = state.model.state_dict(), saved["model"]
            # In the network's order, not the file's: processes part weights together, one after another.
            place = {name: number for number, name in enumerate(own)}
            order = sorted(weights, key=lambda name: place.get(name, len(place)))
            load_weights(state.model, {name: parted_as(own.get(name), weights[name]) for name in order})
            state.stepper.load(saved["optimizer"])
            for name, part in _parts(state).items():
                if part is not None and saved.get(name) is not None:
                    part.load(saved[name])
            if state.ema is not None and saved["ema"] is None:  # asked for in mid-run: it begins at these weights
                load_weights(state.ema.model, saved["model"])
            if state.scaler is not None and saved["scaler"] is not None:
                state.scaler.load_state_dict(saved["scaler"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise RecipeError(
                f"checkpoint `{checkpoint.path}` does not fit this model and optimiser: {str(error).splitlines()[0]}",
                hint="train anew in another folder: --output DIR",
            ) from error
        state.lr, state.best_accuracy = saved["lr"], saved["best_accuracy"]
        state.skips, state.rewinds = Skips(**saved["skips"]), saved["rewinds"]
        then, now = checkpoint.facts["recipe"], self._facts["recipe"]
        # Of another number of epochs nothing was taken away yet.
        state.cuts = tuple(saved["cuts"]) if then["optim"]["epochs"] == now["optim"]["epochs"] else ()
        # Found by running short of memory, which need not happen again:
        if then["device"]["micro_batch"] == now["device"]["micro_batch"]:
            found = [number for number in (saved["micro_batch"], state.micro_batch) if number is not None]
            state.micro_batch = min(found, default=None)
        state.epoch, state.step, state.batch = checkpoint.epoch, checkpoint.step, checkpoint.batch
        self._keep_the_place(checkpoint.facts["batches_an_epoch"])
        state.kept = None
        if saved["kept"] is not None and checkpoint.kept is not None:
            scores = saved["kept"]["scores"]
            state.kept = Snapshot(saved["kept"]["epoch"], scores and Scores(**scores), checkpoint.kept)
        set_random_state(saved["random"], self._device)
        return Progress.from_plain(saved["progress"], self._device)

    def _keep_the_place(self, batches_before: int) -> None:
        """Where the epochs have another number of batches now, go on at the same share of this one."""
        state, batches_now = self.state, len(self._batches["train"])
        if batches_now != batches_before:
            state.batch = round(state.batch * batches_now / batches_before)
            state.step = state.epoch * batches_now + state.batch


def bad_images(checkpoint: Checkpoint | None) -> dict[tuple[str, int], str]:
    """Return the unreadable images that were met until `checkpoint`, by split and position."""
    if checkpoint is None:
        return {}
    return {(split, position): why for split, position, why in checkpoint.state["bad_images"]}


def seed_others(seed: int) -> None:
    """Seed Python's and NumPy's generators; torch's are `Device.repeatable`'s."""
    random.seed(seed)
    np.random.seed(seed % 2**32)


def random_state(device: Device) -> dict[str, Any]:
    """Return the states of every generator that a network might draw from: torch's, the device's, Python's, NumPy's."""
    version, numbers, normal = random.getstate()
    kind, keys, position, has_normal, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "device": device.random_state(),
        "python": (version, torch.tensor(numbers), normal),
        "numpy": (
            str(kind),
            torch.from_numpy(np.asarray(keys, np.int64)),
            int(position),
            int(has_normal),
            float(cached),
        ),
    }


def set_random_state(saved: Mapping[str, Any], device: Device) -> None:
    """Set every generator to what `random_state` returned."""
    torch.set_rng_state(saved["torch"])
    if saved["device"] is not None:
        device.set_random_state(saved["device"])
    version, numbers, normal = saved["python"]
    random.setstate((version, tuple(numbers.tolist()), normal))
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))


Part = MovingAverage | EpochMean | ScheduleFreeMean | Plateau | Patience | Mixout


def _parts(state: TrainState) -> dict[str, Part | None]:
    """Return what has a state of its own beside the network and the optimiser, where the recipe asks for it."""
    return {
        "ema": state.ema,
        "late_average": state.late_average,
        "plateau": state.plateau,
        "patience": state.patience,
        "mixout": state.mixout,
    }


def _scores(scores: Scores | None) -> dict[str, Any] | None:
    return None if scores is None else asdict(scores)
