"""Worker processes that die, loop, cannot pass on what they loaded, or lose their main process: never a wait in vain."""

import errno
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.data.workers import load
from detection.errors import DatasetError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and exit codes are POSIX's")


class Undeliverable:
    """What cannot be pickled by the worker that made it."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self) -> str:
        raise self.error


class Numbers(torch.utils.data.Dataset):
    """0, 1, 2, ..., until something happens to the worker at number 5."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.happens = happens

    def __getitem__(self, index: int) -> object:
        return self.happens() if index == 5 else torch.tensor(index)


def numbers(happens: Callable[[], object], workers: int = 2, timeout: float = 60) -> Generator[Any, None, None]:
    return load(Numbers(happens), range(9), workers, timeout, name_files=lambda index: [f"{index}.jpg"])


NO_SHARED_MEMORY = RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)")
NO_HANDLES = OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed, as systems do when memory is short"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "was ended by SIGSEGV"),
        (lambda: os.kill(os.getpid(), signal.SIGBUS), "shared memory (/dev/shm) is too small"),
        (lambda: os._exit(3), "ended by itself, with exit code 3"),
        (lambda: Undeliverable(NO_SHARED_MEMORY), "shared memory (/dev/shm) is too small"),
    ],
)
def test_a_worker_that_dies_is_one_line(happens, words, workers):
    handler = signal.getsignal(signal.SIGCHLD)
    got: list[Any] = []
    with pytest.raises(DatasetError) as caught:
        got.extend(numbers(happens, workers))
    # What a dead worker had passed on may be lost with it.
    assert [int(value) for value in got] == list(range(len(got))) and len(got) <= 5
    text = str(caught.value)
    assert re.search(r"waiting for '[0-5]\.jpg'|/dev/shm", text)
    assert words in text and "\n" not in text
    assert all(word in text for word in ("memory", "--shm-size", "data.workers"))
    assert signal.getsignal(signal.SIGCHLD) is handler


def test_too_few_file_handles_is_one_line():
    with pytest.raises(DatasetError, match="ulimit -n"):
        list(numbers(lambda: Undeliverable(NO_HANDLES)))


def test_workers_that_cannot_start_are_one_line(monkeypatch, capfd):
    started: list[multiprocessing.Process] = []

    def start(process: multiprocessing.Process) -> None:
        if len(started) == 2:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        started.append(process)
        real(process)

    real = multiprocessing.Process.start
    monkeypatch.setattr(multiprocessing.Process, "start", start)
    with pytest.raises(DatasetError, match=r"cannot start the 3 .* data\.workers: Cannot allocate memory.*--shm-size"):
        list(numbers(lambda: None, workers=3))
    for process in started:
        process.join(10)
        assert process.exitcode is not None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("happens", [lambda: time.sleep(600), lambda: os.kill(os.getpid(), signal.SIGSTOP)])
def test_a_worker_that_gives_nothing_is_one_line(happens):
    with pytest.raises(DatasetError, match=r"for 1.5 s \(data.loader_timeout\), waiting for '[3-5].jpg'") as caught:
        list(numbers(happens, timeout=1.5))
    assert all(word in str(caught.value) for word in ("memory", "--shm-size", "data.workers"))


def test_without_a_limit_slow_items_come():
    assert len(list(numbers(lambda: time.sleep(2.5), timeout=0))) == 9


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError, match="Traceback"):
        list(numbers(lambda: 1 // 0))


def test_closing_ends_workers_that_are_busy():
    stream = numbers(lambda: time.sleep(600))
    assert next(stream) == 0
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 4


ORPHANS = """
import os, time, torch
from tests.data.test_workers import Numbers
from detection.data.workers import load
def busy():
    print(os.getpid(), flush=True)
    while True:
        pass
for item in load(Numbers(busy), [5, 5], 2, 0, name_files=lambda index: []):
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_main_process(number):
    process = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = [int(process.stdout.readline()) for _ in range(2)]
    try:
        process.send_signal(number)
        process.wait(timeout=60)
        until = time.monotonic() + 60
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:  # busy ones would slow down all that follows
        for pid in (process.pid, *workers):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


SPAWNING = """
import multiprocessing, sys
from pathlib import Path
from typing import Any
multiprocessing.set_start_method("spawn")
from detection.data.catalog import load_dataset
from detection.data.loader import test_loader
from tests.data.test_loader import CLASSES, voc_source
{indent}dataset = load_dataset([voc_source(Path(sys.argv[1]))], CLASSES)
{indent}print(len(list(test_loader(dataset.records, workers=1))))
"""


def test_a_script_without_main_under_spawn_is_told_so(dataset, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SPAWNING.format(indent=""))
    command = [sys.executable, str(script), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 1 and 'if __name__ == "__main__"' in done.stderr.splitlines()[-1]
    assert "bootstrapping" not in done.stderr
