"""The values that nobody gave."""

from __future__ import annotations

from dataclasses import replace

import pytest

from linne.recipe import Recipe, recipe_fields
from linne.recipes import RECIPES, read_recipe, recipe_document
from linne.recipes.auto import Designed, Task, choose

DIGITS = Task(
    source="digits",
    num_train=1211,
    num_val=136,
    num_classes=10,
    height=8,
    width=8,
    same_size=True,
    channels=1,
    mean=(0.3,),
    std=(0.4,),
    device="cpu",
    device_kind="cpu",
    channels_last=True,
    precision="fp32",
    others_share=None,
    num_threads=2,
    num_cores=2,
    memory_bytes=8 * 2**30,
)
PHOTOS = replace(
    DIGITS, source="photos", height=375, width=500, same_size=False, channels=3, mean=(0.5, 0.4, 0.3), std=(0.2,) * 3
)
RESNET = Designed(
    height=224,
    width=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    interpolation="bicubic",
    crop_pct=0.95,
    fixed_size=False,
)


def chosen(task: Task, designed: Designed | None = None, **given) -> tuple[Recipe, dict[str, str]]:
    given = {path.replace("__", "."): value for path, value in given.items()}
    return choose(task, given, dict.fromkeys(given, "given"), designed)


@pytest.mark.parametrize("task", [DIGITS, PHOTOS, replace(PHOTOS, device="cuda:0", device_kind="cuda")], ids=str)
def test_every_chosen_value_has_a_reason(task):
    recipe, reasons = chosen(task)
    assert set(reasons) <= set(recipe_fields())
    assert all(reasons.values())
    base = Recipe(data=replace(recipe.data, source="x"))
    changed = {p for p, v in recipe.to_fields().items() if v != base.to_fields()[p] and not p.startswith("data.")}
    assert changed <= set(reasons), "a value that is not the default is explained"


def test_small_images_are_used_as_they_are_and_digits_are_never_mirrored():
    recipe, reasons = chosen(DIGITS)
    assert (recipe.data.height, recipe.data.width, recipe.data.channels) == (8, 8, 1)
    assert not recipe.augment.flip
    assert reasons["data.height"] == "the images are 8 x 8"


def test_photos_are_shrunk_more_on_a_cpu_than_on_an_accelerator():
    on_cpu, _ = chosen(PHOTOS)
    on_gpu, _ = chosen(replace(PHOTOS, device="cuda:0", device_kind="cuda", precision="bf16"))
    assert (on_cpu.data.height, on_gpu.data.height) == (64, 128)
    assert on_gpu.device.precision == "bf16"
    assert on_cpu.augment.flip


def test_given_values_are_kept_and_what_depends_on_them_follows():
    small, _ = chosen(DIGITS, data__batch_size=32)
    large, reasons = chosen(DIGITS, data__batch_size=128)
    assert large.optim.lr == pytest.approx(4 * small.optim.lr)
    assert reasons["data.batch_size"] == "given"
    recipe, _ = chosen(DIGITS, optim__epochs=5)
    assert recipe.optim.warmup_epochs == 1.0


@pytest.mark.parametrize(
    ("optimizer", "lr", "weight_decay"),
    [
        ("sgd", 0.1, 5e-4),
        ("adamw", 7.1e-4, 0.05),
        ("muon", 2.1e-3, 0.05),
        ("lamb", 7.1e-3, 0.02),
        ("lion", 2.1e-4, 0.15),
    ],
)
def test_every_optimiser_gets_a_rate_and_a_decay_of_its_own(optimizer, lr, weight_decay):
    recipe, reasons = chosen(DIGITS, optim__optimizer=optimizer, data__batch_size=64)
    assert (recipe.optim.lr, recipe.optim.weight_decay) == (lr, weight_decay)
    assert "for a batch of 128" in reasons["optim.lr"]


def test_muon_and_lion_get_their_usual_averages():
    assert chosen(DIGITS, optim__optimizer="muon")[0].optim.momentum == 0.95
    assert chosen(DIGITS, optim__optimizer="lion")[0].optim.beta2 == 0.99


def test_schedule_free_gets_a_higher_rate_and_a_short_warm_up():
    recipe, _ = chosen(DIGITS, optim__schedule="schedule-free", data__batch_size=128, optim__epochs=20)
    assert (recipe.optim.optimizer, recipe.optim.lr, recipe.optim.warmup_epochs) == ("sgd", 2.0, 1.0)


def test_a_designed_model_brings_its_normalisation_and_its_size():
    recipe, reasons = chosen(PHOTOS, replace(RESNET, crop_mode="squash"), model__name="timm/resnet18")
    assert (recipe.data.height, recipe.data.mean, recipe.data.crop_pct) == (224, RESNET.mean, 0.95)
    assert (recipe.data.interpolation, recipe.data.crop_mode) == ("bicubic", "squash")
    assert reasons["data.height"] == "what timm/resnet18 was designed for"


