"""Measure a benchmark: each implementation in processes of its own, so that its peak memory is its own."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from detection.errors import TrainingError
from tools.benchmarks.benchmark import REFERENCES, Benchmark, Result, Setup
from tools.benchmarks.worker import Request, WorkerSettings, start

REFERENCE_ENVIRONMENT = {"THP_MEM_ALLOC_ENABLE": "0"}
"""Environment of the references: what importing `detection` does for all of torch is not theirs."""

PATIENCE = 10.0
"""Seconds that a process has to end by itself."""


class Workers:
    """The processes of one implementation, which work at the same time; most have one."""

    def __init__(self, name: str, setups: Sequence[Setup], settings: WorkerSettings) -> None:
        context = multiprocessing.get_context("spawn")
        environment = REFERENCE_ENVIRONMENT if name.startswith(REFERENCES) else {}
        self.name = name
        self.processes: list[Any] = []
        self.connections: list[Connection] = []
        for setup in setups:
            here, there = context.Pipe()
            # Pickled here, for unpickling imports torch: the process sets its environment before.
            pickled = pickle.dumps((setup, settings))
            self.processes.append(context.Process(target=start, args=(environment, pickled, there), daemon=True))
            self.processes[-1].start()
            there.close()  # so that the end of the process ends the connection
            self.connections.append(here)

    def ask(self, request: Request) -> list[dict[str, Any]]:
        """All processes do the work at the same time: their answers, the first to end first. TrainingError where one fails."""
        try:
            for connection in self.connections:
                connection.send(request)
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
        """End the processes: by themselves, or by force after `patience` seconds."""
        for connection in self.connections:
            connection.close()
        for process in self.processes:
            process.join(patience)
            process.terminate()


def run_benchmark(
    benchmark: Benchmark, *, rounds: int = 3, device: str = "cpu", report: Callable[[str], object] = str
) -> dict[str, Result]:
    """Time each implementation once per round, after an untimed run; `report` is called with a line of progress at a time.

    Raises TrainingError where one fails.
    """
    settings = WorkerSettings(benchmark.threads or torch.get_num_threads(), device, benchmark.repeats)
    results: dict[str, Result] = {}
    groups: list[Workers] = []
    patience = 0.0
    try:
        for name, setup in benchmark.implementations.items():
            setups = [setup] if callable(setup) else setup
            results[name] = Result(images=benchmark.images * len(setups))
            groups.append(Workers(name, setups, settings))
        for group in groups:  # they have begun to import, all at once
            report(f"{group.name}: getting ready")
            answers = group.ask("count" if benchmark.count_flops else "warm up")
            _note(results[group.name], answers, benchmark.measure_memory)
        for number in range(1, rounds + 1):
            for group in groups:
                answers = group.ask("time")
                _note(results[group.name], answers, benchmark.measure_memory)
                # Processes that work together take as long as the slowest.
                seconds = max(answer["seconds"] for answer in answers)
                results[group.name].seconds.append(seconds)
                report(f"{group.name}: round {number} of {rounds}: {seconds:.3f} s")
        patience = PATIENCE
    finally:
        for group in groups:
            group.close(patience)
    return results


def _note(result: Result, answers: Sequence[Mapping[str, Any]], measure_memory: bool) -> None:
    """Take over what the processes answered. Memory is their sum."""
    result.peak_mb = sum(answer["peak_mb"] for answer in answers) if measure_memory else 0.0
    result.gigaflops += sum(answer["gigaflops"] for answer in answers)
    result.numbers = answers[0]["numbers"]


def report_progress(sentence: str) -> None:
    """A line on stderr, so that a long benchmark shows that it lives."""
    print(sentence, file=sys.stderr, flush=True)
