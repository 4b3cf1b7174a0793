"""Several processes, one model: what a run under `torchrun` needs beyond DistributedDataParallel.

torchrun sets RANK, WORLD_SIZE and LOCAL_RANK; without it a run is a world of one and nothing here communicates.
`detection/engine/group.py` connects the processes, and tells all of them how one ended.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# DistributedDataParallel imports this, and functions there take the default process group as default argument: imported
# while a group exists, they keep it for ever, and its threads with it.
import torch.distributed.nn.functional
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from backbones.errors import shorten
from backbones.norm import TrainableNorm
from detection.device import find_device, parse_device
from detection.errors import USER_ERRORS, ConfigError, OtherProcessError

T = TypeVar("T")

# DistributedDataParallel's option for buffers before each forward pass; torch 2.14 renamed it, and warns of the old name.
_OPTIONS = inspect.signature(DistributedDataParallel).parameters
SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers"


@dataclass(frozen=True)
class World:
    """The processes of a run, or of an evaluation. Rank 0 writes files and prints."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of the items: every `size`-th, from number `rank` on."""
        return items[self.rank :: self.size]

    @staticmethod
    def from_environment(device: torch.device | str = "auto") -> World:
        """The world that torchrun describes, or a world of one, on a device that `find_device` takes.

        `auto` and `cuda` are the GPU of the process's LOCAL_RANK. Raises ConfigError for what cannot be one: a variable that
        is no such number, a rank that is not below the size, a device that is not there or fails, and of several processes
        more than there are GPUs, or any other device than their own GPUs and the CPU.
        """
        rank, size = environment_ranks()
        return World(rank, size, find_device(_own_device(device, size)))


def environment_ranks() -> tuple[int, int]:
    """This process's rank and the number of processes, as torchrun says; 0 and 1 without it. Raises ConfigError."""
    rank, size = environment_number("RANK", 0, default=0), environment_number("WORLD_SIZE", 1, default=1)
    if rank >= size:
        raise ConfigError(
            f"the environment says RANK={rank} and WORLD_SIZE={size}: ranks go from 0 to {size - 1}; start with torchrun, "
            f"or give each process its own RANK and all the same WORLD_SIZE"
        )
    return rank, size


def _own_device(name: torch.device | str, size: int) -> torch.device:
    """The device that `name` is for this process, one of `size`."""
    device, local_rank = parse_device(name), environment_number("LOCAL_RANK", 0, default=0)
    if size > 1 and (device.index is not None or device.type not in ("cpu", "cuda")):
        raise ConfigError(
            f"the device {device} is for one process, and this is one of {size}: let them have cuda, each the GPU of its "
            f"LOCAL_RANK, or cpu"
        )
    if device.type != "cuda" or device.index is not None:
        return device
    if local_rank >= torch.cuda.device_count() > 0:
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU: torchrun --nproc_per_node must be at most "
            f"{torch.cuda.device_count()}, or the device cpu"
        )
    return torch.device("cuda", local_rank)


def environment_number(key: str, least: int, *, default: int | None = None, greatest: int = 2**31 - 1) -> int:
    """A whole number of the environment. Raises ConfigError where it is another, or absent and has no default."""
    text = os.environ.get(key)
    if text is None and default is not None:
        return default
    # int() also takes signs, underscores and other scripts' digits.
    number = int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 12 else None
    if number is None or not least <= number <= greatest:
        found = "not set" if text is None else shorten(text)
        raise ConfigError(
            f"the environment variable {key} is {found}, but must be a whole number from {least} to {greatest} in each process "
            f"of a distributed run; torchrun sets it"
        )
    return number


def data_parallel(model: nn.Module, world: World) -> nn.Module:
    """The module whose forward and backward average gradients over the processes; the model itself for one."""
    if world.size == 1:
        return model
    # Rank 0's buffers would travel before every forward pass; only the statistics of norms that train ever change.
    trains_norms = any(isinstance(module, TrainableNorm) for module in model.modules())
    device_ids = [world.device.index] if world.device.type == "cuda" else None
    options: dict[str, Any] = {SYNC_BUFFERS: trains_norms}
    return DistributedDataParallel(model, device_ids=device_ids, **options)


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


def on_all(world: World, work: Callable[[], T]) -> list[T]:
    """Do `work` on each process; all get all results, by rank, or all raise the first error, by rank.

    On the other processes its cause is OtherProcessError: the one that raised it tells it.
    """
    if world.size == 1:
        return [work()]
    mine: tuple[Any, Exception | None]
    try:
        mine = (work(), None)
    except USER_ERRORS as error:
        mine = (None, error)
    done: list[tuple[Any, Exception | None]] = all_gather(world, mine)
    for rank, (_, failure) in enumerate(done):
        if failure is not None:
            raise failure from None if rank == world.rank else OtherProcessError(f"rank {rank} raised it")
    return [result for result, _ in done]


def share_buffers(world: World, module: nn.Module) -> None:
    """Give all processes rank 0's buffers, such as the running statistics of norms: each has those of its own images."""
    if world.size > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def on_main(world: World, work: Callable[[], T]) -> T:
    """Do `work` on rank 0 while the others wait; all get its result, or all raise its error.

    On the others the error's cause is OtherProcessError: rank 0 tells it.
    """
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
        raise failure from None if world.is_main else OtherProcessError("rank 0 raised it")
    return result
