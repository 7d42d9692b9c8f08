"""AMD's Python package: GPUs as it tells them, and every way in which it was seen to tell nothing.

What the failing ones say was captured from the real packages, 7.0.2 and 27.1.0, run without ROCm and without a driver.
"""

import os
from pathlib import Path

import pytest

from linne.child import Heard
from linne.doctor.accelerators import accelerator_section, look
from linne.doctor.amd_library import ask_amd_library, read_answer
from linne.doctor.machine import Machine

FAKE = (Path(__file__).parents[2] / "fixtures" / "stand_ins" / "amdsmi.py").read_text("utf-8")
NO_LIBRARY = """
print("/opt/rocm/lib/libamd_smi.so: cannot open shared object file: No such file or directory")
print("Unable to find libamd_smi.so library try installing amd-smi-lib from your package manager")
{}["libamd_smi.so"]
"""
NO_LIBRARY_LATER = """
def amdsmi_init(flag=2):
    raise OSError("AMD SMI shared library could not be loaded.\\n"
                  "Underlying error: libnl-3.so.200: cannot open shared object file: No such file or directory\\n"
                  "Hint: install amd-smi-lib (rpm/deb) or pip-install the amdsmi wheel.")
"""
MI300X = {
    "sys/class/kfd/kfd/topology/nodes/1/properties": "simd_count 1216\ngfx_target_version 90402\nvendor_id 4098\n"
    "location_id 1280\n",
    "dev/kfd": "",
    "dev/dri/renderD128": "",
}


@pytest.fixture
def machine(tmp_path):
    """Return a machine on which ROCm has put a stand-in of the package, with these files besides."""

    def machine(package, files=None):
        place = tmp_path / "opt/rocm/share/amd_smi/amdsmi"
        place.mkdir(parents=True)
        (place / "__init__.py").write_text(package, "utf-8")
        for name, text in (files or {}).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, "utf-8")
        (tmp_path / "bin").mkdir()
        environ = {name: value for name, value in os.environ.items() if name != "HSA_OVERRIDE_GFX_VERSION"}
        return Machine(root=tmp_path, path=(tmp_path / "bin",), environ=environ, system="Linux")

    return machine


def gpus(**changes):
    """Return the stand-in with one GPU changed."""
    return FAKE + f"GPUS[0].update({changes!r})\n"


def test_the_package_names_the_gpu_that_the_kernel_found_and_adds_none(machine):
    (gpu,) = look(machine(FAKE, MI300X)).gpus
    assert (gpu.name, gpu.arch, gpu.bus_id, gpu.memory_bytes, gpu.driver) == (
        "AMD Instinct MI300X",
        "gfx942",
        "0000:05:00.0",
        196592 * 2**20,
        "6.12.12",
    )
    assert gpu.evidence == ("/sys/class/kfd/kfd/topology/nodes/1", "amdsmi")


def test_a_gpu_that_only_the_package_knows_is_found(machine):
    (gpu,) = look(machine(FAKE)).gpus
    assert (gpu.arch, gpu.evidence) == ("gfx942", ("amdsmi",))


def test_na_in_every_field_leaves_the_facts_open(machine):
    nothing = gpus(name="N/A", serial="N/A", arch="gfx0", mib="N/A", driver="N/A", bdf="N/A")
    (gpu,) = look(machine(nothing)).gpus
    assert (gpu.name, gpu.arch, gpu.bus_id, gpu.memory_bytes, gpu.driver) == (None,) * 5


def test_the_parts_of_one_gpu_are_one_gpu_and_two_without_a_serial_number_are_two(machine, tmp_path):
    parts = FAKE + "GPUS = [GPUS[0] | {'bdf': f'0000:05:00.{n}'} for n in range(8)]\n"
    (gpu,) = look(machine(parts)).gpus
    assert (gpu.partitions, gpu.memory_bytes, gpu.bus_id) == (8, None, "0000:05:00.0")
    two = "GPUS = [GPUS[0] | {'bdf': f'0000:0{n}:00.0', 'serial': '0x0000000000000000'} for n in range(2)]\n"
    (tmp_path / "opt/rocm/share/amd_smi/amdsmi/__init__.py").write_text(FAKE + two, "utf-8")
    answer = ask_amd_library(Machine(root=tmp_path, path=(tmp_path,), environ=dict(os.environ), system="Linux"))
    assert [gpu.bus_id for gpu in answer.gpus] == ["0000:00:00.0", "0000:01:00.0"]


