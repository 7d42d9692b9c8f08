"""The parts of a step: told, timed, named, and shown."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from torch.profiler import profile

from linne.device import Device
from linne.profiling.operators import covered, device_use
from linne.profiling.parts import Parts, announce
from linne.profiling.passes import time_parts
from linne.profiling.summary import DeviceFacts, Operator, TraceSummary, milliseconds, parts_of, percent, to_text


@pytest.fixture
def cpu():
    return Device.pick("cpu")


def test_the_parts_of_a_step_are_all_there_is_of_it(cpu):
    parts = Parts(cpu)
    with parts.timed():
        start = time.perf_counter()
        for name in ("decode", "forward", "decode"):
            parts.begin(name)
            time.sleep(0.002)
        parts.end_step()
        taken = time.perf_counter() - start
    (row,) = parts.rows
    assert set(row) == {"decode", "forward"}
    assert sum(row.values()) <= taken
    assert row["decode"] >= 0.004, "it came twice, 2 ms each"
    assert row["forward"] >= 0.002


def test_what_lies_between_two_steps_belongs_to_neither(cpu):
    parts = Parts(cpu)
    with parts.timed():
        for _ in range(2):
            parts.begin("forward")
            parts.end_step()
            time.sleep(0.01)
    assert all(sum(row.values()) < 0.01 for row in parts.rows)


def test_a_cpu_copies_to_itself_within_what_comes_before_and_after(cpu):
    parts = Parts(cpu)
    with parts.timed():
        for name in ("decode", "copy", "prepare", "forward", "back"):
            parts.begin(name)
        parts.end_step()
    assert set(parts.rows[0]) == {"decode", "prepare", "forward"}


def test_steps_are_counted_whether_they_are_timed_or_not(cpu):
    parts = Parts(cpu)
    parts.begin("forward")
    parts.end_step()
    assert (parts.num_steps, parts.rows) == (1, [])


def test_an_announced_call_begins_its_part_and_the_one_after_it(cpu):
    parts, told = Parts(cpu), []
    owner = SimpleNamespace(call=lambda a, b: told.append("called") or a + b)
    parts.begin = told.append
    announce(parts, owner, "call", "forward", then="backward")
    assert owner.call(1, b=2) == 3
    assert told == ["forward", "called", "backward"]


def test_named_parts_lie_inside_their_step_in_the_record(cpu):
    parts = Parts(cpu)
    with profile() as recorded, parts.named():
        for _ in range(2):
            for name in ("wait", "forward"):
                parts.begin(name)
            parts.end_step()
    spans = {event.key: event.count for event in recorded.key_averages()}
    assert {name: spans[name] for name in ("step", "wait", "forward")} == {"step": 2, "wait": 2, "forward": 2}
    within = {event.name: event.cpu_parent and event.cpu_parent.name for event in recorded.events()}
    assert (within["wait"], within["forward"]) == ("step", "step")


def test_the_first_step_of_a_pass_is_not_timed_since_nothing_is_decoded_yet(cpu):
    parts = Parts(cpu)

    def steps():
        for number in range(100):
            parts.begin("wait" if number == 0 else "forward")
            parts.end_step()
            yield 5

    timed = time_parts(steps, parts, cpu, 3)
    assert (timed.num_steps, timed.images) == (3, 5)
    assert [set(row) for row in parts.rows] == [{"forward"}] * 3


def test_the_mean_parts_add_up_to_the_mean_step_where_one_step_waits_for_all():
    rows = [{"wait": 0.3, "forward": 0.1}, {"forward": 0.1}, {"forward": 0.1}]
    wait, forward = parts_of(rows)
    assert (wait.name, wait.median, forward.median) == ("wait", 0.0, 0.1)
    assert wait.seconds + forward.seconds == pytest.approx(0.2, abs=1e-12)


def test_ranges_that_overlap_are_covered_once():
    assert covered([(5, 6), (0, 2), (1, 3), (1.5, 2), (3, 4)]) == 5
    assert covered([]) == 0


def test_where_the_profiler_sees_only_the_cpu_nothing_is_said_of_the_device():
    with profile() as recorded:
        pass
    assert device_use(recorded, 1) is None


def event(kind, name, start, end):
    return SimpleNamespace(
        name=name, device_type=SimpleNamespace(name=kind), time_range=SimpleNamespace(start=start, end=end)
    )


def test_a_device_is_busy_with_kernels_and_copies_and_not_with_the_spans_drawn_over_them():
    events = [
        event("CPU", "aten::mm", 0, 9_000),
        event("CUDA", "step", 0, 10_000),
        event("CUDA", "forward", 0, 5_000),
        event("CUDA", "gemm_kernel", 1_000, 3_000),
        event("CUDA", "Memcpy HtoD (Pinned -> Device)", 2_500, 4_000),
        event("CUDA", "gemm_kernel", 6_000, 7_000),
    ]
    recorded = SimpleNamespace(events=lambda: events)
    assert device_use(recorded, 2) == (0.002, 1.0)


def test_a_trace_is_shown_as_a_page_that_a_newcomer_reads():
    summary = TraceSummary(
        traced="train",
        subject="training small on digits, 64 images a step, fp32",
        device=DeviceFacts(address="cpu", name="CPU", num_cores=2),
        num_steps=40,
        images=64,
        seconds=0.0215,
        cpu_seconds=0.0215,
        parts=parts_of([{"wait": 0.0004, "forward": 0.008, "backward": 0.013, "other": 0.00001}]),
        operators=(Operator("aten::convolution_backward", 0.39, 6), Operator("aten::copy_", 0.04, 20)),
        setup_seconds=1.25,
        first_seconds=0.1,
        notes=("other programs use 51 % of the cores: alone this would be faster",),
    )
    assert to_text(summary) == (
        "traced   training small on digits, 64 images a step, fp32\n"
        "device   CPU; 1.0 of 2 cores used, 21.5 ms of CPU time a step\n"
        "pace     2,977 images/s: 21.5 ms a step, over 40 of them\n"
        "start    1.2 s before the first step, 100 ms for it\n"
        "\n"
        "  part of a step       mean  share   median\n"
        "  -----------------------------------------\n"
        "  waiting for data  0.40 ms    2 %  0.40 ms\n"
        "  forward           8.00 ms   37 %  8.00 ms\n"
        "  backward          13.0 ms   61 %  13.0 ms\n"
        "  other             0.01 ms   <1 %  0.01 ms\n"
        "  whole step        21.4 ms  100 %\n"
        "\n"
        "  operator, without those it calls  share  calls a step\n"
        "  -----------------------------------------------------\n"
        "  aten::convolution_backward         39 %             6\n"
        "  aten::copy_                         4 %            20\n"
        "\n"
        "note: other programs use 51 % of the cores: alone this would be faster\n"
    )


def test_times_and_shares_have_the_digits_that_matter():
    assert [milliseconds(s) for s in (0.000012, 0.0123, 0.161, 12.5)] == ["0.01 ms", "12.3 ms", "161 ms", "12,500 ms"]
    assert [percent(f) for f in (0.0, 0.001, 0.38, 1.0)] == ["0 %", "<1 %", "38 %", "100 %"]
