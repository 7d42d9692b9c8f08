"""Advice from made-up traces: each rule speaks where its number is large, says it, and is silent otherwise."""

from __future__ import annotations

import dataclasses

import pytest

from linne.profiling.advice import MOST, advice_text, advise
from linne.profiling.summary import DeviceFacts, Operator, Part, TraceSummary

SETTINGS = {
    "augment.crop_padding": None,
    "augment.flip": False,
    "augment.policy": None,
    "data.batch_size": 128,
    "data.loader": "streaming",
    "data.num_workers": 8,
    "device.channels_last": True,
    "device.compile": False,
    "device.num_threads": None,
    "device.precision": "bf16",
    "optim.optimizer": "sgd",
}
GPU = DeviceFacts(
    address="cuda:0",
    name="a GPU",
    is_accelerator=True,
    num_cores=8,
    compiles=True,
    pins_memory=True,
)
CPU = DeviceFacts(address="cpu", name="CPU", num_cores=8, compiles=True)
NETWORK = (Operator("aten::convolution_backward", 0.5, 20), Operator("aten::cudnn_convolution", 0.3, 20))


def trace(*, settings=(), **changes):
    """Return a training whose steps are the network's own arithmetic, but for what is changed; parts are in seconds."""
    parts = {"forward": 0.03, "backward": 0.06, "optimiser": 0.01, **changes.pop("parts", {})}
    seconds = sum(parts.values())
    plain = TraceSummary(
        traced="train",
        subject="training a network",
        device=GPU,
        settings={**SETTINGS, **dict(settings)},
        num_steps=20,
        images=128,
        seconds=seconds,
        cpu_seconds=seconds,
        parts=tuple(Part(name, value, value) for name, value in parts.items()),
        operators=NETWORK,
        device_seconds=0.95 * seconds,
        num_kernels=300,
        size=(224, 224),
    )
    return dataclasses.replace(plain, **changes)


def said(summary):
    """Return (text, change) of each piece of advice."""
    return [(advice.text, advice.change) for advice in advise(summary)]


def test_where_nothing_stands_out_it_says_so_with_the_network_s_share():
    assert advise(trace()) == ()
    assert advice_text(trace()).replace("\n", " ") == (
        "nothing stands out: 90 % of a step is the network's own arithmetic; what is left is a smaller network "
        "(`--model`) or smaller images (`data.height`, `data.width`) "
    )


def test_waiting_with_cores_to_spare_asks_for_threads():
    found = said(trace(parts={"wait": 0.0613}, settings={"data.num_workers": 2}, device_seconds=0.1))
    assert found == [
        ("38 % of each step waits for data, with 2 threads on 8 cores to decode it ahead", "--set data.num_workers=8")
    ]


def test_decoding_between_the_steps_asks_for_threads():
    found = said(trace(parts={"decode": 0.1}, settings={"data.num_workers": 0}, device_seconds=0.1))
    assert found == [
        ("50 % of each step waits for data, with no threads on 8 cores to decode it ahead", "--set data.num_workers=8")
    ]


def test_waiting_with_all_cores_at_work_asks_for_pixels_in_memory_where_they_fit():
    found = said(trace(parts={"wait": 0.1}, device_seconds=0.1, resident_bytes=300 * 2**20))
    assert found[0][0].endswith("; 300 MiB of decoded pixels would fit into memory")
    assert found[0][1] == "--set data.loader=resident"


def test_waiting_with_all_cores_at_work_and_no_room_asks_for_smaller_files():
    assert said(trace(parts={"wait": 0.1}, device_seconds=0.1))[0][1] == "linne data pack SOURCE packed/ --size 224"


def test_a_little_waiting_is_not_spoken_of():
    assert said(trace(parts={"wait": 0.009})) == []


@pytest.mark.parametrize("typed", ["device.precision=bf16", "device.precision=fp32"])
def test_an_arithmetic_that_was_faster_when_tried_is_advised(typed):
    assert said(trace(trials={typed: 1.62})) == [
        (f"with {typed} steps were 1.6 times as fast, tried in turns with these", f"--set {typed}")
    ]


@pytest.mark.parametrize("typed", ["device.channels_last=true", "device.channels_last=false"])
def test_a_layout_that_was_faster_when_tried_is_advised_with_the_share_of_convolutions(typed):
    assert said(trace(trials={typed: 2.0})) == [
        (
            f"80 % of the operators' time is convolutions; with {typed} steps were 2.0 times as fast, tried in turns "
            "with these",
            f"--set {typed}",
        )
    ]


@pytest.mark.parametrize("gain", [0.4, 1.0, 1.1])
def test_what_gained_little_when_tried_is_not_advised(gain):
    assert said(trace(trials={"device.precision=bf16": gain, "device.channels_last=true": gain})) == []


def test_a_device_that_is_idle_between_small_kernels_asks_to_compile():
    idle = trace(device_seconds=0.006, num_kernels=600)
    assert said(idle) == [
        (
            "cuda:0 is idle for 94 % of the time: 600 kernels of 10 us each are done before the next is started",
            "--set device.compile=true",
        )
    ]


def test_where_nothing_compiles_small_kernels_ask_for_larger_batches():
    idle = trace(device_seconds=0.006, num_kernels=600, device=dataclasses.replace(GPU, compiles=False))
    assert said(idle)[0][1] == "--batch-size 256"
    assert said(dataclasses.replace(idle, settings={**SETTINGS, "data.batch_size": 1024}))[0][1] is None


def test_a_device_that_is_idle_while_data_is_awaited_is_not_blamed_on_its_kernels():
    found = said(trace(parts={"wait": 0.9}, device_seconds=0.006, num_kernels=600))
    assert [change for _, change in found] == ["linne data pack SOURCE packed/ --size 224"]


