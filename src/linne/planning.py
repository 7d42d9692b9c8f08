"""From what a user typed to a complete recipe and an opened source."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from linne import models
from linne.bundle import open_bundle
from linne.data import SOURCES, open_source
from linne.data.loading.survey import survey
from linne.data.names import same_classes
from linne.data.source import Source
from linne.device import Device
from linne.errors import RecipeError
from linne.host import others_use_of_cores, processes_here
from linne.plan_weights import StartedFrom, bring_description, designed_for, pin_weights
from linne.recipe import DataConfig, Recipe, parse_value
from linne.recipes import read_recipe, read_run
from linne.recipes.auto import Task, choose

SPLIT_OPTIONS = (
    "val_fraction",
    "test_fraction",
    "split_seed",
    "group_by",
    "folds",
    "fold",
    "splits_file",
    "quarantine",
)
"""Fields of the recipe's data section that decide which examples are in which split."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, decided."""

    recipe: Recipe
    reasons: Mapping[str, str]
    source: Source
    device: Device
    started_from: StartedFrom | None = None
    """Pretrained weights; None where there are none, or they were not looked at."""


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """What a run that is to be repeated trained on."""

    fingerprint: str | None
    splits_file: Path | None


def plan_anew(
    source: str | None,
    recipe: str | None,
    flags: Mapping[str, Any],
    overrides: Mapping[str, Any],
    opened: Source | None = None,
    *,
    require_accelerator: bool = False,
    trust_code: bool = False,
    num_processes: int = 1,
    fetch_weights: bool = True,
    say: Callable[[str], None],
) -> Plan:
    """Return the plan of a run that begins now; where `optim.minutes` is given, with as many epochs as fit.

    `say` is called with a line before that is measured, which takes a few seconds, and before pretrained weights are
    fetched, unless `fetch_weights` is False.

    Raises:
        LinneError: something given cannot be used.
    """
    given, reasons = collect(source, recipe, flags, overrides)
    earlier = earlier_run(recipe, given)
    if fetch_weights:
        bring_description(given, say)
    plan = make_plan(given, reasons, earlier, opened, require_accelerator=require_accelerator, trust_code=trust_code)
    started_from = pin_weights(plan.recipe, say) if fetch_weights else None
    pinned = {} if started_from is None else {"model.weights_sha256": started_from.sha256}
    pinned_why = dict.fromkeys(pinned, "of the file that is there, so that a repeat starts from the same")
    recipe_then, reasons_then = plan.recipe.override(pinned), {**plan.reasons, **pinned_why}
    plan = dataclasses.replace(plan, recipe=recipe_then, reasons=reasons_then, started_from=started_from)
    if not _has_budget(given, reasons):
        return plan
    if num_processes > 1:
        raise RecipeError(
            f"optim.minutes is measured by one process, and {num_processes} train together",
            hint="say how many epochs: --epochs N",
        )
    epochs, why = _epochs_in_budget(plan, say, trust_code)
    found = {"optim.epochs": epochs, "optim.minutes": plan.recipe.optim.minutes, **pinned}
    given, reasons = collect(source, recipe, {**flags, **found}, overrides)
    reasons |= {"optim.epochs": why, **pinned_why}
    plan = make_plan(
        given, reasons, earlier, plan.source, require_accelerator=require_accelerator, trust_code=trust_code
    )
    later = {"optim.shortened": "decided by the clock, where the epochs turn out not to fit"}
    return dataclasses.replace(plan, reasons={**plan.reasons, **later}, started_from=started_from)


def _has_budget(given: Mapping[str, Any], reasons: Mapping[str, str]) -> bool:
    """Return whether the number of epochs is still to be found: a run that is repeated has its own."""
    if given.get("optim.minutes") is None:
        return False
    if reasons["optim.minutes"] == reasons.get("optim.epochs") == "given":
        raise RecipeError(
            "optim.epochs and optim.minutes both say how long to train", hint="leave --epochs or --time-budget out"
        )
    return "optim.epochs" not in given or reasons["optim.minutes"] == "given"


