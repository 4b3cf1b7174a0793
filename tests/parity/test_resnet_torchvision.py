"""The same weights give the same numbers as torchvision's networks, to the last bit, and fit both ways."""

import pytest
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from backbones import build_backbone

LAYERS = {"layer1": "c2", "layer2": "c3", "layer3": "c4", "layer4": "c5"}


def random_statistics(model):
    """Give every BatchNorm values that an untrained one does not have."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.0)
            module.bias.data.normal_(std=0.1)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    return model


@pytest.fixture(scope="module", params=["resnet18", "resnet50"])
def pair(request):
    """Ours and torchvision's with one set of weights, in evaluation mode."""
    torch.manual_seed(1)
    theirs = random_statistics(getattr(torchvision.models, request.param)()).eval()
    ours = build_backbone(request.param, num_classes=1000).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("size_hw", [(65, 97), (64, 64), (33, 1)])
@torch.no_grad()
def test_every_stage_and_the_logits_are_identical(pair, size_hw):
    ours, theirs = pair
    images = torch.randn(2, 3, *size_hw)
    expected = create_feature_extractor(theirs, LAYERS)(images)
    features = ours(images)
    assert list(features) == ["c2", "c3", "c4", "c5"]
    for name, feature in features.items():
        torch.testing.assert_close(feature, expected[name], rtol=0, atol=0)
        assert feature.shape[1] == ours.channels[name]
        assert feature.shape[2:] == tuple(-(-side // ours.strides[name]) for side in size_hw)
    torch.testing.assert_close(ours.logits(images), theirs(images), rtol=0, atol=0)


def test_training_mode_gives_the_same_gradients_and_statistics():
    theirs = torchvision.models.resnet18(num_classes=3)
    ours = build_backbone("resnet18", num_classes=3)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    for logits in (ours.logits(images), theirs(images)):
        logits.square().sum().backward()
    gradients = [net.get_parameter("conv1.weight").grad for net in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    variances = [net.get_buffer("layer4.1.bn2.running_var") for net in (ours, theirs)]
    torch.testing.assert_close(*variances, rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
def test_our_weights_load_into_torchvision(norm):
    ours = build_backbone("resnet18", norm=norm, num_classes=1000)
    torchvision.models.resnet18().load_state_dict(ours.state_dict(), strict=True)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_parameter_names_shapes_and_counts(depth):
    with torch.device("meta"):
        ours = build_backbone(f"resnet{depth}", num_classes=1000)
        theirs = getattr(torchvision.models, f"resnet{depth}")()
    assert [(name, value.shape) for name, value in ours.named_parameters()] == [
        (name, value.shape) for name, value in theirs.named_parameters()
    ]


@torch.no_grad()
def test_frozen_norm_on_resnet50_agrees_with_evaluation_mode(pair):
    ours, theirs = pair
    name = "resnet50" if ours.channels["c5"] == 2048 else "resnet18"
    frozen = build_backbone(name, norm="frozen_bn", num_classes=1000)
    frozen.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(1, 3, 65, 97)
    expected = ours(images)
    for key, feature in frozen(images).items():  # in training mode, on purpose
        scale = expected[key].abs().max()
        torch.testing.assert_close(feature / scale, expected[key] / scale, rtol=0, atol=1e-5)
