"""A contest: several implementations of the same work, each in a process of its own, taking turns on the whole machine.

Turns meet a busy moment of the machine alike, and a process of its own gives each its own peak of memory.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch

from detection.engine.log import peak_memory_mb
from detection.errors import TrainingError

Work = Callable[[], object]
"""Does the work once. Where it returns a dict, its numbers are kept, to be compared."""

Build = Callable[[], Work]
"""Called in the contestant's own process: it must be a module's function, or a `partial` of one."""


@dataclass
class Result:
    """What a contestant needed: seconds of each turn, peak memory of its process or GPU, multiply-adds of a turn."""

    seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    gigaflops: float = 0.0  # two for a multiply-add, as torch counts the calls of matrix products and convolutions
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Median seconds of a turn."""
        return statistics.median(self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rate = {"gflop_per_second": round(self.gigaflops / self.median, 1)} if self.gigaflops else {}
        return {
            "median_seconds": round(self.median, 4),
            "seconds": [round(value, 4) for value in self.seconds],
            "peak_mb": round(self.peak_mb),
            **rate,
            **self.numbers,
        }


def contest(
    builds: Mapping[str, Build],
    *,
    rounds: int = 3,
    threads: int | None = None,
    device: str = "cpu",
    report: Callable[[str], object] = str,
) -> dict[str, Result]:
    """Time each contestant `rounds` times, in turns, after an untimed one. Raises TrainingError where one fails."""
    context = multiprocessing.get_context("spawn")
    results = {name: Result() for name in builds}
    players: dict[str, tuple[Any, Connection]] = {}
    try:
        for name, build in builds.items():
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_play, args=(build, theirs, threads or torch.get_num_threads(), device), daemon=True
            )
            process.start()
            players[name] = (process, ours)
            report(f"{name}: getting ready")
            _ask(name, ours, "count", results[name])
        for number in range(rounds):
            for name, (_, ours) in players.items():
                _ask(name, ours, "time", results[name])
                report(f"{name}: turn {number + 1} of {rounds}: {results[name].seconds[-1]:.3f} s")
    finally:
        for process, ours in players.values():
            ours.close()
            process.join(10)
            process.terminate()
    return results


def _ask(name: str, player: Connection, what: str, result: Result) -> None:
    """One turn of one contestant."""
    try:
        player.send(what)
        answer = player.recv()
    except (EOFError, BrokenPipeError):
        raise TrainingError(f"'{name}' of the benchmark ended without an answer: it may have run out of memory") from None
    if "error" in answer:
        raise TrainingError(f"'{name}' of the benchmark failed: {answer['error']}")
    if what == "count":
        result.gigaflops = answer["gigaflops"]
    else:
        result.seconds.append(answer["seconds"])
    result.peak_mb, result.numbers = answer["peak_mb"], answer["numbers"]


def _play(build: Build, asked: Connection, threads: int, device: str) -> None:
    """The contestant's process: answers until the connection ends."""
    torch.set_num_threads(threads)
    work: Work | None = None
    while True:
        try:
            what = asked.recv()
        except EOFError:
            return
        try:
            work = work or build()
            asked.send(_turn(work, what, torch.device(device)))
        except (RuntimeError, ValueError, ImportError, OSError) as error:
            asked.send({"error": f"{type(error).__name__}: {error}"})


def _turn(work: Work, what: str, device: torch.device) -> dict[str, Any]:
    if what == "count":
        work()  # the first turn prepares more than it computes
        gigaflops = count_gigaflops(work)
        return {"gigaflops": gigaflops, "peak_mb": peak_memory_mb(device), "numbers": {}}
    started = _clock(device)
    numbers = work()
    seconds = _clock(device) - started
    return {
        "seconds": seconds,
        "peak_mb": peak_memory_mb(device),
        "numbers": dict(numbers) if isinstance(numbers, Mapping) else {},
    }


def count_gigaflops(work: Work) -> float:
    """Of the matrix products and convolutions that one turn calls; 0 for work without torch."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def ratios(results: Mapping[str, Result]) -> dict[str, dict[str, dict[str, float]]]:
    """For each of our entries ("ours", "ours bf16") and each other side: how many times as fast, and what share of memory.

    Only those whose turn is the same work are compared: the entries that are neither ours nor a yardstick.
    """
    own = {name: result for name, result in results.items() if name.split()[0] == "ours"}
    others = {name: result for name, result in results.items() if name not in own and not name.startswith("matrix product")}
    return {
        name: {
            other: {
                "speed": round(result.median / mine.median, 2),
                "memory": round(mine.peak_mb / max(result.peak_mb, 1e-9), 2),
            }
            for other, result in others.items()
        }
        for name, mine in own.items()
    }


def tell(sentence: str) -> None:
    """A line on stderr, so that a long contest shows that it lives."""
    print(sentence, file=sys.stderr, flush=True)
