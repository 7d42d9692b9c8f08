"""Downloads from a real server that cuts, stalls, corrupts, redirects and lies: the whole, right file or an error."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from linne.download import fetch, is_offline
from linne.errors import LinneError, SourceError
from linne.lock import exclusive

DATA = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA).hexdigest()
WRONG = bytes([DATA[0] ^ 1]) + DATA[1:]


@pytest.fixture(autouse=True)
def _no_proxy_and_no_switch(monkeypatch):
    """A developer's proxy must not stand between a test and its server."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "LINNE_OFFLINE":
            monkeypatch.delenv(name)


class Server:
    """Answers each path by its list of functions, one a request, the last again and again."""

    def __init__(self, context=None):
        self.answers, self.asked = {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.asked.append((self.path, dict(self.headers)))
                todo = outer.answers[self.path]
                self.close_connection = True
                with contextlib.suppress(OSError):
                    (todo.pop(0) if len(todo) > 1 else todo[0])(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        if context is not None:
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.scheme = "http" if context is None else "https"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def says(self, *answers, path="/file"):
        self.answers[path] = list(answers)
        return f"{self.scheme}://127.0.0.1:{self.http.server_port}{path}"

    def ranges(self):
        return [headers.get("Range") for _, headers in self.asked]


@pytest.fixture
def server():
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def gives(
    data=DATA, *, upto=None, length=None, etag='"one"', ranges=True, status=200, headers=(), then=None, chunked=False
):
    """Return an answer with `data`, honouring Range and If-Range; cut after `upto` bytes of the body."""

    def answer(handler):
        body, code = data, status
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        fresh = handler.headers.get("If-Range", etag) == etag
        extra = list(headers)
        if asked and ranges and fresh:
            start = int(asked[1])
            if start >= len(data):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(data)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            body, code = data[start:], 206
            extra.append(("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}"))
        handler.send_response(code)
        if etag:
            handler.send_header("ETag", etag)
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        elif length != "none":
            handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in extra:
            handler.send_header(name, value)
        handler.end_headers()
        sent = body[:upto]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent) if chunked else sent)
        if chunked and upto is None:
            handler.wfile.write(b"0\r\n\r\n")
        handler.wfile.flush()
        if then is not None:
            then(handler)

    return answer


def status(code, *headers):
    def answer(handler):
        handler.send_response(code)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def redirect(url, code=302):
    return status(code, ("Location", url))


def stall(handler):
    time.sleep(1.0)


def hang_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


def get(urls, path, **options):
    urls = [urls] if isinstance(urls, str) else urls
    return fetch(urls, path, **{"sha256": SHA256, "pause_s": 0.001, "timeout_s": 2.0, **options})


def refusal(urls, path, error=SourceError, **options):
    with pytest.raises(error) as caught:
        get(urls, path, **options)
    assert "\n" not in caught.value.message
    return caught.value.message, caught.value.hint


def left(folder):
    return sorted(path.name for path in folder.iterdir())


# What works


def test_a_file_arrives_whole_in_a_folder_that_is_made_and_nothing_else_stays(server, tmp_path):
    path = tmp_path / "deep/down/file"
    seen = []
    assert get(server.says(gives()), path, progress=lambda done, total: seen.append((done, total))) == path
    assert path.read_bytes() == DATA
    assert left(path.parent) == ["file"]
    assert seen == sorted(seen)
    assert seen[-1] == (len(DATA), len(DATA))
    assert server.asked[0][1]["User-Agent"].startswith("linne/")


