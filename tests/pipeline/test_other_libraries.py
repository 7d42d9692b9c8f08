"""The bundle of a timm model gives the same answers in timm, in transformers and here; other bundles are refused there.

Two parts: pixels (`linne.preprocess` against timm's evaluation transform) and whole bundles (file to probabilities).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub when it is imported: a local folder must be enough

torch = pytest.importorskip("torch", reason="needs `linne[train]`")
timm = pytest.importorskip("timm", reason="needs `linne[train]`")
transformers = pytest.importorskip("transformers", reason="needs `linne[hf]`")
if not transformers.is_torch_available():
    reason = f"transformers {transformers.__version__} does not work with torch {torch.__version__}"
    pytest.skip(reason, allow_module_level=True)

from linne import models  # noqa: E402
from linne.bundle import canary_batch, write_bundle  # noqa: E402
from linne.inference.backends.base import RunOptions  # noqa: E402
from linne.inference.predictor import Predictor  # noqa: E402
from linne.models import ModelRef  # noqa: E402
from linne.preprocess import InputSpec, normalise, resize_and_crop  # noqa: E402

pytestmark = pytest.mark.long

LABELS = ("zebra", "ant", "moth", "Ärmelkanal", "fox")
"""Neither sorted nor ASCII, so that an order or an encoding of somebody else's shows."""

FIXED_TIMM = "1.0.31"
"""Before it, timm resized to targets that are not square with bilinear filtering, whatever the folder asked for."""

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@dataclass(frozen=True)
class Case:
    """A network and how its pixels are prepared."""

    name: str
    input: InputSpec


def case(name: str, channels: int, height: int, width: int, **settings: Any) -> Any:
    spec = InputSpec(channels=channels, height=height, width=width, **settings)
    return pytest.param(Case(name, spec), id=f"{name}-{channels}x{height}x{width}")


