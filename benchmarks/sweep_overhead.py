"""What `linne sweep` takes beside the trainings it runs: the same trainings by a sweep and typed by hand, taking turns.

The trainings are the first few of a sweep on digits, before any is ended early, so that both sides do the same.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--trials", type=int, default=5)
    options = parser.parse_args()
    runs, trials = (1, 2) if options.quick else (options.runs, min(options.trials, 5))
    epochs = ["--epochs", "2"] if options.quick else []
    linne = [sys.executable, "-m", "linne"]
    env = measure.checkout_env()
    work = Path(tempfile.mkdtemp(prefix="linne-sweep-"))
    asked = [*linne, "sweep", "digits", *epochs, "--set", "device.precision=fp32", "--trials", str(trials), "--quiet"]
    first = work / "first"
    _, printed = measure.run_child([*asked, "--output", str(first), "--json"], env)
    found: dict[str, Any] = json.loads(printed)
    settings = [trial["settings"] for trial in found["trials"]]

    def by_sweep() -> measure.Timing:
        folder = Path(tempfile.mkdtemp(dir=work))
        return measure.run_child([*asked, "--output", str(folder)], env)[0]

    def by_hand() -> measure.Timing:
        total, folder = measure.Timing(), Path(tempfile.mkdtemp(dir=work))
        for number, fields in enumerate(settings):
            words = [*linne, "train", "--recipe", str(first / "recipe.json"), "--output", str(folder / str(number))]
            for path, value in fields.items():
                words += ["--set", f"{path}={'none' if value is None else value}"]
            total += measure.run_child([*words, "--quiet"], env)[0]
        return total

    results = measure.interleave(runs, {"linne sweep": by_sweep, "linne train, by hand": by_hand})
    shutil.rmtree(work)
    rows = []
    for name, timings in results.items():
        rows.append([name, measure.middle([t.cpu for t in timings], 1), measure.middle([t.wall for t in timings], 1)])
    sweep, hand = (statistics.median(t.cpu for t in timings) for timings in results.values())
    measure.report(
        "A sweep against the same trainings by hand",
        [f"{trials} trainings on digits", "CPU-s, median (spread)", "wall s"],
        rows,
        notes=[
            f"{runs} of each, taking turns; {trials} trainings one after the other, each with its report",
            f"median over median, CPU-seconds: {sweep / hand:.3f}; {(sweep - hand):.1f} s in all",
        ],
        packages=["optuna", "torch"],
        raw={name: [t.to_dict() for t in timings] for name, timings in results.items()},
        options=options,
    )


if __name__ == "__main__":
    main()
