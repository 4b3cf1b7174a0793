"""torch.hub entry points: `torch.hub.load(<repository>, "resnet50", weights=None, ...)`.

The arguments are those of `backbones.build_backbone` and `backbones.build_c4`. `weights` is a file of yours, or a name such as
"torchvision/resnet50", which is downloaded once.
"""

from __future__ import annotations

from functools import partial as _partial
from pathlib import Path as _Path  # torch.hub lists every public callable

from backbones import Backbone as _Backbone
from backbones import C4Head as _C4Head
from backbones import C4Trunk as _C4Trunk
from backbones import build_backbone as _build_backbone
from backbones import build_c4 as _build_c4
from backbones.options import Norm as _Norm
from backbones.options import StemPool as _StemPool

dependencies = ["torch", "filelock"]


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


def _resnet(depth: int) -> _partial[_Backbone]:
    """`backbone` of that one name; torch.hub.help shows its docstring."""
    entry_point = _partial(backbone, f"resnet{depth}")
    entry_point.__doc__ = (
        f'ResNet-{depth}: normalised images (N, 3, H, W) -> {{"c2": ..., "c3": ..., "c4": ..., "c5": ...}}. '
        'weights=None, norm="bn", num_classes=None, stride_in_1x1=False, freeze_stages=0, stem_pool="pad1".'
    )
    return entry_point


def _resnet_c4(depth: int) -> _partial[tuple[_C4Trunk, _C4Head]]:
    entry_point = _partial(backbone_c4, f"resnet{depth}")
    entry_point.__doc__ = (
        f"ResNet-{depth} as a C4 detector uses it: the trunk for the image, the head for each pooled region. "
        'weights=None, norm="frozen_bn", stride_in_1x1=False, freeze_stages=2, stem_pool="pad1".'
    )
    return entry_point


resnet18 = _resnet(18)
resnet34 = _resnet(34)
resnet50 = _resnet(50)
resnet101 = _resnet(101)
resnet152 = _resnet(152)
resnet50_c4 = _resnet_c4(50)
resnet101_c4 = _resnet_c4(101)


def vgg16(weights: str | _Path | None = None, num_classes: int | None = None, freeze_stages: int = 0) -> _Backbone:
    """VGG-16, which has no norm: normalised images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}."""
    return _build_backbone("vgg16", weights, num_classes=num_classes, freeze_stages=freeze_stages)


def vgg16_c4(weights: str | _Path | None = None, freeze_stages: int = 2) -> tuple[_C4Trunk, _C4Head]:
    """VGG-16 as a detector uses it: the convolutions for the image, fc6 and fc7 for each region, pooled to 7 x 7."""
    return _build_c4("vgg16", weights, freeze_stages=freeze_stages)
