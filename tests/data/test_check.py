"""Checking a data set from a program: faults, statistics, warnings, and a sheet of ground truth."""

from pathlib import Path

import pytest

from detection.config import Config
from detection.data.check import check_data, data_warnings, fault_lines, save_ground_truth_sheet, split_statistics
from detection.data.images import read_image
from tests.data.pictures import CLASSES, coco_content, write_coco, write_devkit


@pytest.fixture
def config(tmp_path: Path) -> Config:
    write_devkit(tmp_path)
    write_coco(tmp_path)
    voc = {"format": "voc", "root": str(tmp_path), "year": 2007, "split": "trainval"}
    coco = {"format": "coco", "root": str(tmp_path), "annotations": "instances.json", "images": "images"}
    return Config.model_validate({"data": {"classes": list(CLASSES), "workers": 0, "train": [voc], "test": [coco]}})


def test_splits_are_checked_in_order_and_progress_is_reported(config):
    reported: list[tuple[str, int, int]] = []
    splits = check_data(config.data, lambda *progress: reported.append(progress))
    assert [split.name for split in splits] == ["train", "test"] and fault_lines(splits) == []
    assert reported == [(name, done, 4) for name in ("train", "test") for done in (1, 2, 3, 4)]


def test_statistics(config):
    train, test = (split_statistics(split, CLASSES) for split in check_data(config.data))
    assert (train.num_images, train.num_landscape, train.num_without_objects, train.num_objects, train.num_difficult) == (
        4,
        3,
        1,
        5,
        1,
    )
    assert train.objects_by_class == {"cat": 3, "dog": 2} and (test.num_difficult, test.num_crowd) == (0, 1)
    assert list(train.box_sizes) == [1, 10, 50, 90, 99] and list(train.box_sizes.values()) == sorted(train.box_sizes.values())


def test_faults_and_warnings_are_lines(config, tmp_path):
    content = coco_content()
    content["annotations"] = [{**content["annotations"][0], "bbox": [1, 2, -3, 4]}]
    write_coco(tmp_path, content=content)
    splits = check_data(config.data)
    assert [line for line in fault_lines(splits) if line.startswith("repaired: test: ") and "inverted box, dropped" in line]
    assert "test: no object of cat, dog" in data_warnings(splits, CLASSES)


def test_sheet(config, tmp_path):
    (train, _) = check_data(config.data)
    save_ground_truth_sheet(train.records, CLASSES, tmp_path / "new/train.jpg", count=2)
    assert read_image(tmp_path / "new/train.jpg").shape[1] < read_image(train.records[0].file).shape[1] * 4
    save_ground_truth_sheet([], CLASSES, tmp_path / "none.png")
