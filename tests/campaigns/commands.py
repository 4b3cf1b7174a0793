"""Commands of `resdet` as processes of their own, forked from one that has imported everything: a start takes milliseconds."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What the commands import late; whoever imports this module pays for it once.
import albumentations  # noqa: F401
import torch
import torch._dynamo  # what the first optimizer imports, in seconds
from PIL import Image

import detection.cli.commands.pretrain
import detection.cli.commands.train
import detection.inference.evaluate
import detection.pretraining
import detection.training  # noqa: F401
from detection.cli.main import command_main, run
from detection.weights.checkpoint import software_versions


def prepare() -> None:
    """To be called once before the first start: forks must find no thread and nothing left to look up."""
    torch.set_num_threads(1)
    software_versions()  # asks git
    Image.init()


@dataclass(frozen=True)
class Started:
    """A command that runs, its output in a file."""

    pid: int
    output: Path

    def send(self, number: int) -> None:
        """Send a signal; nothing happens where the process has ended meanwhile."""
        os.kill(self.pid, number)  # not yet waited for, so the number is still its own

    def wait(self) -> int:
        """The exit code, or minus the number of the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def said(self) -> str:
        """Standard output and standard error together."""
        return self.output.read_text(encoding="utf-8", errors="replace")


def start(command: str, arguments: Sequence[object], output: Path, *, not_before: float = 0.0) -> Started:
    """Start `resdet command arguments...` in a process group of its own, at the moment `not_before` of time.monotonic()."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(b"")  # here: the process may be killed before it does anything
    pid = os.fork()
    if pid:
        return Started(pid, output)
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        time.sleep(max(0.0, not_before - time.monotonic()))
        code = run(command_main(command), [str(argument) for argument in arguments])
    except KeyboardInterrupt:  # before the command's own handling, or after it
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
