"""Backbones by name, from here and from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from backbones import BACKBONES, Backbone, BackboneError, build_backbone, build_c4, list_backbones, register_backbone
from detection.errors import USER_ERRORS

ROOT = Path(__file__).parents[2]


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


def test_a_name_cannot_be_taken_twice():
    def resnet50(**_):
        raise AssertionError

    with pytest.raises(BackboneError, match="'resnet50' already"):
        register_backbone(resnet50)


def test_own_backbone_without_a_c4_split(monkeypatch):
    class Tiny(Backbone):
        def __init__(self):
            super().__init__()
            self.channels, self.strides = {"c2": 4}, {"c2": 4}
            self.conv = nn.Conv2d(3, 4, 4, stride=4)

        def forward(self, images):
            return {"c2": self.conv(images)}

    def tiny(*, norm, num_classes, stride_in_1x1, freeze_stages):
        return Tiny()

    monkeypatch.setattr(BACKBONES, "_obj_map", dict(BACKBONES._obj_map))
    assert register_backbone(tiny) is tiny
    model = build_backbone("tiny")
    assert model(torch.zeros(1, 3, 8, 8))["c2"].shape == (1, 4, 2, 2)
    with pytest.raises(BackboneError, match="Tiny has no classifier"):
        model.logits(torch.zeros(1, 3, 8, 8))
    with pytest.raises(BackboneError, match=r"define split_c4\(\)"):
        build_c4("tiny")


def test_backbones_need_only_torch_and_fvcore():
    heavy = [
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
    monkeypatch.setattr(BACKBONES, "_obj_map", dict(BACKBONES._obj_map))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "backbones.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 6
    namespace = {}
    exec("\n".join(blocks), namespace)
    assert namespace["features"]["c5"].shape == (2, 2048, 7, 10)
    assert namespace["shared"].shape == (2, 256, 14, 20)
    assert namespace["vectors"].shape == (5, 512)
    assert namespace["maps"]["c4"].shape == (8, 64, 8, 8)
