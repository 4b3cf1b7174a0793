"""torch.hub finds every entry point and hands its arguments on."""

import importlib
from pathlib import Path

import pytest
import torch

import hubconf

ROOT = Path(__file__).parents[2]
RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
HALVES = ["backbone_c4", "resnet101_c4", "resnet50_c4", "vgg16_c4"]


def load(name, *arguments, **options):
    with torch.device("meta"):
        return torch.hub.load(str(ROOT), name, *arguments, source="local", **options)


def test_the_entry_points():
    found = [name for name, value in vars(hubconf).items() if callable(value) and not name.startswith("_")]
    assert sorted(found) == sorted(["backbone", *RESNETS, "vgg16", *HALVES])
    assert all(getattr(hubconf, name).__doc__ for name in found)
    for package in hubconf.dependencies:
        importlib.import_module(package)


@pytest.mark.parametrize("name", RESNETS)
def test_resnets(name):
    model = load(name, norm="frozen_bn", num_classes=3, freeze_stages=1, stem_pool="ceil", stride_in_1x1=True)
    assert (model.fc.out_features, model.frozen, model.stem_pool) == (3, ("conv1", "bn1"), "ceil")
    assert model.strides == {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
    first = model.layer2[0]
    assert first.conv1.stride == ((2, 2) if hasattr(first, "conv3") or first.conv1.kernel_size == (3, 3) else (1, 1))


def test_vgg():
    assert load("vgg16", num_classes=5, freeze_stages=1).frozen == ("features.0", "features.2")
    trunk, head = load("vgg16_c4")
    assert (trunk.channels, head.channels, len(trunk.frozen)) == (512, 4096, 4)


@pytest.mark.parametrize("name", ["resnet50_c4", "resnet101_c4"])
def test_the_halves_of_a_detector(name):
    trunk, head = load(name, stem_pool="ceil")
    assert (trunk.channels, trunk.stride, head.channels) == (1024, 16, 2048)
    assert (trunk.frozen, trunk.stem_pool) == (("conv1", "bn1", "layer1"), "ceil")


def test_any_name():
    assert load("backbone", "cifar_resnet20", num_classes=10).fc.out_features == 10
    trunk, head = load("backbone_c4", "resnet18", freeze_stages=1)
    assert (trunk.channels, head.channels, trunk.frozen) == (256, 512, ("conv1", "bn1"))


def test_a_network_computes():
    model = torch.hub.load(str(ROOT), "resnet18", source="local", norm="frozen_bn", num_classes=3)
    assert model.logits(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
