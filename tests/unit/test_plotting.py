from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from linne import metrics
from linne.figure_style import DARK, LIGHT, drawn, luminance, png, rgb
from linne.plotting import plot_confusion, plot_curves, plot_reliability
from linne.plotting_images import Answer, plot_answers, plot_examples, plot_predictions, plot_worst
from linne.report import Calibration, CalibrationBin, ConfusedPair, EvalReport, Mistake


def report_for(labels, confusion):
    """A report whose numbers follow from the confusion matrix, as sure as it is right."""
    counts = np.array(confusion)
    accuracy = float(np.trace(counts) / counts.sum())
    pairs = metrics.most_confused(counts, 5)
    return EvalReport(
        accuracy=accuracy,
        accuracy_interval=metrics.wilson_interval(int(np.trace(counts)), int(counts.sum())),
        num_examples=int(counts.sum()),
        loss=0.5,
        top_k={},
        macro={"precision": accuracy, "recall": accuracy, "f1": accuracy},
        per_class=(),
        confusion=tuple(map(tuple, counts.tolist())),
        calibration=Calibration(
            ece=0.02,
            mean_confidence=0.9,
            bins=(
                CalibrationBin(low=0.0, high=0.5, count=0, confidence=None, accuracy=None),
                CalibrationBin(low=0.5, high=0.9, count=4, confidence=0.7, accuracy=0.0),
                CalibrationBin(low=0.9, high=1.0, count=40, confidence=0.97, accuracy=1.0),
            ),
        ),
        most_confused=tuple(
            ConfusedPair(label=labels[a], predicted=labels[b], count=n, fraction=n / int(counts[a].sum()))
            for a, b, n in pairs
        ),
        worst_mistakes=(),
        skipped=(),
        source="digits",
        split="test",
        bundle="runs/digits-1/bundle",
        labels=tuple(labels),
        tta=None,
    )


def step_row(epoch, loss):
    return {"event": "step", "step": int(epoch * 10), "epoch": epoch, "loss": loss, "seconds": epoch}


def epoch_row(epoch, train_loss, val_loss=None, val_accuracy=None, best=False):
    row = {"event": "epoch", "epoch": epoch, "step": epoch * 10, "train_loss": train_loss, "best": best}
    return row | ({} if val_loss is None else {"val_loss": val_loss, "val_accuracy": val_accuracy})


