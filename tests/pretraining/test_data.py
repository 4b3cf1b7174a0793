from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detection.config import load_classifier_config
from detection.errors import ConfigError, DatasetError
from detection.pretraining import data
from detection.pretraining.data import ImageBatch, fill_sizes, load_splits, train_loader
from detection.pretraining.folders import ImageFolder, load_folders
from tests.pretraining.class_folders import BGR, make_config, write_data, write_image, write_split

RANDOM = [{"RandomResizedCrop": {}}, {"HorizontalFlip": {"p": 0.5}}]


def make_folder(count: int = 10, size: int = 32) -> ImageFolder:
    """Random images in memory; the label is the image's number."""
    pixels = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8)
    return ImageFolder(tuple(map(str, range(count))), [f"{n}.png" for n in range(count)], torch.arange(count), pixels=pixels)


def equal(first: ImageBatch, second: ImageBatch) -> bool:
    return first.files == second.files and torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)


def test_a_batch_moves_as_one():
    batch = ImageBatch(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), ["a", "b"])
    moved = batch.to("meta")
    assert len(moved) == 2 and moved.images.is_meta and moved.labels.is_meta and moved.files == ["a", "b"]


def test_images_are_uint8_in_the_convolutions_layout():
    batch = next(train_loader(make_folder(), make_config("x")))
    assert batch.images.shape == (8, 3, 32, 32) and batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_pixels_arrive_as_they_are():
    folder = make_folder()
    batch = next(train_loader(folder, make_config("x")))
    assert folder.pixels is not None
    for image, label in zip(batch.images, batch.labels, strict=True):
        assert torch.equal(image.permute(1, 2, 0), folder.pixels[label])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_a_function_of_their_number(workers):
    folder = make_folder()
    random: dict[str, Any] = {"augmentations": RANDOM}
    config = make_config("x", data=random | {"workers": workers})
    expected = list(islice(train_loader(folder, make_config("x", data=random)), 5))
    for first in (0, 3):
        found = islice(train_loader(folder, config, first_batch=first), 2)
        assert all(equal(a, b) for a, b in zip(found, expected[first:], strict=False))
    other = make_config("x", data=random, train={"seed": 1})
    assert not equal(next(train_loader(folder, other)), expected[0])


def test_ranks_share_each_epoch_out():
    folder, config = make_folder(16), make_config("x", train={"images_per_device": 4, "batch_size": 8})
    ranks = [list(islice(train_loader(folder, config, rank=rank, world_size=2), 2)) for rank in range(2)]
    labels = torch.cat([batch.labels for batches in ranks for batch in batches])
    assert sorted(labels.tolist()) == list(range(16))


def test_the_test_loader_gives_each_image_once_in_order():
    folder = make_folder()
    for workers in (0, 1):
        batches = list(data.test_loader(folder, make_config("x", data={"workers": workers})))
        assert [len(batch) for batch in batches] == [8, 2]
        assert torch.cat([batch.labels for batch in batches]).tolist() == list(range(10))
        images = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1)
        assert folder.pixels is not None and torch.equal(images, folder.pixels)


def test_the_default_test_view_is_the_centre():
    """A 112 x 224 image at image_size 56: the shorter side becomes 64, then 56 of 64 x 128 remain, from (4, 36) on."""
    ramp = np.broadcast_to(np.arange(224, dtype=np.uint8)[None, :, None], (112, 224, 3))
    folder = ImageFolder(("a",), ["a"], torch.tensor([0]), pixels=torch.from_numpy(ramp.copy())[None])
    (batch,) = data.test_loader(folder, make_config("x", data={"image_size": 56, "test_transforms": []}))
    scale = 224 / 128
    expected = (np.arange(36, 92) + 0.5) * scale - 0.5
    np.testing.assert_allclose(batch.images[0, 0, 0].numpy(), expected, atol=1)


def test_sizes_are_filled_in_only_where_they_are_needed():
    given: list[Any] = [
        {"RandomResizedCrop": {}},
        {"CenterCrop": {"height": 8}},
        {"HorizontalFlip": {"p": 1}},
        {"Resize": None},
    ]
    assert fill_sizes(given, 32) == [
        {"RandomResizedCrop": {"size": (32, 32)}},
        {"CenterCrop": {"height": 8, "width": 32}},
        {"HorizontalFlip": {"p": 1}},
        {"Resize": {"height": 32, "width": 32}},
    ]


@pytest.mark.parametrize(
    ("augmentations", "message"),
    [
        ([{"Resize": {"height": 16}}], r"data.augmentations give \(16, 32, 3\) uint8 for .*not \(32, 32, 3\)"),
        ([{"Normalize": {}}], "'Normalize' gives floating-point pixels"),
        ([{"HorizontalFlop": {}}], "HorizontalFlop.*HorizontalFlip"),
        ([{"CenterCrop": {"hight": 16}}], "hight"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_augmentations_that_cannot_be_used(augmentations, message, workers):
    config = make_config("x", data={"augmentations": augmentations, "workers": workers})
    with pytest.raises(ConfigError, match=message):
        next(train_loader(make_folder(), config))


def bad_splits(root):
    """Images of two sizes, so that they are decoded when needed; one of them is damaged."""
    write_data(root)
    for split in ("train", "val"):
        write_image(root / split / "apple/50.png", BGR["apple"], 0, (40, 40))
        (root / split / "apple/01.png").write_bytes(b"\x89PNG no image")


def test_a_bad_image_stops_the_run(tmp_path):
    bad_splits(tmp_path)
    config = make_config(tmp_path, data={"augmentations": [{"Resize": {}}], "workers": 1})
    train, val = load_folders(tmp_path, ["train", "val"])
    for loader in (train_loader(train, config), data.test_loader(val, config)):
        with pytest.raises(DatasetError, match=r"apple/01\.png") as caught:
            list(islice(loader, 2))
        assert "Traceback" not in str(caught.value)


def test_a_bad_image_is_skipped_and_logged(tmp_path, caplog):
    bad_splits(tmp_path)
    config = make_config(tmp_path, data={"augmentations": [{"Resize": {}}], "on_bad_image": "skip"})
    train, val = load_splits(config.data, "train", "val")
    batches = list(islice(train_loader(train, config), 4))
    assert [len(batch) for batch in batches] == [8] * 4
    assert sum(len(batch) for batch in data.test_loader(val, config)) == 8
    assert caplog.text.count("apple/01.png") == 2  # once for each loader


def test_a_test_batch_of_nothing_but_bad_images_is_left_out(tmp_path):
    bad_splits(tmp_path)
    config = make_config(tmp_path, data={"on_bad_image": "skip"}, train={"images_per_device": 1})
    (val,) = load_splits(config.data, "val")
    assert len(list(data.test_loader(val, config))) == 8


def test_roots_are_found_under_the_datasets_folder(tmp_path, monkeypatch):
    write_split(tmp_path / "fruit", "train")
    monkeypatch.setenv("RESDET_DATASETS", str(tmp_path))
    (folder,) = load_splits(make_config("fruit").data, "train")
    assert len(folder) == 8


def test_the_imagenet_recipe_reads_real_photographs(real_data):
    overrides = [f"data.root={real_data / 'imagenet_mini'}", "data.train=.", "data.val=.", "data.workers=0"]
    config = load_classifier_config(Path(__file__).parents[2] / "configs/imagenet_r50.yaml", overrides)
    (folder,) = load_splits(config.data, ".")
    assert next(train_loader(folder, config)).images.shape == (32, 3, 224, 224)
    assert sum(len(batch) for batch in data.test_loader(folder, config)) == 100
