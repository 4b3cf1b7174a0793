"""The batches of a detector's and a classifier's validation losses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detection import Config, train_detector
from detection.config import load_config, override_config
from detection.data import load_split
from detection.data.catalog import Dataset
from detection.pretraining import train_classifier
from detection.training.fit import validation_batches
from tests.pretraining.class_folders import make_config, write_data
from tests.shapes import write_config


@pytest.fixture
def config(tmp_path: Path, devkit: Path) -> Config:
    augmented = ["data.augmentations=[{HorizontalFlip: {p: 1}}]", "data.shorter_sides=[96]", "data.longer_side=160"]
    return load_config(write_config(tmp_path, devkit), [*augmented, "train.validation_losses=2", "train.steps=2"])


def split(config: Config) -> Dataset:
    return load_split(config.data, "train")  # of four images


@pytest.mark.parametrize(("wanted", "size", "files"), [(1, 1, 1), (2, 1, 2), (3, 2, 4), (100, 1, 4), (2, 4, 4)])
def test_as_many_images_as_make_up_whole_batches(config: Config, wanted: int, size: int, files: int) -> None:
    config = override_config(config, [f"train.validation_losses={wanted}", f"train.images_per_device={size}"])
    batches = list(validation_batches(split(config), config))
    seen = [file for batch in batches for file in batch.files]
    assert [len(batch) for batch in batches] == [size] * (files // size) and len(set(seen)) == files


def test_images_are_as_in_the_test_and_the_same_each_time(config: Config) -> None:
    plain = split(config)
    dataset = replace(plain, weights={plain.records[0].image_id: 50.0})  # which counts in training alone
    config = override_config(config, ["train.validation_losses=4", "data.repeat_threshold=1"])
    first, again = (list(validation_batches(dataset, config)) for _ in range(2))
    assert len({batch.files[0] for batch in first}) == 4
    for batch, same in zip(first, again, strict=True):
        assert batch.files == same.files and batch.sizes_hw == [(48, 64)]
        record = next(record for record in dataset.records if str(record.file) == batch.files[0])
        np.testing.assert_array_equal(batch.targets[0].boxes, record.boxes)  # neither flipped nor scaled


def test_tiles_of_images_without_objects_have_losses_too(config: Config) -> None:
    """Training refuses to draw from nothing, and a run must not end for that at its first evaluation."""
    config = override_config(config, ["train.validation_losses=4", "data.tile=40", "data.tile_empty=0"])
    bare = load_split(config.data, "train")
    bare = replace(bare, records=[replace(record, difficult=~record.difficult) for record in bare.records])
    assert len(list(validation_batches(bare, config))) == 4


def test_a_detector_has_four_of_them(config: Config) -> None:
    train_detector(config)
    line = json.loads((config.output_dir / "metrics.jsonl").read_text().splitlines()[-1])
    training = json.loads((config.output_dir / "metrics.jsonl").read_text().splitlines()[0])
    assert line["val_losses"].keys() == training["losses"].keys() and len(training["losses"]) == 4
    assert line["val_loss"] == pytest.approx(sum(line["val_losses"].values()))


def test_a_classifier_has_one(tmp_path: Path) -> None:
    config = make_config(write_data(tmp_path / "set"), tmp_path / "run", train={"steps": 1, "validation_losses": 3})
    train_classifier(config)
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert line["val_losses"] == {"loss_classification": line["val_loss"]}
