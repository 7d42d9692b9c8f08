"""What may be imported without a framework, seen in a child process over `sys.modules`."""

import sys

import pytest

HEAVY = {"torch", "torchvision", "timm", "transformers", "sklearn", "scipy", "matplotlib"}

LIGHT = [
    "linne",
    "linne.bundle",
    "linne.cli",
    "linne.data",
    "linne.data.images.decode",
    "linne.data.source",
    "linne.device",
    "linne.errors",
    "linne.evaluation",
    "linne.exporting",
    "linne.inference.backends",
    "linne.inference.predictor",
    "linne.metrics",
    "linne.models",
    "linne.preprocess",
    "linne.profiling.trace",
    "linne.recipe",
    "linne.recipes",
    "linne.report",
    "linne.sweeping",
    "linne.verbs",
    "linne.weights",
]


def top_levels(python, code):
    """Return the top-level names of all modules loaded after `code`."""
    ended = python("-c", f"import sys\n{code}\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))")
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", LIGHT)
def test_a_module_below_the_line_imports_no_framework(python, module):
    assert not top_levels(python, f"import {module}") & HEAVY


def test_every_source_can_be_imported_without_a_framework(python):
    code = "from importlib import import_module; from linne.data import SOURCES"
    assert not top_levels(python, f"{code}\nfor t in SOURCES.values(): import_module(t.partition(':')[0])") & HEAVY


def test_every_kind_of_export_can_be_imported_without_a_framework(python):
    code = "from importlib import import_module; from linne.exporting import KINDS"
    names = "module, _, name = target.partition(':')"
    look = f"for target in KINDS.values():\n    {names}\n    assert callable(getattr(import_module(module), name))"
    assert not top_levels(python, f"{code}\n{look}") & HEAVY


def test_importing_linne_imports_nothing_but_itself_and_the_standard_library(python):
    new = top_levels(python, "import linne") - top_levels(python, "")
    assert new <= {"linne"} | sys.stdlib_module_names


HELP = """
from linne.cli import main
try:
    main(["--help"])
except SystemExit as leaving:
    assert leaving.code == 0
print(*sys.modules)
"""


def test_help_imports_no_verb_no_numpy_and_no_framework(python):
    ended = python("-c", f"import sys\n{HELP}")
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stdout.splitlines()[-1].split())
    ours = {name for name in loaded if name.startswith("linne.")}
    assert ours == {"linne.cli", "linne.cli.console", "linne.cli.failures", "linne.errors"}
    assert not {name.partition(".")[0] for name in loaded} & (HEAVY | {"numpy", "PIL", "rich"})


def test_help_takes_a_fifth_of_a_second_of_cpu(python):
    code = f"import sys, time\n{HELP}\nprint(time.process_time())"
    fastest = min(float(python("-c", code).stdout.splitlines()[-1]) for _ in range(3))
    assert fastest <= 0.2, "the fastest of three, so that a busy machine does not decide"


def test_a_public_name_is_imported_when_it_is_first_used(python):
    assert "numpy" not in top_levels(python, "import linne; linne.LinneError")
    assert "numpy" in top_levels(python, "import linne; linne.InputSpec")
