"""Networks of transformers by a configuration: what is taken from it, what never is, and how the hub is asked."""

from __future__ import annotations

import copy
import json
import os
import threading
import zlib
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")

from safetensors.torch import save  # noqa: E402

from linne import models  # noqa: E402
from linne.errors import RecipeError, SourceError  # noqa: E402
from linne.models import HubFile, ModelRef, Variant  # noqa: E402
from linne.models.fetching import fetch_pretrained  # noqa: E402

problem = models.load_provider("hf").why_unavailable()
if problem is not None:
    pytest.skip(problem, allow_module_level=True)

NETWORKS = Path(__file__).parent.parent / "fixtures/networks"
VIT = f"hf:{NETWORKS / 'tiny-vit'}"
SIZE = {"num_classes": 5, "channels": 3, "height": 32, "width": 32}


def folder_of(path, **changes):
    """Return the name of the tiny ViT in a folder of its own, its configuration changed."""
    config = json.loads((NETWORKS / "tiny-vit/config.json").read_text("utf-8"))
    (path / "config.json").write_text(json.dumps({**config, **changes}), "utf-8")
    return f"hf:{path}"


@pytest.mark.long
def test_weights_keep_the_names_they_have_in_transformers_and_the_network_can_be_copied_and_exported():
    network = models.build(models.describe(VIT, **SIZE)).eval()
    assert {"vit.embeddings.cls_token", "classifier.weight"} < set(network.state_dict())
    images_NCHW = torch.randn(2, 3, 32, 32)
    logits_NK = network(images_NCHW)
    assert torch.equal(copy.deepcopy(network)(images_NCHW), logits_NK)
    exported = torch.export.export(network, (images_NCHW,)).module()
    # Another order of sums: float32.
    torch.testing.assert_close(exported(images_NCHW), logits_NK, rtol=1e-4, atol=1e-5)


def test_what_names_code_or_changes_the_answer_is_not_taken_from_a_configuration(tmp_path):
    name = folder_of(
        tmp_path,
        auto_map={"AutoModelForImageClassification": "evil--modeling.Evil"},
        _attn_implementation="somebody/kernels",
        attn_implementation="somebody/kernels",
        return_dict=False,
        output_hidden_states=True,
        quantization_config={"quant_method": "x"},
        unheard_of=1,
    )
    assert models.describe(name, **SIZE) == models.describe(VIT, **SIZE)


@pytest.mark.parametrize(
    "change",
    [{"_attn_implementation": "somebody/kernels"}, {"auto_map": {}}, {"unheard_of": 1}, {"architectures": ["Evil"]}],
)
def test_a_bundle_with_a_configuration_that_linne_does_not_write_is_refused(change):
    ref = models.describe(VIT, **SIZE)
    altered = ModelRef(**(asdict(ref) | {"options": {"config": {**ref.options["config"], **change}}}))
    with pytest.raises(RecipeError, match="`hf:vit` is described with a configuration that linne does not write"):
        models.build(altered)


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"model_type": "bert"}, "`NAME` is a `bert`, for which transformers has no image classifier", "did you mean"),
        ({"model_type": "timm_wrapper"}, "`NAME` is not one of transformers' own networks", "`timm/NAME`"),
        ({"model_type": None}, "`NAME` is not one of transformers' own networks", "`timm/NAME`"),
    ],
)
def test_a_configuration_of_something_else_is_refused(tmp_path, changes, message, hint):
    name = folder_of(tmp_path, **changes)
    with pytest.raises(RecipeError) as failure:
        models.describe(name, **SIZE)
    assert failure.value.message == message.replace("NAME", name)
    assert hint in (failure.value.hint or "did you mean")


def test_names_that_are_nowhere_are_refused_with_what_to_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as failure:
        models.describe("hf:nothing", **SIZE)
    assert failure.value.message == "`hf:nothing` is neither a folder with a `config.json` nor a name on the hub"
    assert failure.value.hint == "type `hf:OWNER/NAME` or `hf:FOLDER`"
    with pytest.raises(RecipeError) as failure:
        models.describe("hf:nobody/has-this-one", **SIZE)
    assert failure.value.message == "`hf:nobody/has-this-one` is not on this machine"
    assert failure.value.hint == "`--weights default` fetches it; or bring its files here and type `hf:FOLDER`"


def test_variants_are_taken_where_the_configuration_has_them(tmp_path):
    with pytest.raises(RecipeError, match="`hf:vit` takes no dropout"):
        models.describe(VIT, **SIZE, variant=Variant(dropout=0.1))
    (tmp_path / "config.json").write_text(
        '{"model_type": "convnext", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8]}'
    )
    with pytest.raises(RecipeError, match="takes no drop path"):
        models.describe(VIT, **SIZE, variant=Variant(drop_path=0.1))
    ref = models.describe(f"hf:{tmp_path}", **SIZE | {"height": 64, "width": 64}, variant=Variant(drop_path=0.1))
    assert ref.options["config"]["drop_path_rate"] == 0.1


