"""Pretrained weights from caches and from servers on this machine: what is used, fetched and refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")

from linne import models  # noqa: E402
from linne.errors import LinneError, SourceError  # noqa: E402
from linne.models import WebFile  # noqa: E402
from linne.models.fetching import fetch_pretrained, find_pretrained  # noqa: E402

FILE = b"tensors, by assumption"
DIGEST = hashlib.sha256(FILE).hexdigest()


def serve(files, context=None):
    """Return a server of `files` by path, and what it is asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            data = files.get(self.path)
            self.send_response(404 if data is None else 200)
            for name, value in HEADERS.items() if data is not None else [("X-Error-Code", missing(self.path, files))]:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data or b"")

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server, asked


HEADERS = {"ETag": f'"{DIGEST}"', "X-Repo-Commit": "0123456789abcdef0123456789abcdef01234567"}


def missing(path, files):
    repository = "/".join(path.split("/")[:3])
    return "EntryNotFound" if any(other.startswith(f"{repository}/") for other in files) else "RepoNotFound"


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A server with a certificate that this test trusts, with one file; and torch hub's folder is empty."""
    if shutil.which("openssl") is None:
        pytest.skip("`openssl` is not installed, so no certificate can be made")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(["openssl", *words.split(), *names], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("LINNE_OFFLINE", raising=False)
    server, asked = serve({f"/net-{DIGEST[:8]}.pth": FILE}, context)
    yield f"https://127.0.0.1:{server.server_port}/net-{DIGEST[:8]}.pth", asked
    server.shutdown()
    server.server_close()


def published(url, prefix=DIGEST[:8]):
    weights = models.pretrained("torchvision/alexnet")
    return replace(weights, where=WebFile(url=url), sha256_prefix=prefix, size_bytes=len(FILE))


def test_weights_of_torchvision_are_announced_fetched_into_torch_hubs_folder_and_found_there_again(web, tmp_path):
    url, asked = web
    weights, said = published(url), []
    assert find_pretrained(weights) is None
    path = fetch_pretrained(weights, said.append)
    assert path == tmp_path / "torch/hub/checkpoints" / url.rpartition("/")[2]
    assert path.read_bytes() == FILE
    assert said == [f"fetching weights `torchvision/alexnet.IMAGENET1K_V1`: {url}, 0.0 MB, licence not stated"]
    assert find_pretrained(weights) == path
    assert fetch_pretrained(weights, said.append) == path
    assert said[1:] == [f"weights `torchvision/alexnet.IMAGENET1K_V1` are here: {path}"]
    assert len(asked) == 1


def test_a_file_with_another_hash_than_its_name_says_is_not_taken(web, tmp_path):
    url, _ = web
    weights = published(url, "00000000")
    with pytest.raises(SourceError) as failure:
        fetch_pretrained(weights, lambda line: None)
    assert f"gave another file, twice: its sha256 is {DIGEST[:8]}, expected 00000000" in failure.value.message
    hint = f"fetch {url} on a machine that can, bring it here and type `--weights FILE`"
    assert failure.value.hint == hint
    assert find_pretrained(weights) is None

    here = tmp_path / "torch/hub/checkpoints" / url.rpartition("/")[2]
    here.write_bytes(b"damaged")
    with pytest.raises(SourceError, match="is not the published file") as failure:
        fetch_pretrained(published(url), lambda line: None)
    assert failure.value.hint == "move it away and type the command again"
    assert here.read_bytes() == b"damaged"


def test_weights_that_are_not_here_are_refused_offline_with_what_to_do_by_hand(web, monkeypatch):
    url, asked = web
    monkeypatch.setenv("LINNE_OFFLINE", "1")
    with pytest.raises(LinneError) as failure:
        fetch_pretrained(published(url), lambda line: None)
    assert failure.value.message == (
        "weights `torchvision/alexnet.IMAGENET1K_V1` cannot be fetched: linne is offline (`LINNE_OFFLINE`)"
    )
    assert failure.value.hint == f"fetch {url} on a machine that can, bring it here and type `--weights FILE`"
    assert asked == []


def test_a_file_that_only_code_can_read_is_not_fetched(web):
    with pytest.raises(SourceError, match=r"expected a file that ends in \.safetensors, \.pth"):
        fetch_pretrained(published("https://127.0.0.1/net.pkl"), lambda line: None)


FROM_HUB = """
import os, sys
from linne import models
from linne.errors import LinneError
from linne.models.fetching import fetch_pretrained, find_pretrained
for name in sys.argv[1:]:
    if name == "offline":
        os.environ["LINNE_OFFLINE"] = "1"
        continue
    weights = models.pretrained(*name.split("."))
    print(find_pretrained(weights) is not None)
    try:
        print(fetch_pretrained(weights, print).name)
    except LinneError as error:
        print(error.message, error.hint, sep="; ")
"""


@pytest.mark.long
def test_weights_of_timm_are_fetched_from_a_hub_and_had_again_offline(python, tmp_path):
    files = {
        "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors": FILE,
        "/timm/resnet18.a1_in1k/resolve/main/pytorch_model.bin": FILE,
        "/timm/resnet18.a2_in1k/resolve/main/README.md": FILE,
    }
    server, _ = serve(files)
    # Other tests, and libraries that they import, switch the hub off for their own process.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    url = f"http://127.0.0.1:{server.server_port}"
    environment = {**inherited, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home")}
    names = ["timm/test_resnet.r160_in1k", *(f"timm/resnet18.{tag}_in1k" for tag in ("a1", "a2", "a3"))]
    again = ["offline", names[0], names[3]]
    ended = python("-c", FROM_HUB, *names, *again, env=environment, cwd=tmp_path)
    server.shutdown()
    server.server_close()
    assert ended.returncode == 0, ended.stderr
    first = Path(next((tmp_path / "home").rglob("model.safetensors")))
    by_hand = "on a machine that can, bring it here and type `--weights FILE`"
    assert ended.stdout.splitlines() == [
        "False",
        "fetching weights `timm/test_resnet.r160_in1k`: timm/test_resnet.r160_in1k/model.safetensors on the Hugging "
        "Face hub, 0.0 MB, licence apache-2.0",
        "model.safetensors",
        "False",
        "fetching weights `timm/resnet18.a1_in1k`: timm/resnet18.a1_in1k/pytorch_model.bin on the Hugging Face hub, "
        "0.0 MB, licence apache-2.0",
        "pytorch_model.bin",
        "False",
        "weights `timm/resnet18.a2_in1k` cannot be fetched: `timm/resnet18.a2_in1k` on the Hugging Face hub has no "
        f"`model.safetensors` nor `pytorch_model.bin`; fetch `model.safetensors` of `timm/resnet18.a2_in1k` {by_hand}",
        "False",
        "weights `timm/resnet18.a3_in1k` cannot be fetched: the Hugging Face hub has no `timm/resnet18.a3_in1k`, or "
        f"does not show it to you; fetch `model.safetensors` of `timm/resnet18.a3_in1k` {by_hand}",
        "True",
        f"weights `timm/test_resnet.r160_in1k` are here: {first}",
        "model.safetensors",
        "False",
        "weights `timm/resnet18.a3_in1k` cannot be fetched: linne is offline (`LINNE_OFFLINE`); "
        f"fetch `model.safetensors` of `timm/resnet18.a3_in1k` {by_hand}",
    ]
