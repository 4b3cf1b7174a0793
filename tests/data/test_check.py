"""Checking a data set from a program: faults, statistics, warnings, and a sheet of ground truth."""

import os
from pathlib import Path

import pytest
from PIL import Image

from detection.config import Config
from detection.data import loader
from detection.data.catalog import load_dataset
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


@pytest.mark.skipif(os.name != "posix", reason="pipes in folders are POSIX's")
@pytest.mark.parametrize("strict", [False, True])
def test_files_that_are_none_are_listed_and_nothing_dies(config, tmp_path, strict):
    folder = tmp_path / "VOC2007/JPEGImages"
    for file in folder.iterdir():
        file.unlink()
    os.mkfifo(folder / "000001.jpg")
    (folder / "000002.jpg").symlink_to("000002.jpg")
    (folder / "000003.jpg").symlink_to("/dev/zero")
    frames = [Image.new("RGB", (50, 50), (value, 0, 0)) for value in (0, 250)]
    frames[0].save(folder / "000004.gif", save_all=True, append_images=frames[1:])
    source = config.data.train[0]
    data = config.data.model_copy(update={"test": (source,), "strict": strict})
    splits = check_data(data)
    assert [len(split.faults.errors) for split in splits] == [3, 3]
    warnings = data_warnings(splits, CLASSES)
    assert any("train: 1 images have several frames or pages, of which only the first is used" in line for line in warnings)
    assert any("4 images are in train and in test" in line for line in warnings)
    skipping = check_data(data.model_copy(update={"on_bad_image": "skip", "strict": False}))
    assert [(len(split.faults.errors), len(split.faults.notes)) for split in skipping] == [(0, 3), (0, 3)]


def test_frames_are_said_once_while_loading(config, tmp_path, caplog):
    folder = tmp_path / "VOC2007/JPEGImages"
    for stem, size in (("000001", (60, 40)), ("000004", (50, 50))):
        frames = [Image.new("RGB", size, (value, 0, 0)) for value in (0, 250)]
        frames[0].save(folder / f"{stem}.gif", save_all=True, append_images=frames[1:])
        (folder / f"{stem}.jpg").unlink()
    dataset = load_dataset(config.data.train, CLASSES)
    assert len(list(loader.test_loader(dataset.records, 2))) == 2
    assert "2 images have several frames or pages, of which only the first is used; the first: " in caplog.text
    caplog.clear()
    stream = loader.train_loader(dataset, config)
    for _ in range(8):
        next(stream)
    stream.close()
    assert len([line for line in caplog.messages if "several frames or pages: of each such image only the first" in line]) == 1
