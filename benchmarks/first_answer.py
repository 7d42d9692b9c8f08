"""From the start of a process to the label of one photograph: linne, transformers' pipeline, timm, Ultralytics.

The same ResNet-50 in Hugging Face's layout for linne and the pipeline, the same in timm's for linne and timm's own
example; Ultralytics runs its smallest classifier, which is a twentieth of it. Weights are drawn. Files are read once
before, byte-code is compiled.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import deployed
import measure

PIPELINE = """
import sys
from transformers import pipeline
answers = pipeline("image-classification", model=sys.argv[1])(sys.argv[2])
print(answers[0]["label"])
"""
TIMM = """
import sys
import timm, torch
from PIL import Image
model = timm.create_model("resnet50", pretrained=False, checkpoint_path=sys.argv[1]).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
with torch.inference_mode():
    logits = model(transform(Image.open(sys.argv[2]).convert("RGB")).unsqueeze(0))
print(logits.softmax(1).topk(5).indices[0].tolist())
"""
ULTRALYTICS = """
import sys
from ultralytics import YOLO
print(YOLO(sys.argv[1])(sys.argv[2], verbose=False)[0].probs.top5)
"""


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep what is made there, for the next call")
    parser.add_argument("--photographs", metavar="DIR", help="take one of these; without it one that comes with linne")
    parser.add_argument(
        "--ultralytics", metavar="PYTHON", help="a Python that has ultralytics, which linne does not need"
    )
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    runs = 2 if options.quick else options.runs
    env = measure.checkout_env(PYTHONDONTWRITEBYTECODE=None, HF_HUB_OFFLINE="1")
    deployed.without_progress_bars()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        photo = str(deployed.photographs(options.photographs, 1)[0])
        hub, small = hub_folder(folder), str(deployed.bundle_of("torchvision/mobilenet_v2", folder))
        commands = {
            "linne predict, ResNet-50": [sys.executable, "-m", "linne", "predict", exported(hub, folder), photo],
            "transformers pipeline, ResNet-50": [sys.executable, "-c", PIPELINE, str(hub), photo],
            "timm's example, ResNet-50": [sys.executable, "-c", TIMM, timm_file(folder), photo],
            "linne predict, MobileNetV2": [sys.executable, "-m", "linne", "predict", small, photo],
        }
        if options.ultralytics:
            commands["Ultralytics, YOLO11n-cls"] = [
                options.ultralytics,
                "-c",
                ULTRALYTICS,
                yolo(options.ultralytics, folder),
                photo,
            ]
        for command in commands.values():
            measure.run_child(command, env)
        results = measure.interleave(
            runs, {name: lambda c=command: measure.run_child(c, env)[0] for name, command in commands.items()}
        )
    ours = statistics.median(timing.wall for timing in results["linne predict, ResNet-50"])
    rows = [
        [
            name,
            measure.middle([timing.wall for timing in timings], 2),
            measure.middle([timing.cpu for timing in timings], 2),
            f"{statistics.median(timing.wall for timing in timings) / ours:.1f}x",
        ]
        for name, timings in results.items()
    ]
    measure.report(
        "The first answer",
        ["program", "wall s", "CPU s", "wall / linne's ResNet-50"],
        rows,
        notes=[f"{runs} processes of each, taking turns; files warm, byte-code compiled, hubs offline"],
        packages=["torch", "transformers", "timm", "onnxruntime"],
        raw={name: [timing.to_dict() for timing in timings] for name, timings in results.items()},
        options=options,
    )


def hub_folder(folder: Path) -> Path:
    """Return a ResNet-50 in Hugging Face's layout, drawn."""
    path = folder / "hub-resnet50"
    if not (path / "config.json").exists():
        import torch
        from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

        torch.manual_seed(0)
        names = {number: f"class {number}" for number in range(1000)}
        config = ResNetConfig(num_labels=1000, id2label=names, label2id={name: key for key, name in names.items()})
        network = ResNetForImageClassification(config).train()
        with torch.no_grad():
            network(torch.randn(4, 3, 224, 224))  # batch norms settle
        network.save_pretrained(path)
        ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875).save_pretrained(path)
    return path


def exported(hub: Path, folder: Path) -> str:
    """Return a bundle of the same network with an ONNX export."""
    measure.use_checkout()
    import linne

    output = folder / "linne-resnet50"
    if not (output / "bundle.json").exists():
        linne.import_weights(hub, output, unproved=True, quiet=True)
        linne.export(output, to="onnx", quiet=True)
    return str(output)


def timm_file(folder: Path) -> str:
    """Return a file of drawn weights of timm's ResNet-50."""
    path = folder / "timm-resnet50.safetensors"
    if not path.exists():
        import timm
        from safetensors.torch import save_file

        save_file(timm.create_model("resnet50").state_dict(), path)
    return str(path)


def yolo(python: str, folder: Path) -> str:
    """Return a file of Ultralytics' smallest classifier, drawn by its own program."""
    path = folder / "yolo11n-cls.pt"
    if not path.exists():
        make = "import sys; from ultralytics import YOLO; YOLO('yolo11n-cls.yaml').save(sys.argv[1])"
        measure.run_child([python, "-c", make, str(path)])
    return str(path)


if __name__ == "__main__":
    main()
