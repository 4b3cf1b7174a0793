"""The layers of the networks, one by one as they run, against the authors' released models; and what they cost."""

import re

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from backbones import BackboneError, BackboneOptions, ResNet, build_backbone, layer_list, multiply_adds
from backbones.blocks import Shortcut

# Blocks in conv2_x..conv5_x (table 1). In the files, stages of many blocks count them a, b1, b2, ..., others a, b, c, ...
RELEASED = {
    50: (["a", "b", "c"], ["a", "b", "c", "d"], ["a", "b", "c", "d", "e", "f"], ["a", "b", "c"]),
    101: (["a", "b", "c"], ["a", *(f"b{i}" for i in range(1, 4))], ["a", *(f"b{i}" for i in range(1, 23))], ["a", "b", "c"]),
    152: (["a", "b", "c"], ["a", *(f"b{i}" for i in range(1, 8))], ["a", *(f"b{i}" for i in range(1, 36))], ["a", "b", "c"]),
}


def released_layers(depth):
    """The authors' deploy file: (name, kernel, stride, pad, inputs, outputs, name of its BatchNorm); in its order.

    Without padding, Caffe's pooling rounds up. ResNet-50's conv1 alone has a bias, which its BatchNorm makes idle.
    """
    rows = [("conv1", 7, 2, 3, 3, 64, "bn_conv1"), ("pool1", 3, 2, 0, 64, 64, "ceil")]
    inputs = 64
    for stage, blocks in enumerate(RELEASED[depth], start=2):
        narrow, wide = 2 ** (stage + 4), 2 ** (stage + 6)
        for block in blocks:
            stride = 2 if block == "a" and stage > 2 else 1
            if block == "a":
                rows.append((f"res{stage}a_branch1", 1, stride, 0, inputs, wide, f"bn{stage}a_branch1"))
            start = f"{stage}{block}_branch2"
            rows.append((f"res{start}a", 1, stride, 0, inputs, narrow, f"bn{start}a"))
            rows.append((f"res{start}b", 3, 1, 1, narrow, narrow, f"bn{start}b"))
            rows.append((f"res{start}c", 1, 1, 0, narrow, wide, f"bn{start}c"))
            inputs = wide
    return [*rows, ("fc1000", 1, 1, 0, 2048, 1000, None)]


def authors_name(name, depth):
    """Our name of a convolution or norm in theirs: layer2.1.conv3 -> res3b1_branch2c."""
    if name in (None, "conv1", "bn1", "fc"):
        return {None: None, "conv1": "conv1", "bn1": "bn_conv1", "fc": "fc1000"}[name]
    match = re.fullmatch(r"layer(\d)\.(\d+)\.(.*)", name)
    assert match is not None
    layer, block, part = match.groups()
    kind = "bn" if part.startswith("bn") or part == "downsample.1" else "res"
    branch = "1" if part.startswith("downsample") else f"2{'abc'[int(part[-1]) - 1]}"
    return f"{kind}{int(layer) + 1}{RELEASED[depth][int(layer) - 1][int(block)]}_branch{branch}"


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_layers_are_those_of_the_authors_released_models(depth):
    with torch.device("meta"):
        network = build_backbone(f"resnet{depth}", num_classes=1000, stride_in_1x1=True, stem_pool="ceil")
    found = []
    for layer in layer_list(network):
        name, norm = authors_name(layer.name or None, depth), authors_name(layer.norm, depth)
        if layer.kind == "max_pool":
            name, norm = "pool1", "ceil" if layer.ceil else None
        found.append((name, layer.kernel, layer.stride, layer.padding, layer.in_channels, layer.out_channels, norm))
        assert layer.bias == (layer.kind == "linear")
    assert found == released_layers(depth)
    assert sum(name.startswith(("conv", "res", "fc")) and "branch1" not in name for name, *_ in found) == depth
    assert all(isinstance(module, nn.BatchNorm2d) or "bn" not in name for name, module in network.named_modules())


def test_shared_layers_of_the_detector():
    """Appendix A: ResNet-101 has 91 convolutions up to conv4_x, projections aside; stride 16."""
    with torch.device("meta"):
        layers = layer_list(build_backbone("resnet101"))
    shared = [layer for layer in layers if layer.kind == "conv" and not re.search(r"layer4|downsample", layer.name)]
    assert len(shared) == 91


def test_without_a_classifier_frozen_and_of_other_kinds():
    network = build_backbone("resnet18").train()
    layers = layer_list(network)
    assert network.training and layers[-1].name == "layer4.1.conv2"
    assert (layers[1].kind, layers[1].padding, layers[1].ceil) == ("max_pool", 1, False)
    with pytest.raises(BackboneError, match='norm="bn"'):
        layer_list(build_backbone("resnet18", norm="frozen_bn"))
    with torch.device("meta"):
        vgg = layer_list(build_backbone("vgg16", num_classes=1000))
    assert [layer.kind for layer in vgg].count("conv") == 13 and [layer.norm for layer in vgg] == [None] * 21
    assert [(layer.in_channels, layer.out_channels) for layer in vgg[-3:]] == [(25088, 4096), (4096, 4096), (4096, 1000)]


class Logits(nn.Module):
    """A classifier whose forward is what fvcore counts."""

    def __init__(self, network):
        super().__init__()
        self.network = network.eval()

    def forward(self, images):
        return self.network.logits(images)


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 64), ("resnet50", 64), ("resnet34_c", 64), ("plain18", 64), ("cifar_resnet20", 32)]
)
def test_multiply_adds_are_fvcores(name, size):
    network = build_backbone(name, num_classes=10)
    counts = FlopCountAnalysis(Logits(network), torch.zeros(1, 3, size, size)).by_operator()
    assert multiply_adds(network, size) == counts["conv"] + counts["linear"]


@pytest.mark.parametrize(
    ("name", "giga"), [("resnet18", 1.8), ("resnet34", 3.6), ("resnet50", 3.8), ("resnet101", 7.6), ("resnet152", 11.3)]
)
def test_multiply_adds_are_the_papers(name, giga):
    with torch.device("meta"):
        network = build_backbone(name, num_classes=1000, stride_in_1x1=True, stem_pool="ceil")
    assert multiply_adds(network, 224) / 1e9 == pytest.approx(giga, rel=0.02)


@pytest.mark.parametrize(("name", "giga"), [("plain18", 1.8), ("plain34", 3.6), ("vgg16", 15.3)])
def test_multiply_adds_of_nets_without_shortcuts_are_the_papers(name, giga):
    with torch.device("meta"):
        assert multiply_adds(build_backbone(name, num_classes=1000), 224) / 1e9 == pytest.approx(giga, rel=0.02)


@pytest.mark.parametrize(("depth", "million"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7), (1202, 19.4)])
def test_parameters_of_the_cifar_nets_are_the_papers(depth, million):
    with torch.device("meta"):
        network = build_backbone(f"cifar_resnet{depth}", num_classes=10)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, len(str(million).partition(".")[2])) == million


def test_names_of_the_shortcut_options():
    with torch.device("meta"):
        options: list[tuple[str, int, Shortcut]] = [("resnet18_a", 18, "A"), ("resnet34_a", 34, "A"), ("resnet34_c", 34, "C")]
        for name, depth, shortcut in options:
            named, expected = (
                build_backbone(name, num_classes=5),
                ResNet(depth, BackboneOptions(num_classes=5), shortcut=shortcut),
            )
            assert str(named) == str(expected)
            assert layer_list(named) == layer_list(expected)
