"""From the weights that a training keeps to a bundle."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import asdict

import torch

from linne import models
from linne.bundle import Bundle, canary_batch, write_bundle
from linne.data.loading.loader import input_spec
from linne.data.source import Source
from linne.device import Device, describe_versions
from linne.log import Run
from linne.models.provider import ModelRef
from linne.preprocess import Floats, InputSpec
from linne.recipe import Recipe
from linne.training.state import Snapshot


def write_result(
    run: Run, ref: ModelRef, kept: Snapshot, source: Source, recipe: Recipe, device: Device, *, finished: bool
) -> Bundle:
    """Write `kept` as the run's bundle and return it."""
    spec = input_spec(recipe)
    config = models.load_provider(ref.provider).config(ref, source.labels, spec.to_dict())
    metrics = {"val": asdict(kept.scores)} if kept.scores is not None else {}
    return write_bundle(
        run.path / "bundle",
        labels=source.labels,
        input=spec,
        model=asdict(ref),
        weights={name: tensor.contiguous().numpy() for name, tensor in kept.weights.items()},
        config=config,
        canary_logits_NK=_canary_logits(ref, kept, spec),
        metrics=metrics,
        provenance={
            "recipe": recipe.to_dict(),
            "seed": recipe.seed,
            "versions": describe_versions(),
            "device": f"{device.address} ({device.name})",
            "source": {
                "name": source.name,
                "fingerprint": source.fingerprint,
                **{f"num_{name}": len(split) for name, split in source.splits.items()},
                "splits_sha256": splits_sha256(run),
            },
            "epoch": kept.epoch,
            "finished": finished,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )


def splits_sha256(run: Run) -> str | None:
    """Return the sha256 of the run's splits.json, which says who trained; None where the source alone decides that."""
    path = run.path / "splits.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _canary_logits(ref: ModelRef, kept: Snapshot, spec: InputSpec) -> Floats:
    """Return what the kept weights answer to the canaries: on the CPU, in fp32, through the reference preprocessing."""
    model = models.build(ref).eval()
    model.load_state_dict(kept.weights)
    with torch.inference_mode():
        logits_NK: Floats = model(torch.from_numpy(canary_batch(spec))).numpy()
    return logits_NK
