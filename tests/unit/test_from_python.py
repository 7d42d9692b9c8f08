"""The user's own network: nothing of it is run without trust, and only the code that the bundle was made with."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")

from linne import models  # noqa: E402
from linne.bundle import canary_batch, write_bundle  # noqa: E402
from linne.errors import RecipeError  # noqa: E402
from linne.inference.backends.base import RunOptions  # noqa: E402
from linne.inference.predictor import Predictor  # noqa: E402
from linne.preprocess import InputSpec  # noqa: E402

FILE = Path(__file__).parent.parent / "fixtures/networks/tiny.py"
SIZE = {"num_classes": 3, "channels": 3, "height": 16, "width": 24}
HINT = "read it, and type `--trust-code` if you trust it"


def refusal(use):
    with pytest.raises(RecipeError) as failure:
        use()
    return failure.value.message, failure.value.hint


def test_code_is_run_only_where_it_is_trusted(tmp_path):
    ran = tmp_path / "ran"
    file = tmp_path / "net.py"
    file.write_text(f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n{FILE.read_text('utf-8')}", "utf-8")
    name = f"python:{file}:Fixed"
    message = f"`{name}` is Python that would be run, and nobody said that it is trusted"
    assert refusal(lambda: models.describe(name, **SIZE)) == (message, HINT)
    assert not ran.exists()
    ref = models.describe(name, **SIZE, trust_code=True)
    assert ran.exists()
    ran.unlink()
    assert refusal(lambda: models.build(ref)) == (message, HINT)
    assert not ran.exists()
    assert models.build(ref, trust_code=True)(torch.zeros(2, 3, 16, 24)).shape == (2, 3)


def test_sizes_are_given_to_a_class_or_function_that_takes_them():
    fixed = models.describe(f"python:{FILE}:Fixed", **SIZE, trust_code=True)
    assert models.build(fixed, trust_code=True).head.in_features == 3 * 16 * 24
    grey = models.describe(f"python:{FILE}:any_size", **SIZE | {"channels": 1}, trust_code=True)
    assert models.build(grey, trust_code=True)(torch.zeros(2, 1, 16, 24)).shape == (2, 3)


def test_a_file_that_was_changed_is_not_run_for_a_network_made_with_the_earlier_one(tmp_path):
    file = tmp_path / "net.py"
    shutil.copy(FILE, file)
    ref = models.describe(f"python:{file}:Fixed", **SIZE, trust_code=True)
    file.write_text("raise RuntimeError('was run')")
    message, hint = refusal(lambda: models.build(ref, trust_code=True))
    assert message.startswith(f"`{file}` is not the file that the network was made with: its sha256 is ")
    assert hint == "bring that version of the file back, or train again"


def test_a_compiled_copy_beside_the_file_is_not_what_is_run(tmp_path):
    import importlib.util
    import py_compile

    file = tmp_path / "net.py"
    file.write_text("raise RuntimeError('was run')")
    shutil.copy(FILE, tmp_path / "other.py")
    compiled = importlib.util.cache_from_source(str(file))
    py_compile.compile(str(file), cfile=compiled, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    shutil.copy(FILE, file)
    models.describe(f"python:{file}:Fixed", **SIZE, trust_code=True)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("net.py", "`python:net.py` does not say which class or function of which file", "type `python:FILE.py:NAME`"),
        ("no.py:Net", "`no.py` cannot be read: no such file or directory", None),
        (f"{FILE}:Fixd", f"no class or function `Fixd` in `{FILE}`", "did you mean `Fixed`?"),
        (f"{FILE}:no_network", f"`no_network` in `{FILE}` gives int, expected a torch `nn.Module`", None),
        (
            f"{FILE}:no_classes",
            f"`no_classes` in `{FILE}` takes no `num_classes`, with which linne calls it",
            "its other arguments need defaults, but for `channels`, `height` and `width`",
        ),
    ],
)
def test_what_makes_no_network_is_refused_with_what_to_write(name, message, hint):
    assert refusal(lambda: models.describe(f"python:{name}", **SIZE, trust_code=True)) == (message, hint)


def test_a_bundle_of_it_holds_no_code_and_opens_where_the_code_is_and_is_trusted(tmp_path):
    spec = InputSpec(channels=3, height=16, width=24, mean=(0.5,) * 3, std=(0.5,) * 3)
    ref = models.describe(f"python:{FILE}:Fixed", **SIZE, trust_code=True)
    network = models.build(ref, trust_code=True).eval()
    with torch.inference_mode():
        logits_NK = network(torch.from_numpy(canary_batch(spec))).numpy()
    bundle = write_bundle(
        tmp_path / "bundle",
        labels=("a", "b", "c"),
        input=spec,
        model=asdict(ref),
        weights={name: tensor.numpy() for name, tensor in network.state_dict().items()},
        config=models.config(ref, ("a", "b", "c"), spec.to_dict()),
        canary_logits_NK=logits_NK,
        metrics={},
        provenance={},
    )
    assert not list(bundle.path.rglob("*.py"))
    assert refusal(lambda: Predictor.open(bundle.path, how=RunOptions(device="cpu")))[1] == HINT
    predictor = Predictor.open(bundle.path, how=RunOptions(device="cpu", trust_code=True))
    np.testing.assert_array_equal(predictor.backend.run(canary_batch(spec)), logits_NK)