def texts(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def pixels_of(figure):
    return np.asarray(Image.open(io.BytesIO(png(figure))).convert("RGB"))


def sticks_out(figure):
    """Whether anything that is drawn reaches over the edge of the figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn_box = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    return not (
        drawn_box.x0 >= -0.01
        and drawn_box.y0 >= -0.01
        and drawn_box.x1 <= width + 0.01
        and drawn_box.y1 <= height + 0.01
    )


FULL = [
    *(step_row(e / 2, 2.3 * 0.6**e) for e in range(1, 13)),
    *(epoch_row(e, 2 * 0.6**e, 2 * 0.65**e, 1 - 0.5**e, best=e != 5) for e in range(1, 7)),
    {"event": "end", "seconds": 9.0, "epochs": 6, "best_epoch": 6, "reason": "finished"},
]


def test_curves_show_both_losses_the_accuracy_and_the_kept_epoch():
    figure = plot_curves(FULL)
    shown = texts(figure)
    assert len(figure.axes) == 2
    assert "98.4 % of val images right at epoch 6, kept" in shown
    assert "Val loss is lowest, 0.151, at epoch 6" in shown
    assert {"train 0.0933", "val 0.151", "val 98.4 %"} <= set(shown)
    assert not figure.legends
    assert not sticks_out(figure)


def test_without_validation_the_curves_are_the_training_loss_alone():
    figure = plot_curves([step_row(0.5, 2.0), epoch_row(1, 1.5, best=True), epoch_row(2, 1.0, best=True)])
    assert len(figure.axes) == 1
    assert "Loss falls to 1" in texts(figure)


def test_a_run_stopped_in_its_first_epoch_still_has_a_curve():
    figure = plot_curves([step_row(0.1, 2.3), step_row(0.2, 2.1)])
    assert "train 2.1" in texts(figure)
    assert not sticks_out(figure)


@pytest.mark.parametrize("rows", [[], [{"event": "end", "seconds": 0.1, "reason": "interrupted"}]])
def test_a_run_that_measured_nothing_has_no_curves(rows):
    assert plot_curves(rows) is None


def test_one_epoch_is_a_point_and_a_diverged_loss_is_left_out():
    rows = [
        step_row(0.5, 2.0),
        step_row(0.6, None),
        step_row(0.7, float("nan")),
        epoch_row(1, 1.9, 1.8, 0.3, best=True),
    ]
    figure = plot_curves(rows)
    assert "30.0 % of val images right at epoch 1, kept" in texts(figure)
    assert len(png(figure)) > 1000


def test_a_loss_that_falls_far_is_drawn_on_a_logarithmic_axis():
    far = [epoch_row(e, 2.0 * 0.3**e) for e in range(1, 8)]
    near = [epoch_row(e, 2.0 * 0.9**e) for e in range(1, 8)]
    assert plot_curves(far).axes[0].get_yscale() == "log"
    assert plot_curves(near).axes[0].get_yscale() == "linear"


def test_labels_of_lines_that_end_together_do_not_cover_each_other():
    figure = plot_curves([epoch_row(1, 2.0, 2.0, 0.1), epoch_row(2, 1.0, 1.0001, 0.2)])
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.axes[0].texts]
    assert len(boxes) == 2
    assert not boxes[0].overlaps(boxes[1])


def test_a_confusion_matrix_of_ten_classes_says_its_counts_and_the_worst_pair():
    counts = np.diag(range(40, 50))
    counts[9, 4] = 3
    figure = plot_confusion(report_for([str(k) for k in range(10)], counts))
    shown = texts(figure)
    assert "445 of 448 test images right" in shown
    assert "most often 9 is taken for 4: 3 times" in shown
    assert {"40", "49", "3"} <= set(shown)
    assert not sticks_out(figure)


def test_two_classes_show_their_shares_as_well():
    figure = plot_confusion(report_for(["sandal", "ankle boot"], [[9, 1], [0, 10]]))
    assert {"9\n90.0 %", "1\n10.0 %", "10\n100 %"} <= set(texts(figure))
    assert "most often sandal is taken for ankle boot: once" in texts(figure)
    assert not sticks_out(figure)


def test_a_hundred_classes_have_no_numbers_and_every_fourth_name():
    figure = plot_confusion(report_for([f"species {k:03}" for k in range(100)], np.eye(100, dtype=int) * 7))
    shown = texts(figure)
    assert "7" not in shown
    assert [t for t in shown if t.startswith("species")] == [f"species {k:03}" for k in range(0, 100, 4)] * 2
    assert not sticks_out(figure)


def test_right_answers_are_blue_and_wrong_ones_vermilion():
    from matplotlib.image import AxesImage

    figure = plot_confusion(report_for(["a", "b"], [[10, 0], [10, 0]]))
    (image,) = figure.findobj(AxesImage)
    colours = np.asarray(image.get_array())
    assert colours[0, 0] == pytest.approx(rgb(LIGHT.right))
    assert colours[1, 0] == pytest.approx(rgb(LIGHT.wrong))
    assert colours[0, 1] == pytest.approx(rgb(LIGHT.panel))


@pytest.mark.parametrize("num_classes", [2, 3, 5, 7, 12, 30, 60])
def test_long_class_names_stay_inside_the_figure(num_classes):
    labels = [f"a very long class name, as folders have them, number {k}" for k in range(num_classes)]
    figure = plot_confusion(report_for(labels, np.full((num_classes, num_classes), 3)))
    assert not sticks_out(figure)


def test_names_that_are_formulas_or_foreign_are_drawn_without_a_warning():
    labels = ["$x^2", "a$b$c", "線香花火", "line\nbreak", "\U0001f40d", "_^{}\\"]
    figure = plot_confusion(report_for(labels, np.full((6, 6), 2)))
    assert len(png(figure)) > 1000
    assert r"\$x^2" in texts(figure)


def test_reliability_shows_one_point_for_each_bin_with_examples():
    figure = plot_reliability(report_for(["a", "b"], [[9, 1], [0, 10]]))
    above, below = figure.axes
    dots = [line for line in above.lines if line.get_marker() == "o"]
    assert [(float(d.get_xdata()[0]), float(d.get_ydata()[0])) for d in dots] == [(0.7, 0.0), (0.97, 1.0)]
    assert [bar.get_height() for bar in below.patches] == [0, 4, 40]
    assert "90.0 % sure on average, 95.0 % right" in texts(figure)
    assert not sticks_out(figure)


def image(value, size=8, channels=1):
    return np.full((size, size, channels), value, dtype=np.uint8)


def test_predictions_name_what_is_right_and_add_the_truth_to_what_is_wrong():
    figure = plot_predictions(
        [image(10), image(200, channels=3)],
        ["cat", "dog"],
        ["cat", "cat"],
        [0.987, 0.5],
        title="50.0 % right of 2 test images",
    )
    shown = texts(figure)
    assert {"50.0 % right of 2 test images", "cat", "99 %", "50 %", "is dog"} <= set(shown)
    assert "is cat" not in shown
    colours = {text.get_color() for text in figure.axes[0].texts if text.get_text() == "cat"}
    assert colours == {LIGHT.right, LIGHT.wrong}


def test_tiny_images_are_drawn_as_crisp_blocks_and_photographs_smoothly():
    from matplotlib.image import AxesImage

    figure = plot_predictions([image(1, 8), image(1, 300, 3)], ["a"] * 2, ["a"] * 2, [1.0] * 2, title="t")
    tiny, photo = figure.findobj(AxesImage)
    assert tiny.get_interpolation() == "nearest"
    assert photo.get_interpolation() != "nearest"
    assert photo.get_array().shape == (200, 200, 3)


def test_an_image_that_is_not_square_keeps_its_shape():
    from matplotlib.image import AxesImage

    wide = np.zeros((20, 40, 3), np.uint8)
    figure = plot_predictions([wide], ["a"], ["a"], [1.0], title="t")
    left, right, bottom, top = figure.findobj(AxesImage)[0].get_extent()
    assert (right - left) / abs(top - bottom) == pytest.approx(2.0)


def test_grey_levels_are_not_stretched():
    figure = plot_predictions([image(128)], ["a"], ["a"], [1.0], title="t")
    assert ((pixels_of(figure) == (128, 128, 128)).all(axis=2)).sum() > 10_000


@pytest.mark.parametrize("num_images", [1, 7, 8, 9, 32])
def test_a_grid_of_any_number_of_images_stays_inside_the_figure(num_images):
    long = "a very long class name"
    figure = plot_predictions(
        [image(k) for k in range(num_images)],
        [long] * num_images,
        ["x" * 40] * num_images,
        [1.0] * num_images,
        title="t",
    )
    assert not sticks_out(figure)


def test_the_worst_mistakes_say_what_they_are():
    mistakes = [Mistake(name="a.png", label="cat", predicted="dog", probability=0.9999)]
    shown = texts(plot_worst([image(3)], mistakes))
    assert {"The one mistake", "dog", ">99 %", "is cat"} <= set(shown)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_every_text_colour_can_be_read_on_its_paper(theme):
    paper = luminance(rgb(theme.paper))
    for colour in (theme.ink, theme.muted, theme.right, theme.wrong):
        high, low = sorted((luminance(rgb(colour)), paper), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= (4.5 if colour != theme.wrong else 3.5)


def test_a_dark_figure_has_dark_paper():
    corner = pixels_of(plot_reliability(report_for(["a", "b"], [[9, 1], [0, 10]]), theme=DARK))[0, 0]
    assert corner.tolist() == [0x17, 0x1B, 0x21]


def test_equal_figures_are_equal_files():
    assert png(plot_curves(FULL)) == png(plot_curves(FULL))


def test_drawn_names_are_short_and_on_one_line():
    assert drawn("tabby\ncat  of $5", 40) == r"tabby cat of \$5"
    assert len(drawn("x" * 60, 12)) == 12


def test_plotting_leaves_no_global_state_behind():
    program = (
        "import sys, matplotlib; before = matplotlib.rcParams.copy()\n"
        "from linne.plotting import plot_curves; from linne.figure_style import png\n"
        "png(plot_curves([{'event': 'epoch', 'epoch': 1, 'train_loss': 1.0}]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "print('clean')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("clean\n", "")


@pytest.mark.parametrize("num_images", [1, 2, 3, 10, 25, 60])
def test_a_grid_of_examples_is_as_square_as_it_gets_and_stays_inside_the_figure(num_images):
    figure = plot_examples(
        [image(k) for k in range(num_images)],
        ["a very long class name"] * num_images,
        title="25 of 54,000 train images of fashion-mnist",
    )
    assert not sticks_out(figure)
    tops = {round(float(drawn_image.get_extent()[3]), 3) for drawn_image in figure.axes[0].images}
    assert len(tops) in (int(num_images**0.5), int(num_images**0.5) + 1)


def answer(truth, predicted="cat", bars=(("cat", 0.7), ("dog", 0.295), ("emu", 0.005)), value=10):
    return Answer(
        pixels=image(value), predicted=predicted, probability=dict(bars)[predicted], truth=truth, caption="a.png",
        bars=bars,
    )  # fmt: skip


def bar_colours(figure):
    from matplotlib.colors import to_hex

    return [to_hex(bar.get_facecolor()) for bar in figure.axes[0].patches]


def test_the_true_labels_bar_is_blue_a_wrong_answers_vermilion_and_the_others_grey():
    assert bar_colours(plot_answers([answer("cat")], title="t")) == [LIGHT.right, LIGHT.muted, LIGHT.muted]
    assert bar_colours(plot_answers([answer("dog")], title="t")) == [LIGHT.wrong, LIGHT.right, LIGHT.muted]


def test_an_answer_whose_truth_nobody_knows_is_neither_right_nor_wrong():
    figure = plot_answers([answer(None)], title="t")
    assert bar_colours(figure) == [LIGHT.ink, LIGHT.muted, LIGHT.muted]
    assert {"cat 70 %", "a.png"} <= set(texts(figure))


def test_a_wrong_answer_says_what_it_is_and_small_probabilities_are_told_of_the_truth_only():
    figure = plot_answers([answer("emu"), answer("cat")], title="t")
    shown = texts(figure)
    assert shown.count("is emu") == 1
    assert shown.count("<1 %") == 1


def test_a_bar_is_as_long_as_its_probability():
    widths = [bar.get_width() for bar in plot_answers([answer("cat")], title="t").axes[0].patches]
    assert widths[1] / widths[0] == pytest.approx(0.295 / 0.7)


@pytest.mark.parametrize("num_images", [1, 2, 5, 15])
def test_answers_with_long_names_stay_inside_the_figure(num_images):
    bars = tuple((f"a very long class name, number {k}", 1.0 if k == 0 else 0.0) for k in range(10))
    answers = [answer("x" * 60, predicted=bars[0][0], bars=bars)] * num_images
    assert not sticks_out(plot_answers(answers, title="100 % right of 10,000 test images"))
