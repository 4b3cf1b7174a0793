"""Items that a thread makes while the caller works on those before: decoding beside a network, which needs no Python."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")

AHEAD = 2
"""Images that wait, at most."""
_CHECK_EVERY = 0.1  # seconds between two looks at whether the caller has gone, while there is no room for an item

_Made = tuple[T | None, BaseException | None, bool]  # an item, or an error, and whether it is the end


def read_ahead(items: Iterable[T], limit: int = AHEAD) -> Generator[T, None, None]:
    """The items in their order, made by a thread; at most `limit` of them wait. An error comes at its place.

    `close()`, or the end, waits for the item in the making: afterwards the thread is gone, and a generator of items closed.
    """
    ready: queue.Queue[_Made[T]] = queue.Queue(limit)
    gone = threading.Event()
    thread = threading.Thread(target=_make, args=(items, ready, gone), daemon=True)
    thread.start()
    try:
        while True:
            item, error, is_end = ready.get()
            if error is not None:
                raise error
            if is_end:
                return
            yield item  # type: ignore[misc]  # one that is None is an item, too
    finally:
        gone.set()
        thread.join()


def _make(items: Iterable[T], ready: queue.Queue[_Made[T]], gone: threading.Event) -> None:
    """Put the items into the queue until they end or nobody wants them."""
    try:
        if isinstance(items, Generator):
            with closing(items):
                _put_all(items, ready, gone)
        else:
            _put_all(items, ready, gone)
        _put((None, None, True), ready, gone)
    except BaseException as error:  # the caller's to handle
        _put((None, error, True), ready, gone)


def _put_all(items: Iterable[T], ready: queue.Queue[_Made[T]], gone: threading.Event) -> None:
    for item in items:
        if not _put((item, None, False), ready, gone):
            return


def _put(made: _Made[T], ready: queue.Queue[_Made[T]], gone: threading.Event) -> bool:
    """Put it as soon as there is room; whether anybody is there to take it."""
    while not gone.is_set():
        try:
            ready.put(made, timeout=_CHECK_EVERY)
            return True
        except queue.Full:
            continue
    return False
