"""The process that measures one implementation.

Its environment is set before torch, which reads it once, is imported: nothing at the top of this file imports torch.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from tools.benchmarks.benchmark import Setup, Work

Request = Literal["warm up", "count", "time"]
"""Do the work once untimed, do that and count its FLOPs, or time the work."""


@dataclass(frozen=True)
class WorkerSettings:
    """How a process measures."""

    threads: int
    device: str
    repeats: int  # how often the work is done for one timing


def start(environment: Mapping[str, str], pickled: bytes, requests: Connection) -> None:
    """What the process runs. `pickled` is the pair of a Setup and WorkerSettings."""
    os.environ.update(environment)
    setup, settings = pickle.loads(pickled)
    serve(setup, settings, requests)


def serve(setup: Setup, settings: WorkerSettings, requests: Connection) -> None:
    """Answer requests until the connection ends. A failure is an answer too."""
    import torch

    torch.set_num_threads(settings.threads)
    work: Work | None = None
    while True:
        try:
            request = requests.recv()
        except EOFError:
            return
        try:
            work = work or setup()
            requests.send(measure(work, request, settings))
        except (RuntimeError, ValueError, ImportError, OSError) as error:
            requests.send({"error": f"{type(error).__name__}: {error}"})


def measure(work: Work, request: Request, settings: WorkerSettings) -> dict[str, Any]:
    """Do the work: seconds, gigaflops, peak_mb and the numbers that it returns."""
    import torch

    from detection.engine.log import peak_memory_mb

    device = torch.device(settings.device)
    gigaflops, seconds, numbers = 0.0, 0.0, None
    if request != "time":
        work()  # the first time prepares more than it computes
        gigaflops = count_gigaflops(work) if request == "count" else 0.0
    else:
        work()  # takes the memory again that was given back, or taken away, while the others were timed
        started = _clock(device)
        for _ in range(settings.repeats):
            numbers = work()
        seconds = (_clock(device) - started) / settings.repeats
    peak = peak_memory_mb(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the others need it
    return {
        "seconds": seconds,
        "gigaflops": gigaflops,
        "peak_mb": peak,
        "numbers": dict(numbers) if isinstance(numbers, Mapping) else {},
    }


def count_gigaflops(work: Work) -> float:
    """Of the matrix products and convolutions of doing the work once, two per multiply-add; 0 for work without torch."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def _clock(device: torch.device) -> float:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
