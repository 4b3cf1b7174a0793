"""The stream of batches: resumable, divided among ranks, the same for any number of workers; bad images."""

import logging
import os
import signal
import subprocess
import sys
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

from detection.config import Config, parse_config
from detection.data import loader
from detection.data.catalog import load_dataset
from detection.data.sampler import GroupedBatchSampler
from detection.data.workers import start_worker
from detection.errors import ConfigError, DatasetError
from tests.data.pictures import CLASSES, PICTURES, voc_source, write_devkit


def config(workers=0, **data) -> Config:
    images = data.pop("images_per_device", 2)
    defaults = {"classes": CLASSES, "workers": workers, "shorter_sides": [24, 32], "longer_side": 64}
    values = {"data": defaults | data, "train": {"images_per_device": images, "seed": 5}}
    return parse_config(Config, values, "the test")


def batches(dataset, settings, count, **options):
    stream = loader.train_loader(dataset, settings, **options)
    found = list(islice(stream, count))
    stream.close()
    return found


def assert_equal(one, other):
    assert one.files == other.files and one.sizes_hw == other.sizes_hw
    assert torch.equal(one.images, other.images)
    for mine, theirs in zip(one.targets, other.targets, strict=True):
        assert torch.equal(mine.boxes, theirs.boxes) and torch.equal(mine.ignored, theirs.ignored)
        assert torch.equal(mine.labels, theirs.labels)


def test_batch(dataset):
    batch = batches(dataset, config(), 1)[0]
    assert len(batch) == len(batch.targets) == len(batch.files) == 2
    assert batch.images.dtype == torch.uint8 and batch.images.shape[:2] == (2, 3)
    for (height, width), target, file in zip(batch.sizes_hw, batch.targets, batch.files, strict=True):
        assert height <= batch.images.shape[2] and width <= batch.images.shape[3]
        assert len(target.boxes) + len(target.ignored) == 1 and file.endswith(".jpg")


def test_any_number_of_workers_gives_the_same(dataset):
    for one, other in zip(batches(dataset, config(0), 12), batches(dataset, config(2), 12), strict=True):
        assert_equal(one, other)


def test_resumed_equals_uninterrupted(dataset):
    whole = batches(dataset, config(), 25, rank=1, world_size=2)
    for first in (0, 1, 11):
        for one, other in zip(
            whole[first:], batches(dataset, config(), 25 - first, rank=1, world_size=2, first_batch=first), strict=True
        ):
            assert_equal(one, other)


def test_seeds_differ(dataset):
    other = config().model_copy(update={"train": config().train.model_copy(update={"seed": -6})})
    one, two = batches(dataset, config(), 6), batches(dataset, other, 6)
    assert [batch.files for batch in one] != [batch.files for batch in two]


def test_fewer_images_than_a_batch(dataset):
    few = type(dataset)(dataset.class_names, dataset.records[:1])
    assert len(set(batches(few, config(images_per_device=3), 2)[1].files)) == 1


def test_aspect_grouping(dataset):
    for batch in batches(dataset, config(images_per_device=3), 20):
        assert len({height > width for height, width in batch.sizes_hw}) == 1
    mixed = batches(dataset, config(images_per_device=3, aspect_grouping=False), 20)
    assert any(len({height > width for height, width in batch.sizes_hw}) == 2 for batch in mixed)


def test_workers_may_be_spawned(dataset):
    """Windows and macOS have no fork: all that a worker gets must pickle."""
    records = loader.TrainDataset(dataset.records, config().data)
    sampler = GroupedBatchSampler(len(records), None, 2, 5)
    spawned = DataLoader(
        records,
        batch_sampler=sampler,
        collate_fn=loader.collate,
        num_workers=1,
        worker_init_fn=start_worker,
        multiprocessing_context="spawn",
    )
    stream = iter(spawned)
    assert_equal(next(stream).batch, batches(dataset, config(aspect_grouping=False), 1)[0])


