"""One request for the missing bytes of one file: what `download` asks again and again until the file is whole."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import linne
from linne.errors import SourceError

Progress = Callable[[int, int | None], None]
"""Called with how many bytes are here, and how many there will be (None where no one says)."""

_PIECE = 256 * 2**10
_SPARE_BYTES = 64 * 2**20
"""Left free on the disk: a full one hurts more than a download that waits."""
_BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers that may be others in a moment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a file must be; None for what nobody published."""

    sha256: str | None = None
    md5: str | None = None
    """As good as sha256 against accidents, not against someone who made two files with one md5."""
    size_bytes: int | None = None
    sha256_prefix: str | None = None
    """As good as its length: eight digits find every accident, and stop nobody who tries."""

    def difference(self, path: Path, progress: Progress = lambda done, total: None) -> str | None:
        """Return how the file at `path` differs, or None; where both hashes are known, sha256 decides alone."""
        size = path.stat().st_size
        if self.size_bytes is not None and size != self.size_bytes:
            return f"it has {size:,} bytes, expected {self.size_bytes:,}"
        sha256 = self.sha256 or self.sha256_prefix
        kind, expected = ("sha256", sha256) if sha256 is not None else ("md5", self.md5)
        if expected is None:
            return None
        digest, done = hashlib.new(kind, usedforsecurity=kind == "sha256"), 0
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(2**20):
                digest.update(piece)
                done += len(piece)
                progress(done, size)
        found = digest.hexdigest()
        if kind == "sha256" and self.sha256 is None:
            found = found[: len(expected)]
        return None if found == expected.lower() else f"its {kind} is {found}, expected {expected.lower()}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A file that is on its way."""

    path: Path
    wanted: Wanted
    max_bytes: int
    progress: Progress
    timeout_s: float

    @property
    def partial(self) -> Path:
        return self.path.with_name(self.path.name + ".partial")

    @property
    def state(self) -> Path:
        return self.path.with_name(self.path.name + ".partial.json")

    @property
    def hashed(self) -> bool:
        return (self.wanted.sha256 or self.wanted.md5 or self.wanted.sha256_prefix) is not None

    def have(self) -> int:
        """Return how many bytes of the file are here."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def discard(self) -> None:
        """Remove what is here, to begin again."""
        self.partial.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)


class Refused(Exception):
    """The mirror will not give the file however often it is asked."""


class Interrupted(Exception):
    """The transfer broke off; asking again may help, after `pause_s` where the server said so."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


