"""One request for a file over HTTP, with bounds on the time it takes and on what the server may make of it.

`read_url` keeps what comes in memory; `backbones.weights.download` stores it, and goes on where it broke off.
"""

from __future__ import annotations

import http.client
import math
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

from backbones.errors import printable, shorten

_ANSWER_WITHIN = 4  # times the time-out: connection, redirects and headers together
_PACE_OVER = 2  # times the time-out: the time over which the rate is taken
_LONGEST_TEXT = 200

CHUNK = 1 << 20  # bytes
PLAIN_REQUEST = {"User-Agent": "resdet", "Accept-Encoding": "identity"}  # headers
A_WEB_PAGE = "the server sends a web page, not the file: a login page, or a proxy's?"


class DownloadError(ValueError):
    """A file cannot be downloaded or stored: one line for the user."""


class UnreachableError(DownloadError):
    """No connection, or a server that does not give the file."""


@dataclass(frozen=True)
class Limits:
    """What a server may take and send."""

    timeout: float = 30.0  # seconds without a byte
    least_rate: float = 1000.0  # bytes per second over twice the time-out; 0: no bound
    max_bytes: int = 2**36  # of the file

    @staticmethod
    def from_environment(max_bytes: int = max_bytes) -> Limits:
        """The limits with $RESDET_DOWNLOAD_TIMEOUT and $RESDET_DOWNLOAD_LEAST_RATE. Raises DownloadError for no numbers."""
        timeout = _number_from("RESDET_DOWNLOAD_TIMEOUT", Limits.timeout, least=0.001)
        return Limits(timeout, _number_from("RESDET_DOWNLOAD_LEAST_RATE", Limits.least_rate, least=0.0), max_bytes)


def _number_from(name: str, default: float, least: float) -> float:
    text = os.environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= 1e9:
        raise DownloadError(f"the environment's {name} must be a number from {least:g} to 1e9, got {shorten(text)}")
    return value


class Pace:
    """Whether bytes come fast enough: a server that sends one now and then would keep a download waiting for ever."""

    def __init__(self, limits: Limits) -> None:
        self.over, self.least = _PACE_OVER * limits.timeout, limits.least_rate
        self.since, self.bytes = time.monotonic(), 0

    def add(self, num_bytes: int) -> None:
        """Count bytes that came. Raises UnreachableError where too few have come for too long."""
        self.bytes += num_bytes
        passed = time.monotonic() - self.since
        if passed < self.over:
            return
        if self.bytes < self.least * passed:
            raise UnreachableError(
                f"only {self.bytes / passed:.0f} bytes per second come from the server (RESDET_DOWNLOAD_LEAST_RATE asks for "
                f"{self.least:g})"
            )
        self.since, self.bytes = time.monotonic(), 0


def open_url(url: str, headers: Mapping[str, str], timeout: float) -> Any:
    """The server's answer, an `http.client.HTTPResponse`, once its headers are there.

    Raises UnreachableError for what is not HTTP, and what `urllib` raises, a TimeoutError too where no byte comes for
    `timeout` seconds, or not all headers for four times as long.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise UnreachableError(f"unknown url type: {shorten(url)}; http and https are known")
    request = urllib.request.Request(url, headers=dict(headers))
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    given_up = threading.Event()

    def ask() -> None:
        try:
            answer = urllib.request.build_opener(_SafeRedirects).open(request, timeout=timeout)
        except Exception as error:  # raised again by the thread that waits
            answers.put(error)
            return
        answers.put(answer)
        if given_up.is_set():
            answer.close()

    # In a thread: a time-out of the socket is for each byte of the headers anew.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_ANSWER_WITHIN * timeout)
    except queue.Empty:
        given_up.set()
        raise TimeoutError(f"no answer within {_ANSWER_WITHIN * timeout:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects stay with HTTP, and with https where that was asked for. The base class ends loops."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme
        # Of the URL, not of the request, which a proxy changes.
        if scheme not in ("http", "https") or (scheme == "http" and urlsplit(req.full_url).scheme == "https"):
            raise UnreachableError(
                f"the server redirects to {shorten(newurl)}, which is not as safe as {shorten(req.full_url)}"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def describe(error: Exception) -> str:
    """An error of `open_url` in one line: what a server says reaches terminals and logs."""
    if isinstance(error, urllib.error.HTTPError):
        text = f"HTTP Error {error.code}: {error.reason}"
    else:
        text = str(error.reason if type(error) is urllib.error.URLError else error)
    text = printable(" ".join(text.split()))
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def is_web_page(headers: Mapping[str, str], start: bytes) -> bool:
    """Whether an answer is a page for people, such as a network's login page: by its headers, or by its first bytes."""
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind in ("text/html", "application/xhtml+xml") or start.lstrip()[:9].lower() in (b"<!doctype", b"<html>", b"<html")


def require_usual(headers: Mapping[str, str], url: str) -> None:
    """Raise UnreachableError for a web page, and for a file that is compressed on its way, which was not asked for."""
    if is_web_page(headers, b""):
        raise UnreachableError(A_WEB_PAGE)
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    # Some servers call what a .gz file is its encoding.
    if encoding not in ("", "identity") and not url.endswith((".gz", ".tgz")):
        raise UnreachableError(f"the server sends the file compressed ({shorten(encoding)}), which was not asked for")


def require_bounded(num_bytes: int, limits: Limits) -> None:
    """Raise UnreachableError where a file has, or says that it has, more bytes than the limits allow."""
    if num_bytes > limits.max_bytes:
        raise UnreachableError(f"the server sends more than {limits.max_bytes / 1e9:.4g} GB, which such a file never has")


def read_url(url: str, limits: Limits, within: float) -> bytes:
    """The file that a server gives for an address, in memory, at most `within` seconds after its answer began.

    One try. Raises UnreachableError, whose text does not name the address: no connection, no such file, a web page, more bytes
    than `limits` allow, or bytes that come too slowly.
    """
    try:
        with open_url(url, PLAIN_REQUEST, limits.timeout) as response:
            require_usual(response.headers, url)
            _, total = answered_range(response.status, response.headers)
            require_bounded(total or 0, limits)
            return _read_whole(response, total, limits, time.monotonic() + within)
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(describe(error)) from None
    except DownloadError:
        raise
    except ValueError as error:  # an address that is none
        raise UnreachableError(describe(error)) from None


def _read_whole(response: Any, total: int | None, limits: Limits, deadline: float) -> bytes:
    pace, size = Pace(limits), 0
    chunks: list[bytes] = []
    while chunk := response.read1(CHUNK):
        if not chunks and is_web_page(response.headers, chunk):
            raise UnreachableError(A_WEB_PAGE)
        chunks.append(chunk)
        size += len(chunk)
        require_bounded(size, limits)
        pace.add(len(chunk))
        if time.monotonic() > deadline:
            raise UnreachableError(f"only {size} bytes have come in time")
    if total is not None and size < total:
        raise UnreachableError(f"the connection was closed at {size} of {total} bytes")
    return b"".join(chunks)


def answered_range(status: int, headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Where in the file an answer begins, None if it is a part and does not tell; and the whole file's size if it tells it."""
    ranged = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", headers.get("Content-Range", ""), re.ASCII)
    if ranged:
        return int(ranged[1]), None if ranged[2] == "*" else int(ranged[2])
    length = headers.get("Content-Length", "")
    total = int(length) if re.fullmatch(r"\d{1,18}", length, re.ASCII) else None
    return (None, None) if status == http.client.PARTIAL_CONTENT else (0, total)
