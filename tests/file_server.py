"""A server of files on this machine, as unreliable as a test wants it. `tests/conftest.py` has the fixture."""

from __future__ import annotations

import http.server
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Server:
    """What the server serves, and what goes wrong."""

    files: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    etag: str = ""
    ranges: bool = True
    errors: list[int] = field(default_factory=list)  # statuses of the first answers
    breaks: list[int] = field(default_factory=list)  # bytes of each answer after which the connection is closed
    gates: list[tuple[int, threading.Event]] = field(default_factory=list)  # (bytes of an answer, what it then waits for)
    requests: list[str] = field(default_factory=list)  # the Range header of each request
    raw: list[bytes] = field(default_factory=list)  # the first answers, status line and headers included; then it closes
    drip: float = 0.0  # seconds between two bytes of a raw answer


@contextmanager
def serving() -> Iterator[Server]:
    """A running server."""
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.requests.append(wanted)
            if state.raw:
                return self.send_raw(state.raw.pop(0))
            body = state.files.get(self.path.lstrip("/"))
            if state.errors or body is None:
                return self.send_error(state.errors.pop(0) if state.errors else 404)
            same = self.headers.get("If-Range", state.etag) == state.etag
            start = int(re.findall(r"\d+", wanted)[0]) if wanted and state.ranges and same else 0
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if state.etag:
                self.send_header("ETag", state.etag)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            end = start + state.breaks.pop(0) if state.breaks else len(body)
            if state.gates:
                size, gate = state.gates.pop(0)
                self.wfile.write(body[start : start + size])
                self.wfile.flush()
                gate.wait()
                start += size
            self.wfile.write(body[start:end])
            return None

        def send_raw(self, answer: bytes) -> None:
            self.close_connection = True
            size = 1 if state.drip else len(answer) or 1
            for start in range(0, len(answer), size):
                self.wfile.write(answer[start : start + size])
                self.wfile.flush()
                if state.drip:
                    time.sleep(state.drip)

        def log_message(self, *arguments: object) -> None:
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            """A client that has gone."""

    running = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{running.server_port}"
    yield state
    running.shutdown()
    running.server_close()
    thread.join()
