"""Two processes of a distributed run that fail in many ways. One program, which forks them: an import takes seconds."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from detection.cli.main import run as run_command
from detection.engine.distributed import World
from detection.engine.folder import hold_folder
from detection.errors import DatasetError
from tests.engine.toy import CONFIG, ToyBatch, ToyModel, measure, run, toy_batch

QUICK = CONFIG.model_copy(update={"batch_size": 16, "connect_timeout": 30.0})


def batches_that(act: Callable[[], object], rank: int) -> Callable[[int], Iterator[ToyBatch]]:
    """Batches that do something before the fifth, on one rank."""

    def batches(first: int) -> Iterator[ToyBatch]:
        for number in range(first, 10**6):
            if number == 4 and int(os.environ["RANK"]) == rank:
                act()
            yield toy_batch(number)

    return batches


def fail(error: BaseException) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Interrupted(ToyModel):
    """On rank 1 Ctrl-C is pressed twice in each step."""

    def forward(self, batch: ToyBatch) -> dict[str, torch.Tensor]:
        for _ in range(2 if os.environ["RANK"] == "1" else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return super().forward(batch)


CASES: dict[str, Callable[[Path], object]] = {
    "bad image": lambda folder: run(folder, QUICK, batches=batches_that(fail(DatasetError("a.jpg is damaged")), 1)),
    "bad images": lambda folder: run(
        folder, QUICK, batches=batches_that(fail(DatasetError(f"{os.environ['RANK']}.jpg is damaged")), int(os.environ["RANK"]))
    ),
    "rank 0 cannot write": lambda folder: run(folder, QUICK),
    "evaluation fails": lambda folder: run(folder, QUICK, evaluate=evaluate_badly),
    "rank 0 has a bug": lambda folder: run(folder, QUICK, batches=batches_that(fail(ZeroDivisionError("a bug")), 0)),
    "rank 1 has a bug": lambda folder: run(folder, QUICK, batches=batches_that(fail(ZeroDivisionError("a bug")), 1)),
    "rank 0 is killed": lambda folder: run(folder, QUICK, batches=batches_that(killed, 0)),
    "rank 1 is killed": lambda folder: run(folder, QUICK, batches=batches_that(killed, 1)),
    "rank 1 is interrupted twice": lambda folder: run(folder, QUICK, model=Interrupted()),
    "folder in use": lambda folder: run(folder, QUICK),
    "rank 1 is absent": lambda folder: run(folder, QUICK.model_copy(update={"connect_timeout": 2.0})),
    "rank 0 is absent": lambda folder: run(folder, QUICK.model_copy(update={"connect_timeout": 2.0})),
    "port in use": lambda folder: run(folder, QUICK.model_copy(update={"connect_timeout": 2.0})),
    "rank 1 is slow": lambda folder: run(
        folder, QUICK.model_copy(update={"collective_timeout": 2.0}), batches=batches_that(lambda: time.sleep(3), 1)
    ),
}


def evaluate_badly(model: torch.nn.Module) -> dict[str, float]:
    """An image of the validation split is damaged."""
    raise DatasetError("val.jpg is damaged")


def do(case: str, folder: Path) -> None:
    CASES[case](folder / "run")


def start(rank: int, port: int, case: str, folder: Path) -> int:
    """Fork a process that runs the case as a command would."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        descriptor = os.open(folder / f"{rank}.txt", os.O_WRONLY | os.O_CREAT, 0o666)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        torch.manual_seed(1)
        code = run_command(lambda _: do(case, folder))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def try_case(case: str, folder: Path) -> dict[str, Any]:
    """What both ranks said, their exit codes, and the seconds until the last had ended."""
    folder.mkdir(parents=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        if case == "port in use":
            taken.listen()
            return ended(case, folder, port, (0,))
    if case == "rank 0 cannot write":
        (folder / "run").mkdir()
        (folder / "run/tensorboard").write_text("in the way")
    if case == "folder in use":
        with hold_folder(World(0, 1, torch.device("cpu")), folder / "run"):
            return ended(case, folder, port, (0, 1))
    return ended(case, folder, port, {"rank 1 is absent": (0,), "rank 0 is absent": (1,)}.get(case, (0, 1)))


def ended(case: str, folder: Path, port: int, ranks: tuple[int, ...]) -> dict[str, Any]:
    """Start the ranks and wait for them."""
    began = time.monotonic()
    pids = {rank: start(rank, port, case, folder) for rank in ranks}
    codes = {rank: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for rank, pid in pids.items()}
    said = {rank: (folder / f"{rank}.txt").read_text() for rank in ranks}
    return {"codes": codes, "said": said, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]) / "warm", CONFIG.model_copy(update={"steps": 1}), model=ToyModel(), evaluate=measure)
    names = sys.argv[2:] or list(CASES)
    results = {name: try_case(name, Path(sys.argv[1]) / str(number)) for number, name in enumerate(names)}
    (Path(sys.argv[1]) / "results.json").write_text(json.dumps(results))
