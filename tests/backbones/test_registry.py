"""Backbones by name, from here and from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import backbones
from backbones import (
    BACKBONES,
    Backbone,
    BackboneError,
    ResNet,
    build_backbone,
    build_c4,
    list_backbones,
    register_backbone,
    register_family,
    registry,
)
from detection.errors import USER_ERRORS

ROOT = Path(__file__).parents[2]


def keep_registry(monkeypatch):
    """Forget at the end of the test what it registers."""
    for name in ("BACKBONES", "FAMILIES"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


def test_names():
    assert {"resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "plain18", "plain34", "vgg16"} <= set(
        list_backbones()
    )
    assert {"resnet18_a", "resnet34_a", "resnet34_c", "cifar_resnet110", "cifar_plain56"} <= set(list_backbones())
    assert list_backbones() == sorted(list_backbones())
    assert "resnet50" in BACKBONES


def test_an_unknown_name_is_a_user_error_with_a_hint():
    with pytest.raises(USER_ERRORS, match="unknown backbone 'resnet5'; did you mean 'resnet50'"):
        build_backbone("resnet5")
    with pytest.raises(BackboneError, match="known are .*plain18"):
        build_c4("efficientnet")


@pytest.mark.parametrize("name", [None, 5, ["resnet18"], "x" * 10**6, b"resnet18", ""])
def test_what_is_no_name_is_one_short_line(name):
    for build in (build_backbone, build_c4):
        with pytest.raises(BackboneError) as error:
            build(name)
        assert len(str(error.value)) < 500 and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["cifar_resnet99998", "cifar_plain5006"])
def test_a_depth_that_would_take_minutes_to_build_is_refused(name):
    with pytest.raises(BackboneError, match="depth must be at most 5000 for a CIFAR net, got "):
        build_backbone(name)


def test_a_name_cannot_be_taken_twice():
    def resnet50(**_):
        raise AssertionError

    with pytest.raises(BackboneError, match="'resnet50' already"):
        register_backbone(resnet50)  # type: ignore[type-var]


def test_a_builder_of_the_old_kind_is_told_what_it_takes_now():
    def keywords(*, norm, num_classes, stride_in_1x1, freeze_stages):
        raise AssertionError

    def keywords_family(depth, *, norm, num_classes, stride_in_1x1, freeze_stages):
        raise AssertionError

    with pytest.raises(
        BackboneError, match=r"'keywords' is not a builder\(options: BackboneOptions\) -> Backbone: .*one backb"
    ):
        register_backbone(keywords)  # type: ignore[type-var]
    with pytest.raises(BackboneError, match=r"'keywords_family' is not a builder\(depth: int, options: BackboneOptions\)"):
        register_family(keywords_family)  # type: ignore[type-var]


def test_own_family(monkeypatch):
    def wide_resnet(depth, options):
        return ResNet(depth, options)

    keep_registry(monkeypatch)
    assert register_family(wide_resnet) is wide_resnet
    with torch.device("meta"):
        assert len(build_backbone("wide_resnet18", num_classes=3).get_parameter("fc.weight")) == 3
    with pytest.raises(BackboneError, match="family of backbones 'wide_resnet' already"):
        register_family(wide_resnet)


def test_the_lazy_names_are_all_there():
    assert sorted(name for names in backbones._HOMES.values() for name in names) == sorted(
        set(backbones.__all__) - {"BackboneError", "CheckpointError"}
    )
    for name in backbones.__all__:
        assert getattr(backbones, name) is not None
    with pytest.raises(AttributeError, match="'backbones' has no attribute 'resnet5'"):
        _ = backbones.resnet5


def test_own_backbone_without_a_c4_split(monkeypatch):
    class Tiny(Backbone):
        def __init__(self):
            super().__init__()
            self.channels, self.strides = {"c2": 4}, {"c2": 4}
            self.conv = nn.Conv2d(3, 4, 4, stride=4)

        def forward(self, images):
            return {"c2": self.conv(images)}

    def tiny(options):
        return Tiny()

    keep_registry(monkeypatch)
    assert register_backbone(tiny) is tiny
    model = build_backbone("tiny")
    assert model(torch.zeros(1, 3, 8, 8))["c2"].shape == (1, 4, 2, 2)
    with pytest.raises(BackboneError, match="Tiny has no classifier"):
        model.logits(torch.zeros(1, 3, 8, 8))
    with pytest.raises(BackboneError, match=r"define split_c4\(\)"):
        build_c4("tiny")


def test_backbones_need_only_torch():
    heavy = [
        "fvcore",
        "detection",
        "torchvision",
        "timm",
        "albumentations",
        "cv2",
        "pydantic",
        "safetensors",
        "matplotlib",
        "pycocotools",
    ]
    code = (
        "import sys, backbones; backbones.build_c4('resnet18');"
        f"found = [name for name in {heavy} if name in sys.modules]; assert not found, found"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_examples_of_the_documentation_run(monkeypatch):
    keep_registry(monkeypatch)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "backbones.md").read_text(), flags=re.DOTALL)
    namespace: dict[str, Any] = {}
    exec("\n".join(blocks), namespace)
    assert namespace["features"]["c5"].shape == (2, 2048, 7, 10)
    assert namespace["shared"].shape == (2, 256, 14, 20)
    assert namespace["p2"].shape == (2, 256, 56, 80) and namespace["p6"].shape == (2, 256, 4, 5)
    assert namespace["vectors"].shape == (5, 512)
    assert namespace["maps"]["c4"].shape == (8, 64, 8, 8)
