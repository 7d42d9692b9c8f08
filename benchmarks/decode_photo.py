"""A JPEG's bytes to a 224 px tensor: linne's decoder against Pillow with torchvision v1, and torchvision.io with v2.

The photographs are cut from those of `--data` (a folder of images; scikit-learn's two without it), brought to the size
of the row and saved as JPEG of quality 90 with 4:2:0 colours. All sides resize the shorter edge to 256 with a bilinear,
antialiased filter, cut out 224 x 224 in the middle and normalise; linne normalises 64 at a time, as its loaders do. One
thread, one process, taking turns. The difference is that of the uint8 pixels from Pillow's at full size, in levels.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measure

measure.use_checkout()

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
from PIL import Image  # noqa: E402
from torchvision import transforms  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from linne.data.images.decode import to_input  # noqa: E402
from linne.data.loading.finish import Finish  # noqa: E402
from linne.device import Device  # noqa: E402
from linne.fast_resize import torch_resize  # noqa: E402
from linne.preprocess import InputSpec, pillow_resize  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEC = InputSpec(channels=3, height=224, width=224, mean=MEAN, std=STD, interpolation="bilinear", crop_pct=0.875)
BATCH = 64
PILLOW = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
PILLOW_TENSOR = transforms.Compose([PILLOW, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
TENSORS = v2.Compose(
    [
        v2.Resize(256, antialias=True),
        v2.CenterCrop(224),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ]
)


def photographs(folder: str | None, size: tuple[int, int], count: int) -> list[bytes]:
    """Return `count` JPEGs of `size` (width, height), each another part of one of the photographs."""
    if folder is None:
        from sklearn.datasets import load_sample_images

        scenes = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    else:
        paths = [path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
        scenes = [Image.open(path).convert("RGB") for path in paths]
    draw = np.random.default_rng(0)
    jpegs = []
    for k in range(count):
        scene = scenes[k % len(scenes)]
        share = draw.uniform(0.8, 1.0)
        part_W, part_H = int(scene.width * share), int(scene.height * share)
        left, top = draw.integers(0, scene.width - part_W + 1), draw.integers(0, scene.height - part_H + 1)
        part = scene.crop((left, top, left + part_W, top + part_H)).resize(size, Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        part.save(stream, "JPEG", quality=90)
        jpegs.append(stream.getvalue())
    return jpegs


def by_pillow(jpegs: Sequence[bytes]) -> None:
    for data in jpegs:
        PILLOW_TENSOR(Image.open(io.BytesIO(data)).convert("RGB"))


def by_torchvision_io(jpegs: Sequence[bytes]) -> None:
    for data in jpegs:
        TENSORS(torchvision.io.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)))


def by_linne(finish: Finish) -> Callable[[Sequence[bytes]], None]:
    """Return what decodes with linne and normalises `BATCH` at a time."""

    def run(jpegs: Sequence[bytes]) -> None:
        for first in range(0, len(jpegs), BATCH):
            batch = [to_input(data, SPEC, name="photo", resize=torch_resize) for data in jpegs[first : first + BATCH]]
            finish(torch.from_numpy(np.stack(batch)))

    return run


def differences(jpegs: Sequence[bytes], resize: Any) -> tuple[float, int]:
    """Return the mean and the largest difference of linne's pixels from Pillow's at full size."""
    gaps = []
    for data in jpegs:
        reference = np.asarray(PILLOW(Image.open(io.BytesIO(data)).convert("RGB"))).astype(int)
        gaps.append(np.abs(to_input(data, SPEC, name="photo", resize=resize) - reference))
    return float(np.mean(gaps)), int(np.max(gaps))


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--data", metavar="DIR", help="a folder of photographs to cut from")
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    runs = 2 if options.quick else options.runs
    torch.set_num_threads(1)
    sides: dict[str, Callable[[Sequence[bytes]], None]] = {
        "linne": by_linne(Finish(SPEC, Device.pick("cpu"), channels_last=True)),
        "Pillow + torchvision v1": by_pillow,
        "torchvision.io + v2": by_torchvision_io,
    }
    rows, raw = [], {}
    for width, height, count in ((500, 375, 128), (4000, 3000, 12)):
        jpegs = photographs(options.data, (width, height), 4 if options.quick else count)

        def rate(run: Callable[[Sequence[bytes]], None], jpegs: Sequence[bytes] = jpegs) -> float:
            with measure.timed() as timing, torch.inference_mode():
                run(jpegs)
            return len(jpegs) / timing.cpu

        for run in sides.values():
            run(jpegs[:2])
        rates = measure.interleave(runs, {name: lambda r=run: rate(r) for name, run in sides.items()})
        mean, largest = differences(jpegs, torch_resize)
        raw[f"{width}x{height}"] = {"rates": rates, "mean": mean, "largest": largest}
        raw[f"{width}x{height}"]["reference"] = differences(jpegs, pillow_resize)
        for name, of_side in rates.items():
            ratio = statistics.median(a / b for a, b in zip(rates["linne"], of_side, strict=True))
            gap = f"{mean:.3f}, at most {largest}" if name == "linne" else ""
            rows.append([f"{width} x {height}, {name}", measure.middle(of_side, 1), f"{ratio:.2f}x", gap])
    measure.report(
        "JPEG to a 224 px tensor",
        ["photo, side", "images per CPU-second, median (spread)", "linne is faster by", "difference, levels"],
        rows,
        notes=[f"{runs} rounds over 128 and 12 photographs, taking turns, one thread"],
        packages=["numpy", "pillow", "simplejpeg", "torch", "torchvision"],
        raw=raw,
        options=options,
    )


if __name__ == "__main__":
    main()