CASES = [
    case("timm/resnet18", 3, 32, 32, **IMAGENET, interpolation="bilinear"),
    case("timm/vit_tiny_patch16_224", 3, 64, 64, **HALF, interpolation="bicubic", crop_pct=0.9),
    case("timm/mobilenetv3_small_050", 3, 48, 80, **IMAGENET, interpolation="bilinear", crop_pct=0.875),
    case("timm/test_resnet", 3, 64, 40, **IMAGENET, interpolation="bicubic", crop_pct=0.9),
    case("timm/test_vit", 3, 48, 32, **HALF, interpolation="bilinear", crop_pct=0.95, crop_mode="squash"),
    # Relative positions and rotary embeddings live in buffers that are not saved: each library has to make them.
    case("timm/maxvit_pico_rw_256", 3, 64, 64, **IMAGENET, interpolation="bicubic", crop_pct=0.95),
    case("timm/eva02_tiny_patch14_224", 3, 56, 56, **IMAGENET, interpolation="bicubic"),
]
GREY = [
    case("timm/test_resnet", 1, 28, 28, mean=(0.3,), std=(0.35,), interpolation="bilinear"),
    case("timm/test_vit", 1, 32, 32, mean=(0.5,), std=(0.25,), interpolation="bicubic", crop_pct=0.9),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files cut from scikit-learn's two photographs: JPEG and PNG, wide, tall, tiny, square and grey.

    No JPEG is so large that linne would decode it at a reduced size, which these libraries do not.
    """
    from sklearn.datasets import load_sample_images

    folder = tmp_path_factory.mktemp("photos")
    china, flower = (Image.fromarray(pixels) for pixels in load_sample_images().images)
    files = {
        "china.jpg": china,
        "flower.png": flower,
        "tall.jpg": china.crop((50, 0, 250, 427)),
        "wide.png": flower.crop((0, 100, 640, 211)),
        "tiny.png": flower.resize((37, 23)),
        "square.jpg": china.crop((200, 90, 500, 390)),
        "turned.jpg": flower.transpose(Image.Transpose.ROTATE_90),
        "grey.jpg": china.convert("L"),
        "grey.png": flower.crop((100, 30, 377, 400)).convert("L"),
        "dark.jpg": flower.point(lambda value: value // 4),
    }
    for name, image in files.items():
        if name.endswith(".jpg"):
            image.thumbnail((160, 160))
        image.save(folder / name, **({"quality": 90} if name.endswith(".jpg") else {}))
    return [folder / name for name in files]


def photo_pixels(path: Path, channels: int) -> Any:
    pixels = np.asarray(Image.open(path).convert("RGB" if channels == 3 else "L"))
    return pixels if channels == 3 else pixels[..., None]


def photo_batch(photos: list[Path], spec: InputSpec) -> Any:
    images = np.stack([resize_and_crop(photo_pixels(path, spec.channels), spec) for path in photos])
    return torch.from_numpy(normalise(images, spec))


def spread(network: Any, images_NCHW: Any) -> None:
    """Give a network with random weights answers that differ from image to image, as trained ones do.

    Normalisation statistics are taken from the photographs, and the head is scaled until each class has logits of
    mean 0 and deviation 3 over them. Without this every probability is close to 1/K, and agreement to 1e-3 would
    hold for any network.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.reset_running_stats()
                module.momentum = None  # a plain average over the batches seen
        network.train()(images_NCHW)
        logits_NK = network.eval()(images_NCHW)
        head = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
        scale_K = 3 / logits_NK.std(dim=0)
        head.weight.mul_(scale_K[:, None])
        head.bias.copy_((head.bias - logits_NK.mean(dim=0)) * scale_K)


def make_bundle(folder: Path, case: Case, photos: list[Path]) -> Path:
    """Return a bundle of `case` as training would write it, with weights that spread the answers."""
    torch.manual_seed(1)
    spec = case.input
    ref = models.describe(
        case.name, num_classes=len(LABELS), channels=spec.channels, height=spec.height, width=spec.width
    )
    network = models.build(ref)
    if ref.provider in ("timm", "hf"):
        spread(network, photo_batch(photos, spec))
    network.eval()
    with torch.inference_mode():
        canary_logits_NK = network(torch.from_numpy(canary_batch(spec))).numpy()
    write_bundle(
        folder,
        labels=LABELS,
        input=spec,
        model=asdict(ref),
        weights={name: tensor.numpy() for name, tensor in network.state_dict().items()},
        config=models.config(ref, LABELS, spec.to_dict()),
        canary_logits_NK=canary_logits_NK,
        metrics={},
        provenance={},
    )
    return folder


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory, photos: list[Path]) -> Callable[[Case], Path]:
    """Make each bundle once."""
    made: dict[Case, Path] = {}

    def make(case: Case) -> Path:
        if case not in made:
            made[case] = make_bundle(tmp_path_factory.mktemp("bundles") / "bundle", case, photos)
        return made[case]

    return make


def softmax(logits_NK: Any) -> Any:
    return torch.softmax(torch.as_tensor(logits_NK).double(), dim=1).numpy()


def ours_from_files(predictor: Predictor, photos: list[Path]) -> Any:
    rows = []
    for prediction in predictor.predict_files(photos, top=len(LABELS)):
        by_label = dict(zip(prediction.labels, prediction.probabilities, strict=True))
        rows.append([by_label[label] for label in LABELS])
    return np.array(rows)


def timm_from_files(network: Any, photos: list[Path]) -> Any:
    """File to probabilities as timm's documentation does it, with nothing but the folder."""
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network), is_training=False)
    mode = "L" if network.pretrained_cfg["input_size"][0] == 1 else "RGB"
    with torch.inference_mode():
        return softmax(network(torch.stack([transform(Image.open(path).convert(mode)) for path in photos])))


def transformers_from_files(pipe: Any, photos: list[Path]) -> Any:
    """File to probabilities through the pipeline, reading the files itself."""
    rows = []
    for path in photos:
        by_label = {answer["label"]: answer["score"] for answer in pipe(str(path), top_k=len(LABELS))}
        rows.append([by_label[label] for label in LABELS])
    return np.array(rows)


def open_in_timm(folder: Path) -> Any:
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def timm_ignores_interpolation(spec: InputSpec) -> bool:
    """Whether the installed timm resizes with another filter than `spec` says."""
    released = tuple(int(part) for part in timm.__version__.split(".")[:3])
    old = released < tuple(int(part) for part in FIXED_TIMM.split("."))
    return old and spec.height != spec.width and spec.crop_mode == "center" and spec.interpolation != "bilinear"