def test_a_file_that_is_there_is_not_asked_for(server, tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    get(server.says(status(500)), tmp_path / "file")
    assert server.asked == []


def test_another_file_in_its_place_is_named_and_kept(server, tmp_path):
    (tmp_path / "file").write_bytes(WRONG)
    message, hint = refusal(server.says(gives()), tmp_path / "file")
    found = hashlib.sha256(WRONG).hexdigest()
    assert message == f"`{tmp_path}/file` is not the published file: its sha256 is {found}, expected {SHA256}"
    assert hint == "move it away and type the command again"
    assert (tmp_path / "file").read_bytes() == WRONG


@pytest.mark.parametrize("known", [{"sha256": None, "md5": MD5}, {"sha256": SHA256.upper()}, {"size_bytes": len(DATA)}])
def test_what_is_known_of_a_file_is_enough(server, tmp_path, known):
    assert get(server.says(gives()), tmp_path / "file", **known).read_bytes() == DATA


def test_an_answer_in_chunks_without_a_length_is_read(server, tmp_path):
    assert get(server.says(gives(chunked=True)), tmp_path / "file").read_bytes() == DATA


# Cut and taken up again


def test_a_cut_transfer_goes_on_where_it_stopped(server, tmp_path):
    get(server.says(gives(upto=100_000), gives(upto=50_000), gives()), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert server.ranges() == [None, "bytes=100000-", "bytes=150000-"]
    assert [headers.get("If-Range") for _, headers in server.asked] == [None, '"one"', '"one"']


def test_a_server_that_cuts_again_and_again_is_followed_while_it_brings_something(server, tmp_path):
    get(server.says(gives(upto=20_000)), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert len(server.asked) == 15


def test_a_server_that_brings_nothing_is_given_up_after_four_tries(server, tmp_path):
    url = server.says(gives(upto=0))
    message, hint = refusal(url, tmp_path / "file")
    assert message == f"`file` could not be fetched: {url} ended after 0 of 300,000 bytes"
    assert hint == "check the connection and type the command again"
    assert len(server.asked) == 4


def test_the_next_call_goes_on_where_the_last_gave_up(server, tmp_path):
    url = server.says(gives(upto=100_000), status(503))
    message, hint = refusal(url, tmp_path / "file")
    assert message.endswith(" answers 503 service unavailable")
    assert hint.endswith("type the command again; it goes on after the 100,000 bytes that are here")
    assert left(tmp_path) == ["file.partial", "file.partial.json"]
    get(server.says(gives()), tmp_path / "file")
    assert server.ranges()[-1] == "bytes=100000-"


def test_the_process_may_be_killed_at_any_time(server, tmp_path, python):
    url = server.says(gives(upto=100_000, then=stall), gives())
    code = (
        f"from pathlib import Path; from linne.download import fetch\nfetch([{url!r}], Path('file'), sha256='{SHA256}')"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    partial = tmp_path / "file.partial"
    while not (partial.exists() and partial.stat().st_size):
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert (tmp_path / "file.lock").exists()
    here = partial.stat().st_size
    get(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert server.ranges() == [None, f"bytes={here}-"]
    assert left(tmp_path) == ["file"]


def test_a_file_that_changed_in_between_is_fetched_from_its_start(server, tmp_path):
    get(server.says(gives(WRONG, upto=100_000, etag='"old"'), gives(etag='"new"')), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert server.asked[1][1]["If-Range"] == '"old"'
    assert len(server.asked) == 2


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_halves_are_not_joined_where_nothing_could_tell_that_they_belong_together(server, tmp_path, etag):
    url = server.says(gives(upto=1000, etag=etag, then=hang_up), gives(etag=etag))
    with pytest.raises(SourceError, match="expected https, or http with a hash"):
        get(url, tmp_path / "file", sha256=None)
    get(url, tmp_path / "file")
    assert "If-Range" not in server.asked[1][1], "the hash tells"


def test_a_server_that_ignores_ranges_is_read_from_the_start(server, tmp_path):
    get(server.says(gives(upto=100_000), gives(ranges=False)), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert len(server.asked) == 2


def test_a_server_that_ignores_ranges_and_always_cuts_is_given_up(server, tmp_path):
    message, _ = refusal(server.says(gives(upto=100_000, ranges=False)), tmp_path / "file")
    assert message.endswith("ended after 100,000 of 300,000 bytes")
    assert len(server.asked) == 5


def test_a_server_that_sends_another_part_than_asked_for_is_not_believed(server, tmp_path):
    def other_part(handler):
        gives(DATA[:1000], status=206, headers=[("Content-Range", "bytes 0-999/300000")], ranges=False)(handler)

    get(server.says(gives(upto=100_000), other_part, gives()), tmp_path / "file")
    assert server.ranges() == [None, "bytes=100000-", None]
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_part_beyond_the_end_is_thrown_away(server, tmp_path):
    (tmp_path / "file.partial").write_bytes(DATA + b"more")
    get(server.says(gives()), tmp_path / "file")
    assert server.ranges() == [f"bytes={len(DATA) + 4}-", None]
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_part_that_is_the_whole_is_checked_and_taken(server, tmp_path):
    (tmp_path / "file.partial").write_bytes(DATA)
    get(server.says(gives()), tmp_path / "file")
    assert server.ranges() == [f"bytes={len(DATA)}-"]
    (tmp_path / "other.partial").write_bytes(DATA)
    get(server.says(gives()), tmp_path / "other", size_bytes=len(DATA))
    assert len(server.asked) == 1, "with its size known nobody is asked"


@pytest.mark.parametrize("note", ["", "{", "[]", '{"url": 3}', "null"])
def test_a_damaged_note_beside_a_part_does_no_harm(server, tmp_path, note):
    (tmp_path / "file.partial").write_bytes(DATA[:5])
    (tmp_path / "file.partial.json").write_text(note)
    assert get(server.says(gives()), tmp_path / "file").read_bytes() == DATA


# Stalls and wrong bytes


def test_a_stalled_transfer_is_dropped_and_taken_up(server, tmp_path):
    started = time.monotonic()
    get(server.says(gives(upto=100_000, then=stall), gives()), tmp_path / "file", timeout_s=0.1)
    assert (tmp_path / "file").read_bytes() == DATA
    assert server.ranges() == [None, "bytes=100000-"]
    assert time.monotonic() - started < 0.9, "before the server would have let go"


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        message, _ = refusal(url, tmp_path / "file", timeout_s=0.05)
    assert message == f"`file` could not be fetched: {url} does not answer: timed out"


def test_a_port_where_nobody_listens_says_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    message, _ = refusal(f"http://127.0.0.1:{port}/file", tmp_path / "file")
    assert message.endswith(f":{port}/file does not answer: connection refused")


def test_a_corrupted_file_is_deleted_and_fetched_once_more(server, tmp_path):
    get(server.says(gives(WRONG), gives()), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert server.ranges() == [None, None]


def test_a_file_that_is_wrong_twice_is_an_error_and_leaves_nothing(server, tmp_path):
    url = server.says(gives(WRONG))
    message, _ = refusal(url, tmp_path / "file")
    found = hashlib.sha256(WRONG).hexdigest()
    assert message == (
        f"`file` could not be fetched: {url} gave another file, twice: its sha256 is {found}, expected {SHA256}"
    )
    assert len(server.asked) == 2
    assert left(tmp_path) == []


def test_halves_of_two_files_are_noticed_and_fetched_again(server, tmp_path):
    (tmp_path / "file.partial").write_bytes(WRONG[:100_000])
    get(server.says(gives()), tmp_path / "file")
    assert server.ranges() == ["bytes=100000-", None]
    assert (tmp_path / "file").read_bytes() == DATA


# Lies about length, and limits


def test_a_length_other_than_the_published_is_refused_before_a_byte_is_kept(server, tmp_path):
    url = server.says(gives(DATA[:-1]))
    message, _ = refusal(url, tmp_path / "file", size_bytes=len(DATA))
    assert message == f"`file` could not be fetched: {url} has a file of 299,999 bytes, expected 300,000"
    assert len(server.asked) == 1
    assert left(tmp_path) == []


def test_a_length_that_promises_too_much_is_a_cut_transfer(server, tmp_path):
    message, _ = refusal(server.says(gives(length=400_000, ranges=False)), tmp_path / "file")
    assert message.endswith("ended after 300,000 of 400,000 bytes")


def test_a_length_that_promises_too_little_gives_another_file(server, tmp_path):
    message, _ = refusal(server.says(gives(length=1000, ranges=False)), tmp_path / "file")
    assert "gave another file, twice: its sha256 is" in message


@pytest.mark.parametrize("length", ["-5", "1e3", "9" * 19, "0x10", "²"])
def test_a_length_that_is_no_number_is_as_good_as_none(tmp_path, server, length):
    answer = gives(length="none", headers=[("Content-Length", length.encode().decode("latin-1"))])
    assert get(server.says(answer), tmp_path / "file").read_bytes() == DATA


def test_an_endless_answer_is_stopped_at_the_limit(server, tmp_path):
    def endless(handler):
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(bytes(100_000))

    url = server.says(gives(length="none", then=endless))
    message, _ = refusal(url, tmp_path / "file", max_bytes=500_000)
    assert message == f"`file` could not be fetched: {url} sends more than 500,000 bytes"
    assert left(tmp_path) == []


def test_an_announced_length_over_the_limit_is_refused(server, tmp_path):
    message, _ = refusal(server.says(gives()), tmp_path / "file", max_bytes=1000)
    assert message.endswith(" has a file of 300,000 bytes, expected 1,000 at most")


def test_without_a_length_and_a_hash_no_one_could_tell_a_cut_file(tls, tmp_path):
    message, _ = refusal(tls.says(gives(length="none")), tmp_path / "file", sha256=None)
    assert message.endswith(" does not say how long the file is, and no hash is known by which to tell")


def test_a_packed_answer_that_was_not_asked_for_is_refused(server, tmp_path):
    message, _ = refusal(server.says(gives(headers=[("Content-Encoding", "gzip")])), tmp_path / "file")
    assert message.endswith(" sends it packed as 'gzip', which was not asked for")
    assert server.asked[0][1]["Accept-Encoding"] == "identity"


def test_a_file_larger_than_the_disk_is_not_begun(server, tmp_path):
    free = shutil.disk_usage(tmp_path).free
    size = free + 10**12
    message, hint = refusal(server.says(gives(length=size)), tmp_path / "file", max_bytes=2 * size)
    assert re.fullmatch(rf"`{tmp_path}` has [0-9,]+ MB free, expected [0-9,]+ MB for `file`", message)
    assert hint == "make room, or choose a folder on another disk"
    assert left(tmp_path) == []


# Mirrors and answers


def test_mirrors_are_tried_in_order_until_one_has_the_file(server, tmp_path):
    urls = [server.says(status(404), path="/a"), server.says(gives(WRONG), path="/b"), server.says(gives(), path="/c")]
    assert get(urls, tmp_path / "file").read_bytes() == DATA
    assert [path for path, _ in server.asked] == ["/a", "/b", "/b", "/c"]


def test_a_second_mirror_goes_on_where_the_first_stopped(server, tmp_path):
    urls = [server.says(gives(upto=100_000), status(500), path="/a"), server.says(gives(etag='"b"'), path="/b")]
    get(urls, tmp_path / "file")
    assert server.asked[-1][1]["Range"] == "bytes=100000-"
    assert "If-Range" not in server.asked[-1][1], "another server's mark means nothing here; the hash decides"


def test_when_no_mirror_has_it_each_ones_reason_is_said(server, tmp_path):
    urls = [server.says(status(404), path="/a"), server.says(status(403), path="/b")]
    message, _ = refusal(urls, tmp_path / "file")
    assert message == f"`file` could not be fetched: {urls[0]} answers 404 not found; {urls[1]} answers 403 forbidden"


def test_a_busy_server_is_asked_again(server, tmp_path):
    get(server.says(status(503), status(429, ("Retry-After", "0")), gives()), tmp_path / "file")
    assert len(server.asked) == 3


def test_what_is_not_http_is_an_interruption(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = odd.accept()
                    connection.recv(1000)
                    connection.sendall(b"SSH-2.0-OpenSSH\r\n\x1b[31m\r\n\r\n")
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        message, _ = refusal(f"http://127.0.0.1:{odd.getsockname()[1]}/file", tmp_path / "file")
    assert " does not answer: " in message
    assert message.isprintable()


# Redirects and schemes


def test_redirects_are_followed_with_the_range_kept(server, tmp_path):
    target = server.says(gives(upto=100_000), gives(), path="/there")
    get(server.says(redirect(target), redirect("/there")), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert server.ranges() == [None, None, "bytes=100000-", "bytes=100000-"]


def test_redirects_in_a_circle_end(server, tmp_path):
    url = server.says(redirect("/file"))
    message, _ = refusal(url, tmp_path / "file")
    assert message == f"`file` could not be fetched: {url} redirects in circles, or too often"
    assert len(server.asked) <= 6


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/file", "data:,hello", "gopher://x/"])
def test_a_redirect_out_of_the_web_is_refused(server, tmp_path, target):
    url = server.says(redirect(target))
    message, _ = refusal(url, tmp_path / "file")
    assert message == f"`file` could not be fetched: {url} redirects to '{target}', which is not https"
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/f", "file:///etc/hostname", "ftp://h/f", "HTTPS.example/f", "/etc/hostname"]
)
def test_only_https_is_fetched_where_no_hash_checks_the_file(tmp_path, url):
    message, _ = refusal(url, tmp_path / "file", sha256=None)
    assert message == f"`{url}` is not fetched: expected https, or http with a hash that checks the file"


@pytest.fixture
def tls(tmp_path_factory, monkeypatch):
    """A server with a certificate that this test trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("`openssl` is not installed, so no certificate can be made")
    folder = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(["openssl", *words.split(), *names], cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "cert.pem"))
    made = Server(context)
    yield made
    made.http.shutdown()
    made.http.server_close()


def test_https_is_followed_to_https_and_never_to_http(tls, server, tmp_path):
    there = tls.says(gives(), path="/there")
    assert get(tls.says(redirect(there)), tmp_path / "file").read_bytes() == DATA
    plain = server.says(gives())
    url = tls.says(redirect(plain))
    message, _ = refusal(url, tmp_path / "other")
    assert message == f"`other` could not be fetched: {url} redirects to '{plain}', which is not https"
    assert server.asked == []
    assert get(server.says(redirect(there)), tmp_path / "third").read_bytes() == DATA, "the other way is fine"


def test_a_server_that_cannot_show_who_it_is_gets_no_second_chance(tls, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    url = tls.says(gives())
    message, _ = refusal(url, tmp_path / "file")
    assert message.startswith(f"`file` could not be fetched: {url} cannot show who it is: self")
    assert tls.asked == []


# Offline, locks, disks


@pytest.mark.parametrize("switch", ["option", "variable"])
def test_offline_opens_no_socket(server, tmp_path, python, switch):
    url = server.says(gives())
    code = f"""
import os, sys
from pathlib import Path
from linne.download import fetch
from linne.errors import SourceError
if {switch!r} == "variable":
    os.environ["LINNE_OFFLINE"] = "1"
def watch(event, arguments):
    if event.startswith(("socket.", "http.client", "urllib.")):
        os._exit(9)
sys.addaudithook(watch)
try:
    fetch([{url!r}], Path("file"), sha256="{SHA256}", offline={switch == "option"})
except SourceError as error:
    print(error.message, error.hint, sep="|")
"""
    ended = python("-c", code, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    message, hint = ended.stdout.strip().split("|")
    assert message == "`file` is not here, and linne is offline"
    assert hint == f"get {url} elsewhere, put it there and type the command again"
    assert server.asked == []


def test_offline_a_file_that_is_there_is_enough(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    assert get("https://127.0.0.1/file", tmp_path / "file", offline=True) == tmp_path / "file"


@pytest.mark.parametrize(("value", "means"), [("1", True), ("true", True), ("0", False), ("", False), ("no", False)])
def test_the_offline_variable_reads_as_people_write_it(monkeypatch, value, means):
    monkeypatch.setenv("LINNE_OFFLINE", value)
    assert is_offline() is means


def test_two_processes_do_not_fetch_one_file_at_once(server, tmp_path):
    url = server.says(gives())
    with exclusive(tmp_path / "file"):
        message, hint = refusal(url, tmp_path / "file", LinneError)
    assert message == f"another process is at work on `{tmp_path}/file`"
    assert hint == "wait for it, then type the command again"
    assert server.asked == []
    get(url, tmp_path / "file")


def test_a_lock_of_a_dead_process_is_taken_over(server, tmp_path, python):
    code = "from pathlib import Path; from linne.lock import exclusive; import os\n"
    python("-c", code + "held = exclusive(Path('file')); held.__enter__(); os._exit(1)", cwd=tmp_path)
    assert left(tmp_path) == ["file.lock"]
    get(server.says(gives()), tmp_path / "file")
    assert left(tmp_path) == ["file"]


def test_many_at_once_hold_a_lock_one_after_another(tmp_path):
    inside, most, done = [], [], []

    def work():
        while len(done) < 150:
            with contextlib.suppress(LinneError), exclusive(tmp_path / "x"):
                inside.append(1)
                time.sleep(0.0005)  # long enough to meet one who holds a lock file that was removed
                most.append(len(inside))
                inside.pop()
                done.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1


def test_a_full_disk_says_so_and_keeps_what_came(server, tmp_path, python):
    url = server.says(gives())
    code = f"""
import resource, signal
from pathlib import Path
from linne.download import fetch
from linne.errors import SourceError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    fetch([{url!r}], Path("file"), sha256="{SHA256}")
except SourceError as error:
    print(error.message)
"""
    ended = python("-c", code, cwd=tmp_path)
    assert ended.stdout.strip() == "`file` cannot be written: file too large", ended.stderr
    assert json.loads((tmp_path / "file.partial.json").read_text())["url"] == url
    get(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert server.ranges()[1].startswith("bytes=")


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    message, _ = refusal("https://127.0.0.1/file", tmp_path / "taken/file")
    assert message == f"`{tmp_path}/taken/file` cannot be written: file exists"
