"""Download a file over HTTP: resumed where it broke off, verified by its hash, never half there under its own name.

Meanwhile it is NAME.part, with the server's version tag in NAME.part.etag; NAME appears whole and verified. The environment's
RESDET_DOWNLOAD_TIMEOUT (seconds without a byte) and RESDET_DOWNLOAD_LEAST_RATE (bytes per second) bound the waiting.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from backbones.errors import CheckpointError, printable
from backbones.files import open_regular, read_regular
from backbones.weights.request import (
    A_WEB_PAGE,
    CHUNK,
    PLAIN_REQUEST,
    DownloadError,
    Limits,
    Pace,
    UnreachableError,
    answered_range,
    describe,
    is_web_page,
    open_url,
    require_bounded,
    require_usual,
)

WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each new try; the count starts afresh with every byte of progress

ReportProgress = Callable[[int, "int | None"], object]  # (bytes done, bytes in all where known)

_ETAG = re.compile(r'"[!#-~]{0,200}"')

logger = logging.getLogger(__name__)


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
    with open_regular(file) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            report(stream.tell(), size)
    return digest.hexdigest()


def mismatch(file: Path, digest: Digest | None, report: ReportProgress = report_nothing) -> str | None:
    """How the file differs from the published one, naming both hashes; None if it does not, or if no hash is known."""
    if digest is None or (found := digest.first_digits(file, report)) == digest.start:
        return None
    return f"{file} is not the file that was published: its {digest.algorithm} begins with {found}, not {digest.start}"


def fetch(
    url: str,
    file: Path,
    digest: Digest | None,
    report: ReportProgress = report_nothing,
    *,
    read: Callable[[Path], Any] | None = None,
    limits: Limits | None = None,
) -> Any:
    """Download the published file unless it is there, and return what `read` makes of it.

    A file that is there is verified, whoever put it there. Where no hash is known, that `read` raises no CheckpointError is
    what vouches for it, before it takes its name. A damaged one is replaced when the new one is whole. To be called inside
    `locked(file)`, where several processes may want it. Raises DownloadError, or OSError where the file cannot be read.
    """
    try:
        return _read_present(file, digest, read)
    except _NotPresentError as error:
        fault = str(error)
    part = part_file(file)
    if digest is None and _read_etag(_etag_file(part)) is None:
        discard(part)  # nothing would tell whether the rest is of the same version
    logger.info("downloading %s to %s", _shown(url), file)
    try:
        download(url, part, report, limits)
    except UnreachableError as error:
        raise UnreachableError(f"{fault}; {error}" if file.is_file() else str(error)) from None
    if unlike := mismatch(part, digest):
        discard(part)
        raise DownloadError(f"{unlike}; it came from {_shown(url)} and has been deleted")
    if digest is not None:
        finish(part, file)
        return None if read is None else read(file)
    try:
        made = None if read is None else read(part)
    except CheckpointError as error:
        discard(part)
        raise DownloadError(f"what came from {_shown(url)} cannot be used and has been deleted: {error}") from None
    finish(part, file)
    return made


class _NotPresentError(Exception):
    """The published file is not there, or what is there in its place is not that file."""


def _read_present(file: Path, digest: Digest | None, read: Callable[[Path], Any] | None) -> Any:
    """What `read` makes of the file that is there. Raises _NotPresentError, and CheckpointError for a published file that
    cannot be used."""
    if not file.is_file():
        raise _NotPresentError("absent")
    if fault := mismatch(file, digest):
        raise _NotPresentError(fault)
    try:
        return None if read is None else read(file)
    except CheckpointError as error:
        if digest is not None:
            raise
        raise _NotPresentError(str(error)) from None


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


def download(url: str, part: Path, report: ReportProgress = report_nothing, limits: Limits | None = None) -> None:
    """Download what `part` lacks, trying again when the connection breaks. Raises DownloadError; the part is kept.

    `limits` are by default those of the environment.
    """
    limits = Limits.from_environment() if limits is None else limits
    waits, pace = list(WAITS), Pace(limits)
    first = furthest = _size(part)
    may_begin_again = True
    while True:
        try:
            fetch_rest(url, part, report, limits, pace)
            return
        except UnreachableError as error:
            if _size(part) == 0 or _size(part) > limits.max_bytes:
                discard(part)
            raise UnreachableError(f"cannot download {_shown(url)}: {error}{_resume_hint(part)}") from None
        except DownloadError:
            raise
        except UnusablePartError as error:
            discard(part)
            if not may_begin_again:
                raise UnreachableError(f"cannot download {_shown(url)}: {error}") from None
            may_begin_again = False
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            if _size(part) > furthest:
                waits, furthest = list(WAITS), _size(part)
            if not waits or _is_permanent(error, begun=_size(part) > first):
                raise UnreachableError(f"cannot download {_shown(url)}: {describe(error)}{_resume_hint(part)}") from None
            time.sleep(waits.pop(0))
        except OSError as error:
            remedy = ", make room" if error.errno == errno.ENOSPC else ""
            raise DownloadError(f"cannot write {part}: {error.strerror or error}{remedy}{_resume_hint(part)}") from None
        except ValueError as error:
            raise UnreachableError(f"cannot download {_shown(url)}: {describe(error)}") from None


class UnusablePartError(Exception):
    """What is there already does not go on with what the server sends: it must begin again."""


def fetch_rest(url: str, part: Path, report: ReportProgress, limits: Limits, pace: Pace) -> None:
    """One request for the bytes from `part`'s end on.

    Raises ConnectionError if the answer ends early, UnusablePartError if the part is of no use, DownloadError for an answer
    that is not the file.
    """
    have = _size(part)
    try:
        response = open_url(url, _headers(part, have), limits.timeout)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            _require_whole(part, error.headers.get("Content-Range", ""))
            return
        raise
    with response:
        headers = response.headers
        start, total = answered_range(response.status, headers)
        if start is None or (total is not None and total < have and start):
            raise UnusablePartError("the server sends a part of another length, or does not tell which")
        if start > have:
            raise UnreachableError(f"asked for byte {have} and those after it, the server sent {start}")
        require_usual(headers, url)
        require_bounded(0 if total is None else total, limits)
        _require_space(part, None if total is None else total - have)
        chunk = response.read1(CHUNK)
        if start == 0 and is_web_page(headers, chunk):
            raise UnreachableError(A_WEB_PAGE)
        if not chunk and total is None:
            raise UnreachableError("the server sends nothing")
        with part.open("r+b" if part.exists() else "wb") as file:
            # A server that knows no ranges sends everything: begin again.
            file.truncate(start)
            file.seek(start)
            _store_etag(_etag_file(part), headers.get("ETag", ""))
            while chunk:
                file.write(chunk)
                require_bounded(file.tell(), limits)
                pace.add(len(chunk))
                report(file.tell(), total)
                chunk = response.read1(CHUNK)
            file.flush()
            os.fsync(file.fileno())
            if total is not None and file.tell() < total:
                raise ConnectionError(f"the connection was closed at {file.tell()} of {total} bytes")


def _headers(part: Path, have: int) -> dict[str, str]:
    """Of the request: what is asked for is the rest, or all of it where the server has another version by now."""
    headers = dict(PLAIN_REQUEST)
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag := _read_etag(_etag_file(part)):
            headers["If-Range"] = tag
    return headers


def _require_whole(part: Path, content_range: str) -> None:
    """The server has nothing after the part's end: the part is whole, or of no use, which raises UnusablePartError."""
    size = re.fullmatch(r"bytes \*/(\d{1,18})", content_range, re.ASCII)
    if size is None or int(size[1]) != _size(part):
        length = f"the file's {size[1]} bytes" if size else "the file"
        raise UnusablePartError(f"the part was longer than {length}, or the server answers 416 to everything")


def _shown(url: str) -> str:
    return printable(url)


def _is_permanent(error: Exception, *, begun: bool) -> bool:
    """Whether trying again is useless: the server refuses, or could not be reached even once."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code < 500 and error.code not in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
    return isinstance(error, http.client.InvalidURL) or (isinstance(error, urllib.error.URLError) and not begun)


def _store_etag(tag: Path, etag: str) -> None:
    """Keep the server's tag of this version. A weak one (W/"...") does not promise equal bytes."""
    if _ETAG.fullmatch(etag):
        tag.write_text(etag, encoding="latin1")
    else:
        tag.unlink(missing_ok=True)


def _read_etag(tag: Path) -> str | None:
    etag = read_regular(tag, 1000).decode("latin1") if tag.is_file() else ""
    return etag if _ETAG.fullmatch(etag) else None


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
