"""The recipe: values that can be written, read and changed, refused with a sentence when they cannot."""

import dataclasses
import json

import pytest

from linne.errors import RecipeError
from linne.recipe import DataConfig, Recipe, parse_value, recipe_fields

BASE = Recipe(data=DataConfig(source="digits"))


def test_a_recipe_written_as_json_and_read_back_is_equal():
    recipe = BASE.override(
        {"optim.lr": "0.03", "augment.cutout": 4, "data.mean": "0.1,0.2,0.3", "device.compile": "yes"}
    )
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_fields_missing_from_a_written_recipe_keep_their_defaults():
    assert Recipe.from_dict({"data": {"source": "digits"}}) == BASE


def test_a_recipe_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.seed = 1


def test_override_returns_a_copy_with_only_those_fields_changed():
    changed = BASE.override({"optim.epochs": 3, "seed": "7"})
    assert (changed.optim.epochs, changed.seed) == (3, 7)
    assert changed.override({"optim.epochs": 10, "seed": 0}) == BASE


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("optim.lr", "1e-3", 0.001),
        ("optim.epochs", "12", 12),
        ("optim.epochs", 12.0, 12),
        ("augment.flip", "on", True),
        ("augment.flip", "No", False),
        ("augment.cutout", "none", None),
        ("augment.cutout", "off", None),
        ("data.val_fraction", "0.2", 0.2),
        ("data.std", "0.2, 0.3, 0.4", (0.2, 0.3, 0.4)),
        ("data.std", [0.2, 0.3, 0.4], (0.2, 0.3, 0.4)),
        ("optim.schedule", "one-cycle", "one-cycle"),
        ("model.name", "timm/resnet18", "timm/resnet18"),
        ("model.freeze", "backbone", "backbone"),
        ("model.freeze", "3", 3),
        ("model.freeze", "none", None),
    ],
)
def test_a_typed_value_is_read_as_its_field_wants_it(path, text, value):
    assert parse_value(path, text) == value
    assert type(parse_value(path, text)) is type(value)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("optim.epochs", "ten", "optim.epochs is `ten`, expected a whole number"),
        ("optim.epochs", 2.5, "optim.epochs is `2.5`, expected a whole number"),
        ("optim.epochs", True, "optim.epochs is `True`, expected a whole number"),
        ("optim.lr", "fast", "optim.lr is `fast`, expected a number"),
        ("optim.lr", "nan", "optim.lr is `nan`, expected a number"),
        ("augment.flip", "maybe", "augment.flip is `maybe`, expected true or false"),
        ("augment.flip", 1, "augment.flip is `1`, expected true or false"),
        ("augment.cutout", "x", "augment.cutout is `x`, expected a whole number or none"),
        ("data.mean", "a,b", "data.mean is `a,b`, expected numbers with commas between"),
        ("model.name", "", "model.name is ``, expected a text"),
        ("model.freeze", "head", "model.freeze is `head`, expected `backbone` or a whole number or none"),
        (
            "optim.schedule",
            "cosin",
            "optim.schedule is `cosin`, expected one of `cosine`, `one-cycle`, `wsd`, `step`, `plateau`, `constant`, "
            "`schedule-free`",
        ),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_what_was_expected(path, text, message):
    with pytest.raises(RecipeError) as caught:
        parse_value(path, text)
    assert caught.value.message == message


def test_a_misspelt_field_gets_the_nearest_one():
    with pytest.raises(RecipeError) as caught:
        BASE.override({"optim.epoch": 3})
    assert caught.value.message == "no recipe field `optim.epoch`"
    assert caught.value.hint == "did you mean `optim.epochs`?"


def test_a_strange_field_is_refused_with_where_the_fields_are_listed():
    with pytest.raises(RecipeError) as caught:
        parse_value("colour", "red")
    assert caught.value.hint == "`linne train --help` and docs/reference/recipe.md list the fields"


def test_a_written_recipe_with_an_unknown_field_is_refused():
    with pytest.raises(RecipeError, match=r"no recipe field `optim\.lrs`"):
        Recipe.from_dict({"data": {"source": "digits"}, "optim": {"lrs": 0.1}})


