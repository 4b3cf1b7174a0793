"""Downloads from a server on this machine that breaks off, knows no ranges, or serves something else."""

import errno
import hashlib
import http.client
import io
import logging
import os
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from backbones.errors import CheckpointError
from backbones.weights import download, request
from backbones.weights.download import Digest, DownloadError, UnreachableError, fetch

CONTENT = np.random.default_rng(0).bytes(50_000)
MD5 = Digest("md5", hashlib.md5(CONTENT).hexdigest()[:6])
SHA256 = Digest("sha256", hashlib.sha256(CONTENT).hexdigest()[:8])


@pytest.fixture
def server(server, monkeypatch):
    monkeypatch.setattr(download, "WAITS", (0.0, 0.0))
    server.files["a.pkl"] = CONTENT
    return server


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.pkl"


def get(server, file: Path, digest: Digest | None = MD5) -> list[tuple[int, int | None]]:
    """What was reported."""
    reports = []
    fetch(f"{server.url}/a.pkl", file, digest, lambda done, total: reports.append((done, total)))
    assert file.read_bytes() == CONTENT
    assert [path.name for path in file.parent.iterdir()] == ["a.pkl"]
    return reports


@pytest.mark.parametrize("digest", [MD5, SHA256, None])
def test_fetched_once_and_verified(digest, server, file):
    reports = get(server, file, digest)
    assert reports[-1] == (50_000, 50_000) and sorted(reports) == reports
    assert get(server, file, digest) == [] and len(server.requests) == 1


@pytest.mark.parametrize("etag", ["", '"1"', 'W/"1"'])
def test_a_broken_connection_is_taken_up_where_it_ended(etag, server, file):
    server.etag, server.breaks = etag, [10_000, 15_000]
    get(server, file)
    assert server.requests == ["", "bytes=10000-", "bytes=25000-"]


def test_after_too_many_breaks_the_next_try_goes_on(server, file):
    server.etag, server.breaks = '"1"', [20_000, 0, 0]
    with pytest.raises(UnreachableError, match=r"closed at 20000 of 50000 bytes; 20000 bytes are kept in .*\.part"):
        get(server, file)
    assert not file.exists()
    server.requests.clear()
    get(server, file)
    assert server.requests == ["bytes=20000-"]


def test_another_version_on_the_server_begins_again(server, file):
    """Without a hash nothing but the server's tag tells that the first half is of another file."""
    server.files["a.pkl"] = CONTENT[::-1]
    server.etag, server.breaks = '"old"', [20_000, 0, 0]
    with pytest.raises(UnreachableError):
        get(server, file, None)
    server.files["a.pkl"], server.etag = CONTENT, '"new"'
    get(server, file, None)


def test_a_server_without_ranges_is_asked_for_everything_again(server, file):
    server.ranges, server.breaks = False, [30_000]
    get(server, file)
    assert len(server.requests) == 2


@pytest.mark.parametrize("more", [b"", b"of something else"])
def test_a_part_that_is_whole_or_too_long(more, server, file):
    download.part_file(file).write_bytes(CONTENT + more)
    get(server, file)
    assert server.requests == ([f"bytes={50_000 + len(more)}-", ""] if more else ["bytes=50000-"])


def test_busy_for_a_moment(server, file):
    server.errors = [503, 429]
    get(server, file)
    assert len(server.requests) == 3


@pytest.mark.parametrize("digest", [MD5, SHA256])
def test_another_file_than_was_published_is_deleted(digest, server, file):
    server.files["a.pkl"] = CONTENT[:-1] + b"?"
    wrong = hashlib.new(digest.algorithm, server.files["a.pkl"]).hexdigest()[: len(digest.start)]
    message = (
        f"its {digest.algorithm} begins with {wrong}, not {digest.start}; it came from {server.url}/a.pkl and has been deleted"
    )
    with pytest.raises(DownloadError, match=message):
        get(server, file, digest)
    assert not list(file.parent.iterdir())


