"""What a sweep may change, from what is typed."""

import pytest

from linne.errors import RecipeError
from linne.recipe import DataConfig, OptimConfig, Recipe
from linne.sweeping.space import Choice, Range, default_space, parse_space, read_space

BASE = Recipe(data=DataConfig(source="digits"), optim=OptimConfig(optimizer="sgd", lr=0.1, weight_decay=5e-4))


def parse(**typed):
    return parse_space({path.replace("__", "."): value for path, value in typed.items()}, BASE)[0]


def test_a_range_and_its_scale_are_read_by_the_type_of_the_field():
    assert parse(optim__lr="1e-4..1e-1:log") == Range("optim.lr", 1e-4, 0.1, log=True, whole=False)
    assert parse(optim__epochs="5..20") == Range("optim.epochs", 5, 20, log=False, whole=True)
    assert parse(optim__clip_norm="0.5..2") == Range("optim.clip_norm", 0.5, 2.0, log=False, whole=False)


def test_choices_are_read_by_the_type_of_the_field():
    assert parse(optim__optimizer="sgd, adamw") == Choice("optim.optimizer", ("sgd", "adamw"))
    assert parse(augment__cutout="none,2,4") == Choice("augment.cutout", (None, 2, 4))
    assert parse(augment__flip=["true", False]) == Choice("augment.flip", (True, False))
    assert parse(optim__lr="0.1,0.2") == Choice("optim.lr", (0.1, 0.2))


@pytest.mark.parametrize(
    ("path", "typed", "message"),
    [
        ("optim.lrr", "1..2", "no recipe field `optim.lrr`"),
        ("optim.lr", "low..1", "optim.lr is `low`, expected a number"),
        ("optim.lr", "1..0.1", "optim.lr is searched from `1` to `0.1`, expected a number and a larger one"),
        ("optim.lr", "0..1", "optim.lr is 0, expected a number above 0"),
        ("optim.weight_decay", "0..1:log", "optim.weight_decay starts at 0, and a log range needs a start above 0"),
        ("optim.lr", "0.1..1:lin", "optim.lr has the scale `lin`, expected `log` or nothing"),
        ("optim.momentum", "0.5..1", "optim.momentum is 1, expected 0 to less than 1"),
        ("optim.epochs", "0..5", "optim.epochs is 0, expected 1 or more"),
        ("optim.epochs", "1.5..5", "optim.epochs is `1.5`, expected a whole number"),
        ("optim.optimizer", "sgd,adam", "optim.optimizer is `adam`, expected one of `sgd`, `adamw`"),
        ("optim.optimizer", "sgd..adamw", "optim.optimizer cannot have a range like `sgd..adamw`"),
        ("augment.flip", "0..1", "augment.flip cannot have a range like `0..1`"),
        (
            "optim.optimizer",
            "sgd",
            "optim.optimizer is searched over `sgd` alone, expected two values or more, or a range",
        ),
        ("data.mean", ["0.5", "0.4"], "data.mean cannot be searched: it holds several numbers"),
        (
            "data.val_fraction",
            "0.1,0.2",
            "data.val_fraction cannot be searched: trials are compared on the same images",
        ),
        ("seed", "1,2", "seed cannot be searched: the luckiest seed is not the best recipe"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_the_name_of_the_field(path, typed, message):
    with pytest.raises(RecipeError) as refused:
        parse_space({path: typed}, BASE)
    assert refused.value.message.startswith(message)


def test_a_space_file_says_the_same_in_json_and_in_toml(tmp_path):
    (tmp_path / "a.json").write_text('{"optim.lr": "1e-3..1:log", "optim": {"optimizer": ["sgd", "adamw"]}}')
    (tmp_path / "a.toml").write_text('optim.lr = "1e-3..1:log"\n[augment]\ncutout = ["none", 4]\n')
    assert read_space(tmp_path / "a.json") == {"optim.lr": "1e-3..1:log", "optim.optimizer": ["sgd", "adamw"]}
    toml = read_space(tmp_path / "a.toml")
    assert [str(each) for each in parse_space(toml, BASE)] == ["0.001..1:log", "none,4"]


@pytest.mark.parametrize(("name", "text", "said"), [("a.json", "{", "is not JSON"), ("a.toml", "= 1", "is not TOML")])
def test_a_space_file_that_is_none_says_so(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(RecipeError, match=said):
        read_space(tmp_path / name)
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        read_space(tmp_path / f"missing-{name}")


def test_without_a_space_the_rates_are_searched_around_the_recipes_own_and_the_epochs_stay():
    space = {each.path: each for each in parse_space(default_space(BASE), BASE)}
    assert str(space["optim.lr"]) == "0.01..1:log"
    assert str(space["optim.weight_decay"]) == "5e-05..0.005:log"
    assert str(space["augment.cutout"]) == "none,8,16"
    assert "optim.epochs" not in space
    fields = BASE.to_fields()
    assert all(dimension.holds(fields[path]) for path, dimension in space.items()), (
        "the recipe as it was is one of them"
    )


def test_a_drawn_number_has_four_digits_and_stays_in_its_range():
    assert parse(optim__lr="0.1..0.2").rounded(0.123456) == 0.1235
    assert parse(optim__lr="0.1..0.12345").rounded(0.12345) == 0.12345
    assert parse(optim__epochs="5..20").rounded(7.0) == 7
    assert not parse(augment__cutout="none,1,4").holds(True)