def ask(url: str, job: Job) -> None:
    """Add the bytes that are missing to `job.partial`, by one request.

    Raises:
        Interrupted: they are not all here yet.
        Refused: asking again would not help.
        SourceError: the disk has no room for them.
    """
    have = job.have()
    if have and have == job.wanted.size_bytes:
        return
    validator = _validator(url, job)
    if have > job.max_bytes or (validator is None and not job.hashed):
        have = 0  # no telling whether it is a part of what the mirror has now
    headers = {"User-Agent": f"linne/{linne.__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator is not None:
            headers["If-Range"] = validator
    answer = _open(urllib.request.Request(url, headers=headers), job, have)
    if answer is None:
        return
    with answer:
        start, total = _extent(answer, job, have)
        _check_room(job, start, total)
        if start == 0:
            _remember(url, answer, job)
        _copy(answer, job, start, total)


def _validator(url: str, job: Job) -> str | None:
    """Return what tells the mirror's file from a later one, as noted when the transfer began there."""
    try:
        noted = json.loads(job.state.read_text("utf-8"))
        return str(noted["validator"]) if noted["url"] == url and noted["validator"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(url: str, answer: http.client.HTTPResponse, job: Job) -> None:
    tag = answer.headers.get("ETag", "")
    # A weak tag says "about the same", which is not enough to join two halves: RFC 9110, 13.1.5.
    validator = tag if tag.startswith('"') else answer.headers.get("Last-Modified")
    job.state.write_text(json.dumps({"url": url, "validator": validator}), "utf-8")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, never away from https and never to anything but http."""

    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the request for `newurl`."""
        if not newurl.startswith("https://") and not (newurl.startswith("http://") and req.type == "http"):
            raise Refused(f"redirects to {newurl!a}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request, job: Job, have: int) -> http.client.HTTPResponse | None:
    """Return the answer to `request`; None where it says that the `have` bytes are all there are."""
    # Reading the system's certificates takes longer than most answers; where a redirect leads to https they are read.
    trust = ssl.create_default_context() if request.type == "https" else None
    opener = urllib.request.OpenerDirector()  # not `build_opener`, which would add file: and ftp:
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=trust),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    try:
        answer: http.client.HTTPResponse = opener.open(request, timeout=job.timeout_s)
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
                return None
            _explain_no(error, job)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise Refused(f"cannot show who it is: {error.reason.verify_message}") from error
        raise Interrupted(f"does not answer: {_reason(error.reason)}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"does not answer: {_reason(error)}") from error
    return answer


def _explain_no(error: urllib.error.HTTPError, job: Job) -> NoReturn:
    """Raise what an answer that is not a file means."""
    reason = f"answers {error.code} {http.client.responses.get(error.code, '')}".rstrip().lower()
    if error.code == 416:
        job.discard()
        raise Interrupted(reason) from error
    if error.code in _BUSY:
        wait = error.headers.get("Retry-After", "")
        raise Interrupted(reason, float(wait) if wait.isascii() and wait.isdecimal() else 0.0) from error
    where = error.headers.get("Location", "")
    if re.match(r"(?!https?:)[a-z][a-z0-9+.-]*:", where, re.IGNORECASE):  # urllib follows no scheme but these and ftp
        raise Refused(f"redirects to {where!a}, which is not https") from error
    raise Refused("redirects in circles, or too often" if 300 <= error.code < 400 else reason) from error


def _reason(error: object) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return ascii(text)[1:-1].lower()


def _extent(answer: http.client.HTTPResponse, job: Job, have: int) -> tuple[int, int | None]:
    """Return at which byte the answer begins, and the length of the whole file, None where it is not said."""
    packed = answer.headers.get("Content-Encoding", "identity")
    if packed.lower() != "identity":
        raise Refused(f"sends it packed as {packed!a}, which was not asked for")
    length = answer.headers.get("Content-Length", "")
    start, total = 0, int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
    if answer.status == 206:
        part = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", answer.headers.get("Content-Range", ""))
        if part is None or int(part[1]) != have:
            job.discard()
            raise Interrupted("answers with another part than asked for")
        start, total = have, int(part[2])
    expected = job.wanted.size_bytes
    if total is not None and expected is not None and total != expected:
        raise Refused(f"has a file of {total:,} bytes, expected {expected:,}")
    total = expected if total is None else total
    if total is None and not job.hashed:
        raise Refused("does not say how long the file is, and no hash is known by which to tell")
    if total is not None and total > job.max_bytes:
        raise Refused(f"has a file of {total:,} bytes, expected {job.max_bytes:,} at most")
    return start, total


def _check_room(job: Job, start: int, total: int | None) -> None:
    needed = (total or start) - start + _SPARE_BYTES
    free = shutil.disk_usage(job.path.parent).free + (job.have() - start)
    if free < needed:
        raise SourceError(
            f"`{job.path.parent}` has {free / 1e6:,.0f} MB free, expected {needed / 1e6:,.0f} MB for `{job.path.name}`",
            hint="make room, or choose a folder on another disk",
        )


def _copy(answer: http.client.HTTPResponse, job: Job, start: int, total: int | None) -> None:
    """Write what comes to `job.partial` from byte `start`, and have it on the disk."""
    done = start
    with open(job.partial, "r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        for piece in _pieces(answer):
            done += len(piece)
            if done > job.max_bytes:
                job.discard()
                raise Refused(f"sends more than {job.max_bytes:,} bytes")
            file.write(piece)
            job.progress(done, total)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done < total:
        raise Interrupted(f"ended after {done:,} of {total:,} bytes")


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield what comes, as it comes: `read` would wait for a full piece and hide a stall."""
    while True:
        try:
            piece = answer.read1(_PIECE)
        except TimeoutError as error:
            raise Interrupted("stopped sending") from error
        except (OSError, http.client.HTTPException) as error:
            raise Interrupted(f"broke off: {_reason(error)}") from error
        if not piece:
            return
        yield piece