def test_what_the_profiler_does_not_see_is_not_judged():
    assert said(trace(device_seconds=None, num_kernels=None)) == []


def test_copies_are_said_with_their_size_and_end_where_pixels_stay_on_the_device():
    copying = trace(parts={"copy": 0.03}, copied_bytes=19.3e6, resident_bytes=2**30)
    assert said(copying) == [
        ("23 % of the time is copying: 19.3 MB to the device each time", "--set data.loader=resident")
    ]


def test_copies_of_a_prediction_say_that_their_memory_is_not_page_locked():
    parts = (Part("copy", 0.02, 0.02), Part("forward", 0.05, 0.05), Part("back", 0.01, 0.01))
    copying = trace(traced="predict", settings={}, parts={}, copied_bytes=38.5e6)
    copying = dataclasses.replace(copying, parts=parts, settings={}, seconds=0.08, device_seconds=0.07)
    assert said(copying) == [
        ("38 % of the time is copying: 38.5 MB to the device each time, from memory that is not page-locked", None)
    ]


def test_an_optimiser_that_takes_a_fifth_asks_for_larger_batches_while_they_are_small():
    large = trace(parts={"optimiser": 0.06})
    assert said(large) == [
        (
            "40 % of each step updates the weights, which takes as long however many images a batch has",
            "--batch-size 256",
        )
    ]
    assert said(trace(parts={"optimiser": 0.06}, settings={"data.batch_size": 1024})) == []


def test_augmentation_that_takes_long_is_named_the_dearest_first():
    active = {"augment.flip": True, "augment.policy": "trivial"}
    assert said(trace(parts={"prepare": 0.1}, settings=active)) == [
        ("50 % of each step augments images (flip, policy)", "--set augment.policy=none")
    ]
    assert said(trace(parts={"prepare": 0.1}, settings={"augment.flip": True}))[0][1] == "--set augment.flip=false"
    assert said(trace(parts={"prepare": 0.1})) == [], "there is nothing to switch off"


def test_operators_on_the_cpu_come_first_and_name_what_avoids_them():
    fallen = trace(parts={"optimiser": 0.06}, settings={"optim.optimizer": "adamw"}, fallbacks={"aten::lerp_": 20.0})
    assert said(fallen)[0] == (
        "cuda:0 leaves `aten::lerp_` to the CPU, 20.0 calls a step",
        "--set optim.optimizer=sgd",
    )
    others = trace(fallbacks={"aten::roll": 4.0, "aten::sort": 1.0})
    assert said(others)[0][0] == "cuda:0 leaves `aten::roll` and 1 more to the CPU, 5.0 calls a step"


def test_one_operator_that_computes_nothing_of_the_network_is_pointed_at():
    copying = trace(operators=(Operator("aten::copy_", 0.61, 400), *NETWORK))
    assert said(copying) == [
        (
            "61 % of the operators' time is `aten::copy_`, no convolution and no product; trace.json shows who "
            "calls it",
            None,
        )
    ]


@pytest.mark.parametrize("name", ["aten::mkldnn_convolution", "aten::addmm", "aten::_flash_attention_forward"])
def test_one_operator_that_is_the_network_s_arithmetic_is_what_a_step_is_for(name):
    assert said(trace(operators=(Operator(name, 0.8, 4),))) == []


def test_a_long_step_on_one_thread_of_a_cpu_asks_for_the_others():
    slow = trace(device=CPU, settings={"device.num_threads": 1}, parts={"backward": 0.36}, device_seconds=None)
    assert said(slow) == [("98 % of a step of 400 ms computes with 1 thread on 8 cores", "--set device.num_threads=8")]
    short = trace(device=CPU, settings={"device.num_threads": 1}, device_seconds=None, seconds=0.09)
    assert said(short) == []


def test_decoding_in_an_evaluation_asks_for_packed_images_and_in_a_prediction_for_none():
    parts = (Part("decode", 0.08, 0.08), Part("forward", 0.02, 0.02))
    plain = dataclasses.replace(trace(), parts=parts, settings={}, seconds=0.1, device_seconds=0.02, num_kernels=10)
    evaluation = dataclasses.replace(plain, traced="evaluate")
    assert said(evaluation) == [
        (
            "80 % of each batch is reading and decoding, for 224 x 224 pixels that the network sees; resized once, "
            "images decode faster",
            "linne data pack SOURCE packed/ --size 224",
        )
    ]
    assert said(dataclasses.replace(plain, traced="predict"))[0][1] is None


def test_no_more_than_three_are_said_and_what_is_at_stake_orders_them():
    everything = trace(
        parts={"wait": 0.5, "copy": 0.2, "optimiser": 0.4},
        settings={"data.num_workers": 1},
        trials={"device.precision=bf16": 1.2},
        device_seconds=0.05,
    )
    found = advise(everything)
    assert len(found) == MOST
    assert [advice.stake for advice in found] == sorted((advice.stake for advice in found), reverse=True)
    text = advice_text(everything)
    assert text.startswith("what could make it faster:\n1. 42 % of each step waits for data")
    assert "\n   try: --set data.num_workers=8\n2. " in text


def test_every_piece_of_advice_has_a_number():
    everything = [
        trace(parts={"wait": 0.5, "copy": 0.5}),
        trace(device_seconds=0.006, num_kernels=600, fallbacks={"aten::roll": 1.0}),
        trace(trials={"device.precision=bf16": 2.0, "device.channels_last=true": 1.5}),
    ]
    texts = [advice.text for summary in everything for advice in advise(summary)]
    assert len(texts) >= 6
    assert all(any(character.isdigit() for character in text) for text in texts)
