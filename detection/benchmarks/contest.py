"""A contest: several implementations of the same work, each in a process of its own, taking turns on the whole machine.

Turns meet a busy moment of the machine alike, and a process of its own gives each its own peak of memory. A contestant may be
a team: several processes that do their turn at the same time.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any
from unittest.mock import patch

import torch

from detection.engine.log import peak_memory_mb
from detection.errors import TrainingError

Work = Callable[[], object]
"""Does the work once. Where it returns a dict, those of the last turn are kept: numbers to be compared, a profile."""

Build = Callable[[], Work]
"""Called in the contestant's own process: it must be a module's function, or a `partial` of one."""

PEERS = ("torchvision", "plain loop")
"""Begin the names of contestants that use torch without this package."""

WITHOUT_US = {"THP_MEM_ALLOC_ENABLE": "0"}
"""Their environment: what importing `detection` does for all of torch is not theirs."""

YARDSTICK = "matrix product"
"""Begins the names of contestants that tell what the machine gives; their last word is the precision, as everybody's."""


@dataclass
class Result:
    """What a contestant needed: seconds of each turn, peak memory of its processes or GPU, multiply-adds of a turn."""

    seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0  # 0 where it is not known
    gigaflops: float = 0.0  # two for a multiply-add, as torch counts the calls of matrix products and convolutions
    images: int = 0  # of a turn; 0 where there are none to count
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Median seconds of a turn."""
        return statistics.median(self.seconds)

    @property
    def speed(self) -> float:
        """Images a second, or turns a second where there are no images."""
        return max(self.images, 1) / self.median

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "median_seconds": round(self.median, 4),
            "seconds": [round(value, 4) for value in self.seconds],
            "peak_mb": round(self.peak_mb),
            **({"images_per_second": round(self.speed, 3)} if self.images else {}),
            **({"gflop_per_second": round(self.gigaflops / self.median, 1)} if self.gigaflops else {}),
            **({"numbers": self.numbers} if self.numbers else {}),
        }


@dataclass(frozen=True)
class Contest:
    """What is done, and by whom. The names of our own contestants begin with the word "ours"."""

    title: str
    builds: Mapping[str, Build | Sequence[Build]]
    images: int = 0  # of a turn of each process
    threads: int | None = None  # of each process; None: as many as this one uses
    count_flops: bool = True
    memory: bool = True  # whether the processes' peaks say something: not where they start others that do the work
    repeats: int = 1  # how often a turn does the work: more where it takes milliseconds
    settings: Mapping[str, Any] = field(default_factory=dict)  # what the contests of a part differ in, for a plot
    figures: Callable[[Mapping[str, Result]], dict[str, float]] | None = None  # what follows from all results together


class Team:
    """The processes of one contestant; most have one."""

    def __init__(self, name: str, builds: Sequence[Build], contest: Contest, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        threads = contest.threads or torch.get_num_threads()
        self.name = name
        self.processes: list[Any] = []
        self.connections: list[Connection] = []
        for build in builds:
            ours, theirs = context.Pipe()
            arguments = (build, theirs, threads, device, contest.repeats)
            self.processes.append(context.Process(target=_play, args=arguments, daemon=True))
            with patch.dict(os.environ, WITHOUT_US if name.startswith(PEERS) else {}):
                self.processes[-1].start()
            theirs.close()  # so that the end of the process ends the connection
            self.connections.append(ours)

    def ask(self, what: str) -> list[dict[str, Any]]:
        """A turn of all at the same time: their answers, in the order of their ends. Raises TrainingError where one fails."""
        try:
            for connection in self.connections:
                connection.send(what)
            answers, waiting = [], list(self.connections)
            while waiting:
                # The first that is done, not the first of the list: of two that wait for each other one may have failed.
                connection = next(item for item in wait(waiting) if isinstance(item, Connection))
                answers.append(connection.recv())
                if "error" in answers[-1]:
                    raise TrainingError(f"'{self.name}' of the benchmark failed: {answers[-1]['error']}")
                waiting.remove(connection)
        except (EOFError, ConnectionError):
            message = f"'{self.name}' of the benchmark ended without an answer: it may have run out of memory"
            raise TrainingError(message) from None
        return answers

    def close(self, patience: float) -> None:
        """End the processes: by themselves, or by force after some seconds."""
        for connection in self.connections:
            connection.close()
        for process in self.processes:
            process.join(patience)
            process.terminate()


def hold(contest: Contest, *, rounds: int = 3, device: str = "cpu", report: Callable[[str], object] = str) -> dict[str, Result]:
    """Time each contestant `rounds` times, in turns, after an untimed one. Raises TrainingError where one fails."""
    results: dict[str, Result] = {}
    teams: list[Team] = []
    patience = 0.0
    try:
        for name, build in contest.builds.items():
            builds = [build] if callable(build) else build
            results[name] = Result(images=contest.images * len(builds))
            teams.append(Team(name, builds, contest, device))
        for team in teams:  # they have begun to import, all at once
            report(f"{team.name}: getting ready")
            answers = team.ask("count" if contest.count_flops else "warm up")
            _note(results[team.name], answers, contest.memory)
        for number in range(rounds):
            for team in teams:
                answers = team.ask("time")
                _note(results[team.name], answers, contest.memory)
                results[team.name].seconds.append(max(answer["seconds"] for answer in answers))
                report(f"{team.name}: turn {number + 1} of {rounds}: {results[team.name].seconds[-1]:.3f} s")
        patience = 10.0
    finally:
        for team in teams:
            team.close(patience)
    return results


def _note(result: Result, answers: Sequence[Mapping[str, Any]], memory: bool) -> None:
    """What all turns tell. Memory is the sum over a team."""
    result.peak_mb = sum(answer["peak_mb"] for answer in answers) if memory else 0.0
    result.gigaflops += sum(answer["gigaflops"] for answer in answers)
    result.numbers = answers[0]["numbers"]


def _play(build: Build, asked: Connection, threads: int, device: str, repeats: int) -> None:
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
            asked.send(_turn(work, what, torch.device(device), repeats))
        except (RuntimeError, ValueError, ImportError, OSError) as error:
            asked.send({"error": f"{type(error).__name__}: {error}"})


def _turn(work: Work, what: str, device: torch.device, repeats: int) -> dict[str, Any]:
    gigaflops, seconds, numbers = 0.0, 0.0, None
    if what != "time":
        work()  # the first turn prepares more than it computes
        gigaflops = count_gigaflops(work) if what == "count" else 0.0
    else:
        if device.type == "cuda":
            work()  # takes the memory again that the last turn gave back
        started = _clock(device)
        for _ in range(repeats):
            numbers = work()
        seconds = (_clock(device) - started) / repeats
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
    others = {name: result for name, result in results.items() if name not in own and not name.startswith(YARDSTICK)}
    return {
        name: {
            other: {
                "speed": round(mine.speed / result.speed, 2),
                "memory": round(mine.peak_mb / max(result.peak_mb, 1e-9), 2),
            }
            for other, result in others.items()
        }
        for name, mine in own.items()
    }


def shares_of_peak(results: Mapping[str, Result]) -> dict[str, float]:
    """For each entry whose multiply-adds were counted: its rate over that of the matrix product of the same precision."""
    rates = {name: result.gigaflops / result.median for name, result in results.items()}
    peaks = {name.split()[-1]: rate for name, rate in rates.items() if name.startswith(YARDSTICK)}
    return {
        name: round(rate / peaks[name.split()[-1]], 3)
        for name, rate in rates.items()
        if rate and peaks.get(name.split()[-1]) and not name.startswith(YARDSTICK)
    }


def tell(sentence: str) -> None:
    """A line on stderr, so that a long contest shows that it lives."""
    print(sentence, file=sys.stderr, flush=True)
