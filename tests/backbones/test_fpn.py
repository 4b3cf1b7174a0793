"""The pyramid against plain torch operations and torchvision's, on every kind of backbone that has its four maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from backbones import BackboneError, build_backbone, build_fpn
from backbones.errors import CheckpointError
from backbones.fpn import MAPS, FeaturePyramid, FpnTrunk
from docs.examples.plugin.tinynet import TinyNet

CHANNELS = {"c2": 3, "c3": 5, "c4": 7, "c5": 9}
SIZES = {"c2": (13, 9), "c3": (7, 5), "c4": (4, 3), "c5": (2, 2)}


def random_maps() -> dict[str, torch.Tensor]:
    return {name: torch.randn(2, CHANNELS[name], *size_hw) for name, size_hw in SIZES.items()}


def pyramid(norm: Any = "none") -> FeaturePyramid:
    """One whose biases and norms have random values, too."""
    neck = FeaturePyramid(CHANNELS, 6, norm).eval()
    for name, value in neck.state_dict().items():
        if not name.endswith(("0.weight", "num_batches_tracked")):
            value.copy_(torch.rand(value.shape) + 0.5)
    return neck


@torch.no_grad()
def test_the_neck_step_by_step():
    neck, maps = pyramid(), random_maps()
    parameters = dict(neck.named_parameters())
    sums: list[torch.Tensor] = []
    for level in (3, 2, 1, 0):
        lateral = F.conv2d(
            maps[f"c{level + 2}"], parameters[f"laterals.{level}.0.weight"], parameters[f"laterals.{level}.0.bias"]
        )
        if sums:
            height, width = lateral.shape[2:]
            coarse = sums[-1]
            # The nearest cell: row y of H is row floor(y h / H) of h, which at odd sizes is not y // 2.
            rows = torch.arange(height) * coarse.shape[2] // height
            columns = torch.arange(width) * coarse.shape[3] // width
            lateral = lateral + coarse[:, :, rows][:, :, :, columns]
        sums.append(lateral)
    expected = [
        F.conv2d(total, parameters[f"outputs.{level}.0.weight"], parameters[f"outputs.{level}.0.bias"], padding=1)
        for level, total in enumerate(reversed(sums))
    ]
    expected.append(expected[-1][:, :, ::2, ::2])
    for ours, wanted in zip(neck(maps), expected, strict=True):
        torch.testing.assert_close(ours, wanted)
    assert [tuple(each.shape) for each in neck(maps)] == [(2, 6, *SIZES[name]) for name in MAPS] + [(2, 6, 1, 1)]


@pytest.mark.parametrize("norm", ["none", "bn"])
@torch.no_grad()
def test_torchvisions_pyramid_gives_the_same(norm):
    neck, maps = pyramid(norm), random_maps()
    norm_layer = torch.nn.BatchNorm2d if norm == "bn" else None
    theirs = FeaturePyramidNetwork(list(CHANNELS.values()), 6, LastLevelMaxPool(), norm_layer).eval()
    names = {"laterals": "inner_blocks", "outputs": "layer_blocks"}
    state = {f"{names[key.partition('.')[0]]}.{key.partition('.')[2]}": value for key, value in neck.state_dict().items()}
    theirs.load_state_dict(state)
    for ours, expected in zip(neck(maps), theirs(maps).values(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_fresh_weights_are_caffe2s():
    neck = FeaturePyramid(dict.fromkeys(MAPS, 64), 32)
    assert all((bias == 0).all() for name, bias in neck.named_parameters() if name.endswith("bias"))
    lateral = neck.get_parameter("laterals.0.0.weight")
    assert 0.9 * (3 / 64) ** 0.5 < lateral.abs().max() <= (3 / 64) ** 0.5  # uniform, its variance 1 / (inputs of a cell)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50_half",
        "plain18",
        "resnet34_a",
        "torchvision/mobilenet_v3_small",
        "torchvision/resnet18",
        "timm/resnet18",
    ],
)
def test_every_backbone_with_four_maps_carries_one(name):
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="timm is not installed")
    trunk = build_fpn(name, norm="frozen_bn", freeze_stages=2, channels=4).eval()
    with torch.no_grad():
        levels = trunk.feature_maps(torch.zeros(1, 3, 64, 96))
    assert [tuple(each.shape) for each in levels] == [
        (1, 4, 64 // stride or 1, 96 // stride or 1) for stride in trunk.strides[:-1]
    ] + [(1, 4, 1, 2)]
    assert trunk.strides == (4, 8, 16, 32, 64) and trunk.roi_strides == (4, 8, 16, 32)
    frozen = [parameter_name for parameter_name, value in trunk.named_parameters() if not value.requires_grad]
    assert frozen and all(parameter_name.startswith("backbone.") for parameter_name in frozen)
    assert trunk.train().backbone.training and all(part.training for part in trunk.neck.modules())


def test_a_network_of_ones_own():
    trunk = FpnTrunk(TinyNet(), 8)
    assert [tuple(each.shape[1:]) for each in trunk.feature_maps(torch.zeros(1, 3, 32, 64))] == [
        (8, 8, 16), (8, 4, 8), (8, 2, 4), (8, 1, 2), (8, 1, 1),
    ]  # fmt: skip


def test_a_backbone_without_these_maps_is_refused_in_one_line():
    wanted = "^a feature pyramid needs c2 of stride 4, c3 of stride 8, c4 of stride 16, c5 of stride 32; this "
    with torch.device("meta"), pytest.raises(BackboneError, match=f"{wanted}VGG16 has c2 of stride 2, .* c5 of stride 16$"):
        build_fpn("vgg16")
    with pytest.raises(BackboneError, match=f"{wanted}CifarResNet has c2 of stride 1, c3 of stride 2, c4 of stride 4$"):
        build_fpn("cifar_resnet8")


def test_a_classifiers_weights_are_those_of_the_backbone(tmp_path):
    classifier = build_backbone("resnet18", num_classes=3)
    torch.save(classifier.state_dict(), tmp_path / "resnet18.pth")
    trunk = build_fpn("resnet18", tmp_path / "resnet18.pth", channels=4)
    for name, value in trunk.backbone.state_dict().items():
        torch.testing.assert_close(value, classifier.state_dict()[name], rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="resnet18.pth"):
        build_fpn("resnet34", tmp_path / "resnet18.pth")