@pytest.mark.parametrize("case", CASES)
def test_a_bundle_gives_the_same_probabilities_here_in_timm_and_in_transformers(case, bundle_of, photos):
    if timm_ignores_interpolation(case.input):
        pytest.skip(f"timm {timm.__version__} resizes to {case.name}'s input bilinearly; fixed in {FIXED_TIMM}")
    folder = bundle_of(case)
    predictor = Predictor.open(folder, how=RunOptions(device="cpu"))
    in_timm = open_in_timm(folder)
    pipe = transformers.pipeline("image-classification", model=str(folder), device="cpu")

    images_NCHW = photo_batch(photos, case.input)
    ours = softmax(predictor.backend.run(images_NCHW.numpy()))
    with torch.inference_mode():
        assert np.abs(softmax(in_timm(images_NCHW)) - ours).max() < 1e-5, "the same tensor in timm"
        logits_NK = pipe.model(pixel_values=images_NCHW).logits
        assert np.abs(softmax(logits_NK) - ours).max() < 1e-5, "the same tensor in transformers"

    ours = ours_from_files(predictor, photos)
    assert np.abs(timm_from_files(in_timm, photos) - ours).max() < 1e-3, "the same file in timm"
    assert np.abs(transformers_from_files(pipe, photos) - ours).max() < 1e-3, "the same file in transformers"

    # What makes the above worth something: the answers differ between images and between channel orders.
    assert ours.std(axis=0).min() > 0.1
    assert len(set(ours.argmax(axis=1))) >= 3
    swapped = softmax(predictor.backend.run(images_NCHW.flip(1).contiguous().numpy()))
    assert np.abs(swapped - ours).max() > 1e-2


@pytest.mark.parametrize("case", CASES)
def test_both_libraries_read_labels_and_preprocessing_from_the_folder(case, bundle_of):
    folder = bundle_of(case)
    spec = case.input
    expected = {
        "input_size": (spec.channels, spec.height, spec.width),
        "mean": spec.mean,
        "std": spec.std,
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_pct,
        "crop_mode": spec.crop_mode,
    }
    in_timm = open_in_timm(folder)
    found = timm.data.resolve_data_config({}, model=in_timm)
    assert {key: tuple(v) if isinstance(v, list) else v for key, v in found.items()} == expected
    assert tuple(in_timm.pretrained_cfg["label_names"]) == LABELS

    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    found = processor.data_config
    assert {key: tuple(v) if isinstance(v, list) else v for key, v in found.items()} == expected
    config = transformers.AutoConfig.from_pretrained(folder)
    assert tuple(config.id2label[k] for k in range(config.num_labels)) == LABELS


@pytest.mark.parametrize("case", GREY)
def test_a_grey_bundle_gives_the_same_probabilities_in_timm_and_as_a_transformers_model(case, bundle_of, photos):
    folder = bundle_of(case)
    predictor = Predictor.open(folder, how=RunOptions(device="cpu"))
    in_timm = open_in_timm(folder)
    in_transformers = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()

    images_NCHW = photo_batch(photos, case.input)
    ours = softmax(predictor.backend.run(images_NCHW.numpy()))
    with torch.inference_mode():
        assert np.abs(softmax(in_timm(images_NCHW)) - ours).max() < 1e-5
        assert np.abs(softmax(in_transformers(pixel_values=images_NCHW).logits) - ours).max() < 1e-5
    assert np.abs(timm_from_files(in_timm, photos) - ours_from_files(predictor, photos)).max() < 1e-3
    assert ours.std(axis=0).min() > 0.1


def test_the_pipeline_of_transformers_refuses_a_grey_bundle_rather_than_guess(bundle_of, photos):
    # Its image loader makes every file RGB; docs/guides/models.md says so.
    folder = bundle_of(GREY[0].values[0])
    pipe = transformers.pipeline("image-classification", model=str(folder), device="cpu")
    with pytest.raises(RuntimeError, match="to have 1 channels, but got 3 channels"):
        pipe(str(photos[0]))


FOREIGN = [
    case("mlp", 3, 8, 8, **HALF),
    case("small", 3, 16, 16, **HALF),
    case("torchvision/squeezenet1_1", 3, 32, 32, **HALF),
]