def spoil(dataset, index):
    file = dataset.records[index].file
    file.write_bytes(file.read_bytes()[:-300])
    return file


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_image_is_one_clear_error(dataset, workers):
    file = spoil(dataset, 4)
    with pytest.raises(DatasetError, match=f"{file.name} is damaged or cut short") as caught:
        batches(dataset, config(workers), 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_image_is_skipped_and_counted_once(dataset, workers, caplog):
    bad = {str(spoil(dataset, 0)), str(spoil(dataset, 3))}
    with caplog.at_level(logging.WARNING):
        found = batches(dataset, config(workers, on_bad_image="skip"), 20)
    assert not {file for batch in found for file in batch.files} & bad
    assert sorted(record.message.split(":")[0] for record in caplog.records) == [
        "skipped image number 1",
        "skipped image number 2",
    ]
    assert all(len({height > width for height, width in batch.sizes_hw}) == 1 for batch in found)


def test_all_images_bad(dataset):
    for index in range(len(dataset)):
        dataset.records[index].file.write_bytes(b"")
    with pytest.raises(DatasetError, match="none of the images can be used"):
        batches(dataset, config(on_bad_image="skip"), 1)


def test_image_of_another_size(tmp_path):
    write_devkit(tmp_path, PICTURES[:1])
    xml = tmp_path / "VOC2007/Annotations/000001.xml"
    xml.write_text(xml.read_text().replace("<width>60</width>", "<width>61</width>"))
    dataset = load_dataset([voc_source(tmp_path)], CLASSES)
    with pytest.raises(DatasetError, match=r"000001\.jpg is 60x40 as displayed, but its annotation says 61x40"):
        batches(dataset, config(), 1)


def test_wrong_augmentation_in_a_worker(dataset):
    with pytest.raises(ConfigError, match=r"'RandomCrop' cannot be applied to a .* image \(.*0000\d\d\.jpg\)"):
        batches(dataset, config(1, augmentations=[{"RandomCrop": {"height": 90, "width": 90}}]), 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_program_may_have_other_defaults(dataset, workers):
    expected = batches(dataset, config(0), 2)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            found = batches(dataset, config(workers), 2)
            assert len(list(loader.test_loader(dataset.records, 5, workers))) == 3
    finally:
        torch.set_default_dtype(torch.float32)
    for ours, one in zip(found, expected, strict=True):
        assert torch.equal(ours.images, one.images)
        for target, same in zip(ours.targets, one.targets, strict=True):
            assert target.boxes.dtype == torch.float32 and torch.equal(target.boxes, same.boxes)


@pytest.mark.parametrize("workers", [0, 1])
def test_test_loader(dataset, workers):
    found = list(loader.test_loader(dataset.records, 5, workers))
    assert [len(images) for _, images in found] == [5, 5, 3]
    assert [record.image_id for records, _ in found for record in records] == [record.image_id for record in dataset.records]
    for records, images in found:
        for record, image in zip(records, images, strict=True):
            assert image.dtype == torch.uint8 and image.shape == (3, *record.size_hw)


def test_test_loader_with_a_bad_image(dataset, caplog):
    file = spoil(dataset, 2)
    with pytest.raises(DatasetError, match=file.name):
        list(loader.test_loader(dataset.records, 5, 1))
    found = list(loader.test_loader(dataset.records, 1, 0, on_bad_image="skip"))
    assert len(found) == 12 and file.name in caplog.text


def test_find_bad_images(dataset):
    spoil(dataset, 1)
    checks = list(loader.find_bad_images(dataset.records, 1))
    assert [check.problem is None for check in checks] == [index != 1 for index in range(13)]


SCRIPT = """
import os, signal, sys
from pathlib import Path
from itertools import islice
from detection.data.catalog import load_dataset
from detection.data.loader import train_loader
from tests.data.test_loader import CLASSES, config, voc_source
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGINT, lambda *_: None)
stream = train_loader(load_dataset([voc_source(Path(sys.argv[1]))], CLASSES), config(2))
next(stream), next(stream)  # one of each worker: both are up
os.killpg(0, int(sys.argv[2]))
print(len(list(islice(stream, 20))))
"""


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_the_main_process(dataset, tmp_path, number):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, start_new_session=True, check=False)
    assert (done.returncode, done.stdout) == (0, "20\n"), done.stderr
