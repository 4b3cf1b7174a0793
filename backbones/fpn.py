"""The feature pyramid (FPN, Lin et al. 2017, section 3): maps of one width at strides 4, 8, 16, 32 and 64.

N images. P2..P5 are made of c2..c5; P6 is P5 at half its size, which only the RPN looks at.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Backbone, Trunk
from backbones.blocks import make_norm
from backbones.convolution import Conv2d
from backbones.errors import BackboneError
from backbones.options import FPN_STRIDES, NeckNorm

MAPS = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
"""What a pyramid is made of, and their strides: those of P2..P5, too."""


class FeaturePyramid(nn.Module):
    """c2..c5 -> P2..P6: a 1x1 convolution of each map, sums from the coarsest to the finest, a 3x3 convolution of each sum.

    Parameters: `laterals.0` to `laterals.3` and `outputs.0` to `outputs.3`, the finest map's first, each a convolution and,
    with `norm` "bn", its norm.
    """

    def __init__(self, in_channels: Mapping[str, int], channels: int, norm: NeckNorm = "none") -> None:
        super().__init__()
        self.laterals = nn.ModuleList(_convolution(in_channels[name], channels, 1, norm) for name in MAPS)
        self.outputs = nn.ModuleList(_convolution(channels, channels, 3, norm) for _ in MAPS)

    def forward(self, maps: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Maps by name (N, ., H/stride, W/stride) -> P2..P6, (N, channels, H/stride, W/stride)."""
        sums = [lateral(maps[name]) for name, lateral in zip(MAPS, self.laterals, strict=True)]
        for coarse, fine in pairwise(reversed(range(len(sums)))):
            sums[fine] += F.interpolate(sums[coarse], size=sums[fine].shape[-2:], mode="nearest")
        levels = [output(each) for output, each in zip(self.outputs, sums, strict=True)]
        return (*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2))


class FpnTrunk(Trunk):
    """A whole backbone and a feature pyramid on it: `backbone` and `neck`. Regions are pooled from P2..P5."""

    strides = FPN_STRIDES
    roi_strides = FPN_STRIDES[:-1]
    size_divisor = 32
    classifier_keys = ()

    def __init__(self, backbone: Backbone, channels: int, norm: NeckNorm = "none") -> None:
        super().__init__()
        found = {name: backbone.strides.get(name) for name in MAPS}
        if found != MAPS:
            wanted = ", ".join(f"{name} of stride {stride}" for name, stride in MAPS.items())
            has = ", ".join(f"{name} of stride {stride}" for name, stride in backbone.strides.items())
            raise BackboneError(f"a feature pyramid needs {wanted}; this {type(backbone).__name__} has {has}")
        self.backbone = backbone
        self.neck = FeaturePyramid(backbone.channels, channels, norm)
        self.channels = channels
        self.preprocessing = backbone.preprocessing
        self.stage_parts = tuple(tuple(f"backbone.{name}" for name in parts) for parts in backbone.stage_parts)

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised images (N, 3, H, W) -> P2..P6, (N, channels, H/stride, W/stride)."""
        levels: tuple[Tensor, ...] = self.neck(self.backbone(images))
        return levels


def _convolution(in_channels: int, channels: int, size: int, norm: NeckNorm) -> nn.Sequential:
    conv = Conv2d(in_channels, channels, size, padding=size // 2, bias=norm == "none")
    nn.init.kaiming_uniform_(conv.weight, a=1)  # as Caffe2's XavierFill, which FPN is trained with
    if conv.bias is None:
        return nn.Sequential(conv, make_norm("bn", channels))
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv)
