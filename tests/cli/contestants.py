"""Contestants for `test_benchmark.py`. A module of their own: each process that plays one imports it, and little else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


def sleeper(seconds: float) -> Callable[[], dict[str, float]]:
    """Its turn takes that long."""
    return lambda: time.sleep(seconds) or {"AP": 0.5}


def waiting() -> Callable[[], None]:
    """Its turn takes longer than anybody waits."""
    return lambda: time.sleep(600)


def failing() -> Callable[[], None]:
    """Cannot even get ready."""
    raise ValueError("no such thing")


def ending() -> Callable[[], None]:
    """Its process ends, as one that the system stops."""
    os._exit(1)


def told() -> Callable[[], dict[str, str]]:
    """Tells what its environment says about huge pages."""
    return lambda: {"huge pages": os.environ["THP_MEM_ALLOC_ENABLE"]}
