"""The output folder of a run: held by one process at a time, for as long as the run lasts.

The lock is the system's, on a file in the folder: a process that is killed lets go of it. The file says who holds it.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from backbones.errors import printable
from backbones.files import read_regular
from detection.engine.distributed import World, on_main
from detection.engine.writing import writing
from detection.errors import TrainingError

logger = logging.getLogger(__name__)

LOCK = "run.lock"

PATIENCE = 1.0
"""Seconds to wait for the lock: a start that is refused for what the folder holds has it for an instant."""
TRIES = 3
"""How often it is waited for while nobody is named who has it: one run has just ended, and another begins."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What file systems say that have no locks, or whose lock server does not answer."""


@dataclass(frozen=True)
class RunFolder:
    """A folder that this process holds, or, in the other processes of a distributed run, one that rank 0 holds."""

    path: Path
    identity: tuple[int, int] | None  # device and inode of the lock file, on rank 0

    def require_intact(self) -> None:
        """Raise TrainingError where the folder was deleted, emptied or replaced since it was taken."""
        if self.identity is not None and _identity(self.path / LOCK) != self.identity:
            raise TrainingError(
                f"{self.path} was deleted, emptied or replaced during the run ({LOCK} is gone), so nothing more is written "
                f"there: start the run again, or --resume one whose folder you can bring back"
            )


@contextmanager
def hold_folder(world: World, output_dir: Path) -> Iterator[RunFolder]:
    """Hold `output_dir` until the context ends; called by all processes, rank 0 holds it. The folder is made.

    A thread that holds the folder already may hold it again. Where nothing was written into a folder that was made here, it
    is removed again. Raises TrainingError in all processes where another process or thread holds it, or it cannot be
    written. A file system without locks is told in a warning, and the run is not protected.
    """
    with ExitStack() as held:

        def take() -> tuple[int, int] | None:
            return held.enter_context(_held(output_dir))

        identity = on_main(world, take)
        yield RunFolder(output_dir, identity if world.is_main else None)


@contextmanager
def _held(output_dir: Path) -> Iterator[tuple[int, int] | None]:
    """Hold the folder's lock; gives the identity of its file, None without a lock."""
    made = _make(output_dir)
    path = Path(os.path.realpath(output_dir)) / LOCK
    # One object for each path and thread: it may be acquired again, where another object would be refused.
    lock = FileLock(path, timeout=PATIENCE, is_singleton=True, fallback_to_soft=False)
    is_outermost = not lock.is_locked
    try:
        if not _acquire(lock, output_dir):
            yield None
            return
        try:
            if is_outermost:
                _write_holder(path)
            yield _identity(path)
        finally:
            if is_outermost:
                _clear(path)
            lock.release()
    finally:
        _remove_empty(made)


def _make(output_dir: Path) -> list[Path]:
    """Make the folder and those above it; returns those that were not there, the innermost first."""
    with writing(output_dir):
        absent = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
        output_dir.mkdir(parents=True, exist_ok=True)
    return absent


def _acquire(lock: FileLock, output_dir: Path) -> bool:
    """Take the lock; False where the file system has none."""
    holder = None
    for _ in range(TRIES):
        try:
            lock.acquire()
        except Timeout:
            holder = _read_holder(Path(lock.lock_file))
            if holder is not None:
                break
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                with writing(output_dir / LOCK):
                    raise
            logger.warning(
                "%s is not protected against a second run: its file system cannot lock files (%s)", output_dir, error.strerror
            )
            return False
        else:
            return True
    raise TrainingError(
        f"{output_dir} is in use by another run, {holder or f'which {LOCK} does not name'}: wait until it ends, or choose "
        f"another output folder (--output-dir)"
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _write_holder(path: Path) -> None:
    """Say in the lock file who holds it. On Windows and on a full disk it stays as it was."""
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    with suppress(OSError):
        path.write_text(json.dumps(holder), encoding="utf-8")


def _read_holder(path: Path) -> str | None:
    """Who holds the lock; None where its file does not tell, as in the instants after it was taken and before it is left."""
    # ValueError: no JSON; KeyError and TypeError: JSON of somebody else.
    with suppress(OSError, ValueError, KeyError, TypeError):
        holder = json.loads(read_regular(path, 1000))
        return printable(f"process {holder['pid']} on {holder['host']} since {holder['since']}")
    return None


def _clear(path: Path) -> None:
    """Leave an empty lock file, or none where the run has written nothing else. The lock is still held."""
    with suppress(OSError):
        if list(path.parent.iterdir()) == [path]:
            path.unlink()
        else:
            os.truncate(path, 0)


def _remove_empty(folders: list[Path]) -> None:
    """Remove these folders, the innermost first, as far as they are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
