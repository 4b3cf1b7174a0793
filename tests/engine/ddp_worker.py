"""What each process of `test_distributed.py` does under torchrun. All in one program: starting processes takes seconds."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from detection.engine.callbacks import Callback, StopTraining
from detection.engine.distributed import World
from detection.engine.group import process_group
from detection.errors import TrainingError
from tests.engine.test_train import Exploding
from tests.engine.toy import CONFIG, ToyBatch, ToyModel, run, toy_batch

# The single process's 4 micro-batches a step, on two processes.
CONFIG_OF_TWO = CONFIG.model_copy(update={"batch_size": 16})
RANK = int(os.environ.get("RANK", "0"))


def batches(first: int) -> Iterator[ToyBatch]:
    """Every other batch of the single process's stream."""
    for number in range(first, 10**6):
        yield toy_batch(number * 2 + RANK)


def stopped_batches(first: int) -> Iterator[ToyBatch]:
    """One rank alone hears of a signal in step 7."""
    for number, batch in enumerate(batches(first), start=first):
        if number == 13 and RANK == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        yield batch


class StopsAtFour(Callback):
    """Asks to stop; called on rank 0 alone."""

    def on_log(self, line: dict[str, Any]) -> None:
        assert RANK == 0
        raise StopTraining("enough")


def model() -> ToyModel:
    torch.manual_seed(1 + RANK)  # the ranks must agree on rank 0's weights
    return ToyModel(noisy=False)


def communicating_threads() -> int:
    """Threads of this process that wait for the network; -1 where the system does not tell."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else -1


def main(folder: Path) -> None:
    """Each part checks its outcome on both ranks."""
    try:
        train_under_a_group(folder)
    except TrainingError as error:
        assert "inf" in str(error)
    (folder / f"threads.{RANK}.txt").write_text(str(communicating_threads()))


def train_under_a_group(folder: Path) -> None:
    """Runs that end, are stopped, and fail; the last by an error that leaves the group's context."""
    with process_group(World.from_environment()):
        run(folder / "whole", CONFIG_OF_TWO, model=model(), batches=batches)
        result = run(folder / "stopped", CONFIG_OF_TWO, model=model(), batches=stopped_batches)
        assert (result.steps, result.signal) == (7, signal.SIGTERM)
        assert run(folder / "stopped", CONFIG_OF_TWO, model=model(), batches=batches, resume=True).steps == 12
        asked = run(folder / "asked", CONFIG_OF_TWO, model=model(), batches=batches, callbacks=[StopsAtFour()])
        assert (asked.steps, asked.stopped_by, asked.signal) == (4, "StopsAtFour: enough", None)
        failures: list[tuple[str, dict[str, Any]]] = [
            ("whole", {}),  # holds another run
            ("absent", {"resume": True}),
            ("exploding", {"model": Exploding(at=5 if RANK == 1 else 10**6)}),
        ]
        for name, options in failures:
            try:
                run(folder / name, CONFIG_OF_TWO, batches=batches, **options)
            except TrainingError as error:
                (folder / f"{name}.{RANK}.txt").write_text(str(error))
                if name == "exploding":
                    raise


if __name__ == "__main__":
    main(Path(sys.argv[1]))
