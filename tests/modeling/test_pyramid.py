"""A detector with a feature pyramid: its parts, and that the steps take its five maps as they take C4's one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backbones.convolution import Conv2d
from detection.config import Config, FpnConfig, parse_config
from detection.errors import ConfigError
from detection.modeling.faster_rcnn import pad_to_multiple
from detection.modeling.levels import levels_of
from detection.modeling.two_layer_head import TwoLayerHead
from detection.structures import Batch, Target
from detection.training.alternating import FastRcnnStep
from tests.small_detector import detector, noise, pyramid


def batch(*boxes_of_images: list[list[float]], size_hw: tuple[int, int] = (70, 90)) -> Batch:
    targets = [
        Target(torch.tensor(boxes).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.long), torch.zeros(0, 4))
        for boxes in boxes_of_images
    ]
    images = torch.stack([noise(*size_hw) for _ in targets])
    return Batch(images, [size_hw] * len(targets), targets)


def test_the_head_by_plain_operations():
    config = FpnConfig(channels=6, head_channels=10, head_convs=2)
    head = TwoLayerHead(4, 3, config)
    parameters = dict(head.named_parameters())
    cells = torch.randn(5, 4, 3, 3)
    x = cells
    for number in range(2):
        x = F.conv2d(x, parameters[f"convs.{number}.0.weight"], parameters[f"convs.{number}.0.bias"], padding=1).relu()
    for layer in ("fc1", "fc2"):
        x = (x.flatten(1) @ parameters[f"{layer}.weight"].T + parameters[f"{layer}.bias"]).relu()
    torch.testing.assert_close(head(cells), x)
    assert head(cells[:0]).shape == (0, 10) and head.channels == 10 and head.pool_size == 3


def test_a_norm_takes_the_place_of_biases():
    head = TwoLayerHead(4, 3, FpnConfig(channels=6, head_channels=10, head_convs=1, norm="bn"))
    assert [type(layer) for layer in head.get_submodule("convs.0").children()] == [Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert "convs.0.0.bias" not in head.state_dict() and list(TwoLayerHead(4, 3, FpnConfig(head_channels=2)).convs) == []


def detectron2_levels(boxes: torch.Tensor) -> torch.Tensor:
    """Its `assign_boxes_to_levels` of P2..P5: level floor(4 + log2(sqrt(area) / 224 + 1e-8)), from 2 to 5."""
    sizes = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    return torch.floor(4 + torch.log2(sizes / 224 + 1e-8)).clamp(2, 5).long() - 2


def test_levels_are_those_of_detectron2():
    corners = torch.rand(500, 2) * 100
    boxes = torch.cat([corners, corners + 2 ** (torch.rand(500, 2) * 11)], dim=1)
    assert torch.equal(levels_of(boxes, (4, 8, 16, 32)), detectron2_levels(boxes))
    exact = torch.tensor([[0, 0, 224.0 * 2**power, 224.0 * 2**power] for power in range(-5, 4)])
    assert levels_of(exact, (4, 8, 16, 32)).tolist() == detectron2_levels(exact).tolist() == [0, 0, 0, 0, 1, 2, 3, 3, 3]


@torch.no_grad()
def test_odd_sizes_are_padded_with_zeros_after_normalisation():
    model = pyramid().eval()
    images = batch([], size_hw=(45, 61))
    found = model.extract(images)
    normal = model.preprocessing.normalize(images.images)
    for ours, expected in zip(found, model.trunk.feature_maps(F.pad(normal, (0, 3, 0, 19))), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert [tuple(each.shape[2:]) for each in found] == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]


@torch.no_grad()
def test_c4_is_not_padded():
    images = torch.rand(1, 3, 45, 61)
    assert detector().trunk.size_divisor == 1 and pad_to_multiple(images, 1) is images
    assert pad_to_multiple(images, 32).shape == (1, 3, 64, 64)
    assert pad_to_multiple(images[:, :, :32, :32], 32).shape == (1, 3, 32, 32)


def test_a_batch_gives_what_its_images_give_alone():
    model = pyramid(test={"max_detections": 20}).eval()
    images = [noise(70, 90) for _ in range(2)]
    together = model.predict(images)
    assert all(len(found) for found in together)
    for found, image in zip(together, images, strict=True):
        (alone,) = model.predict([image])
        torch.testing.assert_close(found.boxes, alone.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(found.scores, alone.scores, rtol=1e-4, atol=1e-5)
        assert found.labels.tolist() == alone.labels.tolist()


def test_the_losses_reach_every_parameter():
    model = pyramid(model={"freeze_stages": 0, "norm": "bn"}, fpn={"norm": "bn", "head_convs": 1})
    losses = model.train()(batch([[8, 8, 40, 40]], [[0, 0, 80, 60], [30, 30, 40, 44]]))
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_images_without_objects_and_without_proposals():
    model = pyramid(model={"freeze_stages": 0}, rpn={"min_size": 1000}).train()
    losses = model(batch([], []))
    assert losses["loss_class"] == losses["loss_box"] == losses["loss_rpn_box"] == 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(value.grad is not None for value in model.parameters())
    features = model.extract(batch([]))
    assert model.roi_head.vectors(features, [torch.zeros(0, 4)]).shape == (0, 32)
    scores, boxes = model.eval().classify(features, [torch.zeros(0, 4)], [(70, 90)]).scores, model.predict([noise(70, 90)])
    assert scores[0].shape == (0, 2) and len(boxes[0]) == 0


def test_fast_rcnn_alone_has_a_gradient_for_maps_that_no_region_is_pooled_from():
    step = FastRcnnStep(pyramid(model={"freeze_stages": 0}).config, lambda images: [torch.tensor([[0.0, 0, 20, 20]])])
    step.rpn.requires_grad_(False)
    losses = step.train()(batch([[8, 8, 40, 40]]))
    torch.stack(list(losses.values())).sum().backward()
    missing = [name for name, value in step.named_parameters() if value.requires_grad and value.grad is None]
    assert missing == []
    gradient = step.trunk.get_parameter("neck.outputs.3.0.weight").grad  # of P5, while 40 px and less are of P2
    assert gradient is not None and not gradient.any()


@pytest.mark.parametrize("sizes", [[32, 64, 128, 256], [32, 64, 128, 512, 256]])
def test_a_pyramid_has_five_ascending_sizes(sizes):
    with pytest.raises(ConfigError, match="model.neck=fpn needs 5 ascending rpn.anchor_sizes, .*; got"):
        parse_config(Config, {"model": {"neck": "fpn"}, "rpn": {"anchor_sizes": sizes}}, "x.yaml")


def test_anchors_of_a_config():
    c4, fpn = detector().config, pyramid().config
    assert c4.anchor_sizes_by_stride == {16: (16, 32)} and c4.anchors_per_cell == 6
    assert fpn.anchor_sizes_by_stride == {4: (8,), 8: (16,), 16: (32,), 32: (64,), 64: (128,)} and fpn.anchors_per_cell == 3
    for model in (detector(), pyramid()):
        assert model.config.anchors_per_cell == model.rpn.objectness.out_channels
        assert tuple(model.config.anchor_sizes_by_stride) == model.trunk.strides
