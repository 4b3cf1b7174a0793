"""Several processes, one model: what a run under `torchrun` needs beyond DistributedDataParallel.

torchrun sets RANK, WORLD_SIZE and LOCAL_RANK; without it a run is a world of one and nothing here communicates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# DistributedDataParallel imports this, and functions there take the default process group as default argument: imported
# while a group exists, they keep it for ever, and its threads with it.
import torch.distributed.nn.functional
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detection.errors import USER_ERRORS, ConfigError

T = TypeVar("T")

# The other ranks wait while rank 0 evaluates, which may take hours on a big validation split.
TIMEOUT = timedelta(days=1)


@dataclass(frozen=True)
class World:
    """The processes of a run. Rank 0 writes files and evaluates."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @staticmethod
    def from_environment() -> World:
        """The world that torchrun describes, or a world of one. Raises ConfigError for more processes than GPUs."""
        rank, size, local_rank = (int(os.environ.get(key, "0")) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        if not torch.cuda.is_available():
            return World(rank, max(size, 1), torch.device("cpu"))
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local_rank} of this machine has no GPU: torchrun --nproc_per_node must be at most "
                f"{torch.cuda.device_count()}"
            )
        return World(rank, max(size, 1), torch.device("cuda", local_rank))


@contextmanager
def process_group(world: World) -> Iterator[None]:
    """Connect the processes for as long as the context lasts; nothing to do for one, or inside another's group.

    Leaving it ends the group's threads: one that still held a tensor when Python exits would abort the process.
    """
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if world.size == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if world.device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def data_parallel(model: nn.Module, world: World) -> nn.Module:
    """The module whose forward and backward average gradients over the processes; the model itself for one."""
    if world.size == 1:
        return model
    return DistributedDataParallel(model, device_ids=[world.device.index] if world.device.type == "cuda" else None)


def reduce_max(world: World, values: Sequence[int]) -> list[int]:
    """The greatest of each value over the processes, known to all. One small collective call."""
    if world.size == 1:
        return list(values)
    shared = torch.tensor(values, device=world.device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return [int(value) for value in shared.tolist()]


def reduce_mean(world: World, values: dict[str, float]) -> dict[str, float]:
    """The mean of each value over the processes, which must give the same names."""
    if world.size == 1:
        return values
    shared = torch.tensor(list(values.values()), dtype=torch.float64, device=world.device)
    dist.all_reduce(shared)
    return dict(zip(values, (shared / world.size).tolist(), strict=True))


def all_gather(world: World, value: T) -> list[T]:
    """Every process's value, by rank, known to all."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


def on_main(world: World, work: Callable[[], T]) -> T:
    """Do `work` on rank 0 while the others wait; all get its result, or all raise its error."""
    if world.size == 1:
        return work()
    message: list[Any] = [None, None]
    if world.is_main:
        try:
            message = [work(), None]
        except USER_ERRORS as error:
            message = [None, error]
    dist.broadcast_object_list(message, src=0, device=world.device)
    result, failure = message
    if failure is not None:
        raise failure
    return result