@pytest.mark.parametrize(
    ("url", "words"),
    [("{server}/absent", "HTTP Error 404"), ("http://127.0.0.1:9/a.pkl", "refused"), ("a.pkl", "unknown url type")],
)
def test_unreachable_is_told_at_once(url, words, server, file, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: pytest.fail("waited"))
    with pytest.raises(UnreachableError, match=f"cannot download .*{words}"):
        fetch(url.format(server=server.url), file, MD5)
    assert len(server.requests) <= 1 and not list(file.parent.iterdir())


def test_a_file_put_there_by_hand_is_verified_and_used(server, file):
    file.write_bytes(CONTENT)
    get(server, file)
    assert server.requests == []


def test_a_damaged_file_is_replaced_when_the_new_one_is_whole(server, file, caplog):
    damaged = CONTENT[:-1] + b"?"
    file.write_bytes(damaged)
    server.errors = [404]
    with pytest.raises(UnreachableError, match="is not the file that was published.*; cannot download"):
        get(server, file)
    assert file.read_bytes() == damaged
    with caplog.at_level(logging.INFO, "backbones.weights.download"):
        get(server, file)
    assert "downloading" in caplog.text


def test_too_little_space_is_told_before_the_download(server, file, monkeypatch):
    usage = download.shutil.disk_usage(file.parent)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(DownloadError, match="make room"):
        get(server, file)
    assert not file.exists()


def answer(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.0 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin1") + body


def redirect(url: str) -> bytes:
    return answer(status="302 Found", Location=url)


PAGE = b"\n<!DOCTYPE html><html><body>Log in to this network</body></html>"


@pytest.mark.parametrize("digest", [None, MD5])
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (answer(PAGE), "web page"),
        (answer(b"log in", Content_Type="text/html; charset=utf-8"), "web page"),
        (answer(CONTENT, Content_Encoding="gzip"), "compressed"),
        (answer(b""), "sends nothing"),
        (answer(b"x", Content_Length="9" * 17), "sends more than"),
        (redirect("file:///etc/passwd"), "Redirection to .* is not allowed"),
        (redirect("ftp://example.org/a.pkl"), "redirects to"),
        (redirect("/a.pkl"), "HTTP Error 302"),
        (answer(status="403 \x1b[2J\x07Go away" + "!" * 5000), r"HTTP Error 403: \\x1b\[2J\\x07Go away!+\.\.\."),
        (b"\x1b[2J\x00\xff\r\n\r\n", r"\\x1b\[2J"),
        (answer(b"x", status="206 Partial Content"), "part of another length"),
        (answer(status="416 Range Not Satisfiable"), "HTTP Error 416"),
    ],
)
def test_what_is_not_the_file_never_takes_its_name(raw, words, digest, server, file):
    server.raw = [raw] * 100
    with pytest.raises(UnreachableError, match=words) as caught:
        get(server, file, digest)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 600 and not list(file.parent.iterdir())
    assert len(server.requests) <= 12
    server.raw = []
    get(server, file, digest)


@pytest.mark.parametrize("target", ["http://example.org/a.pkl", "file:///etc/passwd", "ftp://example.org/a.pkl"])
def test_https_is_not_left(target):
    request_ = urllib.request.Request("https://example.org/a.pkl")
    request_.set_proxy("127.0.0.1:9", "http")  # which changes what the request says of itself
    with pytest.raises(UnreachableError, match="not as safe as"):
        request._SafeRedirects().redirect_request(request_, io.BytesIO(), 302, "Found", http.client.HTTPMessage(), target)


