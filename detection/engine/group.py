"""The connection of a distributed run's processes: made within a time, and left by all of them when one fails.

A process that fails writes its error into the group's store before it closes its connections. The others, whose collective
calls then break, raise the same error instead of what the library says of a broken connection.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from backbones.errors import shorten
from detection.config import TrainConfig
from detection.engine.distributed import World, environment_number
from detection.errors import USER_ERRORS, ConfigError, OtherProcessError, TrainingError

FAILURE, LEFT = "resdet/failure", "resdet/left"
"""Keys of the store: the first failure as JSON, and the number of processes that have left the group."""

GRACE = 10.0
"""Seconds that the others get to hear of a failure: those that are killed never do."""


@contextmanager
def process_group(world: World, config: TrainConfig | None = None) -> Iterator[None]:
    """Connect the processes for as long as the context lasts; nothing to do for one, or inside another's group.

    `config` has the time-outs. An error that leaves the context in one process is raised in all; its cause is
    OtherProcessError in those that did not raise it. Raises ConfigError for an environment without the address,
    TrainingError where the processes do not meet or one is lost.

    Leaving it ends the group's threads: one that still held a tensor when Python exits would abort the process.
    """
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if world.size == 1 or dist.is_initialized():
        yield
        return
    store = _connect(world, config or TrainConfig())
    failed = False
    try:
        with _watched(store, world):
            yield
    except BaseException as error:
        failed = True
        elsewhere = _failure_elsewhere(store, world, error)
        if elsewhere is None:
            raise
        try:
            raise elsewhere from OtherProcessError("another process of the run raised it")
        finally:
            del elsewhere  # its traceback has this frame: the circle would keep the store and its threads
    finally:
        dist.destroy_process_group()  # closes the connections: whoever waits for this process wakes up
        _leave(store, world, wait=failed)


def _connect(world: World, config: TrainConfig) -> dist.Store:
    """Form the group and return its store."""
    address = os.environ.get("MASTER_ADDR")
    if not address:
        raise ConfigError(
            f"the environment says WORLD_SIZE={world.size}, but not MASTER_ADDR, where rank 0 runs: start with torchrun, or "
            f"set MASTER_ADDR and MASTER_PORT alike in each process"
        )
    port = environment_number("MASTER_PORT", 1, greatest=2**16 - 1)
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=config.connect_timeout)))
        dist.init_process_group(
            "nccl" if world.device.type == "cuda" else "gloo",
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=timedelta(seconds=config.collective_timeout),
        )
    except RuntimeError as error:  # what torch raises of sockets, stores and backends
        raise TrainingError(
            f"process {world.rank} of {world.size} did not meet the others at {shorten(address)}, port {port}, within "
            f"{config.connect_timeout:g} s: {_reason(error)}; start all with the same MASTER_ADDR, MASTER_PORT and "
            f"WORLD_SIZE and RANK from 0 to {world.size - 1}, on a free port, or let them wait longer (train.connect_timeout)"
        ) from None
    return store


def _reason(error: BaseException) -> str:
    """What torch says, in one short line without its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shorten((lines or [type(error).__name__])[0].partition("Exception raised from")[0])


def _failure_elsewhere(store: dist.Store, world: World, error: BaseException) -> ValueError | None:
    """The error of the process that failed first, to be raised in place of `error`; None where `error` itself is it.

    The others are told of the first one.
    """
    if isinstance(error.__cause__, OtherProcessError):
        return None
    if _is_lost_connection(error):
        first = _first_failure(store)
        return _lost(world, error) if first is None else first[1]
    mine = json.dumps([world.rank, type(error).__name__, str(error)])
    with suppress(RuntimeError):  # the store has gone with rank 0
        rank, failure = _parse(store.compare_set(FAILURE, "", mine))
        if rank != world.rank and isinstance(error, USER_ERRORS):
            return failure
    return None


def _is_lost_connection(error: BaseException) -> bool:
    """Whether a collective call broke. Gloo's errors are plain RuntimeErrors that begin with a file of its source."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


def _first_failure(store: dist.Store) -> tuple[int, ValueError] | None:
    """The rank that failed first, and its error; None where it was killed. A process writes before it closes connections."""
    with suppress(RuntimeError):
        for _ in range(20):
            if store.check([FAILURE]):
                return _parse(store.get(FAILURE))
            time.sleep(0.1)
    return None


def _parse(text: bytes) -> tuple[int, ValueError]:
    """The rank that failed, and its error: a user's mistake as itself, anything else as a TrainingError."""
    rank, name, message = json.loads(text)
    for kind in USER_ERRORS:
        if kind.__name__ == name:
            return rank, kind(message)
    return rank, TrainingError(f"process {rank} of the run failed: {name} {message}")


def _lost(world: World, error: BaseException) -> TrainingError:
    return TrainingError(
        f"process {world.rank} of {world.size} lost the connection to another: {_reason(error)}; if that was not killed, it "
        f"tells why; go on from the last checkpoint (--resume), and if one was only slow, with a longer "
        f"train.collective_timeout"
    )


def _leave(store: dist.Store, world: World, *, wait: bool) -> None:
    """Count this process as gone. Rank 0 may hold the store, so after a failure it waits until all have read of it."""
    with suppress(RuntimeError):
        gone = store.add(LEFT, 1)
        deadline = time.monotonic() + GRACE
        while wait and world.is_main and gone < world.size and time.monotonic() < deadline:
            time.sleep(0.05)
            gone = store.add(LEFT, 0)


@contextmanager
def _watched(store: dist.Store, world: World) -> Iterator[None]:
    """On GPUs, end this process where another has failed and this one does not notice.

    A broken collective call of gloo raises; NCCL's waits on the device, where no exception reaches it.
    """
    if world.device.type != "cuda":
        yield
        return
    left = threading.Event()
    threading.Thread(target=_end_with_others, args=(store.clone(), world.rank, left), daemon=True).start()
    try:
        yield
    finally:
        left.set()


def _end_with_others(store: dist.Store, rank: int, left: threading.Event, grace: float = GRACE) -> None:
    """Wait for another's failure or for `left`. After a failure this process has `grace` seconds to leave by itself."""
    with suppress(RuntimeError):
        while not left.wait(1.0):
            if store.check([FAILURE]) and _parse(store.get(FAILURE))[0] != rank:
                if not left.wait(grace):
                    os._exit(2)
                return
