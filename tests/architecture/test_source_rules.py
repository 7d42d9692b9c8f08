"""House rules that are seen in the text of the source: what is never called, how long a file is, what is explained."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent.parent / "src"
FILES = sorted(SRC.rglob("*.py"))
NAMES = [str(file.relative_to(SRC)) for file in FILES]

NEVER_CALLED = {
    "print": "cli/console.py does the talking",
    "eval": "text from outside must not run",
    "exec": "text from outside must not run",
    "__import__": "use importlib.import_module with a name from a table",
    "torch.load": "reads pickles, which run code; use safetensors",
    "torch.save": "writes pickles; use safetensors",
    "torch.hub.load": "runs code from the network",
    "numpy.load": "can read pickles; use safetensors",
    "np.load": "can read pickles; use safetensors",
    "yaml.load": "can build any object; write JSON",
    "os.system": "starts a shell",
    "os.popen": "starts a shell",
}
NEVER_IMPORTED = {
    "pickle": "unpickling runs code; use safetensors and JSON",
    "cPickle": "unpickling runs code; use safetensors and JSON",
    "dill": "unpickling runs code; use safetensors and JSON",
    "cloudpickle": "unpickling runs code; use safetensors and JSON",
    "joblib": "its files are pickles; use safetensors and JSON",
    "shelve": "its files are pickles; use safetensors and JSON",
    "marshal": "reads code; use JSON",
    "urllib.request": "transfer.py alone talks to a network",
    "http.client": "transfer.py alone talks to a network",
    "socket": "transfer.py alone talks to a network",
    "torch.distributed": "training/distributed.py alone exchanges with other processes, and launching/ starts them",
    "requests": "transfer.py alone talks to a network, with the standard library",
}
MAY_IMPORT = {  # files that are the one place for something
    "transfer.py": {"urllib.request", "http.client"},
    "training/distributed.py": {"torch.distributed"},
    "launching/agent.py": {"torch.distributed"},
    "launching/machines.py": {"torch.distributed"},
}
MAY_LOAD_WEIGHTS = "weights/torch_files.py"
"""The one file that calls `torch.load`, always with the reader that builds tensors and nothing else, and `torch.save`,
for programs that read no other weights."""
LONGEST_FILE = 400
LONGEST_FUNCTION = 50


def tree_of(file):
    return ast.parse(file.read_text("utf-8"), filename=str(file))


def breaches(tree, file=""):
    """Return a sentence for each thing in `tree` that the tables above forbid in `file`."""
    allowed = MAY_IMPORT.get(file, frozenset())
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            safe = file == MAY_LOAD_WEIGHTS and (
                (called == "torch.load" and loads_weights_only(node)) or called == "torch.save"
            )
            if called in NEVER_CALLED and not safe:
                found.append(f"line {node.lineno}: calls {called}: {NEVER_CALLED[called]}")
            if any(k.arg == "shell" and not is_false(k.value) for k in node.keywords):
                found.append(f"line {node.lineno}: shell=: pass a list of words")
            if any(k.arg == "allow_pickle" and not is_false(k.value) for k in node.keywords):
                found.append(f"line {node.lineno}: allow_pickle: use safetensors")
        for name in imported(node):
            for bad, why in NEVER_IMPORTED.items():
                if bad not in allowed and (name == bad or name.startswith(f"{bad}.")):
                    found.append(f"line {node.lineno}: imports {name}: {why}")
    return found


def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def loads_weights_only(call):
    return any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords)


def is_false(value):
    return isinstance(value, ast.Constant) and value.value is False


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_source_calls_and_imports_nothing_unsafe(file):
    assert not breaches(tree_of(file), file.relative_to(SRC / "linne").as_posix())


@pytest.mark.parametrize(
    "text",
    [
        "print(1)",
        "torch.load('x')",
        "import pickle",
        "from pickle import loads",
        "from urllib import request",
        "import http.client",
        "import socket",
        "from torch import distributed",
        "from torch.distributed.tensor import DTensor",
        "subprocess.run('ls', shell=True)",
        "eval('1')",
        "np.load('x', allow_pickle=flag)",
    ],
)
def test_the_rule_above_sees_what_it_forbids(text):
    assert breaches(ast.parse(text))


@pytest.mark.parametrize(
    "text", ["torch.load(x)", "torch.load(x, weights_only=False)", "torch.load(x, weights_only=y)"]
)
def test_torch_files_are_read_in_one_place_and_as_weights_only(text):
    assert not breaches(ast.parse("torch.load(x, weights_only=True)"), MAY_LOAD_WEIGHTS)
    assert breaches(ast.parse("torch.load(x, weights_only=True)"), "models/own.py")
    assert breaches(ast.parse(text), MAY_LOAD_WEIGHTS)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_file_is_short_or_its_first_lines_say_why_not(file):
    lines = file.read_text("utf-8").splitlines()
    head = " ".join(lines[:12]).lower()
    excused = f"over {LONGEST_FILE} lines because" in head
    assert len(lines) <= LONGEST_FILE or excused, f"{len(lines)} lines; split, or say `over 400 lines because`"


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_function_is_short(file):
    long = [
        f"{node.name}: {length} lines"
        for node in ast.walk(tree_of(file))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (length := num_lines(node)) > LONGEST_FUNCTION
    ]
    assert not long


def num_lines(function):
    """Return the lines of a function without its docstring: explaining must not cost."""
    first = function.body[0]
    said = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - said


@pytest.mark.parametrize("file", [f for f in FILES if f.read_text("utf-8").strip()], ids=str)
def test_a_module_opens_with_one_sentence(file):
    said = ast.get_docstring(tree_of(file))
    assert said, "no docstring"
    assert said.splitlines()[0].strip(), "the docstring starts with an empty line"


def is_protocol(node):
    return any(ast.unparse(base) == "Protocol" for base in node.bases)


PROMISED = {
    method.name
    for file in FILES
    for node in tree_of(file).body
    if isinstance(node, ast.ClassDef) and is_protocol(node)
    for method in node.body
    if isinstance(method, ast.FunctionDef)
}
"""Methods that a protocol of the package explains, once for all its implementations."""


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_every_public_function_class_and_method_says_what_it_gives(file):
    assert not list(unexplained(tree_of(file).body))


def unexplained(body, *, in_class=False):
    """Yield the public definitions in `body` without a docstring."""
    for node in body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from unexplained(node.body, in_class=True)
        excused = in_class and (node.name in PROMISED or is_short_property(node))
        if not ast.get_docstring(node) and not excused:
            yield f"line {node.lineno}: {node.name}"


def is_short_property(node):
    """A property of one statement whose name says it all, such as `num_classes`."""
    return any(ast.unparse(d) == "property" for d in node.decorator_list) and len(node.body) == 1


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_no_module_is_named_for_what_it_has_in_common(file):
    assert file.stem not in {"utils", "util", "helpers", "common", "core", "manager", "factory", "misc"}
