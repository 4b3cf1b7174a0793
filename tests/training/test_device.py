"""A training on a named device: it is there that networks are trained, and a GPU that is not named is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones import build_backbone, save_checkpoint
from detection import train_detector
from detection.config import load_config
from detection.engine import distributed, train
from detection.localisation import train_localiser
from detection.pretraining import train_classifier
from detection.training.quickstart import run_quickstart
from tests.localisation import loc_kit
from tests.pretraining import class_folders
from tests.shapes import write_config


@pytest.fixture
def gpu_that_must_not_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "_lazy_init", fails)


@pytest.mark.usefixtures("gpu_that_must_not_be_used")
def test_cpu_is_the_cpu_though_there_is_a_gpu(tmp_path: Path, devkit: Path) -> None:
    """To the end of a run and of a resumed one: the loader's memory, the random numbers, the validation losses."""
    path = write_config(tmp_path, devkit)
    for resume, steps in ((False, 1), (True, 2)):
        config = load_config(path, [f"train.steps={steps}", "train.validation_losses=2"])
        assert train_detector(config, device="cpu", resume=resume).steps == steps
    assert (config.output_dir / "log.txt").read_text().count("cpu, fp32, 1 process") == 2


class FoundDeviceError(Exception):
    """Ends a training where its network has been moved."""


def train_joint(folder: Path, devkit: Path) -> object:
    return train_detector(load_config(write_config(folder, devkit)), device="xpu:7")


def train_alternating(folder: Path, devkit: Path) -> object:
    config = load_config(write_config(folder, devkit), ["approach=alternating"])
    return train_detector(config, device="xpu:7")


def train_backbone(folder: Path, devkit: Path) -> object:
    return train_classifier(class_folders.make_config(class_folders.write_data(folder / "set"), folder / "run"), device="xpu:7")


def train_loc(folder: Path, devkit: Path) -> object:
    save_checkpoint(build_backbone("resnet18").state_dict(), folder / "classifier.pt")
    config = loc_kit.make_config(loc_kit.write_loc(folder / "loc"), folder / "run", model={"backbone": "resnet18"})
    return train_localiser(config, device="xpu:7")


def quickstart(folder: Path, devkit: Path) -> object:
    classifier = class_folders.make_config(class_folders.write_data(folder / "set"), folder / "run")
    return run_quickstart(load_config(write_config(folder, devkit)), classifier, folder / "quick", device="xpu:7")


@pytest.mark.parametrize("start", [train_joint, train_alternating, train_backbone, train_loc, quickstart])
def test_the_network_is_moved_to_the_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, devkit: Path, start: Callable[[Path, Path], object]
) -> None:
    """`meta` stands for a device that this machine does not have; the words of others are known."""
    places = {"xpu:7": torch.device("meta")}
    monkeypatch.setattr(distributed, "find_device", lambda device: places[str(device)])

    def moved(config: object, world: distributed.World, checkpoint: object) -> None:
        raise FoundDeviceError(world.device)

    monkeypatch.setattr(train, "_autocast_type", moved)
    with pytest.raises(FoundDeviceError, match="meta"):
        start(tmp_path, devkit)
