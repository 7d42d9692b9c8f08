"""From files to a finished run: the same result however the images were loaded, and what is said about it."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import linne
from linne.bundle import open_bundle
from linne.data.loading.loader import make_batches
from linne.device import Device
from linne.planning import collect, make_plan

RECIPE = {"data.height": 16, "data.width": 16, "data.batch_size": 8, "optim.epochs": 2, "device.precision": "fp32"}
WAYS = {"resident": {"data.loader": "resident"}, "streaming": {"data.loader": "streaming", "data.num_workers": 3}}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Sixty JPEGs of two classes, dark and light."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(60):
        light = number % 2
        coarse = rng.integers(100 * light, 100 * light + 120, (6, 8, 3), dtype=np.uint8)
        file = BytesIO()
        Image.fromarray(coarse).resize((120, 90)).save(file, "jpeg")
        place = folder / ("dark", "light")[light]
        place.mkdir(exist_ok=True)
        (place / f"{number}.jpg").write_bytes(file.getvalue())
    return folder


@pytest.fixture(scope="module")
def runs(photos, tmp_path_factory):
    """One training each way."""
    output = tmp_path_factory.mktemp("runs")
    options = {"model": "mlp", "device": "cpu", "quiet": True}
    return {
        way: linne.train(str(photos), output=output / way, overrides={**RECIPE, **overrides}, **options)
        for way, overrides in WAYS.items()
    }


def test_memory_and_threads_end_in_the_same_weights(runs):
    held, streamed = (open_bundle(runs[way].bundle).weights() for way in WAYS)
    assert held.keys() == streamed.keys()
    assert all(np.array_equal(held[name], streamed[name]) for name in held)


@pytest.mark.parametrize("way", WAYS)
def test_each_epoch_says_what_share_of_it_was_waiting_and_the_report_sums_it_up(runs, way):
    rows = [json.loads(line) for line in (runs[way].run / "metrics.jsonl").read_text().splitlines()]
    shares = [row["data_wait"] for row in rows if row["event"] == "epoch"]
    assert len(shares) == 2
    assert all(0 < share < 1 for share in shares)
    said = {
        "resident": ("data: held in memory; making batches took ",),
        "streaming": ("data: decoded ahead by 3 threads; waited for ", "data: waiting for data "),
    }
    report = (runs[way].run / "report.md").read_text()
    assert any(words in report for words in said[way])


@pytest.mark.parametrize("augment", [{}, {"augment.resized_crop_area": 0.3, "augment.mixup_alpha": 0.2}], ids=str)
def test_augmented_batches_do_not_hang_on_the_number_of_threads_or_on_what_ran_before(photos, augment):
    found = []
    for threads in (0, 1, 4):
        overrides = {**RECIPE, "data.loader": "streaming", "data.num_workers": threads, "augment.flip": True, **augment}
        given, reasons = collect(str(photos), None, {"device.name": "cpu", "model.name": "mlp"}, overrides)
        plan = make_plan(given, reasons)
        batches, _ = make_batches(plan.source, plan.recipe, Device.pick("cpu"))
        if threads == 4:
            next(iter(batches.epoch(0)))  # left in the middle
        found.append([batch.images_NCHW for batch in batches.epoch(1)])
    for other in found[1:]:
        assert all(bool((a == b).all()) for a, b in zip(found[0], other, strict=True))
