"""Sets by their name on the hub, played by a server on this machine: what is fetched, refused and had offline."""

import hashlib
import io
import json
import os
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

pa = pytest.importorskip("pyarrow", reason="the extra `hf` is not installed")
pytest.importorskip("datasets", reason="the extra `hf` is not installed")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Serves the repositories below `root` in the way of the hub's interface, as far as `datasets` asks for it."""

    protocol_version = "HTTP/1.1"
    root = None
    asked = None

    def log_message(self, *_):
        self.asked.append(self.path)

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {**headers, "Content_Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, value):
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def entry(self, repository, path):
        said = {"path": path.relative_to(repository).as_posix(), "oid": "0" * 40, "size": 0, "type": "directory"}
        if path.is_dir():
            return said
        data = path.read_bytes()
        return {**said, "type": "file", "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def do_POST(self):
        wanted = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()).get("paths", [])
        repository = self.root.joinpath(*urlsplit(self.path).path.split("/")[3:5])
        self.answer_json([self.entry(repository, repository / path) for path in wanted if (repository / path).exists()])

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).strip("/").split("/")
        path = path[1:] if path[0] == "api" else path
        repository, verb, rest = self.root.joinpath(*path[1:3]), path[3] if path[3:] else "revision", path[5:]
        found = repository.joinpath(*rest)
        if not repository.is_dir():
            self.answer(404, X_Error_Code="RepoNotFound")
        elif verb == "revision":
            self.answer_json({"id": "/".join(path[1:3]), "sha": COMMIT, "siblings": [], "tags": []})
        elif verb == "tree" and found.is_dir():
            below = found.rglob("*") if "recursive=true" in self.path else found.iterdir()
            self.answer_json([self.entry(repository, entry) for entry in sorted(below)])
        elif verb == "resolve" and found.is_file():
            data = found.read_bytes()
            self.answer(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=COMMIT)
        else:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path):
    root, asked = tmp_path / "hub", []
    handler = type("ThisHub", (Hub,), {"root": root, "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield root, f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def png(k):
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 9, 3), 3 * k, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def put_table(path, count):
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(k), "path": f"{k}.png"} for k in range(count)]
    parquet.write_table(pa.table({"image": images, "label": ["cat", "dog"] * (count // 2)}), path)


def put_sets(root):
    put_table(root / "user/photos/data/train-00000-of-00001.parquet", 20)
    put_table(root / "user/photos/data/validation-00000-of-00001.parquet", 4)
    put_table(root / "user/two/a/train.parquet", 20)
    put_table(root / "user/two/b/train.parquet", 30)
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in "ab")
    (root / "user/two/README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    for name in ("cat", "dog"):
        (root / "user/raw" / name).mkdir(parents=True)
        (root / "user/raw" / name / "1.png").write_bytes(png(1))
    (root / "user/tars").mkdir()
    with tarfile.open(root / "user/tars/train-0.tar", "w") as tar:
        for name in ("1.png", "2.png"):
            member = tarfile.TarInfo(name)
            member.size = len(png(1))
            tar.addfile(member, io.BytesIO(png(1)))


OPENED = """
import os, sys
from linne.data.sources.huggingface import open_huggingface
from linne.errors import SourceError
for name in sys.argv[1:]:
    if name == "offline":
        os.environ["LINNE_OFFLINE"] = "1"
        continue
    try:
        examples = open_huggingface(name, None)
        print(*examples.labels, *(f"{split.name}={len(split)}" for split in examples.given.values()))
    except SourceError as error:
        print(error.message, error.hint, sep="; ")
"""


@pytest.mark.long
def test_sets_are_fetched_by_name_and_had_again_offline_and_other_readers_are_never_run(hub, tmp_path, python):
    root, url, asked = hub
    put_sets(root)
    names = ["photos", "two@b", "two", "two@c", "raw", "tars", "none"]
    # Other tests, and libraries that they import, switch the hub off for their own process.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment = {**inherited, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home")}
    again = ["json", "offline", "user/photos", "user/two@b", "user/raw"]
    ended = python("-c", OPENED, *(f"user/{name}" for name in names), *again, env=environment, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    refused = "which linne does not open through `datasets`; the hub has most sets as Parquet too"
    assert ended.stdout.splitlines() == [
        "cat dog train=20 val=4",
        "cat dog train=30",
        "`hf:user/two` cannot be opened: Config name is missing. Please pick one among the available configs: "
        "['a', 'b']; name one of its configurations: `hf:user/two@CONFIG`",
        "`hf:user/two@c` cannot be opened: BuilderConfig 'c' not found. Available: ['a', 'b']; "
        "name one of its configurations: `hf:user/two@CONFIG`",
        f"`hf:user/raw` is kept as imagefolder, {refused}: `hf:user/raw?revision=refs/convert/parquet`",
        f"`hf:user/tars` is kept as webdataset, {refused}: `hf:user/tars?revision=refs/convert/parquet`",
        "`hf:user/none` cannot be opened: Dataset 'user/none' doesn't exist on the Hub or cannot be accessed.; None",
        "`hf:json` names a reader of `datasets`, not a set; a set is `hf:USER/NAME`",
        "cat dog train=20 val=4",
        "cat dog train=30",
        "`hf:user/raw` cannot be opened: Couldn't reach 'user/raw' on the Hub (OfflineModeIsEnabled); "
        "linne is offline (`LINNE_OFFLINE`); open it once with the network, or type `hf:DIR`",
    ]
    others = [path for path in asked if not path.startswith(("/datasets/user/", "/api/datasets/user/"))]
    assert others == [], "nothing is reported, and nothing asked but the sets named"
    assert not [path for path in asked if path.endswith((".tar", ".png"))], "nothing of a refused set was fetched"
