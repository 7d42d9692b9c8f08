"""CPU-seconds of `linne --help`, and that it imports no framework.

Child processes, taking turns with a Python that does nothing and with one that imports torch, for scale. Byte-code is
compiled before, as an installed package's is.
"""

from __future__ import annotations

import compileall
import json
import sys
from typing import Any

import measure

FRAMEWORKS = ("torch", "torchvision", "timm", "transformers", "numpy", "sklearn", "matplotlib")

PROOF = """
import json, sys
from linne.cli import main
sys.argv = ["linne", "--help"]
try:
    main()
except SystemExit:
    pass
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    runs = 2 if options.quick else options.runs
    compileall.compile_dir(str(measure.CHECKOUT / "src"), quiet=2)
    env = measure.checkout_env(PYTHONDONTWRITEBYTECODE=None)
    commands = {
        "linne --help": [sys.executable, "-m", "linne", "--help"],
        "linne --version": [sys.executable, "-m", "linne", "--version"],
        "linne train --help": [sys.executable, "-m", "linne", "train", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    }
    for command in commands.values():
        measure.run_child(command, env)  # reads the files once, so that disks do not count
    results = measure.interleave(
        runs, {name: lambda c=command: measure.run_child(c, env)[0] for name, command in commands.items()}
    )
    _, printed = measure.run_child([sys.executable, "-c", PROOF], env)
    loaded: list[str] = json.loads(printed.splitlines()[-1])
    found = [name for name in FRAMEWORKS if name in loaded]

    rows = []
    for name, timings in results.items():
        rows.append([name, measure.middle([t.cpu for t in timings], 3), measure.middle([t.wall for t in timings], 3)])
    raw: dict[str, Any] = {name: [t.to_dict() for t in timings] for name, timings in results.items()}
    measure.report(
        "Start-up",
        ["command", "CPU-s, median (spread)", "wall s"],
        rows,
        notes=[
            f"{runs} child processes of each, taking turns, files warm, byte-code compiled",
            f"of {', '.join(FRAMEWORKS)}, `linne --help` imports {', '.join(found) or 'none'}",
        ],
        packages=["click", "torch"],
        raw={**raw, "imported": found, "modules": loaded},
        options=options,
    )


if __name__ == "__main__":
    main()
