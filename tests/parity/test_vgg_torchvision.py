"""The same weights give the same numbers as torchvision's VGG-16, and fit both ways."""

import pytest
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from backbones import build_backbone

BEFORE_POOLING = {"features.8": "c2", "features.15": "c3", "features.22": "c4", "features.29": "c5"}


@pytest.fixture(scope="module")
def pair():
    """Ours and torchvision's in evaluation mode, sharing one set of weights: half a gigabyte."""
    torch.manual_seed(1)
    ours = build_backbone("vgg16", num_classes=1000).eval()
    with torch.device("meta"):
        theirs = torchvision.models.vgg16().eval()
    theirs.load_state_dict(ours.state_dict(), strict=True, assign=True)
    return ours, theirs


def test_parameter_names_and_shapes(pair):
    ours, theirs = ([(name, value.shape) for name, value in model.named_parameters()] for model in pair)
    assert ours == theirs
    assert sum(shape.numel() for _, shape in ours) == 138_357_544


@pytest.mark.parametrize("size_hw", [(65, 97), (33, 16)])
@torch.no_grad()
def test_every_stage_is_identical(pair, size_hw):
    ours, theirs = pair
    images = torch.randn(2, 3, *size_hw)
    expected = create_feature_extractor(theirs.features, {key.partition(".")[2]: name for key, name in BEFORE_POOLING.items()})(
        images
    )
    features = ours(images)
    assert list(features) == ["c2", "c3", "c4", "c5"]
    for name, feature in features.items():
        torch.testing.assert_close(feature, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("size_hw", [(224, 224), (47, 65)])
@torch.no_grad()
def test_logits_are_identical(pair, size_hw):
    ours, theirs = pair
    images = torch.randn(1, 3, *size_hw)
    torch.testing.assert_close(ours.logits(images), theirs(images), rtol=0, atol=0)
