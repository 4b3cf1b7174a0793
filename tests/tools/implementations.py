"""Implementations for `test_benchmark.py`, apart from it: each process that measures one imports this file and little else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


def sleeper(seconds: float) -> Callable[[], dict[str, float]]:
    """Work that takes that long."""

    def work() -> dict[str, float]:
        time.sleep(seconds)
        return {"AP": 0.5}

    return work


def waiting() -> Callable[[], None]:
    """Work that takes longer than anybody waits."""
    return lambda: time.sleep(600)


def failing() -> Callable[[], None]:
    """Fails before it is ready."""
    raise ValueError("no such thing")


def ending() -> Callable[[], None]:
    """Its process ends, as if the system had stopped it."""
    os._exit(1)


def huge_pages() -> Callable[[], dict[str, str]]:
    """Work that returns what its environment says about huge pages."""
    return lambda: {"huge pages": os.environ["THP_MEM_ALLOC_ENABLE"]}
