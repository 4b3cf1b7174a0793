"""Download a file over HTTP: resumed where it broke off, verified by its hash, never half there under its own name.

Meanwhile it is NAME.part, with the server's version tag in NAME.part.etag; NAME appears whole and verified.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import logging
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

CHUNK = 1 << 20  # bytes
TIMEOUT = 30.0  # seconds without a byte
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each new try; the count starts afresh with every byte of progress

ReportProgress = Callable[[int, "int | None"], object]  # (bytes done, bytes in all where known)

logger = logging.getLogger(__name__)


class DownloadError(ValueError):
    """A file cannot be downloaded or stored: one line for the user."""


class UnreachableError(DownloadError):
    """No connection, or a server that does not give the file."""


@dataclass(frozen=True)
class Digest:
    """The first hexadecimal digits of a file's hash: all of them, or as many as its publisher tells."""

    algorithm: Literal["md5", "sha256"]
    start: str

    def first_digits(self, file: Path, report: ReportProgress) -> str:
        """The first digits of the file's hash, as many as are known of the published one."""
        return hash_of(file, self.algorithm, report)[: len(self.start)]


def report_nothing(done: int, total: int | None) -> None:
    """The default `report`: shows no progress."""


def hash_of(file: Path, algorithm: str, report: ReportProgress = report_nothing) -> str:
    """The file's hash in hexadecimal digits. Raises OSError."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    size = _size(file)
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            report(stream.tell(), size)
    return digest.hexdigest()


def mismatch(file: Path, digest: Digest | None, report: ReportProgress = report_nothing) -> str | None:
    """How the file differs from the published one, naming both hashes; None if it does not, or if no hash is known."""
    if digest is None or (found := digest.first_digits(file, report)) == digest.start:
        return None
    return f"{file} is not the file that was published: its {digest.algorithm} begins with {found}, not {digest.start}"


def fetch(url: str, file: Path, digest: Digest | None, report: ReportProgress = report_nothing) -> None:
    """Download the published file unless it is there; a file that is there is verified, whoever put it there.

    A damaged one is replaced when the new one is whole. To be called inside `locked(file)`, where several processes may want
    it. Raises DownloadError, or OSError where the file cannot be read.
    """
    fault = mismatch(file, digest) if file.is_file() else "absent"
    if fault is None:
        return
    part = part_file(file)
    logger.info("downloading %s to %s", url, file)
    try:
        download(url, part, report)
    except UnreachableError as error:
        raise UnreachableError(f"{fault}; {error}" if file.is_file() else str(error)) from None
    fault = mismatch(part, digest)
    if fault is not None:
        discard(part)
        raise DownloadError(f"{fault}; it came from {url} and has been deleted")
    finish(part, file)


def part_file(file: Path) -> Path:
    """Where a file is stored while it is downloaded."""
    return file.with_name(file.name + ".part")


def finish(part: Path, file: Path) -> None:
    """Give a download that is whole and verified its own name."""
    part.replace(file)
    _etag_file(part).unlink(missing_ok=True)


def discard(part: Path) -> None:
    """Delete a download that cannot be continued, and its tag."""
    part.unlink(missing_ok=True)
    _etag_file(part).unlink(missing_ok=True)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold FILE.lock: one process at a time. It is the system's lock, which a process that dies lets go of. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{file}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("waiting for another process that is fetching %s", file.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def download(url: str, part: Path, report: ReportProgress = report_nothing) -> None:
    """Download what `part` lacks, trying again when the connection breaks. Raises DownloadError; the part is kept."""
    waits = list(WAITS)
    first = _size(part)
    while True:
        before = _size(part)
        try:
            fetch_rest(url, part, report)
            return
        except DownloadError:
            raise
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            if _size(part) > before:
                waits = list(WAITS)
            if not waits or _is_permanent(error, begun=_size(part) > first):
                reason = error.reason if type(error) is urllib.error.URLError else error
                raise UnreachableError(f"cannot download {url}: {reason}{_resume_hint(part)}") from None
            time.sleep(waits.pop(0))
        except OSError as error:
            remedy = ", make room" if error.errno == errno.ENOSPC else ""
            raise DownloadError(f"cannot write {part}: {error.strerror or error}{remedy}{_resume_hint(part)}") from None
        except ValueError as error:
            raise UnreachableError(f"cannot download {url}: {error}") from None


def fetch_rest(url: str, part: Path, report: ReportProgress) -> None:
    """One request for the bytes from `part`'s end on. Raises ConnectionError if the answer ends early."""
    have, tag = _size(part), _etag_file(part)
    headers = {"User-Agent": "resdet"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag.is_file():
            # Another version by now: the server sends all of it.
            headers["If-Range"] = tag.read_text(encoding="latin1")
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            _discard_if_too_long(part, error.headers.get("Content-Range", ""))
            return
        raise
    with response, part.open("r+b" if part.exists() else "wb") as file:
        start, total = answered_range(response)
        if start > have:
            raise UnreachableError(f"cannot download {url}: asked for byte {have} and those after it, the server sent {start}")
        _require_space(part, None if total is None else total - have)
        # A server that knows no ranges sends everything: begin again.
        file.truncate(start)
        file.seek(start)
        _store_etag(tag, response.headers.get("ETag", ""))
        while chunk := response.read1(CHUNK):
            file.write(chunk)
            report(file.tell(), total)
        file.flush()
        os.fsync(file.fileno())
        if total is not None and file.tell() < total:
            raise ConnectionError(f"the connection was closed at {file.tell()} of {total} bytes")


def answered_range(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where in the file an answer begins, and the whole file's size if the server tells it."""
    ranged = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if ranged:
        return int(ranged[1]), None if ranged[2] == "*" else int(ranged[2])
    length = response.headers.get("Content-Length")
    return 0, None if length is None else int(length)


def _discard_if_too_long(part: Path, content_range: str) -> None:
    """The server has nothing after the part's end: the part is whole, which its hash will tell, or else too long.

    Raises ConnectionError for a part that is too long, after deleting it."""
    size = re.fullmatch(r"bytes \*/(\d+)", content_range)
    if size and int(size[1]) != _size(part):
        discard(part)
        raise ConnectionError(f"the part was longer than the file's {size[1]} bytes")


def _is_permanent(error: Exception, *, begun: bool) -> bool:
    """Whether trying again is useless: the server refuses, or could not be reached even once."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code < 500 and error.code not in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
    return isinstance(error, urllib.error.URLError) and not begun


def _store_etag(tag: Path, etag: str) -> None:
    """Keep the server's tag of this version. A weak one (W/"...") does not promise equal bytes."""
    if etag.startswith('"'):
        tag.write_text(etag, encoding="latin1")
    else:
        tag.unlink(missing_ok=True)


def _require_space(part: Path, num_bytes: int | None) -> None:
    """Raises DownloadError where so many bytes more have no room."""
    free = shutil.disk_usage(part.parent).free
    if num_bytes is not None and num_bytes > free:
        raise DownloadError(
            f"{part.parent} needs {num_bytes / 1e9:.3f} GB, {free / 1e9:.3f} GB are free: make room{_resume_hint(part)}"
        )


def _resume_hint(part: Path) -> str:
    """The end of a message: how many bytes are kept, and where; empty if none are."""
    size = _size(part)
    return f"; {size} bytes are kept in {part}, the next try goes on from there" if size else ""


def _etag_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
