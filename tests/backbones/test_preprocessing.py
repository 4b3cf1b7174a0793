"""Images to what the weights expect."""

import pytest
import torch

from backbones import IMAGENET_PREPROCESSING, Preprocessing

CAFFE = Preprocessing("bgr", (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))


def test_imagenet_is_torchvisions():
    images = torch.randint(256, (2, 3, 5, 7), dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    normalised = IMAGENET_PREPROCESSING.normalize(images)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised, (images / 255 - mean) / std)


def test_bgr_by_hand():
    pixel = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([30 - 102.9801, 20 - 115.9465, 10 - 122.7717]).view(1, 3, 1, 1)
    torch.testing.assert_close(CAFFE.normalize(pixel), expected)


def test_single_image_and_float_input_are_not_changed():
    image = torch.rand(3, 4, 4) * 255
    before = image.clone()
    torch.testing.assert_close(CAFFE.normalize(image), CAFFE.normalize(image[None])[0])
    torch.testing.assert_close(image, before, rtol=0, atol=0)


def test_channels_last_is_kept():
    images = torch.randint(256, (2, 3, 5, 7), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    for preprocessing in (IMAGENET_PREPROCESSING, CAFFE):
        assert preprocessing.normalize(images).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("preprocessing", [IMAGENET_PREPROCESSING, CAFFE])
def test_dict_round_trip(preprocessing):
    values = preprocessing.to_dict()
    assert isinstance(values["mean"], list)
    assert Preprocessing.from_dict(values) == preprocessing


@pytest.mark.parametrize(
    "change",
    [
        {"channel_order": "rbg"},
        {"mean": [1, 2]},
        {"mean": [1, 2, float("nan")]},
        {"mean": 3.0},
        {"mean": "abc"},
        {"std": [1, 1, 0]},
        {"std": [1, -1, 1]},
        {"extra": 1},
    ],
    ids=str,
)
def test_bad_values_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change)) if "extra" not in change else "must hold"):
        Preprocessing.from_dict(IMAGENET_PREPROCESSING.to_dict() | change)
