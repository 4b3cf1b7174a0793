"""Two processes of a run settle the same experiment, though the output folder is on the machine of one of them."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detection import Config
from detection.config import HeldOut, load_config
from detection.engine.distributed import World
from detection.training.fit import TrainingData, keep_split, load_training_data, settle_data
from tests.shapes import write_config

AsRank = Callable[[int], World]


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> AsRank:
    """What is told to all as rank 0 waits for rank 1, which must ask for all of it, in its order, and for nothing else."""
    messages: list[list[object]] = []
    rank = 0

    def broadcast(message: list[object], **_: object) -> None:
        if rank == 0:
            messages.append(copy.deepcopy(message))
        else:
            message[:] = messages.pop(0)

    def become(number: int) -> World:
        nonlocal rank
        assert number or not messages, "rank 1 has not asked for all that rank 0 told"
        rank = number
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(number))
        return World(number, 2, torch.device("cpu"))

    monkeypatch.setattr("torch.distributed.broadcast_object_list", broadcast)
    return become


def settled(config: Config, world: World) -> tuple[Config, TrainingData]:
    """The part of a run before its model is built."""
    config = settle_data(config, world, lambda sentence: None)
    data = load_training_data(config, world, None, None, lambda sentence: None)
    return keep_split(config, world, data), data


def test_all_processes_hold_out_the_images_that_the_run_began_with(tmp_path: Path, devkit: Path, as_rank: AsRank) -> None:
    config = load_config(write_config(tmp_path, devkit), ["data.classes=auto", "data.val={fraction: 0.3}"])
    (listed,) = devkit.rglob("train.txt")
    seen = []
    for _ in ("begun", "resumed"):
        for rank in (0, 1):
            mine = config.model_copy(update={"output_dir": tmp_path / f"machine {rank}" / "run"})
            own, data = settled(mine, as_rank(rank))
            assert isinstance(own.data.val, HeldOut) and data.validation is not None
            names = [[record.image_id for record in part.records] for part in (data.training, data.validation)]
            seen.append((own.data.class_names, own.data.val.fraction, names))
        as_rank(0)
        listed.write_text(listed.read_text() + listed.with_name("val.txt").read_text())  # the folder grows
    assert all(each == seen[0] for each in seen)
    assert not (tmp_path / "machine 1").exists()