def test_a_written_recipe_without_a_source_is_refused():
    with pytest.raises(RecipeError, match=r"the recipe names no `data\.source`"):
        Recipe.from_dict({"optim": {"lr": 0.1}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.batch_size": 0}, "data.batch_size is 0, expected 1 or more"),
        ({"data.channels": 2}, "data.channels is 2, expected 1 (grey) or 3 (RGB)"),
        ({"data.channels": 1}, "data.mean has 3 and data.std 3 values for 1 channels"),
        ({"data.std": "0,1,1"}, "data.std is (0.0, 1.0, 1.0), expected values above 0"),
        ({"data.crop_pct": 2}, "data.crop_pct is 2, expected 0.1 to 1"),
        ({"data.val_fraction": 1}, "data.val_fraction is 1, expected more than 0 and less than 1"),
        ({"data.test_fraction": 0}, "data.test_fraction is 0, expected more than 0 and less than 1"),
        ({"model.dropout": 1}, "model.dropout is 1, expected more than 0 and less than 1"),
        ({"model.drop_path": 1}, "model.drop_path is 1, expected more than 0 and less than 1"),
        ({"model.freeze": 0}, "model.freeze is 0, expected 1 or more, or `backbone`"),
        ({"model.freeze": 1, "model.unfreeze_epochs": 0}, "model.unfreeze_epochs is 0, expected 1 or more"),
        ({"distill.temperature": 0}, "distill.temperature is 0, expected a number above 0"),
        ({"distill.weight": 1.5}, "distill.weight is 1.5, expected more than 0 and at most 1"),
        ({"optim.lr": 0}, "optim.lr is 0, expected a number above 0"),
        ({"optim.lr": "inf"}, "optim.lr is inf, expected a number above 0"),
        ({"optim.weight_decay": -1}, "optim.weight_decay is -1, expected 0 or more"),
        ({"optim.momentum": 1}, "optim.momentum is 1, expected 0 to less than 1"),
        ({"optim.label_smoothing": -0.1}, "optim.label_smoothing is -0.1, expected 0 to less than 1"),
        ({"optim.warmup_epochs": 11}, "optim.warmup_epochs is 11, expected 0 to the 10 epochs of training"),
        ({"optim.clip_norm": 0}, "optim.clip_norm is 0, expected a number above 0"),
        ({"optim.ema_decay": 1}, "optim.ema_decay is 1, expected more than 0 and less than 1"),
        ({"optim.clip_value": -1}, "optim.clip_value is -1, expected a number above 0"),
        ({"optim.clip_agc": 0}, "optim.clip_agc is 0, expected a number above 0"),
        ({"optim.sam_rho": 0}, "optim.sam_rho is 0, expected a number above 0"),
        ({"optim.logit_adjustment": "inf"}, "optim.logit_adjustment is inf, expected a number above 0"),
        ({"optim.swa_lr": 0, "optim.average_epochs": 2}, "optim.swa_lr is 0, expected a number above 0"),
        ({"optim.focal_gamma": -1}, "optim.focal_gamma is -1, expected 0 or more"),
        ({"optim.layer_decay": 0}, "optim.layer_decay is 0, expected more than 0 and at most 1"),
        ({"optim.class_balance": 1}, "optim.class_balance is 1, expected more than 0 and less than 1"),
        ({"optim.bce_threshold": 0}, "optim.bce_threshold is 0, expected more than 0 and less than 1"),
        ({"optim.decay_share": 1}, "optim.decay_share is 1, expected more than 0 and less than 1"),
        ({"optim.plateau_epochs": 0}, "optim.plateau_epochs is 0, expected 1 or more"),
        ({"optim.average_epochs": 11}, "optim.average_epochs is 11, expected 1 to the 10 epochs of training"),
        ({"augment.cutout": 0}, "augment.cutout is 0, expected 1 or more"),
        ({"device.num_threads": 0}, "device.num_threads is 0, expected 1 to 4096"),
        ({"seed": -1}, "seed is -1, expected 0 to 9223372036854775807"),
    ],
)
def test_a_value_out_of_range_is_refused_when_the_recipe_is_built(changes, message):
    with pytest.raises(RecipeError) as caught:
        BASE.override(changes)
    assert caught.value.message == message


