"""How much faster several processes train than one: each has one thread and its own images.

The processes are joined as those of a training run, by the engine's process group and its data-parallel wrapper. Beside them
stand as many that share nothing: what the machine itself loses when all of its cores compute.
"""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from detection.engine.distributed import World, data_parallel
from detection.engine.group import process_group
from detection.errors import ConfigError
from tools.benchmarks.benchmark import Benchmark, Work
from tools.benchmarks.detector import DetectorCase, our_detector, our_training, our_work, suitable_precision
from tools.benchmarks.parts import Options

SIZE_HW, ROIS = (300, 400), 64
STEPS = 3  # per round; seconds are those of one
MAX_PROCESSES = 8  # unless told otherwise: each takes half a gigabyte or more


def benchmarks(options: Options, folder: Path) -> Iterator[Benchmark]:
    """One process, several, and several joined; images per second are those of all together. Raises ConfigError."""
    if options.device != "cpu":
        raise ConfigError(f"the part scaling measures processes on the CPU's cores: not with --device {options.device}")
    case = DetectorCase("train", suitable_precision("cpu"), SIZE_HW, ROIS, backbone="resnet18")
    size = options.processes or min(max(num_cores(), 2), MAX_PROCESSES)
    port = free_port()
    yield Benchmark(
        f"ResNet-18 C4, {case.precision}, training step of 1 image of 300x400, 64 RoIs, one thread per process",
        {
            "1 process": partial(our_work, case),
            f"{size} processes that share nothing": [partial(our_work, replace(case, seed=rank)) for rank in range(size)],
            f"ours in {size} processes": [partial(joined_work, case, rank, size, port) for rank in range(size)],
        },
        images=case.batch,
        repeats=STEPS,
        threads=1,
        count_flops=False,
    )


def num_cores() -> int:
    """The machine's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_port() -> int:
    """A port at which the processes meet."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def joined_work(case: DetectorCase, rank: int, size: int, port: int) -> Work:
    """The training step of one of several processes, which are told of each other as torchrun would."""
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()})
    world = World(rank, size, torch.device("cpu"))
    stack = ExitStack()
    stack.enter_context(process_group(world))
    atexit.register(stack.close)
    model = our_detector(case)
    return our_training(model, data_parallel(model, world), replace(case, seed=rank))