@pytest.mark.parametrize("case", FOREIGN)
def test_other_libraries_refuse_a_bundle_whose_network_they_do_not_have(case, bundle_of):
    folder = bundle_of(case)
    architecture = case.name if "/" in case.name else f"linne/{case.name}"
    with pytest.raises(RuntimeError, match=rf"Unknown model \({architecture}\)"):
        open_in_timm(folder)
    with pytest.raises(ValueError, match="model type `linne` but Transformers does not recognize"):
        transformers.pipeline("image-classification", model=str(folder))


NETWORKS = Path(__file__).parent.parent / "fixtures/networks"
HUGGING_FACE = [
    case(f"hf:{NETWORKS / 'tiny-vit'}", 3, 48, 32, **HALF, interpolation="bicubic", crop_pct=0.9),
    case(f"hf:{NETWORKS / 'tiny-resnet'}", 3, 64, 64, **IMAGENET, interpolation="bilinear", crop_mode="squash"),
]


@pytest.mark.parametrize("case", HUGGING_FACE)
def test_a_bundle_of_transformers_own_network_gives_the_same_probabilities_there(case, bundle_of, photos):
    folder = bundle_of(case)
    predictor = Predictor.open(folder, how=RunOptions(device="cpu"))
    pipe = transformers.pipeline("image-classification", model=str(folder), device="cpu")
    assert type(pipe.model).__name__ in ("ViTForImageClassification", "ResNetForImageClassification")
    assert tuple(pipe.model.config.id2label[k] for k in range(len(LABELS))) == LABELS

    images_NCHW = photo_batch(photos, case.input)
    ours = softmax(predictor.backend.run(images_NCHW.numpy()))
    with torch.inference_mode():
        assert np.abs(softmax(pipe.model(pixel_values=images_NCHW).logits) - ours).max() < 1e-5, "the same tensor"
    ours = ours_from_files(predictor, photos)
    assert np.abs(transformers_from_files(pipe, photos) - ours).max() < 1e-3, "the same file"
    assert ours.std(axis=0).min() > 0.1
    with pytest.raises(RuntimeError, match=r"Unknown model \(hf/(vit|resnet)\)"):
        open_in_timm(folder)


def test_a_timm_user_can_go_on_from_a_bundle_with_other_classes_and_channels(bundle_of):
    folder = bundle_of(CASES[0].values[0])
    whole = open_in_timm(folder)
    adapted = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=9, in_chans=1)
    assert adapted(torch.zeros(2, 1, 32, 32)).shape == (2, 9)
    torch.testing.assert_close(adapted.conv1.weight, whole.conv1.weight.sum(dim=1, keepdim=True))


FRACTIONS = st.sampled_from([1.0, 0.95, 0.9, 0.875, 224 / 232, 0.5]) | st.floats(0.1, 1.0)
SIDES = st.integers(1, 70)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    target=st.tuples(SIDES, SIDES) | SIDES.map(lambda side: (side, side)),
    crop_pct=FRACTIONS,
    crop_mode=st.sampled_from(["center", "squash"]),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_preprocessing_equals_timms_evaluation_transform(
    size, target, crop_pct, crop_mode, interpolation, channels, seed
):
    draw = np.random.default_rng(seed)
    spec = InputSpec(
        channels=channels,
        height=target[0],
        width=target[1],
        mean=tuple(draw.uniform(0.2, 0.6, channels)),
        std=tuple(draw.uniform(0.1, 0.6, channels)),
        interpolation=interpolation,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
    )
    assume(not timm_ignores_interpolation(spec))
    pixels_HWC = draw.integers(0, 256, (*size, channels), dtype=np.uint8)
    ours = normalise(resize_and_crop(pixels_HWC, spec)[None], spec)[0]

    ref = ModelRef(
        provider="timm",
        name="test_resnet",
        num_classes=2,
        channels=channels,
        height=spec.height,
        width=spec.width,
        options={},
    )
    config = models.config(ref, ("a", "b"), spec.to_dict())
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, pretrained_cfg=config["pretrained_cfg"]))
    theirs = transform(Image.fromarray(pixels_HWC[..., 0] if channels == 1 else pixels_HWC)).numpy()
    # Values reach 8 here, so 1e-5 is the rounding of float32; a pixel that differs by 1 of 255 shows as 6e-3.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
