"""Items of a data set, loaded by worker processes: in order, and never waited for in vain.

A worker that dies, loops or cannot pass on what it loaded is an error of one line; signals are heard while the main process
waits; workers end with the main process, however that ends.
"""

from __future__ import annotations

import errno
import multiprocessing
import multiprocessing.connection
import multiprocessing.queues
import os
import signal
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from backbones.errors import first_names, printable
from backbones.modes import own_defaults
from detection.errors import DatasetError

T = TypeVar("T")

CHECK_EVERY = 1.0  # seconds between two looks at the workers while nothing comes; what comes is passed on at once
_NO_SHARED_MEMORY, _NO_FILE_HANDLES = 86, 87  # exit codes of a worker
_LEFT_TO_MAIN = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]
_STOP_SIGNALS = [*_LEFT_TO_MAIN, signal.SIGTERM]
_REMEDY = (
    "free some memory, lower data.workers (0: the main process loads the images), "
    "or give a container more memory (Docker: --shm-size, --memory)"
)
_TOO_MANY_FILES = "the loader's workers need more open files than the system allows: raise `ulimit -n`, or lower data.workers"
_END = object()

NameFiles = Callable[[Any], Iterable[str]]
"""An element of the order in which a loader goes through a data set -> the images that it stands for, to be named."""


def load(
    dataset: TorchDataset[Any],
    order: Iterable[Any],
    workers: int,
    timeout: float,
    *,
    name_files: NameFiles,
    collate: Callable[[list[Any]], Any] | None = None,
    pin_memory: bool = False,
) -> Generator[Any, None, None]:
    """The data set's items in the order given, loaded ahead by `workers` processes, or here where that is 0.

    With `collate` an element of the order is a list of indices, and what `collate` makes of their items comes. Raises
    DatasetError where a worker dies, or gives nothing for `timeout` seconds (0: no limit). `close()` ends the workers.
    """
    asked = _Recorded(order)
    loader: DataLoader[Any] = _quietly(
        lambda: DataLoader(
            dataset,
            batch_size=1 if collate else None,
            sampler=None if collate else asked,
            batch_sampler=asked if collate else None,
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=start_worker,
            pin_memory=pin_memory,
            timeout=CHECK_EVERY if workers else 0,
        )
    )
    if workers == 0:
        with own_defaults():
            items = iter(loader)
        yield from items
        return
    running = _Workers(_start(loader), timeout, lambda: name_files(asked.waiting[0]))
    try:
        while (item := running.next()) is not _END:
            asked.waiting.popleft()
            yield item
    finally:
        running.kill()


class _Recorded:
    """An order that remembers what was asked of the workers and has not come yet, oldest first."""

    def __init__(self, order: Iterable[Any]) -> None:
        self.order = order
        self.waiting: deque[Any] = deque()

    def __iter__(self) -> Iterator[Any]:
        for element in self.order:
            self.waiting.append(element)
            yield element


def start_worker(worker: int) -> None:
    """What each worker process does at its start.

    It uses one thread, as the processes run in parallel. Ctrl-C and a terminal that closes are left to the main process,
    which ends the workers.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    for number in _LEFT_TO_MAIN:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        # torchrun, `timeout` and schedulers signal the whole process group; the main process needs its workers to finish
        # the step that it saves.
        os.setpgid(0, 0)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)  # `_start` blocks them
    # What cannot be passed on would be dropped after a traceback, and be waited for in vain.
    setattr(multiprocessing.queues.Queue, "_on_queue_feeder_error", staticmethod(_end_undelivered))  # noqa: B010
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_undelivered(error: Exception, item: object) -> None:
    """End this worker, with a code that tells the main process why."""
    text = str(error)
    if "shared memory" in text or "shm" in text or getattr(error, "errno", None) == errno.ENOSPC:
        no_handles = "Too many open files" in text
        os._exit(_NO_FILE_HANDLES if no_handles else _NO_SHARED_MEMORY)
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        os._exit(_NO_FILE_HANDLES)
    traceback.print_exception(error)  # a bug
    os._exit(1)


def _end_with(parent: int) -> None:
    """End this worker when its parent is gone: one that is busy would go on and hold its memory."""
    while os.getppid() == parent:
        time.sleep(CHECK_EVERY)
    os._exit(1)


def _start(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the workers. Raises DatasetError where the system, or this program, cannot have them."""
    process = multiprocessing.current_process()
    if process.daemon or getattr(process, "_inheriting", False):
        raise DatasetError(
            "data.workers: this process may not start others: set data.workers to 0, or, in a script, put what it does "
            'below `if __name__ == "__main__":`'
        )
    try:
        # A signal to the process group must not find a worker that has not left it, with this process's handlers.
        with own_defaults(), _no_stop_signals(), _own_child_handler():
            return _quietly(lambda: iter(loader))
    except (OSError, MemoryError) as error:
        _forget_half_started(error)
        reason = getattr(error, "strerror", None) or "not enough memory"
        raise DatasetError(f"cannot start the {loader.num_workers} processes of data.workers: {reason}; {_REMEDY}") from None


