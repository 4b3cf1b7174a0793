"""torch.hub entry points: `torch.hub.load(<repository>, "resnet50", weights=None, ...)`.

The arguments are those of `backbones.build_backbone` and `backbones.build_c4`. `weights` is a file of yours, or a name such as
"torchvision/resnet50", which is downloaded once.
"""

from __future__ import annotations

from pathlib import Path as _Path  # torch.hub lists every public callable

from backbones import Backbone as _Backbone
from backbones import C4Head as _C4Head
from backbones import C4Trunk as _C4Trunk
from backbones import build_backbone as _build_backbone
from backbones import build_c4 as _build_c4
from backbones.base import Norm as _Norm
from backbones.base import StemPool as _StemPool

dependencies = ["torch", "fvcore", "filelock"]


def backbone(
    name: str,
    weights: str | _Path | None = None,
    norm: _Norm = "bn",
    num_classes: int | None = None,
    stride_in_1x1: bool = False,
    freeze_stages: int = 0,
    stem_pool: _StemPool = "pad1",
) -> _Backbone:
    """Any backbone by name, as `backbones.build_backbone`: "cifar_resnet20", "resnet34_a", "timm/resnet50d"."""
    return _build_backbone(name, weights, norm, num_classes, stride_in_1x1, freeze_stages, stem_pool)


def backbone_c4(
    name: str,
    weights: str | _Path | None = None,
    norm: _Norm = "frozen_bn",
    stride_in_1x1: bool = False,
    freeze_stages: int = 2,
    stem_pool: _StemPool = "pad1",
) -> tuple[_C4Trunk, _C4Head]:
    """Any backbone by name as a C4 detector uses it: the trunk for the image, the head for each pooled region."""
    return _build_c4(name, weights, norm, stride_in_1x1, freeze_stages, stem_pool)


def resnet18(
    weights: str | _Path | None = None,
    norm: _Norm = "bn",
    num_classes: int | None = None,
    stride_in_1x1: bool = False,
    freeze_stages: int = 0,
    stem_pool: _StemPool = "pad1",
) -> _Backbone:
    """ResNet-18: normalised images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}."""
    return _build_backbone("resnet18", weights, norm, num_classes, stride_in_1x1, freeze_stages, stem_pool)


def resnet34(
    weights: str | _Path | None = None,
    norm: _Norm = "bn",
    num_classes: int | None = None,
    stride_in_1x1: bool = False,
    freeze_stages: int = 0,
    stem_pool: _StemPool = "pad1",
) -> _Backbone:
    """ResNet-34: normalised images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}."""
    return _build_backbone("resnet34", weights, norm, num_classes, stride_in_1x1, freeze_stages, stem_pool)


def resnet50(
    weights: str | _Path | None = None,
    norm: _Norm = "bn",
    num_classes: int | None = None,
    stride_in_1x1: bool = False,
    freeze_stages: int = 0,
    stem_pool: _StemPool = "pad1",
) -> _Backbone:
    """ResNet-50: normalised images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}."""
    return _build_backbone("resnet50", weights, norm, num_classes, stride_in_1x1, freeze_stages, stem_pool)


def resnet101(
    weights: str | _Path | None = None,
    norm: _Norm = "bn",
    num_classes: int | None = None,
    stride_in_1x1: bool = False,
    freeze_stages: int = 0,
    stem_pool: _StemPool = "pad1",
) -> _Backbone:
    """ResNet-101: normalised images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}."""
    return _build_backbone("resnet101", weights, norm, num_classes, stride_in_1x1, freeze_stages, stem_pool)


def resnet152(
    weights: str | _Path | None = None,
    norm: _Norm = "bn",
    num_classes: int | None = None,
    stride_in_1x1: bool = False,
    freeze_stages: int = 0,
    stem_pool: _StemPool = "pad1",
) -> _Backbone:
    """ResNet-152: normalised images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}."""
    return _build_backbone("resnet152", weights, norm, num_classes, stride_in_1x1, freeze_stages, stem_pool)


def vgg16(weights: str | _Path | None = None, num_classes: int | None = None, freeze_stages: int = 0) -> _Backbone:
    """VGG-16, which has no norm: normalised images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}."""
    return _build_backbone("vgg16", weights, num_classes=num_classes, freeze_stages=freeze_stages)


def resnet50_c4(
    weights: str | _Path | None = None,
    norm: _Norm = "frozen_bn",
    stride_in_1x1: bool = False,
    freeze_stages: int = 2,
    stem_pool: _StemPool = "pad1",
) -> tuple[_C4Trunk, _C4Head]:
    """ResNet-50 as a C4 detector uses it: the trunk for the image, the head for each pooled region."""
    return _build_c4("resnet50", weights, norm, stride_in_1x1, freeze_stages, stem_pool)


def resnet101_c4(
    weights: str | _Path | None = None,
    norm: _Norm = "frozen_bn",
    stride_in_1x1: bool = False,
    freeze_stages: int = 2,
    stem_pool: _StemPool = "pad1",
) -> tuple[_C4Trunk, _C4Head]:
    """ResNet-101 as a C4 detector uses it: the trunk for the image, the head for each pooled region."""
    return _build_c4("resnet101", weights, norm, stride_in_1x1, freeze_stages, stem_pool)


def vgg16_c4(weights: str | _Path | None = None, freeze_stages: int = 2) -> tuple[_C4Trunk, _C4Head]:
    """VGG-16 as a detector uses it: the convolutions for the image, fc6 and fc7 for each region, pooled to 7 x 7."""
    return _build_c4("vgg16", weights, freeze_stages=freeze_stages)
