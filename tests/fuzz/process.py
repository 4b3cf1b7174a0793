"""A command in a process of its own, forked from one that has imported everything: a case takes tenths of a second."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detection.cli.main import main

MEMORY = 8 * 2**30
"""Bytes of address space; a command of the sandbox needs about 3 GB of it, most of it never touched."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended. `code`: the exit code, minus the signal's number, or None where it ran out of time."""

    command: tuple[str, ...]
    code: int | None
    out: str
    err: str
    seconds: float


def run_command(command: Sequence[str], folder: Path, time_limit: float) -> Outcome:
    """Run `resdet COMMAND ...` in a folder. To be called before this process has used threads."""
    out, err = folder / ".stdout", folder / ".stderr"
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_the_command(command, folder, out, err)
    code = _wait(child, start + time_limit)
    seconds = time.monotonic() - start
    said = [path.read_text(errors="backslashreplace") if path.exists() else "" for path in (out, err)]
    for path in (out, err):
        path.unlink(missing_ok=True)
    return Outcome(tuple(command), code, out=said[0], err=said[1], seconds=seconds)


def _be_the_command(command: Sequence[str], folder: Path, out: Path, err: Path) -> None:
    code = 99
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for path, descriptor in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115, PTH123
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115, PTH123
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115, PTH123
        os.chdir(folder)
        code = main(list(command))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int, deadline: float) -> int | None:
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)