def test_the_memory_of_rocm_6_0_is_read_by_its_older_name(machine):
    older = (
        FAKE + "def amdsmi_get_gpu_vram_info(processor_handle):\n    return {'vram_type': 4, 'vram_size_mb': 16368}\n"
    )
    (gpu,) = look(machine(older)).gpus
    assert gpu.memory_bytes == 16368 * 2**20


def test_a_question_that_fails_leaves_only_its_own_facts_out(machine):
    failing = FAKE + "def amdsmi_get_gpu_vram_info(processor_handle):\n    raise AmdSmiLibraryException(2)\n"
    failing += "del amdsmi_get_gpu_driver_info\n"  # as in a release that has no such function
    (gpu,) = look(machine(failing)).gpus
    assert (gpu.name, gpu.memory_bytes, gpu.driver) == ("AMD Instinct MI300X", None, None)


def test_no_driver_is_an_answer_and_no_trouble(machine):
    none = FAKE + "def amdsmi_init(flag=2):\n    raise AmdSmiLibraryException(34)\n"
    section = accelerator_section(machine(none))
    assert [(check.name, check.status) for check in section.checks] == [("GPU", "note")]


@pytest.mark.parametrize(
    ("package", "said"),
    [
        (NO_LIBRARY, "KeyError: 'libamd_smi.so'"),
        (NO_LIBRARY_LATER, "OSError: AMD SMI shared library could not be loaded. Underlying error: libnl-3.so.200"),
        ("raise OSError('Could not load libamd_smi.so')", "OSError: Could not load libamd_smi.so"),
        ("raise SystemExit('no ROCm')", "SystemExit: no ROCm"),
        (
            FAKE + "def amdsmi_get_processor_handles():\n    raise AmdSmiLibraryException(10)\n",
            "AmdSmiLibraryException: Error code: 10 | AMDSMI_STATUS_NO_PERM - Permission Denied",
        ),
        ("import os; os.abort()", "ended by SIGABRT"),
        (FAKE + "import os\ndef amdsmi_get_gpu_asic_info(handle):\n    os.abort()\n", "ended by SIGABRT"),
        ("def amdsmi_init(): pass", "AttributeError: module 'amdsmi' has no attribute 'amdsmi_get_processor_handles'"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_package_that_fails_in_any_way_is_said_and_leaves_the_rest_standing(machine, package, said):
    checks = {check.name: check for check in accelerator_section(machine(package, MI300X)).checks}
    assert checks["AMD GPU 0000:05:00.0"].found.startswith("name unknown, gfx942")
    assert checks["amdsmi"].status == "unknown"
    assert checks["amdsmi"].found.startswith(f"AMD's Python package does not answer: `{said}")
    assert checks["amdsmi"].fix == "see what it says: python -m linne.doctor.probe_amdsmi"


def test_a_package_without_its_library_is_a_note_where_there_is_no_gpu_for_it(machine):
    checks = {check.name: check for check in accelerator_section(machine(NO_LIBRARY)).checks}
    assert (checks["amdsmi"].status, checks["amdsmi"].fix) == ("note", "")


def test_a_hang_is_not_waited_for(machine):
    answer = ask_amd_library(machine("import time; time.sleep(60)"), limit_s=1.0)
    assert (answer.gpus, answer.trouble) == ((), "no end within 1 s")


def test_nothing_is_asked_in_a_quick_look_or_without_the_package(machine, tmp_path):
    fast = machine("import os; os.abort()")
    assert ask_amd_library(Machine(root=fast.root, path=(), environ={}, system="Linux")) is None
    bare = tmp_path / "bare"
    bare.mkdir()
    assert ask_amd_library(Machine(root=bare, path=(bare,), environ={}, system="Linux")) is None


def test_reports_of_the_wrong_types_raise_nothing():
    junk = [None, 5, "N/A", [], {"asic_serial": 1e9}, {"market_name": {}}, {"vram_size": 2**70}, {"vram_size": True}]
    for value in junk:
        event = {"linne": "gpu", "bdf": value, "asic": value, "vram": value, "driver": value}
        heard = Heard(end="done", how="exit code 0", events=(event, {"linne": "end"}), said="", seconds=1.0)
        answer = read_answer(heard)
        assert (len(answer.gpus), answer.trouble) == (1, "")
        assert answer.gpus[0].memory_bytes is None
