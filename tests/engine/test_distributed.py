"""Two processes under torchrun compute what one computes with the same total batch, and agree on how they end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from backbones import FrozenBatchNorm2d
from detection.engine import distributed
from detection.engine.distributed import World
from detection.errors import ConfigError, TrainingError
from tests.child_process import TWO_PROCESSES, run_python
from tests.engine.test_resume import assert_same_run, logged
from tests.engine.toy import CONFIG, ToyModel, run


@pytest.fixture(scope="module")
def folder(module_path: Path) -> Path:
    """What the two processes left behind."""
    run_python([*TWO_PROCESSES, "tests.engine.ddp_worker", str(module_path)], timeout=180)
    return module_path


def test_two_processes_equal_one(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = CONFIG.model_copy(update={"batch_size": 16, "accumulate": 4})
    run(tmp_path, config, model=ToyModel(noisy=False))
    ours, theirs = (torch.load(path / "last.pt", weights_only=True) for path in (folder / "whole", tmp_path))
    torch.testing.assert_close(ours["model"], theirs["model"])
    training = ours["training"]
    assert len(training["rng"]) == 2 and training["sampler"]["world_size"] == 2
    for mine, single in zip(logged(folder / "whole"), logged(tmp_path), strict=True):
        if mine["kind"] == "train":
            assert mine["loss"] == pytest.approx(single["loss"], rel=1e-5)


def test_no_thread_of_the_group_outlives_it(folder: Path) -> None:
    """One that is at work while Python exits would abort the process."""
    left = {int((folder / f"threads.{rank}.txt").read_text()) for rank in range(2)}
    if left == {-1}:
        pytest.skip("this system does not tell a process its threads")
    assert left == {1}


def test_a_signal_to_one_process_stops_both_and_resuming_is_exact(folder: Path) -> None:
    assert_same_run(folder / "stopped", folder / "whole")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("whole", "holds another run"),
        ("absent", "nothing to resume"),
        # Rank 1's sixth micro-batch is number 2 * 5 + 1 of the common stream.
        ("exploding", "step 3: loss 'near' is inf; images: 44.jpg, 45.jpg, 46.jpg, 47.jpg"),
    ],
)
def test_both_processes_raise_the_same_error(folder: Path, name: str, message: str) -> None:
    texts = {(folder / f"{name}.{rank}.txt").read_text() for rank in (0, 1)}
    assert len(texts) == 1 and message in texts.pop()


def test_a_run_of_two_is_not_resumed_by_one(folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"written by 2 process\(es\) and this run has 1"):
        run(folder / "whole", CONFIG.model_copy(update={"batch_size": 16}), resume=True)


def test_world_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(key, raising=False)
    world = World.from_environment()
    assert (world.rank, world.size, world.is_main) == (0, 1, True)


@pytest.mark.parametrize(
    ("name", "size", "gpus", "expected"),
    [
        ("auto", 1, 0, "cpu"),
        ("auto", 1, 2, "cuda:0"),
        ("cuda", 1, 2, "cuda:0"),
        ("cuda:1", 1, 2, "cuda:1"),
        ("cpu", 1, 2, "cpu"),
        ("auto", 2, 0, "cpu"),
        ("auto", 2, 2, "cuda:1"),
        ("cuda", 2, 2, "cuda:1"),
        ("cpu", 2, 2, "cpu"),
        ("cpu", 2, 1, "cpu"),  # there need not be a GPU for each
        ("cuda", 1, 0, "cuda:0 is not there: torch finds 0 of cuda"),
        ("cuda:2", 1, 2, "cuda:2 is not there: torch finds 2 of cuda"),
        ("auto", 2, 1, "process 1 of this machine has no GPU: torchrun --nproc_per_node must be at most 1, or the device cpu"),
        ("cuda:1", 2, 2, "the device cuda:1 is for one process, and this is one of 2: let them have cuda, each the GPU"),
        ("mps", 2, 0, "the device mps is for one process"),
        ("xpu", 2, 0, "the device xpu is for one process"),
        ("gpu", 2, 2, "the device must be cpu, cuda"),
    ],
)
def test_the_device_of_the_last_process(
    monkeypatch: pytest.MonkeyPatch, name: str, size: int, gpus: int, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.tensor([1.0, 1.0]))  # each device computes
    for key, value in (("RANK", size - 1), ("LOCAL_RANK", size - 1), ("WORLD_SIZE", size)):
        monkeypatch.setenv(key, str(value))
    if " " in expected:
        with pytest.raises(ConfigError, match=expected):
            World.from_environment(name)
    else:
        assert World.from_environment(name) == World(size - 1, size, torch.device(expected))


@pytest.mark.parametrize("norm", ["frozen_bn", "bn"])
def test_buffers_travel_only_where_a_norm_trains(monkeypatch, norm):
    seen = {}
    monkeypatch.setattr(distributed, "DistributedDataParallel", lambda model, **options: seen.update(options))
    layer = nn.BatchNorm2d(4) if norm == "bn" else FrozenBatchNorm2d(4)
    distributed.data_parallel(nn.Sequential(nn.Conv2d(3, 4, 1), layer), World(0, 2, torch.device("cpu")))
    assert seen[distributed.SYNC_BUFFERS] is (norm == "bn")
