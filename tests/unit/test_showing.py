"""Figures of a source's images and of a bundle's answers, by the verbs that write them."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import linne
from linne.cli import cli
from linne.data.names import printable
from linne.errors import LinneError, SourceError
from linne.showing import draw_examples

SOURCE = "synthetic:classes=3,size=12,count=90"


def invoke(*words, **options):
    return CliRunner().invoke(cli, [str(word) for word in words], prog_name="linne", **options)


def trained_on(source, folder):
    options = {"model": "mlp", "epochs": 1, "device": "cpu", "quiet": True}
    return linne.train(source, output=folder / "run", overrides={"device.precision": "fp32"}, **options).bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return trained_on(SOURCE, tmp_path_factory.mktemp("showing"))


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(np.full((12, 12, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def size_of(path):
    with Image.open(path) as figure:
        return figure.format, figure.size


def words_in(figure):
    return [text.get_text() for text in [*figure.texts, *figure.axes[0].texts]]


def test_show_draws_images_of_the_split_and_prints_where(tmp_path):
    ended = invoke("data", "show", SOURCE, "--output", tmp_path / "grid.png", "--count", 9)
    assert ended.exit_code == 0, ended.output
    assert ended.stdout == f"{tmp_path / 'grid.png'}\n"
    assert size_of(tmp_path / "grid.png")[0] == "PNG"


def test_the_seed_decides_which_images_are_shown():
    source = linne.open_source(SOURCE)
    shown = [words_in(draw_examples(source, "train", 12, seed)[0])[2:] for seed in (0, 0, 1)]
    assert shown[0] == shown[1] != shown[2]
    assert set(shown[0]) <= set(source.labels)


def test_a_split_with_fewer_images_than_asked_for_shows_all_of_them():
    source = linne.open_source(SOURCE)
    assert len(draw_examples(source, "test", 200, 0)[0].axes[0].images) == len(source.splits["test"])


def test_images_that_cannot_be_read_are_left_out_and_named(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(4):
            Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / label / f"{number}.png")
    (tmp_path / "dog/0.png").write_bytes((tmp_path / "dog/0.png").read_bytes()[:60])
    source = linne.open_source(f"folder:{tmp_path}", val_fraction=None, test_fraction=0.15)
    problems = [problem for split in source.splits for problem in draw_examples(source, split, 8, 0)[1]]
    assert len(problems) == 1
    assert "dog/0.png" in problems[0]


def test_an_unknown_split_is_refused():
    with pytest.raises(SourceError, match="has no split `trian`") as caught:
        linne.show_data(SOURCE, "grid.png", split="trian")
    assert caught.value.hint == "did you mean `train`?"


@pytest.mark.parametrize("name", ["grid.jpg", "grid"])
def test_a_figure_is_a_png_by_its_name(tmp_path, name):
    with pytest.raises(LinneError, match=r"expected a name that ends in `\.png`"):
        linne.show_data(SOURCE, tmp_path / name)


def test_a_figure_of_linnes_is_replaced_and_another_file_is_not(tmp_path, bundle, photo):
    place = tmp_path / "answers.png"
    for _ in range(2):
        list(linne.predict(bundle, photo, plot=place))
    before = photo.read_bytes()
    with pytest.raises(LinneError) as caught:
        linne.predict(bundle, photo, plot=photo)
    assert caught.value.message == f"`{printable(photo)}` is there and not a figure of linne's, so it stays"
    assert photo.read_bytes() == before


@pytest.mark.parametrize("count", [0, 201])
def test_a_figure_holds_1_to_200_images(bundle, photo, count):
    with pytest.raises(LinneError, match=f"{count} images cannot be shown in a figure, expected 1 to 200"):
        linne.predict(bundle, photo, plot="answers.png", plot_count=count)


def test_a_plot_that_could_not_be_written_is_refused_before_anything_is_answered(bundle, photo, tmp_path):
    ended = invoke("predict", bundle, photo, "--plot", tmp_path / "no/answers.png")
    assert ended.exit_code == 1
    assert ended.stdout == ""
    assert f"no folder `{printable(tmp_path / 'no')}`" in ended.stderr


def test_predict_prints_the_same_with_a_plot_as_without(bundle, photo, tmp_path):
    words = ["predict", bundle, photo, "--json", "--top", 2]
    assert invoke(*words, "--plot", tmp_path / "answers.png").stdout == invoke(*words).stdout
    assert size_of(tmp_path / "answers.png")[0] == "PNG"


def test_an_image_from_stdin_is_plotted_too(bundle, photo, tmp_path):
    ended = invoke("predict", bundle, "-", "--plot", tmp_path / "answers.png", input=photo.read_bytes())
    assert ended.exit_code == 0, ended.output
    assert (tmp_path / "answers.png").is_file()


def test_where_no_image_can_be_read_no_plot_is_written(bundle, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not an image at all")
    ended = invoke("predict", bundle, tmp_path / "broken.png", "--plot", tmp_path / "answers.png")
    assert ended.exit_code == 1
    assert "no image could be predicted" in ended.stderr
    assert not (tmp_path / "answers.png").exists()


def test_evaluate_plots_as_many_images_as_asked_for(bundle, tmp_path):
    sizes = []
    for count in (1, 7):
        ended = invoke("evaluate", bundle, SOURCE, "--plot", tmp_path / "answers.png", "--plot-count", count)
        assert ended.exit_code == 0, ended.output
        sizes.append(size_of(tmp_path / "answers.png")[1])
    assert sizes[1][0] > sizes[0][0]
    assert sizes[1][1] > 2 * sizes[0][1]


def test_of_many_classes_the_most_probable_get_bars_and_the_true_one():
    from linne.showing import _bars

    labels = [f"class {k}" for k in range(12)]
    found = {label: (k + 1) / 78 for k, label in enumerate(labels)}
    assert [label for label, _ in _bars(labels, found, None)] == [f"class {k}" for k in (11, 10, 9, 8, 7)]
    assert [label for label, _ in _bars(labels, found, "class 2")] == [f"class {k}" for k in (11, 10, 9, 8, 2)]
    assert [label for label, _ in _bars(labels[:10], found, "class 2")] == labels[:10]