def _epochs_in_budget(plan: Plan, say: Callable[[str], None], trust_code: bool) -> tuple[int, str]:
    from linne.training.pace import measure_pace

    minutes = plan.recipe.optim.minutes
    assert minutes is not None
    say("measuring how long an epoch takes")
    pace = measure_pace(plan.recipe, plan.source, plan.device, 60 * minutes, trust_code=trust_code)
    epochs = pace.epochs_in(60 * minutes, plan.recipe)
    fit = "fit into" if pace.start + pace.epoch <= 60 * minutes else "do not fit into"
    return epochs, f"epochs of {pace.epoch:.2g} s, as measured, {fit} {minutes:g} min"


def collect(
    source: str | None, recipe: str | None, flags: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the given fields and where each was given: a recipe's, then flags and overrides over them.

    Raises:
        RecipeError: no source, an unknown field, or a flag and an override that disagree.
    """
    given, reasons = asked_for(source, recipe, flags, overrides)
    if "data.source" not in given:
        raise RecipeError(
            "no source to learn from", hint="name a set or a folder: linne train digits, linne train path/to/folder"
        )
    return given, reasons


def asked_for(
    source: str | None, recipe: str | None, flags: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what `collect` does, of a command that need not name a source.

    Raises:
        RecipeError: an unknown field, or a flag and an override that disagree.
    """
    given: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    if recipe is not None:
        given = read_recipe(recipe)
        reasons = dict.fromkeys(given, f"recipe {recipe}")
    flags = {"data.source": source, **flags}
    typed = {path: parse_value(path, value) for path, value in flags.items() if value is not None}
    for path, value in overrides.items():
        parsed = parse_value(path, value)
        if path in typed and typed[path] != parsed:
            raise RecipeError(f"{path} is given twice: as {typed[path]} and as {parsed}")
        typed[path] = parsed
    if given.get("optim.warmup_epochs") and "optim.epochs" in given and "optim.epochs" in typed:
        share = typed["optim.epochs"] / given["optim.epochs"]
        given["optim.warmup_epochs"] = round(given["optim.warmup_epochs"] * share, 3)
        reasons["optim.warmup_epochs"] += ", the same share of other epochs"
    if "optim.epochs" in typed and "optim.minutes" not in typed and "optim.minutes" in given:
        given["optim.minutes"] = None  # a recipe's, of another number of epochs
    if typed.keys() & {"optim.epochs", "optim.minutes"} and given.get("optim.shortened") is not None:
        given["optim.shortened"] = None
    given.update(typed)
    reasons.update(dict.fromkeys(typed, "given"))
    return given, reasons


def earlier_run(recipe: str | None, given: Mapping[str, Any]) -> EarlierRun | None:
    """Return what the run that `recipe` names trained on, if it names one; None when other splits are asked for now."""
    if recipe is None or not recipe.endswith(".json"):
        return None
    document, beside = read_run(Path(recipe)), Path(recipe).parent / "splits.json"
    deciding = ("data.source", *(f"data.{option}" for option in SPLIT_OPTIONS))
    before = Recipe.from_dict(document["recipe"]).to_fields()
    if any(before[path] != given[path] for path in deciding):
        return None
    fingerprint = document.get("source", {}).get("fingerprint")
    return EarlierRun(fingerprint, beside if beside.is_file() else None)


def make_plan(
    given: Mapping[str, Any],
    reasons: Mapping[str, str],
    earlier: EarlierRun | None = None,
    source: Source | None = None,
    *,
    require_accelerator: bool = False,
    trust_code: bool = False,
) -> Plan:
    """Return the complete recipe for `given`, with the source it names opened, unless `source` is it already.

    With an `earlier` run its splits are used again, and a source that has changed since is pointed out.

    Raises:
        SourceError, RecipeError, DeviceError: something given cannot be used.
    """
    given, reasons = dict(given), dict(reasons)
    device = Device.pick(given.pop("device.name", "auto"), require_accelerator=require_accelerator)
    designed = designed_for(given, reasons)
    source = open_planned(given, earlier) if source is None else source
    task = _task(source, device, asks_for_precision="device.precision" not in given)
    recipe, all_reasons = choose(task, given, reasons, designed)
    _check_packages(recipe)
    try:
        _check_model(recipe, source, trust_code)
    except RecipeError as error:
        if designed is None or "data.height" in given or "data.width" in given:
            raise
        size = {"data.height": designed.height, "data.width": designed.width}
        why = f"what {recipe.model.name} was designed for; it cannot take {recipe.data.height} x {recipe.data.width}"
        recipe, all_reasons = choose(task, {**given, **size}, {**reasons, **dict.fromkeys(size, why)}, designed)
        try:
            _check_model(recipe, source, trust_code)
        except RecipeError:
            raise error from None
    check_device(recipe, device)
    _check_sizes(recipe, source, trust_code)
    _check_teacher(recipe, source, trust_code)
    layout = _layout_that_works(recipe, source, device, "device.channels_last" in given, trust_code)
    recipe, all_reasons = recipe.override(dict.fromkeys(layout, False)), {**all_reasons, **layout}
    return Plan(recipe, {**all_reasons, "device.name": reasons.get("device.name", device.reason)}, source, device)


def check_device(recipe: Recipe, device: Device) -> None:
    """Raise RecipeError unless `device` can do what `recipe` asks of it, by what its record says."""
    wanted, can = recipe.device, device.can
    needs = {"bf16": {"autocast": can.autocast}, "fp16": {"autocast": can.autocast, "a scaled loss": can.grad_scaler}}
    for need, found in needs.get(wanted.precision, {}).items():
        if not found.holds:
            raise RecipeError(
                f"`{device.address}` cannot train in {wanted.precision}: it needs {need}, and {found.evidence}",
                hint=f"use --set device.precision={device.precision}",
            )
    bf16 = can.dtypes["bf16"]
    if recipe.optim.optimizer == "muon" and bf16.answer == can.autocast.answer == "no":
        raise RecipeError(
            f"`{device.address}` cannot train with Muon, which multiplies matrices in bf16: {bf16.evidence}",
            hint="use --set optim.optimizer=adamw",
        )
    if wanted.determinism == "strict" and not can.deterministic.holds:
        raise RecipeError(
            f"`{device.address}` cannot train strictly the same twice: {can.deterministic.evidence}",
            hint="use --set device.determinism=repeatable",
        )
    if wanted.compile and not can.compile_backends:
        raise RecipeError(
            f"torch.compile builds nothing that is known to work on `{device.address}`",
            hint="use --set device.compile=false",
        )


def _check_packages(recipe: Recipe) -> None:
    needs = {
        "optim.schedule=schedule-free": (recipe.optim.schedule == "schedule-free", "schedulefree", "schedule-free"),
        "model.lora_rank": (recipe.model.lora_rank is not None, "peft", "lora"),
    }
    for field, (asked, package, extra) in needs.items():
        if asked and importlib.util.find_spec(package) is None:
            raise RecipeError(
                f"{field} needs the package `{package}`, which is not installed", hint=f"pip install 'linne[{extra}]'"
            )


def _check_teacher(recipe: Recipe, source: Source, trust_code: bool) -> None:
    if recipe.distill.bundle is None:
        return
    from linne.models.from_bundle import network_of

    teacher = open_bundle(Path(recipe.distill.bundle))
    network_of(teacher, trust_code=trust_code)
    theirs, ours = teacher.labels, source.labels
    if not same_classes(theirs, ours):
        other = next(((a, b) for a, b in zip(theirs, ours, strict=False) if a != b), None)
        where = f"its label `{other[0]}` stands where `{other[1]}` does" if other else "the first of them agree"
        raise RecipeError(
            f"the teacher `{recipe.distill.bundle}` has {len(theirs)} labels and {source.name} {len(ours)}: {where}",
            hint="a teacher answers with the same labels in the same order",
        )


def _check_model(recipe: Recipe, source: Source, trust_code: bool) -> None:
    """Find out now, rather than after the images are decoded, whether the model takes this input."""
    models.describe_recipe(recipe, source.num_classes, trust_code=trust_code)


def _layout_that_works(
    recipe: Recipe, source: Source, device: Device, is_given: bool, trust_code: bool
) -> dict[str, str]:
    """Return why `device.channels_last` has to be false, by that field; nothing where it need not.

    Raises:
        RecipeError: it is given, and training would end the process.
    """
    from linne.models.layout import layer_against_channels_last

    if not recipe.device.channels_last:
        return {}
    layer = layer_against_channels_last(recipe, source.num_classes, device.kind, trust_code=trust_code)
    if layer is None:
        return {}
    why = f"torch crashes with a 1 x 1 convolution with a stride over so few channels as `{layer}` has"
    if is_given:
        raise RecipeError(
            f"`{recipe.model.name}` cannot be trained with device.channels_last=true on `{device.address}`: {why}",
            hint="use --set device.channels_last=false",
        )
    return {"device.channels_last": why}


def _check_sizes(recipe: Recipe, source: Source, trust_code: bool) -> None:
    """Find out now, rather than when the images grow, whether the model takes all sizes of training."""
    from linne.data.loading.sizes import sizes_in
    from linne.models.checks import why_not

    if recipe.augment.size_start is None:
        return
    build = partial(models.build, trust_code=trust_code)
    ref = models.describe_recipe(recipe, source.num_classes, trust_code=trust_code)
    refused = next((size for size in sizes_in(recipe) if why_not(build, ref, size) is not None), None)
    if refused is not None:
        raise RecipeError(
            f"`{recipe.model.name}` takes {recipe.data.height} x {recipe.data.width} pixels and not {refused[0]} x "
            f"{refused[1]}, and augment.size_start={recipe.augment.size_start:g} trains on both",
            hint="use --set augment.size_start=none, or a larger share where the network takes other sizes",
        )


def open_planned(given: Mapping[str, Any], earlier: EarlierRun | None) -> Source:
    """Return the source that the fields in `given` name, split as they say, or as it was in an `earlier` run."""
    defaults = DataConfig(source=given["data.source"])
    options = {option: given.get(f"data.{option}", getattr(defaults, option)) for option in SPLIT_OPTIONS}
    for option in ("splits_file", "quarantine"):
        options[option] = None if options[option] is None else Path(options[option])
    if earlier is not None and earlier.splits_file is not None:
        options |= {"splits_file": earlier.splits_file, "group_by": None, "folds": None, "fold": None}
    source = open_source(given["data.source"], **options)
    if earlier is not None and earlier.fingerprint not in (None, source.fingerprint):
        changed = "warning: the source is not what the earlier run trained on; the result will differ"
        source = dataclasses.replace(source, notes=(changed, *source.notes))
    return source


def _task(source: Source, device: Device, *, asks_for_precision: bool) -> Task:
    import torch

    look = asks_for_precision and not device.is_accelerator and device.precision != "fp32"
    train, processes = source.splits["train"], processes_here()
    num_cores = max((os.cpu_count() or 1) // processes, 1)
    seen = survey(train, source.channels, num_cores)
    return Task(
        source=source.name,
        num_train=len(train),
        num_val=len(source.splits.get("val", ())),
        num_classes=source.num_classes,
        height=source.image_size[0],
        width=source.image_size[1],
        same_size=source.same_size,
        channels=source.channels,
        mean=seen.mean,
        std=seen.std,
        decode_threads=seen.threads,
        decode_rates=seen.rates,
        device=device.address,
        device_kind=device.kind,
        channels_last=device.can.channels_last.holds,
        precision=device.precision,
        others_share=others_use_of_cores() if look else None,  # takes a fifth of a second
        num_threads=torch.get_num_threads(),
        num_cores=num_cores,
        memory_bytes=device.memory_bytes() // (1 if device.is_accelerator else processes),
    )


def default_output_name(recipe: Recipe) -> str:
    """Return what to call a run: its source and its model."""
    provider, colon, place = recipe.model.name.partition(":")
    model = f"{provider}-{Path(place).resolve().name}" if colon else recipe.model.name.replace("/", "-")
    return f"{source_in_names(recipe.data.source)}-{model}"


def source_in_names(source: str) -> str:
    """Return what a source is called in the name of a folder."""
    if ":" in source or "/" in source or "\\" in source:
        kind, _, rest = source.partition(":")
        source = kind if rest and kind in SOURCES and kind != "folder" else Path(rest or source).resolve().name
    return source