def test_a_designed_model_takes_small_images_at_their_size_and_tiny_ones_enlarged():
    cifar = replace(PHOTOS, height=32, width=32, same_size=True)
    recipe, _ = chosen(cifar, RESNET, model__name="timm/resnet18")
    assert (recipe.data.height, recipe.data.crop_pct) == (32, 1.0)
    recipe, reasons = chosen(DIGITS, RESNET, model__name="timm/resnet18")
    assert (recipe.data.height, recipe.data.channels) == (32, 3)
    assert "enlarged to 32" in reasons["data.height"]


def test_a_set_that_does_not_fit_in_memory_is_streamed_by_as_many_threads_as_were_fast():
    rates = {1: 700.4, 2: 1300.0, 4: 2500.0, 6: 2600.0}
    many = replace(PHOTOS, num_train=10_000_000, num_cores=6, decode_rates=rates, decode_threads=4)
    recipe, reasons = chosen(many)
    assert recipe.data.loader == "streaming"
    assert recipe.data.num_workers == 4
    assert "decoded images would take" in reasons["data.loader"]
    told = "images/s read and decoded by 1 thread 700, 2 threads 1,300, 4 threads 2,500, 6 threads 2,600, of 6 cores"
    assert reasons["data.num_workers"] == told


def test_pixels_that_need_no_decoding_are_streamed_by_one_thread():
    recipe, reasons = chosen(replace(PHOTOS, num_train=10_000_000))
    assert recipe.data.num_workers == 1
    assert reasons["data.num_workers"] == "the images are pixels already: one thread stays ahead"


def test_random_crops_ask_for_the_streaming_loader():
    recipe, _ = chosen(PHOTOS, augment__resized_crop_area=0.3)
    assert recipe.data.loader == "streaming"


@pytest.mark.parametrize("num_train", [1, 2, 7, 19, 100, 10**4, 10**6])
def test_any_size_of_set_gets_a_batch_it_can_fill_and_at_least_three_epochs(num_train):
    recipe, _ = chosen(replace(DIGITS, num_train=num_train))
    assert min(8, num_train) <= recipe.data.batch_size <= min(128, num_train)
    assert 3 <= recipe.optim.epochs <= 60


def test_a_grey_choice_for_colour_images_averages_their_statistics():
    recipe, _ = chosen(PHOTOS, data__channels=1)
    assert recipe.data.mean == pytest.approx((0.4,))


@pytest.mark.parametrize("name", RECIPES)
def test_every_built_in_recipe_names_fields_that_exist_and_can_be_chosen_around(name):
    fields = read_recipe(name)
    recipe, _ = choose(replace(DIGITS, num_train=10_000), fields, dict.fromkeys(fields, name), None)
    for path, value in fields.items():
        assert recipe.to_fields()[path] == value


def test_a_written_recipe_reads_back_equal(tmp_path):
    import json

    recipe, reasons = chosen(PHOTOS)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe_document(recipe, reasons)))
    assert read_recipe(str(tmp_path / "recipe.json")) == recipe.to_fields()


def test_a_size_that_is_not_square_is_resized_by_the_filter_that_every_timm_uses():
    wide = replace(PHOTOS, height=32, width=64, same_size=True)
    recipe, _ = chosen(wide, RESNET, model__name="timm/resnet18")
    assert recipe.data.interpolation == "bilinear"


def test_a_model_that_cannot_take_the_images_size_gets_the_one_it_was_designed_for():
    from linne.planning import make_plan

    plan = make_plan({"data.source": "synthetic:size=32", "model.name": "torchvision/alexnet"}, {"model.name": "given"})
    assert (plan.recipe.data.height, plan.recipe.data.width) == (224, 224)
    assert "it cannot take 32 x 32" in plan.reasons["data.height"]


def test_a_given_size_that_the_model_cannot_take_is_refused_rather_than_changed():
    from linne.errors import RecipeError
    from linne.planning import make_plan

    given = {"data.source": "synthetic:size=32", "model.name": "torchvision/alexnet", "data.height": 32}
    with pytest.raises(RecipeError, match="alexnet"):
        make_plan(given, dict.fromkeys(given, "given"))


def test_mixed_precision_is_chosen_where_the_device_gains_and_the_model_does():
    faster = replace(PHOTOS, precision="bf16", others_share=0.0)
    assert chosen(faster)[0].device.precision == "bf16"
    assert chosen(faster, model__name="mlp")[0].device.precision == "fp32"
    assert chosen(PHOTOS)[0].device.precision == "fp32"


@pytest.mark.parametrize("share", [0.5, None])
def test_a_busy_processor_is_not_asked_for_kernels_that_wait_spinning(share):
    recipe, reasons = chosen(replace(PHOTOS, precision="bf16", others_share=share))
    assert recipe.device.precision == "fp32"
    assert "on free cores" in reasons["device.precision"]


def test_tiny_steps_run_on_one_thread():
    assert chosen(DIGITS)[0].device.num_threads == 1
    assert chosen(PHOTOS)[0].device.num_threads == 2


def test_images_too_small_to_shift_are_not_shifted():
    assert chosen(DIGITS)[0].augment.crop_padding is None
    assert chosen(replace(DIGITS, height=28, width=28))[0].augment.crop_padding == 1
