"""Ctrl-C, SIGTERM and SIGHUP, which stop a run after its current step, and the end of its output's reader, which does too."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

CLOSED_OUTPUT = 13
"""SIGPIPE's number, where there is one and where not: a program that does not catch it ends by it when its reader has gone."""
DATA_GRACE = 5.0
"""Seconds after a signal in which data that the run waits for may still come, so that the step is finished."""


class StopSignals:
    """While this context lasts, the first signal is only noted; a second one acts as it always does."""

    def __init__(self) -> None:
        self.received: int | None = None  # number of the signal that this process got
        self.agreed: int | None = None  # number of the signal that all processes stop for
        self._previous: dict[int, Any] = {}
        self._raises_at_once = False
        self._waits_for_data = False
        self._previous_alarm: Any = None

    def __enter__(self) -> StopSignals:
        # Python delivers signals to the main thread only; elsewhere they are not ours to catch.
        if threading.current_thread() is threading.main_thread():
            for number in _stopping_signals():
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()
        if self._raises_at_once:
            raise KeyboardInterrupt
        if self._waits_for_data:
            self._limit_wait()

    def note_closed_output(self) -> None:
        """Stop as if SIGPIPE had come, unless another signal has: Python ignores that one, and raises an error instead."""
        self.received = self.received or CLOSED_OUTPUT

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    @contextmanager
    def raising_at_once(self) -> Iterator[None]:
        """While this context lasts, a signal raises KeyboardInterrupt: for work that a resumed run does again anyway."""
        self._raises_at_once = True
        try:
            if self.received is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises_at_once = False

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """While this context lasts, a signal raises KeyboardInterrupt after `DATA_GRACE` seconds: the data may never come."""
        self._waits_for_data = True
        try:
            if self.received is not None:
                self._limit_wait()
            yield
        finally:
            self._waits_for_data = False
            if self._previous_alarm is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, self._previous_alarm)
                self._previous_alarm = None

    def _limit_wait(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if not hasattr(signal, "setitimer"):
            raise KeyboardInterrupt
        self._previous_alarm = signal.signal(signal.SIGALRM, self._give_up)
        signal.setitimer(signal.ITIMER_REAL, DATA_GRACE)

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        if self._waits_for_data:
            raise KeyboardInterrupt


def _stopping_signals() -> list[int]:
    """The signals that stop a run. `nohup` and shells that keep a job ignore SIGHUP, and so does the run then."""
    numbers = [int(signal.SIGINT), int(signal.SIGTERM)]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(int(signal.SIGHUP))
    return numbers
