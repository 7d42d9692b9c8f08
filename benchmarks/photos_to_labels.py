"""A folder of photographs to a label each, files to output: linne predict, transformers' pipeline in batches, timm.

The same ResNet-50 (or another network of Hugging Face's and timm's) in all; whole processes, their start included. timm
is its own inference.py, which is in its repository and not in its package.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import deployed
import first_answer
import measure

PIPELINE = """
import sys
from pathlib import Path
import torch
from transformers import pipeline
classify = pipeline("image-classification", model=sys.argv[1], batch_size=int(sys.argv[3]), top_k=1)
files = sorted(map(str, Path(sys.argv[2]).iterdir()))
for answer in classify(files):
    print(answer[0]["label"])
"""


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep what is made there, for the next call")
    parser.add_argument(
        "--photographs", metavar="DIR", help="copies of these; without it of those that come with linne"
    )
    parser.add_argument("--timm-inference", metavar="FILE", help="timm's inference.py")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16, help="of the others; linne takes its own")
    parser.add_argument("--how", help="how linne runs it as well, such as '--backend openvino --precision bf16'")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if options.quick:
        options.count, options.runs = 20, 1
    env = measure.checkout_env(PYTHONDONTWRITEBYTECODE=None, HF_HUB_OFFLINE="1")
    deployed.without_progress_bars()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        photographs = Path(scratch) / "photographs"
        photographs.mkdir()
        for number, path in enumerate(deployed.photographs(options.photographs, options.count)):
            (photographs / f"{number:05}.jpg").write_bytes(path.read_bytes())
        hub = first_answer.hub_folder(folder)
        bundle = first_answer.exported(hub, folder)
        linne = [sys.executable, "-m", "linne", "predict", bundle, str(photographs), "--top", "1", "--format", "csv"]
        commands = {
            "linne predict": linne,
            "transformers pipeline": [sys.executable, "-c", PIPELINE, str(hub), str(photographs), str(options.batch)],
        }
        if options.how:
            commands[f"linne predict {options.how}"] = [*linne, *options.how.split()]
        if (Path(bundle) / "exports" / "onnx-int8").exists():
            commands["linne predict --precision int8"] = [*linne, "--precision", "int8"]
        if options.timm_inference:
            file = first_answer.timm_file(folder)
            asked = ["--model", "resnet50", "--checkpoint", file, "--batch-size", str(options.batch), "-j", "2"]
            asked += ["--device", "cpu", "--results-dir", scratch]
            commands["timm's inference.py"] = [sys.executable, options.timm_inference, str(photographs), *asked]
        results = measure.interleave(
            options.runs, {name: lambda c=command: measure.run_child(c, env)[0] for name, command in commands.items()}
        )
    ours = statistics.median(timing.wall for timing in results["linne predict"])
    rows = [
        [
            name,
            measure.middle([timing.wall for timing in timings], 1),
            measure.middle([timing.cpu for timing in timings], 1),
            f"{options.count / statistics.median(timing.wall for timing in timings):.1f}",
            f"{statistics.median(timing.wall for timing in timings) / ours:.2f}x",
        ]
        for name, timings in results.items()
    ]
    measure.report(
        f"{options.count:,} photographs to labels, ResNet-50",
        ["program", "wall s", "CPU s", "images/s", "wall / linne"],
        rows,
        notes=[f"{options.runs} processes of each, taking turns; batches of {options.batch} for the others"],
        packages=["torch", "transformers", "timm", "onnxruntime"],
        raw={name: [timing.to_dict() for timing in timings] for name, timings in results.items()},
        options=options,
    )


if __name__ == "__main__":
    main()
