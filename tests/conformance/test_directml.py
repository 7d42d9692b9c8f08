"""The simulated DirectML against the real package, where that is installed: torch-directml 0.2.5.dev240914.

It needs torch 2.4.1, and no GPU: its Python files are read and not run; its dispatcher answers over a DirectX without
an adapter, built here.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fakes import HERE
from fakes.dml import FALLS_BACK, fallbacks

VERSION = "0.2.5.dev240914"


def folder() -> Path | None:
    """Return where the real package lies, without importing it."""
    spec = find_spec("torch_directml")
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def installed() -> bool:
    try:
        return folder() is not None and version("torch-directml") == VERSION
    except PackageNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not installed(), reason=f"torch-directml {VERSION} is not installed")
on_linux = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None,
    reason="a DirectX without adapters is built with gcc, for Linux",
)


def signatures(source: str) -> dict[str, str]:
    """Return the parameters of each function and method of a module, by name."""
    tree = ast.parse(source)
    bodies = [("", tree.body)]
    bodies += [(f"{node.name}.", node.body) for node in tree.body if isinstance(node, ast.ClassDef)]
    return {
        prefix + node.name: ast.unparse(node.args)
        for prefix, body in bodies
        for node in body
        if isinstance(node, ast.FunctionDef)
    }


@pytest.fixture(scope="module")
def fake() -> ModuleType:
    """The fake in the state that simulates no device: importing it changes nothing in torch."""
    path = HERE / "site_directml" / "torch_directml.py"
    spec = spec_from_file_location("fake_torch_directml", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    before = os.environ.get("FAKE_DIRECTML")
    os.environ["FAKE_DIRECTML"] = "empty"
    try:
        spec.loader.exec_module(module)
    finally:
        os.environ.pop("FAKE_DIRECTML") if before is None else os.environ.update(FAKE_DIRECTML=before)
    return module


def test_the_fake_has_every_function_of_the_package_with_its_parameters(fake):
    here = folder()
    assert here is not None
    real: dict[str, str] = {}
    for name in ("device.py", "functions.py", "__init__.py"):
        real |= signatures((here / name).read_text())
    assert "PrivateUse1Module.manual_seed_all" in real
    for name, parameters in real.items():
        found: Any = fake
        for part in name.split("."):
            found = getattr(found, part)
        expected = ast.parse(f"def f({parameters}): pass").body[0]
        assert isinstance(expected, ast.FunctionDef)
        names = [argument.arg for argument in expected.args.args]
        assert list(inspect.signature(found).parameters) == names + ["kwargs"] * bool(expected.args.kwarg), name
        optional = [p for p in inspect.signature(found).parameters.values() if p.default is not p.empty]
        assert len(optional) == len(expected.args.defaults), name


def test_the_fake_module_of_torch_offers_nothing_that_the_real_one_lacks(fake):
    here = folder()
    assert here is not None
    real = {name.partition(".")[2] for name in signatures((here / "__init__.py").read_text()) if "." in name}
    ours = {name for name in vars(fake.PrivateUse1Module) if not name.startswith("__")}
    assert ours == real


ASK = """
import json, sys, torch, torch_directml as dml
key = torch._C.DispatchKey.PrivateUse1
def said(action):
    try:
        return repr(action())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
answers = {
    "is_available": said(dml.is_available),
    "device_count": said(dml.device_count),
    "device": said(dml.device),
    "default_device": said(dml.default_device),
    "to": said(lambda: torch.ones(2).to("privateuseone:0")),
}
has = torch._C._dispatch_has_kernel_for_dispatch_key
composites = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional", "CompositeImplicitAutograd")
table = json.load(sys.stdin)
with_kernel = [name for name in table if any(has(name, k) for k in ("PrivateUse1", *composites))]
for repeat in (False, True):
    torch.set_warn_always(repeat)
    said(lambda: torch.ops.aten.roll.default._op_dk(key, torch.ones(2), [1], [0]))
    said(lambda: torch.ops.aten.erfinv.out._op_dk(key, torch.ones(2), out=torch.empty(2)))
print(json.dumps([answers, with_kernel]))
"""


LIBRARIES = {
    "dxcore": ("DXCoreCreateAdapterFactory",),
    "d3d12": ("D3D12CreateDevice", "D3D12SerializeVersionedRootSignature"),
}
E_NOINTERFACE = "0x80004002"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], list[str], str]:
    """What the real package answers over a DirectX whose every call says that there is no such interface.

    The package holds placeholders of these libraries, whose calls return whatever is in the register: no GPU one time,
    a crash the next.
    """
    directx = tmp_path_factory.mktemp("directx")
    (directx / "names.map").write_text("VER_1 { *; };")
    for library, functions in LIBRARIES.items():
        source = directx / f"{library}.c"
        source.write_text("".join(f"int {name}(void) {{ return {E_NOINTERFACE}; }}\n" for name in functions))
        versions = [f"-Wl,--version-script={directx / 'names.map'}"] if library == "d3d12" else []
        build = ["gcc", "-shared", "-fPIC", "-o", directx / f"lib{library}.so", source, *versions]
        subprocess.run(build, check=True)
    table = sorted(set(fallbacks().values()))
    env = {**os.environ, "LD_LIBRARY_PATH": str(directx)}
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(command, input=json.dumps(table), capture_output=True, text=True, check=True, env=env)
    answers, with_kernel = json.loads(done.stdout)
    return answers, with_kernel, done.stderr


@on_linux
def test_outside_wsl_importing_the_package_raises_what_the_fake_raises():
    command = [sys.executable, "-c", "import torch_directml"]
    env = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert "OSError: libd3d12.so: cannot open shared object file" in done.stderr


@on_linux
def test_without_an_adapter_every_question_but_one_raises(real):
    answers, _, _ = real
    assert answers.pop("default_device") == "0"
    assert len(answers) == 4
    for answer in answers.values():
        assert answer == "RuntimeError: Unknown error -2147467262"


@on_linux
def test_no_operator_of_the_table_of_fallbacks_has_a_kernel(real):
    _, with_kernel, _ = real
    assert with_kernel == []


@on_linux
def test_of_the_fallbacks_only_the_first_is_named_until_torch_is_told_to_repeat_itself(real):
    _, _, stderr = real
    roll, erfinv = (FALLS_BACK.format(name) for name in ("aten::roll", "aten::erfinv.out"))
    named = [text for line in stderr.splitlines() for text in (roll, erfinv) if text in line]
    assert named == [roll, roll, erfinv]
