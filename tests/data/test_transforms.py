"""Boxes follow their image, and a seed says all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detection.data.augmentations import build_augmentation, reseed
from detection.data.transforms import augment, make_target, prepare, resize
from detection.errors import ConfigError
from detection.resize import resized_size
from detection.structures import Record, Target

FLIP = build_augmentation([{"HorizontalFlip": {"p": 1.0}}])
NOTHING = build_augmentation([])


def target(boxes=(), ignored=(), labels=None) -> Target:
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.arange(len(boxes)) if labels is None else torch.tensor(labels)
    return Target(boxes, labels, torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4))


def image(height=40, width=60, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_flip_by_hand():
    flipped, found = augment(image(), target([[10, 5, 30, 25]], [[0, 0, 6, 40]], [7]), FLIP)
    np.testing.assert_array_equal(flipped, image()[:, ::-1])
    torch.testing.assert_close(found.boxes, torch.tensor([[30.0, 5, 50, 25]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.ignored, torch.tensor([[54.0, 0, 60, 40]]), atol=1e-4, rtol=0)
    assert found.labels.tolist() == [7]


def test_crop_drops_what_is_gone_and_clips_the_rest():
    crop = build_augmentation([{"Crop": {"x_min": 20, "y_min": 0, "x_max": 60, "y_max": 40}}])
    cropped, found = augment(image(), target([[0, 0, 10, 10], [10, 5, 30, 25]], [[0, 0, 20, 40], [15, 0, 25, 40]]), crop)
    assert cropped.shape == (40, 40, 3)
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 5, 10, 25]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.ignored, torch.tensor([[0.0, 0, 5, 40]]), atol=1e-4, rtol=0)
    assert found.labels.tolist() == [1]


@pytest.mark.parametrize("augmentation", [NOTHING, FLIP])
def test_no_boxes(augmentation):
    tensor, found = prepare(image(), target(), augmentation, (20,), 100, seed=1)
    assert tensor.shape == (3, 20, 30) and tensor.dtype == torch.uint8
    assert found.boxes.shape == found.ignored.shape == (0, 4) and found.labels.shape == (0,)


@given(data=st.data(), height=st.integers(8, 200), width=st.integers(8, 200), shorter=st.integers(8, 150))
@settings(max_examples=50)
def test_flip_and_resize_of_any_box(data, height, width, shorter):
    x1, x2 = sorted(data.draw(st.lists(st.floats(0, width, width=32), min_size=2, max_size=2)))
    y1, y2 = sorted(data.draw(st.lists(st.floats(0, height, width=32), min_size=2, max_size=2)))
    if x2 - x1 < 0.5 or y2 - y1 < 0.5:
        return
    tensor, found = prepare(image(height, width), target([[x1, y1, x2, y2]]), FLIP, (shorter,), 300, seed=0)
    new_h, new_w = tensor.shape[1:]
    assert (new_h, new_w) == resized_size((height, width), shorter, 300)
    expected = torch.tensor(
        [[(width - x2) * new_w / width, y1 * new_h / height, (width - x1) * new_w / width, y2 * new_h / height]]
    )
    torch.testing.assert_close(found.boxes, expected, atol=1e-3, rtol=1e-5)
    assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor([new_w, new_h, new_w, new_h])).all()


def test_axes_have_their_own_ratio():
    """100 x 33 to a shorter side of 10: 30.3 becomes 30."""
    _, found = resize(image(100, 33), target([[0, 0, 33, 100]]), resized_size((100, 33), 10, 1000))
    assert found.boxes.tolist() == [[0, 0, 10, 30]]


def test_pillow_smooths_what_it_shrinks():
    """A bright line every eighth column, shrunk to a fifth: Pillow gives its mean everywhere, OpenCV hits or misses it."""
    picture = np.zeros((40, 160, 3), np.uint8)
    picture[:, ::8] = 240
    smooth, _ = prepare(picture, target([[0, 0, 9, 9]]), NOTHING, (8,), 100, 0, "pillow")
    rough, _ = prepare(picture, target([[0, 0, 9, 9]]), NOTHING, (8,), 100, 0)
    assert smooth.shape == rough.shape == (3, 8, 32)
    assert smooth.float().std() < 20 < rough.float().std()
    expected = Image.fromarray(picture).resize((32, 8), Image.Resampling.BILINEAR)
    assert np.array_equal(smooth.permute(1, 2, 0), np.asarray(expected))


def test_patch_stays_in_its_box():
    picture = np.zeros((50, 80, 3), np.uint8)
    picture[10:30, 20:50] = 255
    tensor, found = prepare(picture, target([[20, 10, 50, 30]]), FLIP, (100,), 1000, seed=0)
    rows, columns = (tensor[0] > 127).nonzero(as_tuple=True)
    seen = [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]
    np.testing.assert_allclose(found.boxes[0], seen, atol=1e-3)


def test_seed_says_all():
    augmentation = build_augmentation(
        [{"HorizontalFlip": {}}, {"OneOf": {"transforms": [{"Blur": {}}, {"CLAHE": {}}]}}, {"RandomBrightnessContrast": {}}]
    )
    objects = target([[10, 5, 30, 25]])
    first = [prepare(image(), objects, augmentation, (20, 30, 40), 100, seed) for seed in range(20)]
    again = [prepare(image(), objects, augmentation, (20, 30, 40), 100, seed) for seed in reversed(range(20))]
    for (tensor, found), (tensor_again, found_again) in zip(first, reversed(again), strict=True):
        assert torch.equal(tensor, tensor_again) and torch.equal(found.boxes, found_again.boxes)
    assert {tensor.shape[1] for tensor, _ in first} == {20, 30, 40}


def test_transforms_draw_apart():
    """One seed for all would flip in both directions or in none."""
    both = build_augmentation([{"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}}])
    outcomes = set()
    for seed in range(30):
        reseed(both, seed)
        _, found = augment(image(), target([[0, 0, 10, 10]]), both)
        outcomes.add(tuple(found.boxes.round().int().flatten().tolist()))
    assert len(outcomes) == 4


def test_without_boxes():
    assert build_augmentation([{"HorizontalFlip": {"p": 1.0}}], boxes=False)(image=image())["image"].shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        ({"HorizontlFlip": {}}, "unknown augmentation 'HorizontlFlip'; did you mean 'HorizontalFlip'"),
        ({"BboxParams": {}}, "unknown augmentation 'BboxParams'"),
        ({"HorizontalFlip": {"p": 3}}, "augmentation 'HorizontalFlip' .*p: Input should be less than or equal to 1"),
        ({"HorizontalFlip": {"probability": 1}}, r"Argument\(s\) 'probability' are not valid"),
        ({"RandomCrop": {}}, "height: Field required; width: Field required"),
        ({"OneOf": {"transforms": [{"Blurr": {}}]}}, "did you mean 'Blur'"),
        ({"OneOf": {}}, "augmentation 'OneOf'"),
    ],
)
def test_wrong_augmentations(augmentation, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_augmentation([augmentation])
    assert "\n" not in str(caught.value)


def test_augmentation_that_cannot_be_applied_names_transform_and_image():
    crop = build_augmentation([{"HorizontalFlip": {}}, {"RandomCrop": {"height": 100, "width": 10}}])
    with pytest.raises(ConfigError, match=r"'RandomCrop' cannot be applied to a 60x40 image \(a.jpg\): Crop size"):
        augment(image(), target(), crop, "a.jpg")


def test_ignored_regions_of_a_record():
    flags = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0]], dtype=torch.bool)
    boxes = torch.arange(16.0).reshape(4, 4)
    record = Record("a", Path("a.jpg"), (9, 9), boxes, torch.arange(4), flags[0], flags[1], torch.ones(4))
    found = make_target(record)
    assert found.labels.tolist() == [0, 3] and torch.equal(found.boxes, boxes[[0, 3]])
    assert torch.equal(found.ignored, boxes[[1, 2]])
