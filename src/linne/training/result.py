"""From the weights that a training keeps to a bundle."""

from __future__ import annotations

import dataclasses
import datetime
import os
import shlex
import shutil
from dataclasses import asdict
from pathlib import Path

import torch

from linne import models
from linne.bundle import Bundle, canary_batch, write_bundle
from linne.data.loading.loader import input_spec
from linne.data.source import Source
from linne.device import Device, describe_versions
from linne.errors import BundleError
from linne.log import Run
from linne.models.loading import load_weights
from linne.models.provider import ModelRef
from linne.preprocess import Floats, InputSpec
from linne.recipe import Recipe
from linne.training.state import Snapshot


def write_result(
    run: Run,
    ref: ModelRef,
    kept: Snapshot,
    source: Source,
    recipe: Recipe,
    device: Device,
    *,
    finished: bool,
    trust_code: bool,
) -> Bundle:
    """Write `kept` as the run's bundle, in the place of one that an interruption left there, and return it.

    Raises:
        BundleError: the disk refuses.
    """
    try:
        return _write(run, ref, kept, source, recipe, device, finished=finished, trust_code=trust_code)
    except (BundleError, OSError) as error:
        what = error.message if isinstance(error, BundleError) else f"the bundle cannot be written: {error.strerror}"
        command = f"linne train --output {shlex.quote(str(run.path))} --resume auto"
        raise BundleError(what, hint=f"put that right, then: {command}") from error


def _write(
    run: Run,
    ref: ModelRef,
    kept: Snapshot,
    source: Source,
    recipe: Recipe,
    device: Device,
    *,
    finished: bool,
    trust_code: bool,
) -> Bundle:
    place = run.path / "bundle"
    before = place.exists()
    for left in run.path.glob("*bundle?*"):  # by a process that was killed while it wrote one
        shutil.rmtree(left, ignore_errors=True)
    spec = input_spec(recipe)
    config = models.load_provider(ref.provider).config(ref, source.labels, spec.to_dict())
    started_from = run.started_from()
    metrics = {"val": asdict(kept.scores)} if kept.scores is not None else {}
    bundle = write_bundle(
        place.with_name("bundle-next") if before else place,
        labels=source.labels,
        input=spec,
        model=asdict(ref),
        weights={name: tensor.contiguous().numpy() for name, tensor in kept.weights.items()},
        config=config,
        canary_logits_NK=_canary_logits(ref, kept, spec, trust_code),
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
                "splits_sha256": run.splits_sha256(),
            },
            **({} if started_from is None else {"started_from": started_from}),
            "epoch": kept.epoch,
            "finished": finished,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )
    return _take_the_place(bundle, place) if before else bundle


def _take_the_place(bundle: Bundle, place: Path) -> Bundle:
    """Put `bundle` where an older one is, and return it; at every moment one of the two is there, whole."""
    old = place.with_name("bundle-before")
    os.rename(place, old)
    os.rename(bundle.path, place)
    shutil.rmtree(old, ignore_errors=True)
    return dataclasses.replace(bundle, path=place)


def _canary_logits(ref: ModelRef, kept: Snapshot, spec: InputSpec, trust_code: bool) -> Floats:
    """Return what the kept weights answer to the canaries: on the CPU, in fp32, through the reference preprocessing."""
    model = models.build(ref, trust_code=trust_code).eval()
    load_weights(model, kept.weights)
    with torch.inference_mode():
        logits_NK: Floats = model(torch.from_numpy(canary_batch(spec))).numpy()
    return logits_NK