def test_a_random_resized_crop_asks_for_the_streaming_loader_and_says_how():
    with pytest.raises(RecipeError) as caught:
        BASE.override({"augment.resized_crop_area": 0.3})
    assert caught.value.message.startswith("augment.resized_crop_area needs the streaming loader")
    assert caught.value.hint == "use --set data.loader=streaming, or --set augment.resized_crop_area=none"
    assert BASE.override({"augment.resized_crop_area": 0.3, "data.loader": "streaming"}).data.loader == "streaming"


SMALLER = {"augment.size_start": 0.5}


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"augment.size_start": 1}, "augment.size_start is 1, expected more than 0 and less than 1", None),
        ({**SMALLER, "augment.size_end": 0.4}, "augment.size_end is 0.4, expected augment.size_start=0.5 to 1", None),
        (
            {**SMALLER, "augment.size_hold": 0.9},
            "augment.size_hold is 0.9 and augment.size_until 0.8, expected shares of the epochs, the first no larger",
            None,
        ),
        (
            {"augment.size_tune_epochs": 1},
            "augment.size_tune_epochs ends training on smaller images, and augment.size_start is none",
            "use --set augment.size_start=0.75, or --set augment.size_tune_epochs=none",
        ),
        (
            {**SMALLER, "augment.size_tune_epochs": 10},
            "augment.size_tune_epochs is 10, expected fewer than the 10 epochs of training",
            None,
        ),
        (
            {**SMALLER, "augment.size_tune_epochs": 1, "model.freeze": 2},
            "augment.size_tune_epochs and model.freeze both say which layers learn",
            "leave one of them out: --set model.freeze=none",
        ),
        (
            {**SMALLER, "device.compile": True},
            "augment.size_start changes the size of the images, and device.compile=true builds for one",
            "use --set device.compile=false, or --set augment.size_start=none",
        ),
    ],
)
def test_images_that_grow_in_no_sensible_way_are_refused(changes, message, hint):
    with pytest.raises(RecipeError) as caught:
        BASE.override(changes)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize("views", ["flip", "crops"])
def test_mirror_images_in_the_test_are_refused_where_training_has_none(views):
    with pytest.raises(RecipeError) as caught:
        BASE.override({"tta": views})
    assert caught.value.message == (
        f"tta={views} looks at mirror images, and with augment.flip=false the network has seen none"
    )
    assert caught.value.hint == "use --set augment.flip=true, or --set tta=none"
    assert BASE.override({"tta": views, "augment.flip": True}).tta == views


def test_every_field_can_be_set_to_the_value_it_has():
    values = BASE.to_dict()
    for path in recipe_fields():
        section, _, name = path.rpartition(".")
        value = values[section][name] if section else values[name]
        assert BASE.override({path: value}) == BASE, path


@pytest.mark.parametrize("other", [{"group_by": "patient"}, {"folds": 5, "fold": 1}])
def test_a_splits_file_and_another_way_to_split_are_refused(other):
    with pytest.raises(RecipeError, match=r"data\.splits_file says who trains, and data\.(group_by|folds) would make"):
        DataConfig(source="digits", splits_file="splits.json", **other)


