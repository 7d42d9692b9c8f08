"""The parsers of the vendors' tools: real outputs, cut and damaged ones."""

import json
from pathlib import Path

import pytest
from machines.build import Answer, Spec, build

from linne.doctor.gpu import Gpu
from linne.doctor.tools import (
    amd_smi,
    gpus_of_tools,
    json_after_noise,
    nvidia_smi,
    rocm_smi,
    rocminfo,
    system_profiler,
    windows_adapters,
    xpu_smi,
)

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
NAVI = "Navi 22 [Radeon RX 6700/6700 XT / 6800M]"
RX6700 = ("0000:07:00.0", 12868124672, "6.3.6")

FACTS = {  # of the first GPU: name, arch, address, bytes, driver; and how many there are; None: cannot be read
    "amd-smi_list_and_static_text_780m_pve-mods-348.txt": (
        amd_smi, 1, ("Phoenix3", None, "0000:65:00.0", None, "7.0.14-17-pve")
    ),
    "amd-smi_metric_json_list_root_w7700_beszel-737_TRUNCATED.txt": (amd_smi, None, None),
    "amd-smi_mi300x_rocm-blogs_2024-09.txt": (amd_smi, 1, ("MI300X-O", None, "0000:05:00.0", None, None)),
    "amd-smi_monitor_all_NA_gfx1151_legacy-rocm-build-6035_TRUNCATED.txt": (amd_smi, None, None),
    "amd-smi_static_json_gpu_data_rx7800xt_ajean-39_TRUNCATED.txt": (amd_smi, None, None),
    "rocm-smi_concise_two_gpus_igpu_first_ROC-smi-100.txt": (rocm_smi, None, None),
    "rocm-smi_csv_rx7900xt_marimo-9237.txt": (
        rocm_smi, 1, ("Radeon RX 7900 XT", "gfx1100", None, 21458059264, None)
    ),
    "rocm-smi_json_rx7900xt_marimo-9237.json": (
        rocm_smi, 1, ("Radeon RX 7900 XT", "gfx1100", None, 21458059264, None)
    ),
    "rocm-smi_showproductname_mi210.txt": (rocm_smi, 1, (None, None, None, None, None)),
    "telegraf_rocm-smi_mi100_rocm571.json": (
        rocm_smi, 6, ("Arcturus GL-XL [Instinct MI100]", None, "0000:1e:00.0", 34342961152, "6.2.4")
    ),
    "telegraf_rocm-smi_rx6700xt_rocm430.json": (rocm_smi, 1, (None, None, *RX6700)),
    "telegraf_rocm-smi_rx6700xt_rocm571.json": (rocm_smi, 1, (NAVI, None, *RX6700)),
    "telegraf_rocm-smi_rx6700xt_rocm602.json": (rocm_smi, 1, (NAVI, None, *RX6700)),
    "telegraf_rocm-smi_rx6700xt_rocm612.json": (rocm_smi, 1, (NAVI, "gfx1031", *RX6700)),
    "telegraf_rocm-smi_vega-10-XT.json": (rocm_smi, 1, (None, None, "0000:04:00.0", 17163091968, "5.9.25")),
    "rocm-blogs_rocprof_sysinfo_HIP_trace.txt": (
        rocminfo, 8, ("AMD Instinct MI210", "gfx90a", "0000:63:00.0", 67092480 * 1024, None)
    ),
    "rocminfo_mi300x_docs_use-rocminfo.rst.txt": (
        rocminfo, 1, ("AMD Instinct MI300X", "gfx941", "0000:03:00.0", 134201344 * 1024, None)
    ),
    "rocminfo_7.2.4_amd-smi_10.1_no_gpu_debian_sid.txt": (rocminfo, 0, None),
    "rocminfo_rocm-smi_5.2.3_no_gpu_debian12.txt": (rocminfo, 0, None),
}  # fmt: skip
OTHERS = ("kfd_", "sysfs_", "ort_", "torch_", "SOURCES")  # read elsewhere, or noise


def _text(name):
    return (CAPTURES / name).read_text("utf-8")


def _facts(gpu: Gpu):
    return gpu.name, gpu.arch, gpu.bus_id, gpu.memory_bytes, gpu.driver