def test_weights_of_a_folder_are_the_folder_where_it_has_some(tmp_path):
    weights = models.pretrained(VIT)
    assert (weights.where, weights.num_classes) == (NETWORKS / "tiny-vit", 3)
    assert weights.labels() == ("crane", "ant", "crane (2)")
    assert weights.full_name == VIT
    with pytest.raises(SourceError, match=r"^no weights in `.*tiny-vit`: expected a file that ends in .safetensors"):
        fetch_pretrained(weights, lambda line: None)
    (tmp_path / "model.safetensors").touch()
    name, said = folder_of(tmp_path), []
    assert fetch_pretrained(models.pretrained(name), said.append) == tmp_path
    assert said == [f"weights `{name}` are here: {tmp_path}"]


FROM_HUB = """
from linne import models
from linne.models.from_huggingface import WEIGHTS
from linne.errors import LinneError
from linne.models.fetching import fetch_description, fetch_pretrained
for name in ("hf:user/vit", "hf:user/vit", "hf:user/none", "timm/resnet18"):
    try:
        fetch_description(name, print)
        print(models.resolve(name)[0])
    except LinneError as error:
        print(error.message)
weights = models.pretrained("hf:user/vit")
print(weights.where == models.HubFile(repository="user/vit", filenames=WEIGHTS))
print(sorted(path.name for path in fetch_pretrained(weights, print).parent.iterdir()))
"""


class Hub(BaseHTTPRequestHandler):
    """Has `user/vit`: a configuration and weights, and nothing about pixels."""

    files: dict[str, bytes]

    def do_GET(self):
        data = self.files.get(self.path)
        self.send_response(200 if data is not None else 404)
        known = self.path.startswith("/user/vit/")
        self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound") if data is None else None
        self.send_header("ETag", f'"{zlib.crc32(self.path.encode()):08x}"')
        self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data or b"")

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


SHARDED = """
import sys
from linne import models
from linne.models.fetching import fetch_description, fetch_pretrained, find_pretrained
from linne.weights import read_weights
from linne.weights.finding import find
fetch_description("hf:user/vit", print)
weights = models.pretrained("hf:user/vit")
path = fetch_pretrained(weights, print)
print(sorted(file.name for file in path.parent.iterdir()))
print(sorted(read_weights(find("default", "hf:user/vit").fetched(print)).tensors))
print(find_pretrained(weights) == path)
(path.parent / "b.safetensors").unlink()
print(find_pretrained(weights))
"""


@pytest.mark.long
def test_weights_in_several_files_are_fetched_whole_from_the_hub(python, tmp_path):
    where = "/user/vit/resolve/main"
    index = {"weight_map": {"one": "a.safetensors", "two": "b.safetensors"}}
    files = {
        f"{where}/config.json": (NETWORKS / "tiny-vit/config.json").read_bytes(),
        f"{where}/model.safetensors.index.json": json.dumps(index).encode(),
        f"{where}/a.safetensors": save({"one": torch.zeros(2)}),
        f"{where}/b.safetensors": save({"two": torch.ones(2)}),
    }
    ended = ask_hub(python, files, tmp_path, SHARDED)
    said = ended.stdout.splitlines()
    assert "fetching weights `hf:user/vit`: user/vit/b.safetensors on the Hugging Face hub, 0.0 MB" in ended.stdout
    assert said[-5] == "['a.safetensors', 'b.safetensors', 'config.json', 'model.safetensors.index.json']"
    assert said[-4].startswith("weights `hf:user/vit` are here: ")
    assert said[-3:] == ["['one', 'two']", "True", "None"]


def ask_hub(python, files, tmp_path, program):
    """Return what `program` came to, in a process whose hub has `files`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ThisHub", (Hub,), {"files": files}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    # Other tests, and libraries that they import, switch the hub off for their own process.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    url = f"http://127.0.0.1:{server.server_port}"
    environment = {**inherited, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home")}
    ended = python("-c", program, env=environment, cwd=tmp_path)
    server.shutdown()
    server.server_close()
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.mark.long
def test_a_name_on_the_hub_is_understood_after_its_configuration_was_asked_for(python, tmp_path):
    config = (NETWORKS / "tiny-vit/config.json").read_bytes()
    where = "/user/vit/resolve/main"
    files = {f"{where}/config.json": config, f"{where}/model.safetensors": b"tensors, by assumption"}
    ended = ask_hub(python, files, tmp_path, FROM_HUB)
    assert ended.stdout.splitlines() == [
        "fetching `hf:user/vit`: user/vit/config.json on the Hugging Face hub, 0.0 MB, licence not stated",
        "hf",
        "hf",
        "`hf:user/none` cannot be fetched: the Hugging Face hub has no `user/none`, or does not show it to you",
        "timm",
        "True",
        "fetching weights `hf:user/vit`: user/vit/model.safetensors on the Hugging Face hub, 0.0 MB, licence not "
        "stated",
        "['config.json', 'model.safetensors']",
    ]
    assert HubFile(repository="a/b", filenames=("c",), revision="v1").__str__() == "a/b@v1/c on the Hugging Face hub"