LEAVE_OUT = "leave one of them out: --set optim.{}=none"


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        (
            {"clip_norm": 1, "clip_agc": 0.01},
            "optim.clip_norm and optim.clip_agc both say how gradients are clipped",
            LEAVE_OUT.format("clip_norm"),
        ),
        (
            {"ema_decay": 0.99, "average_epochs": 2},
            "optim.ema_decay and optim.average_epochs both say which weights are kept",
            LEAVE_OUT.format("ema_decay"),
        ),
        (
            {"patience": 3, "average_epochs": 2},
            "optim.average_epochs takes the last epochs' mean, and optim.patience may end training before them",
            LEAVE_OUT.format("patience"),
        ),
        (
            {"swa_lr": 0.1},
            "optim.swa_lr is the rate while weights are averaged, and optim.average_epochs is none",
            "use --set optim.average_epochs=2, or --set optim.swa_lr=none",
        ),
        (
            {"swa_lr": 0.1, "average_epochs": 2, "schedule": "plateau"},
            "optim.swa_lr fixes a rate that optim.schedule=plateau is to find",
            LEAVE_OUT.format("swa_lr"),
        ),
        (
            {"logit_adjustment": 1, "loss": "bce"},
            "optim.logit_adjustment is derived for a softmax, and optim.loss=bce has none",
            LEAVE_OUT.format("logit_adjustment"),
        ),
        (
            {"schedule": "schedule-free", "optimizer": "muon"},
            "optim.schedule=schedule-free is made for sgd and adamw, and optim.optimizer is muon",
            "use --set optim.optimizer=adamw, or --set optim.schedule=cosine",
        ),
        (
            {"schedule": "schedule-free", "average_epochs": 3},
            "optim.schedule=schedule-free averages the weights already, and optim.average_epochs would again",
            LEAVE_OUT.format("average_epochs"),
        ),
        (
            {"schedule": "schedule-free", "ema_decay": 0.9},
            "optim.schedule=schedule-free averages the weights already, and optim.ema_decay would again",
            LEAVE_OUT.format("ema_decay"),
        ),
        (
            {"schedule": "schedule-free", "momentum": 0},
            "optim.schedule=schedule-free needs optim.momentum above 0: it says where gradients are taken",
            "use --set optim.momentum=0.9",
        ),
    ],
)
def test_fields_of_optim_that_contradict_each_other_are_refused_by_name(changes, message, hint):
    with pytest.raises(RecipeError) as caught:
        BASE.override({f"optim.{name}": value for name, value in changes.items()})
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_plateau_without_validation_is_refused():
    with pytest.raises(RecipeError) as caught:
        BASE.override({"optim.schedule": "plateau", "data.val_fraction": None})
    assert caught.value.message == (
        "optim.schedule=plateau reads the validation loss, and data.val_fraction=none leaves none"
    )
    assert caught.value.hint == "use --set data.val_fraction=0.1, or --set optim.schedule=cosine"


@pytest.mark.parametrize("name", ["class_balance", "logit_adjustment"])
def test_two_ways_of_making_up_for_the_sizes_of_classes_are_refused(name):
    with pytest.raises(RecipeError) as caught:
        BASE.override({"data.balance": "class", f"optim.{name}": 0.9})
    assert caught.value.message == (
        f"data.balance and optim.{name} both make up for the sizes of classes: together they overdo it"
    )
    assert caught.value.hint == f"use --set data.balance=none, or --set optim.{name}=none"


def test_patience_without_validation_is_refused():
    with pytest.raises(RecipeError) as caught:
        BASE.override({"optim.patience": 3, "data.val_fraction": None})
    assert caught.value.message == (
        "optim.patience waits for a higher validation accuracy, and data.val_fraction=none leaves none"
    )
    assert caught.value.hint == "use --set data.val_fraction=0.1, or --set optim.patience=none"


def test_thawing_what_is_not_frozen_is_refused():
    with pytest.raises(RecipeError) as caught:
        BASE.override({"model.unfreeze_epochs": 3})
    assert caught.value.message == (
        "model.unfreeze_epochs says when frozen layers are trained as well, and model.freeze is none"
    )
    assert caught.value.hint == "use --set model.freeze=backbone, or --set model.unfreeze_epochs=none"


def test_sam_in_fp16_is_refused():
    with pytest.raises(RecipeError) as caught:
        BASE.override({"optim.sam_rho": 0.05, "device.precision": "fp16"})
    assert caught.value.message == (
        "optim.sam_rho takes two gradients a step, and device.precision=fp16 scales one of them"
    )
    assert caught.value.hint == "use --set device.precision=bf16, or --set optim.sam_rho=none"
