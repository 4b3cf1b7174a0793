"""The connection of a distributed run's processes: made within a time, and left by all of them when one fails.

A process that fails writes its error into the group's store before it closes its connections. The others, whose collective
calls then break, raise the same error instead of what the library says of a broken connection.
"""

from __future__ import annotations

import gc
import json
import os
import re
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from backbones.errors import printable, shorten
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
    patience = 0.0
    try:
        with _watched(store, world):
            yield
    except BaseException as error:
        # Those that are killed never leave, and the others then find it out by themselves.
        patience = GRACE / 5 if _is_lost_connection(error) else GRACE
        first, is_told = _agree_on_failure(store, world, error)
        try:
            if first is error:
                raise
            raise first from OtherProcessError("another process of the run raised it") if is_told else None
        finally:
            _drop_frames(error)
            del first  # its traceback has this frame: the circle would keep the store and its threads
    finally:
        dist.destroy_process_group()
        _leave(store, world, patience=patience)


def _drop_frames(error: BaseException) -> None:
    """Let go of what the functions held that an error has left: the module that communicates, and its connections.

    They close only then, and whoever waits for this process wakes up.
    """
    chain: BaseException | None = error
    while chain is not None:
        traceback.clear_frames(chain.__traceback__)
        chain = chain.__context__
    gc.collect()


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
        if world.rank > 0:
            _wait_for_rank_0(address, port, config.connect_timeout)
        store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=config.connect_timeout)))
        dist.init_process_group(
            "nccl" if world.device.type == "cuda" else "gloo",
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=timedelta(seconds=config.collective_timeout),
        )
    except (RuntimeError, OSError) as error:  # RuntimeError: what torch raises of sockets, stores and backends
        raise TrainingError(
            f"process {world.rank} of {world.size} did not meet the others at {shorten(address)}, port {port}, within "
            f"{config.connect_timeout:g} s: {_reason(error)}; start all with the same MASTER_ADDR, MASTER_PORT and "
            f"WORLD_SIZE and RANK from 0 to {world.size - 1}, on a free port, or let them wait longer "
            f"({config.key}.connect_timeout)"
        ) from None
    return store


def _wait_for_rank_0(address: str, port: int, seconds: float) -> None:
    """Wait until somebody listens at the address. Raises OSError after that time; torch would print its stack."""
    deadline = time.monotonic() + seconds
    while (error := _try_to_reach(address, port)) is not None:
        if time.monotonic() > deadline:
            raise error
        time.sleep(0.2)


def _reason(error: BaseException) -> str:
    """What torch says, in one short line without its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = re.sub(r"^\[[^]]*\] ", "", lines[0] if lines else type(error).__name__)  # gloo begins with its source's place
    return printable(re.split(r"\. This is typically|Exception raised from", said)[0].rstrip(".")[:200])


def _agree_on_failure(store: dist.Store, world: World, error: BaseException) -> tuple[BaseException, bool]:
    """The error to raise in place of `error`, or itself; and whether another process has told the user of it.

    It is the first that a process wrote into the store. One that fails writes before it closes its connections; whoever
    finds them broken and nothing written tells that a process was lost.
    """
    mine: BaseException = error
    if isinstance(error.__cause__, OtherProcessError):
        return error, False
    if _is_lost_connection(error):
        first = _first_failure(store)
        if first is not None:
            return first[1], True
        mine = _lost(world, error)
    rank, failure = _write_failure(store, world, mine)
    # A bug of ours keeps its traceback, whoever failed before.
    return (failure, True) if rank != world.rank and isinstance(mine, USER_ERRORS) else (mine, False)


def _write_failure(store: dist.Store, world: World, error: BaseException) -> tuple[int, BaseException]:
    """Write an error into the store unless there is one; returns the rank and the error that is written there."""
    text = json.dumps([world.rank, type(error).__name__, str(error)])
    if _has_store():
        with suppress(RuntimeError):  # the store has gone this moment
            return _parse(store.compare_set(FAILURE, "", text))
    return world.rank, error


def _is_lost_connection(error: BaseException) -> bool:
    """Whether a collective call broke. Gloo's errors are plain RuntimeErrors that begin with a file of its source."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


def _first_failure(store: dist.Store) -> tuple[int, BaseException] | None:
    """The rank that failed first, and its error; None where nobody wrote one within two seconds: it was killed."""
    with suppress(RuntimeError):
        for _ in range(10):
            time.sleep(0.2)  # also a killed process takes a moment to be gone
            if not _has_store():
                return None
            if store.check([FAILURE]):
                return _parse(store.get(FAILURE))
    return None


def _has_store() -> bool:
    """Whether the process that holds the store is there. Asked first, as torch prints its own stack where it is not."""
    return _try_to_reach(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])) is None


def _try_to_reach(address: str, port: int) -> OSError | None:
    """None where somebody listens there, or why not."""
    try:
        socket.create_connection((address, port), timeout=5.0).close()
    except OSError as error:
        return error
    return None


def _parse(text: bytes) -> tuple[int, BaseException]:
    """The rank that failed, and its error: a user's mistake as itself, anything else as a TrainingError."""
    rank, name, message = json.loads(text)
    for kind in USER_ERRORS:
        if kind.__name__ == name:
            return rank, kind(message)
    return rank, TrainingError(f"process {rank} of the run failed: {name} {message}")


def _lost(world: World, error: BaseException) -> TrainingError:
    return TrainingError(
        f"process {world.rank} of {world.size} lost the connection to another: {_reason(error)}; unless it was killed, it "
        f"tells why; go on from the last checkpoint (--resume), and if one was only slow, with a longer "
        f"train.collective_timeout"
    )


def _leave(store: dist.Store, world: World, *, patience: float) -> None:
    """Count this process as gone. After a failure all wait for each other for a while.

    Rank 0 may hold the store, in which the others read of it; and torchrun ends all others when the first one exits.
    """
    if not _has_store():
        return
    with suppress(RuntimeError):
        gone = store.add(LEFT, 1)
        deadline = time.monotonic() + patience
        while gone < world.size and time.monotonic() < deadline:
            time.sleep(0.05)
            if not _has_store():
                return
            gone = store.add(LEFT, 0)
    if patience and world.is_main:
        time.sleep(0.3)  # until the others have seen that all are gone


@contextmanager
def _watched(store: dist.Store, world: World) -> Iterator[None]:
    """On GPUs, end this process where another has failed and this one does not notice.

    A broken collective call of gloo raises; NCCL's waits on the device, where no exception reaches it.
    """
    if world.device.type != "cuda":
        yield
        return
    left = threading.Event()
    watched = store.clone() if hasattr(store, "clone") else store  # older versions have one connection for both threads
    threading.Thread(target=_end_with_others, args=(watched, world.rank, left), daemon=True).start()
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
