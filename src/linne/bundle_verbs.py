"""Verbs that use a trained network, as functions: evaluate and predict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from linne.errors import BundleError, LinneError
from linne.graphs.kept import likely_files
from linne.hash_ahead import HashAhead
from linne.host import prepare_for_torch
from linne.log import Narrator

if TYPE_CHECKING:
    from linne.data import Source
    from linne.exports import Precision
    from linne.inference.backends.base import RunOptions
    from linne.inference.predictor import Prediction
    from linne.recipe import Views
    from linne.report import EvalReport
    from linne.tuned import Goal


def evaluate(
    bundle: str | Path,
    source: str | Source,
    *,
    split: str = "test",
    device: str = "auto",
    backend: str = "auto",
    precision: Precision | None = None,
    num_threads: int | None = None,
    backend_options: Mapping[str, str] | None = None,
    splits_file: str | Path | None = None,
    weights: str | None = None,
    tta: Views | None = None,
    plot: str | Path | None = None,
    plot_count: int = 15,
    require_accelerator: bool = False,
    trust_code: bool = False,
    quiet: bool = False,
) -> EvalReport:
    """Return how well `bundle`, or a network with pretrained `weights`, does on a split of `source`.

    The split is the one the bundle was trained beside: read from `splits_file`, from the `splits.json` of the run that
    the bundle lies in or the split file it was trained by, or else made again by the options in its provenance. With
    `tta="flip"` answers are means over an image and its mirror image, with "crops" over shifted copies as well. `plot`
    is a PNG file for `plot_count` of the images with the probabilities that they got. `backend`, `precision`,
    `num_threads` and `backend_options` are as `predict` takes them. With `trust_code` the Python file may be run that a
    bundle of your own network names.

    Raises:
        LinneError: the bundle, the source, the split or the place of the plot cannot be used.
    """
    prepare_for_torch()
    from linne.bundle import open_bundle
    from linne.evaluation import evaluate as evaluate_bundle
    from linne.evaluation import matched_by_place
    from linne.inference.predictor import Predictor

    _require_plot(plot, plot_count)
    narrator = Narrator(quiet=quiet)
    opened = open_bundle(_folder_of(bundle, weights, narrator, trust_code))
    if isinstance(source, str):
        from linne.trained_on import as_in_training

        source = as_in_training(opened, source, splits_file)
    for note in (*source.notes, matched_by_place(source, opened.labels)):
        if note is not None:
            narrator.line(note)
    how = _how(device, precision, num_threads, backend_options, require_accelerator, trust_code)
    predictor = Predictor.open(opened, backend=backend, how=how, tta=tta)
    report, outcomes = evaluate_bundle(predictor, source, split)
    if plot is not None:
        from linne.showing import draw_evaluation, write_figure

        write_figure(Path(plot), draw_evaluation(report, outcomes, source, plot_count))
    return report


def _require_plot(plot: str | Path | None, count: int) -> None:
    """Raise LinneError unless a plot is not asked for, or can be made: not after all images were answered."""
    if plot is not None:
        from linne.showing import require_count, require_place

        require_count(count)
        require_place(Path(plot))


def predict(
    bundle: str | Path,
    inputs: str | Path | Iterable[str | Path],
    *,
    top: int = 5,
    weights: str | None = None,
    tta: Views | None = None,
    plot: str | Path | None = None,
    plot_count: int = 15,
    save_inputs: str | Path | None = None,
    device: str = "auto",
    backend: str = "auto",
    precision: Precision | None = None,
    num_threads: int | None = None,
    backend_options: Mapping[str, str] | None = None,
    require_accelerator: bool = False,
    trust_code: bool = False,
) -> Iterator[Prediction]:
    """Yield the labels and probabilities of each image in `inputs`, in order.

    Args:
        bundle: A bundle's folder, or the name of a network of which there are pretrained weights.
        weights: Of such a network, which: "default", a name of its provider, a file or a folder.
        inputs: Files, folders (their images, with those of sub-folders; hidden ones are ignored), glob patterns,
            or `-` for one image on stdin.
        top: How many labels an image, the most probable first.
        tta: "flip" for the mean over an image and its mirror image, "crops" over shifted copies as well.
        plot: A PNG file that is written after the last image: the first `plot_count` with their probabilities.
        save_inputs: A new folder for what the network sees of each image, as PNG files.
        backend: What runs it: "torch", "onnxruntime", ...; "auto" takes what `linne tune` found on this machine; where
            nothing was tuned, or something else is said of how to run it, the first that can.
        precision: Of the numbers; None for fp32.
        num_threads: Of the CPU; None for as many as this process may use.
        backend_options: What the backend alone can be told, by name.
        trust_code: Whether the Python file may be run that a bundle of your own network names.

    A image that cannot be read is a prediction with `error` set; the others are unaffected.

    Raises:
        LinneError: the bundle cannot be used, or an input names nothing.
    """
    prepare_for_torch()
    # Before the imports, which take as long.
    ahead = HashAhead(lambda: likely_files(Path(bundle), precision or "fp32"))
    from linne.inference.inputs import find_images
    from linne.inference.predictor import Predictor
    from linne.inference.seen import SeenImages

    if isinstance(inputs, (str, Path)):
        inputs = [inputs]
    inputs = list(inputs)
    images = find_images(inputs)
    if top < 1:
        raise LinneError(f"top is {top}, expected 1 or more")
    _require_plot(plot, plot_count)
    narrator = Narrator(quiet=False)
    folder = _folder_of(bundle, weights, narrator, trust_code)
    how = _how(device, precision, num_threads, backend_options, require_accelerator, trust_code)
    goal: Goal = "latency" if len(inputs) == 1 and not Path(inputs[0]).is_dir() else "throughput"
    said = precision is not None or num_threads is not None or bool(backend_options)
    predictor = Predictor.open(folder, backend=backend, how=how, tta=tta, goal=None if said else goal, ahead=ahead)
    for note in predictor.notes:
        narrator.line(note)
    seen = None if save_inputs is None else SeenImages(Path(save_inputs))
    if plot is None:
        return predictor.predict_files(images, top=top, seen=seen)
    from linne.showing import predict_and_draw

    return predict_and_draw(predictor, images, Path(plot), top=top, count=plot_count, seen=seen)


def _how(
    device: str,
    precision: Precision | None,
    num_threads: int | None,
    options: Mapping[str, str] | None,
    require_accelerator: bool,
    trust_code: bool,
) -> RunOptions:
    from linne.inference.backends.base import RunOptions

    return RunOptions(
        device=device,
        precision=precision or "fp32",
        num_threads=num_threads,
        options=options or {},
        require_accelerator=require_accelerator,
        trust_code=trust_code,
    )


def _folder_of(named: str | Path, weights: str | None, narrator: Narrator, trust_code: bool) -> Path:
    """Return the bundle that `named` is, or that is made of the pretrained network that it names."""
    from linne.models import is_name

    if weights is None and not is_name(str(named)):
        _require_no_network(Path(named))
        return Path(named)
    from linne.importing import bundle_of

    return bundle_of(str(named), weights, narrator.line, trust_code=trust_code)


def _require_no_network(folder: Path) -> None:
    """Raise BundleError where there is no `folder`, and its name is that of a network, which needs its provider."""
    from linne.models import spellings

    if len(folder.parts) != 1 or folder.exists():
        return
    known = spellings(folder.name)
    if known:
        raise BundleError(
            f"no bundle at `{folder}`: there is no such folder",
            hint=f"a network with pretrained weights is typed {' or '.join(f'`{name}`' for name in known)}",
        )