def test_every_capture_of_a_tool_has_its_facts_here():
    assert {file.name for file in CAPTURES.iterdir() if not file.name.startswith(OTHERS)} == set(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_every_capture_parses_to_its_facts(name):
    parse, count, first = FACTS[name]
    gpus = parse(_text(name))
    assert (None if gpus is None else len(gpus)) == count
    if first:
        assert _facts(gpus[0]) == first


@pytest.mark.parametrize("name", FACTS)
def test_a_capture_cut_short_at_twenty_places_says_nothing_that_the_whole_does_not(name):
    parse, text = FACTS[name][0], _text(name)
    whole = [_facts(gpu) for gpu in parse(text) or ()]
    for part in range(20):
        for i, gpu in enumerate(parse(text[: len(text) * part // 20]) or ()):
            for fact, true in zip(_facts(gpu), whole[i], strict=True):
                assert fact is None or fact == true


def test_a_line_cut_short_is_not_read_as_a_shorter_name():
    text = "GPU: 0\n    ASIC:\n        MARKET_NAME: MI300X"
    assert [gpu.name for gpu in amd_smi(text)] == [None]
    assert [gpu.name for gpu in amd_smi(f"{text}\n")] == ["MI300X"]


GPU_DATA = """{"gpu_data": [{"gpu": 0, "asic": {"market_name": "AMD Radeon RX 7800 XT",
 "target_graphics_version": "gfx1101"}, "bus": {"bdf": "0000:03:00.0"},
 "vram": {"size": {"value": 16368, "unit": "MB"}},
 "driver": {"version": "6.12.12"}}]}"""


def test_amd_smi_reads_both_roots_after_warnings_and_before_anything():
    warning = "/usr/lib/x.py:3569: SyntaxWarning: 'return' in a 'finally' block\n  return return_dictionary\n[WARN] x\n"
    expected = ("AMD Radeon RX 7800 XT", "gfx1101", "0000:03:00.0", 16368 * 2**20, "6.12.12")
    for text in (GPU_DATA, GPU_DATA.removeprefix('{"gpu_data": ').removesuffix("}")):
        assert [_facts(gpu) for gpu in amd_smi(f"{warning}{text}\ntail")] == [expected]


@pytest.mark.parametrize(
    "value", ["N/A", None, 16368, {"value": "N/A", "unit": "MB"}, {"value": 1, "unit": []}, [], True]
)
def test_amd_smi_takes_a_memory_that_is_no_amount_as_unknown(value):
    text = json.dumps([{"asic": {"market_name": 7, "target_graphics_version": ["x"]}, "vram": {"size": value}}])
    assert [_facts(gpu) for gpu in amd_smi(text)] == [(None, None, None, None, None)]


def test_json_is_not_taken_from_within_a_broken_record_nor_from_a_list_of_numbers():
    assert json_after_noise('[1]\n{\n "a": {"b": 1},\n') is None
    assert json_after_noise("[" * 100_000) is None


def test_nvidia_smi_reads_capability_and_lives_without_it():
    gpus = nvidia_smi(
        "NVIDIA H200, 00000000:05:00.0, 143771, 570.86.10, 9.0\nTesla K80, 00000000:06:00.0, [N/A], 470.1\n"
    )
    assert [_facts(gpu) for gpu in gpus] == [
        ("NVIDIA H200", "sm_90", "0000:05:00.0", 143771 * 2**20, "570.86.10"),
        ("Tesla K80", None, "0000:06:00.0", None, "470.1"),
    ]
    assert nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n") is None


def test_system_profiler_reads_the_gpus_of_macs_and_leaves_out_what_is_no_gpu():
    text = """{"SPDisplaysDataType": [
      {"_name": "kHW_IntelUHDGraphics630Item", "sppci_model": "Intel UHD Graphics 630", "spdisplays_vendor": "Intel"},
      {"_name": "Apple M4", "spdisplays_vendor": "sppci_vendor_Apple"}, {"_name": "AirPlay"}, 7]}
"""
    gpus = system_profiler(text)
    assert [(gpu.vendor, gpu.name) for gpu in gpus] == [("Intel", "Intel UHD Graphics 630"), ("Apple", "Apple M4")]
    assert system_profiler('{"SPDisplaysDataType": []}\n') == ()
    assert system_profiler("system_profiler: unknown option\n") is None


def adapter(name, pnp, driver):
    return {"Name": name, "PNPDeviceID": pnp, "DriverVersion": driver}


def test_windows_adapters_are_an_object_for_one_and_a_list_for_more():
    amd = adapter("AMD Radeon RX 6600", r"PCI\VEN_1002&DEV_73FF&SUBSYS_05011EAE&REV_C7\6&1", "32.0.21025.1024")
    nvidia = adapter("NVIDIA GeForce RTX 4090", r"PCI\VEN_10DE&DEV_2684&SUBSYS_16F1&REV_A1\4&2", "32.0.15.8097")
    bare = adapter("Microsoft Basic Display Adapter", r"PCI\VEN_10DE&DEV_2204&SUBSYS_1&REV_A1\4&3", "10.0.26100.1")
    remote = adapter("Microsoft Remote Display Adapter", r"SWD\REMOTEDISPLAYENUM\RDPIDD", "10.0.26100.1")
    (gpu,) = windows_adapters(json.dumps(amd))
    assert (gpu.vendor, gpu.name, gpu.device, gpu.driver) == ("AMD", "AMD Radeon RX 6600", 0x73FF, "32.0.21025.1024")
    gpus = windows_adapters(json.dumps([nvidia, bare, remote]))
    # NVIDIA's own number is in the last five digits; the basic adapter's is no driver to compute with.
    assert [(gpu.device, gpu.driver) for gpu in gpus] == [(0x2684, "580.97"), (0x2204, None)]
    assert windows_adapters(json.dumps(remote)) == ()
    assert windows_adapters("Get-CimInstance : Access denied\n") is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            Answer(stderr="Traceback:\n  File\nModuleNotFoundError: No module named 'amdsmi'\n", code=1),
            "No module named",
        ),
        (Answer(stdout="\n\x1b[31mFailed to initialize NVML\x1b[0m\nmore\n", code=18), "Failed to initialize NVML"),
        (Answer(code=3), "nothing, with exit code 3"),
    ],
)
def test_what_a_tool_says_in_place_of_gpus_is_kept(tmp_path, answer, said):
    machine = build(Spec(title="", tools={"amd-smi": {"*": answer}}), tmp_path)
    told = gpus_of_tools(machine)["amd-smi"]
    assert told.gpus is None
    assert said in told.said
    assert "\x1b" not in told.said


def test_xpu_smi_reads_names_and_addresses():
    text = '{"device_list": [{"device_name": "Intel(R) Arc(TM) B580", "pci_bdf_address": "0000:03:00.0"}, 7]}'
    assert [_facts(gpu) for gpu in xpu_smi(text)] == [("Intel(R) Arc(TM) B580", None, "0000:03:00.0", None, None)]
    assert xpu_smi('{"error": "no driver"}') is None