@pytest.mark.parametrize("more", [answer(status="416 Range Not Satisfiable"), answer(b"x", status="206 Partial Content")])
def test_a_part_that_is_of_no_use_is_fetched_from_zero_once(more, server, file):
    download.part_file(file).write_bytes(CONTENT[:100])
    server.raw = [more]
    get(server, file)
    assert server.requests == ["bytes=100-", ""]
    file.unlink()
    download.part_file(file).write_bytes(CONTENT[:100])
    server.raw = [more, answer(CONTENT[:50], Content_Length="50000"), more, more]
    with pytest.raises(UnreachableError):
        get(server, file)
    assert len(server.requests) <= 6


def test_a_server_that_breaks_at_other_places_each_time_is_given_up(server, file):
    server.raw = [answer(CONTENT[: 100 + 50 * (index % 2)], Content_Length="50000") for index in range(100)]
    server.ranges = False
    with pytest.raises(UnreachableError, match="closed at"):
        get(server, file)
    assert len(server.requests) < 10


def test_an_endless_body_ends(server, file):
    server.raw = [answer(bytes(3_000_000))]
    with pytest.raises(UnreachableError, match="sends more than 0.001 GB"):
        fetch(f"{server.url}/a.pkl", file, None, limits=request.Limits(max_bytes=1_000_000))
    assert not list(file.parent.iterdir())


@pytest.mark.parametrize("raw", [answer(CONTENT), answer(b"", **{f"X{index}": "x" * 50 for index in range(50)})])
def test_a_server_that_sends_a_byte_now_and_then_is_given_up(raw, server, file, monkeypatch):
    monkeypatch.setattr(download, "WAITS", ())
    server.raw, server.drip = [raw] * 9, 0.02
    with pytest.raises(UnreachableError, match=r"bytes per second come|no answer within"):
        fetch(f"{server.url}/a.pkl", file, None, limits=request.Limits(timeout=0.2, least_rate=1000))


def test_the_environment_bounds_the_waiting(server, file, monkeypatch):
    monkeypatch.setenv("RESDET_DOWNLOAD_TIMEOUT", "7.5")
    monkeypatch.setenv("RESDET_DOWNLOAD_LEAST_RATE", "0")
    assert request.Limits.from_environment() == request.Limits(7.5, 0.0)
    for value in ("soon", "nan", "-1", "0", "1e400"):
        monkeypatch.setenv("RESDET_DOWNLOAD_TIMEOUT", value)
        with pytest.raises(DownloadError, match="RESDET_DOWNLOAD_TIMEOUT must be a number"):
            get(server, file)


def test_without_a_hash_what_cannot_be_read_is_removed_and_fetched_again(server, file):
    def read(path: Path) -> int:
        if path.read_bytes() != CONTENT:
            raise CheckpointError("not a checkpoint")
        return 7

    url = f"{server.url}/a.pkl"
    server.raw = [answer(CONTENT[:1000])]  # cut, and no length that would tell
    with pytest.raises(DownloadError, match="cannot be used and has been deleted: not a checkpoint"):
        fetch(url, file, None, read=read)
    assert not list(file.parent.iterdir())
    assert fetch(url, file, None, read=read) == 7 and file.read_bytes() == CONTENT
    file.write_bytes(CONTENT[:1000])  # what an older version kept
    assert fetch(url, file, None, read=read) == 7 and file.read_bytes() == CONTENT
    assert fetch(url, file, None, read=read) == 7 and len(server.requests) == 3


class NearlyFull(io.FileIO):
    """A file on a disk with room for 20 kB."""

    def write(self, data) -> int:
        room = 20_000 - self.tell()
        if len(data) > room:
            super().write(data[:room])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def nearly_full(path: Path, mode: str) -> NearlyFull:
    return NearlyFull(path, mode)


def test_a_disk_that_fills_up_loses_nothing(server, file, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", nearly_full)
        with pytest.raises(DownloadError, match=r"cannot write .*: No space left on device, make room; 20000 bytes are kept"):
            get(server, file)
    assert not file.exists()
    get(server, file)
    assert server.requests == ["", "bytes=20000-"]
