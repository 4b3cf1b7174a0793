"""Atomic writes: a file is absent, the old one, or the new one, whole; never half written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write bytes to, which takes the place of `path` when the block ends: at any instant `path` is absent, the
    old file, or the new one, whole and on the disk. If the block raises, the old file stays as it was.

    The folder is made. Raises OSError where it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two processes that write one path must not write into one file.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_whole(path: str | Path, contents: bytes | str) -> None:
    """Write bytes, or text as UTF-8, through `replacing`. Raises OSError."""
    with replacing(path) as file:
        file.write(contents.encode() if isinstance(contents, str) else contents)


def remove_leftovers(path: str | Path) -> None:
    """Delete what killed processes left of `replacing(path)`. To be called where nobody else writes it meanwhile."""
    path = Path(path)
    for leftover in path.parent.glob(f".{path.name}.????????.tmp"):
        with suppress(OSError):
            leftover.unlink()
