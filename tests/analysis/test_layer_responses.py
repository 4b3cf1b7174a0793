"""Layer responses are what a direct computation gives, whatever the batches."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from backbones import build_backbone
from detection.analysis.layer_responses import even_selection, layer_responses, normed_3x3_layers
from detection.errors import CheckpointError, DatasetError
from detection.pretraining.data import ImageBatch
from detection.pretraining.model import ClassificationModel

IMAGES = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def batches(size: int) -> list[ImageBatch]:
    return [ImageBatch(IMAGES[n : n + size], torch.zeros(size, dtype=torch.long), [""] * size) for n in range(0, 6, size)]


def network(name: str = "cifar_resnet20") -> ClassificationModel:
    torch.manual_seed(0)
    model = ClassificationModel(build_backbone(name, num_classes=2), ["a", "b"])
    model.train()
    with torch.no_grad():
        model.logits(IMAGES)  # running statistics that are not the initial ones
    return model


def test_every_3x3_layer_counts_in_order():
    names = list(normed_3x3_layers(network().backbone))
    assert len(names) == 19 and names[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    # A bottleneck has one, and the 7x7 of the stem is none.
    assert len(normed_3x3_layers(build_backbone("resnet50"))) == 16
    assert len(normed_3x3_layers(build_backbone("plain18"))) == 16


def test_the_figures_are_those_before_relu_and_addition():
    model = network().eval()
    net: Any = model.backbone
    with torch.no_grad():
        stem = net.bn1(net.conv1(net.preprocessing.normalize(IMAGES)))
        block = net.layer1[0]
        first = block.bn1(block.conv1(stem.relu()))
        second = block.bn2(block.conv2(first.relu()))
    expected = [values.double().std(correction=0).item() for values in (stem, first, second)]
    found = layer_responses(model, batches(6))
    assert [value for _, value in found[:3]] == pytest.approx(expected, rel=1e-5)


def test_batches_do_not_matter_and_the_mode_is_put_back(hook_counts):
    model = network()
    assert model.training
    whole, parts = layer_responses(model, batches(6)), layer_responses(model, batches(2))
    assert [value for _, value in whole] == pytest.approx([value for _, value in parts], rel=1e-5)
    assert model.training and hook_counts["registered"] == hook_counts["removed"] == 2 * 19


def test_nothing_to_measure_is_an_error():
    with pytest.raises(DatasetError, match="no image"):
        layer_responses(network(), [])
    with pytest.raises(CheckpointError, match="no BN after 3x3"):
        layer_responses(ClassificationModel(build_backbone("vgg16", num_classes=2), ["a", "b"]), batches(6))


class TwoLayers(nn.Module):
    """Two 3x3 layers whose outputs can be computed by hand, each with an in-place ReLU after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1, eps=0)
        self.conv2, self.bn2 = nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1, eps=0)
        for conv in (self.conv1, self.conv2):
            nn.init.dirac_(conv.weight)  # gives out what it is given

    def logits(self, images: Tensor) -> Tensor:
        x = self.bn1(self.conv1(images)).relu_()
        return self.bn2(self.conv2(x)).relu_()


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = TwoLayers()

    def logits(self, images: Tensor) -> Tensor:
        return self.backbone.logits(images.float())


def test_figures_computed_by_hand():
    model = Classifier()
    norms = (model.backbone.bn1, model.backbone.bn2)
    for norm, mean, weight in zip(norms, (4.0, 0.0), (2.0, 3.0), strict=True):
        assert norm.running_mean is not None
        nn.init.constant_(norm.running_mean, mean)
        nn.init.constant_(norm.weight, weight)
    images = torch.tensor([2, 6], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    one_each = [ImageBatch(images[n : n + 1], torch.zeros(1, dtype=torch.long), [""]) for n in range(2)]
    # bn1 makes -4 and 4 of 2 and 6; the ReLU 0 and 4, of which bn2 makes 0 and 12. Training's statistics would give others.
    assert layer_responses(cast(ClassificationModel, model), one_each) == [
        ("conv1", pytest.approx(4)),
        ("conv2", pytest.approx(6)),
    ]


def test_images_are_selected_evenly():
    assert even_selection(10, 4) == [0, 2, 5, 7]
    assert even_selection(10, 6) == [0, 1, 3, 5, 6, 8]  # not the first six, which would be of the first classes
    assert even_selection(3, 10) == [0, 1, 2] and even_selection(0, 5) == []
