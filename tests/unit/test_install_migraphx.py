"""`scripts/install_migraphx` as far as it goes without a network: a mirror of this test's own."""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib.util
import io
import shutil
import sys
import tarfile
import threading
from importlib.machinery import SourceFileLoader

import pytest


@pytest.fixture(scope="module")
def script(repository):
    loader = SourceFileLoader("install_migraphx", str(repository / "scripts" / "install_migraphx"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("install_migraphx", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def mirror(tmp_path):
    """Return the address of a server of what is in `tmp_path/mirror`."""
    (tmp_path / "mirror").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    handler = functools.partial(Quiet, directory=tmp_path / "mirror")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def package(files):
    """Return a Debian package that holds `files`, a text by name."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": packed.getvalue()}
    content = b"!<arch>\n"
    for name, data in parts.items():
        content += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    return content


def test_the_mirror_is_the_one_that_apt_uses(script, tmp_path):
    assert script.apt_mirror(tmp_path) == script.DEFAULT_MIRROR
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(
        "Types: deb\n# URIs: http://no.example/debian\nURIs: https://mirror.example/debian/\nSuites: bookworm\n"
    )
    assert script.apt_mirror(tmp_path) == "https://mirror.example/debian"
    (tmp_path / "sources.list").write_text(
        "# deb http://no.example/debian sid main\ndeb http://sec.example/debian-security bookworm-security main\n"
        "deb [arch=amd64] http://old.example/debian bookworm main\n"
    )
    assert script.apt_mirror(tmp_path) == "http://old.example/debian"


def test_what_is_needed_on_a_cpu_is_found_with_headers_and_the_gpus_libraries_are_left_out(script):
    depends = {
        "libmigraphx-c2": "libc6",
        "libmigraphx-c10": "libc6 (>= 2.32), migraphx-tools (>= 7)",
        "libmigraphx-c-dev": "libmigraphx-c10 (= 7)",
        "migraphx-dev": "migraphx-tools (= 7)",
        "migraphx-tools": "libamdhip64-6 (>= 6.1), libmiopen1, libodd | libsqlite3-0, libc6",
        "libsqlite3-0": "libc6:any",
        "libc6": "libgcc-s1, libc-gconv-modules-extra (= 2)",
        "libgcc-s1": "gcc-16-base (= 16)",
    }
    index = {name: {"Depends": text} for name, text in depends.items()}
    headers = ["libmigraphx-c-dev", "migraphx-dev"]
    others = ["libc6", "migraphx-tools", "libgcc-s1", "libsqlite3-0"]
    assert script.resolve(index) == ["libmigraphx-c10", *headers, *others]
    del index["migraphx-dev"]
    with pytest.raises(SystemExit, match="lists libmigraphx-c10, and not both libmigraphx-c-dev and migraphx-dev"):
        script.resolve(index)


@pytest.mark.parametrize(("version", "problem"), [(23, None), (24, "are those of ONNX Runtime 1.24, and .* is older")])
def test_onnx_runtimes_headers_come_beside_a_link_to_the_librarys_file_and_are_never_newer(
    script, mirror, tmp_path, version, problem
):
    library = tmp_path / "libonnxruntime.so.1.23.2"
    library.write_bytes(b"odd")
    content = package({"./usr/include/onnxruntime/onnxruntime_c_api.h": f"#define ORT_API_VERSION {version}\n"})
    (tmp_path / "mirror" / "one.deb").write_bytes(content)
    facts = {"Version": "1.2", "Filename": "one.deb", "Size": f"{len(content)}"}
    index = {"libonnxruntime-dev": {**facts, "SHA256": hashlib.sha256(content).hexdigest()}}
    output = tmp_path / "build/onnxruntime"
    if problem is not None:
        with pytest.raises(SystemExit, match=problem):
            script.install_runtime(index, mirror, library, output)
        assert list(output.parent.iterdir()) == []
        return
    script.install_runtime(index, mirror, library, output)
    assert (output / "include/onnxruntime/onnxruntime_c_api.h").is_file()
    for name in ("libonnxruntime.so.1", "libonnxruntime.so"):
        assert (output / "lib" / name).resolve() == library


def test_the_library_of_this_pythons_onnx_runtime_is_found_without_importing_it(script):
    pytest.importorskip("onnxruntime")
    if sys.platform != "linux":
        pytest.skip("what is unpacked is for Linux")
    assert script.runtime_library().name.startswith("libonnxruntime.so.1.")


def test_the_files_of_a_package_are_unpacked_but_for_those_of_the_gpu(script, tmp_path):
    names = ("./usr/lib/libmigraphx_ref.so.2", "./usr/lib/libmigraphx_gpu.so.2", "./usr/lib/libmigraphx_device.so.2")
    script.unpack(package(dict.fromkeys(names, "odd")), tmp_path, "a package")
    assert [file.name for file in tmp_path.rglob("*.so*")] == ["libmigraphx_ref.so.2"]


def test_a_package_that_leaves_its_folder_is_refused(script, tmp_path):
    with pytest.raises(SystemExit, match=r"error: a package cannot be unpacked: .*outside"):
        script.unpack(package({"../outside": "x"}), tmp_path / "root", "a package")
    assert not (tmp_path / "outside").exists()


def test_what_is_not_as_the_index_lists_it_is_refused(script, mirror, tmp_path):
    (tmp_path / "mirror" / "one.deb").write_bytes(b"right")
    right = hashlib.sha256(b"right").hexdigest()
    assert script.fetch(f"{mirror}/one.deb", 5, right) == b"right"
    for size, sha256 in ((5, hashlib.sha256(b"wrong").hexdigest()), (4, None)):
        with pytest.raises(SystemExit, match=r"one.deb is not what Debian's index lists"):
            script.fetch(f"{mirror}/one.deb", size, sha256)
    with pytest.raises(SystemExit, match=r"error: .*/two.deb cannot be fetched: HTTP Error 404"):
        script.fetch(f"{mirror}/two.deb", 5)
    with pytest.raises(SystemExit, match="is no address that starts with http"):
        script.fetch("file:///etc/passwd", 5)


def test_an_index_that_debian_has_not_signed_is_refused(script, mirror, tmp_path, capsys):
    if shutil.which("gpgv") is None or not script.KEYS.is_file():
        pytest.skip("gpgv or Debian's keys are not installed here: apt install gpgv debian-archive-keyring")
    folder = tmp_path / "mirror" / "dists" / "sid"
    folder.mkdir(parents=True)
    (folder / "InRelease").write_text("Suite: unstable\nSHA256:\n")
    with pytest.raises(SystemExit, match="error: the index is not signed by the keys in"):
        script.read_index(mirror)