def _quietly(make: Callable[[], T]) -> T:
    """What `make` returns, without torch's warning of more workers than processors: they may wait for a disk."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        return make()


def _forget_half_started(error: BaseException) -> None:
    """End the workers of an iterator that could not be made, which torch would try in vain, with a traceback."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        iterator: Any = frame.f_locals.get("self")
        if hasattr(type(iterator), "_shutdown_workers"):
            for worker in getattr(iterator, "_workers", ()):
                worker.kill()
            iterator._shutdown = True


@contextmanager
def _no_stop_signals() -> Iterator[None]:
    """Signals that end a program wait until the context ends."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _own_child_handler() -> Iterator[None]:
    """Leave the handler of SIGCHLD as it was.

    Torch's raises an error wherever the main thread happens to be when a worker dies, be it in the middle of a step;
    `_Workers` looks for dead workers where it waits for them.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if before is not None:  # a handler that Python does not know
            signal.signal(signal.SIGCHLD, before)


class _Workers:
    """The workers of one pass over a data set. `awaited` gives the names of the images that are waited for."""

    def __init__(self, iterator: Iterator[Any], timeout: float, awaited: Callable[[], Iterable[str]]) -> None:
        self.iterator = iterator
        self.processes: list[multiprocessing.Process] = list(getattr(iterator, "_workers", ()))
        self.timeout, self.awaited = timeout, awaited
        self.waiting_since: float | None = None
        self.ended = threading.Event()
        if timeout > 0:
            threading.Thread(target=self._watch, daemon=True).start()

    def next(self) -> Any:
        """The next item, or _END. Raises DatasetError where it will not come, or not in time."""
        self.waiting_since = time.monotonic()
        try:
            while True:
                try:
                    return next(self.iterator, _END)
                except Exception as error:
                    self._raise_fault(error)
                if self._is_late():
                    self._raise_late()
        finally:
            self.waiting_since = None

    def kill(self) -> None:
        """End the workers at once, whatever they do: they hold nothing that is needed."""
        self.ended.set()
        with _own_child_handler():
            if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for worker in self.processes:
                worker.kill()
            for worker in self.processes:
                worker.join()

    def _watch(self) -> None:
        """Kill the workers where the wait lasts much too long: a worker can stop in the middle of passing an item on."""
        while not self.ended.wait(CHECK_EVERY):
            if self._is_late(by=2 * CHECK_EVERY):
                for worker in self.processes:
                    worker.kill()
                return

    def _is_late(self, by: float = 0.0) -> bool:
        since = self.waiting_since
        return since is not None and 0 < self.timeout <= time.monotonic() - since - by

    def _raise_fault(self, error: Exception) -> None:
        """Return where nothing came yet. Raises DatasetError for a dead worker, and what a worker raised, which is a bug."""
        if self._is_late():
            self._raise_late()
        if isinstance(error, OSError | EOFError):
            # What a worker passed on can no longer be fetched from it; its end may not be known yet.
            ended = multiprocessing.connection.wait([worker.sentinel for worker in self.processes], timeout=CHECK_EVERY)
            for worker in self.processes:
                if worker.sentinel in ended:
                    worker.join(CHECK_EVERY)
        for worker in self.processes:
            if worker.exitcode is not None:
                raise DatasetError(_describe_death(worker, self.awaited())) from None
        if "Too many open files" in str(error) or "ancdata" in str(error):
            raise DatasetError(_TOO_MANY_FILES) from None
        if not str(error).startswith("DataLoader timed out"):
            raise error

    def _raise_late(self) -> NoReturn:
        raise DatasetError(
            f"nothing came from the loader's workers for {self.timeout:g} s (data.loader_timeout)"
            f"{_waiting_for(self.awaited())}: is a disk or network without an answer, an augmentation without end, or memory "
            f"short? Raise data.loader_timeout (0: wait for ever), or {_REMEDY}"
        ) from None


def _describe_death(worker: multiprocessing.Process, files: Iterable[str]) -> str:
    code = worker.exitcode or 0
    if code == _NO_FILE_HANDLES:
        return _TOO_MANY_FILES
    if code in (_NO_SHARED_MEMORY, -getattr(signal, "SIGBUS", 0)):
        return f"shared memory (/dev/shm) is too small for the images that the loader's workers pass on: {_REMEDY}"
    if code == -getattr(signal, "SIGKILL", 9):
        how = "was killed, as systems do when memory is short"
    elif code < 0:
        how = f"was ended by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"was ended by signal {-code}"
    else:
        how = f"ended by itself, with exit code {code}"
    hint = ""
    if multiprocessing.get_start_method(allow_none=True) not in (None, "fork"):
        hint = 'a script must put what it does below `if __name__ == "__main__":`; otherwise '
    return f"a worker of the loader {how}{_waiting_for(files)}: {hint}{_REMEDY}"


def _waiting_for(files: Iterable[str]) -> str:
    """The images that are waited for, in the middle of a message."""
    return f", waiting for {first_names([printable(file) for file in files])}"
