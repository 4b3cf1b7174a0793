"""Files: only regular ones are read, of a bounded size; written ones are absent, the old, or the new, whole."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_NAME_BYTES = 240  # of a name that others are added to: file systems take 255


def expand_home(path: str | Path) -> Path:
    """A path as people write it: "~/x" is in the user's home, "~name/x" in that user's, where there is such a home.

    A shell expands neither in `--option=~/x` or `key=~/x`, and nobody does in a file.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def exists(path: str | Path) -> bool:
    """Whether there is something of that name; a name that is too long or holds a NUL names nothing, where pathlib raises."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: str | Path) -> bool:
    """Whether there is a regular file of that name; a name that is too long or holds a NUL names none, where pathlib raises."""
    return os.path.isfile(path)  # noqa: PTH113


@contextmanager
def open_regular(path: str | Path) -> Iterator[BinaryIO]:
    """A regular file, or a link to one, open for reading. All that reads a user's file opens it here.

    Raises OSError: no such file, or a folder, pipe or device, from which reading could wait or go on for ever.
    """
    # Opening a pipe waits for its writer, unless it is told not to; Windows has no such flag, and no such pipes.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _require_regular(descriptor, path)
    except OSError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _require_regular(descriptor: int, path: str | Path) -> None:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file, but a pipe or a device", str(path))


def read_regular(path: str | Path, max_bytes: int) -> bytes:
    """All of a regular file. Raises OSError as `open_regular` does, or where it is larger than `max_bytes`."""
    with open_regular(path) as file:
        # Not `read(max_bytes)`: that takes as much memory before it reads.
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise OSError(
                errno.EFBIG, f"too large: {size / 2**20:.4g} MB, and at most {max_bytes / 2**20:.4g} MB are read", str(path)
            )
        return file.read(size)


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write bytes to, which takes the place of `path` when the block ends: at any instant `path` is absent, the
    old file, or the new one, whole and on the disk. If the block raises, the old file stays as it was.

    The folder is made. Raises OSError where it cannot be written, which names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two processes that write one path must not write into one file.
    temporary = path.with_name(f"{_temporary_stem(path)}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # the system does not say which file had no room
        with suppress(OSError):
            temporary.unlink()
        raise


def _temporary_stem(path: Path) -> str:
    """How the names of the files begin that take the place of `path`: hidden, and short enough for what follows."""
    return "." + os.fsdecode(os.fsencode(path.name)[:_NAME_BYTES])


def write_whole(path: str | Path, contents: bytes | str) -> None:
    r"""Write bytes, or text as UTF-8, half characters as `\ud800`, through `replacing`. Raises OSError."""
    with replacing(path) as file:
        file.write(contents.encode(errors="backslashreplace") if isinstance(contents, str) else contents)


def remove_leftovers(path: str | Path) -> None:
    """Delete what killed processes left of `replacing(path)`. To be called where nobody else writes it meanwhile."""
    path = Path(path)
    for leftover in path.parent.glob(f"{glob.escape(_temporary_stem(path))}.????????.tmp"):
        with suppress(OSError):
            leftover.unlink()
