"""The two halves of a C4 detector (appendix A): conv1..conv4_x on the whole image, conv5_x on each region.

State-dict keys are the backbone's own: `conv1.*, bn1.*, layer1..layer3.*` in the trunk, `layer4.*` in the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from backbones.base import Backbone, C4Head, C4Trunk
from backbones.blocks import Bottleneck, global_average, stem
from backbones.errors import BackboneError
from backbones.norm import Pool

if TYPE_CHECKING:
    from backbones.resnet import ResNet


class ResNetTrunk(C4Trunk):
    """conv1..conv4_x: (N, 3, H, W) -> (N, channels, H/16, W/16), rounded up. Frozen stages build no autograd graph."""

    stride = 16
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.conv1, self.bn1 = resnet.conv1, resnet.bn1
        self.layer1, self.layer2, self.layer3 = resnet.layer1, resnet.layer2, resnet.layer3
        self.channels = resnet.channels["c4"]
        self.preprocessing = resnet.preprocessing
        self.stem_pool = resnet.stem_pool
        self.classifier_keys = resnet.classifier_keys
        self.freeze([name for name in resnet.frozen if name != "layer4"])

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images -> the features that the RPN and all regions share."""
        x = stem(self.conv1, self.bn1, images, self.stem_pool)
        return self.layer3(self.layer2(self.layer1(x)))


class ResNetHead(C4Head):
    """conv5_x and global average pooling: (R, C, 14, 14) -> (R, channels). R may be 0."""

    layer4: nn.Sequential

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.layer4 = resnet.layer4
        self.channels = resnet.channels["c5"]
        self.freeze([name for name in resnet.frozen if name == "layer4"])

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled features of R regions -> one vector a region."""
        return global_average(self.layer4(pooled))

    def pooled(self, features: Tensor, pool: Pool) -> Tensor:
        """Features that regions share -> one vector a region."""
        first, *others = self.layer4
        if not isinstance(first, Bottleneck):
            return super().pooled(features, pool)
        regions = first.pooled(features, pool)
        for block in others:
            regions = block(regions)
        return global_average(regions)


class SequentialTrunk(C4Trunk):
    """Some of a backbone's modules, one after the other: (N, 3, H, W) -> (N, channels, H/stride, W/stride)."""

    def __init__(self, backbone: Backbone, names: Sequence[str], feature_map: str) -> None:
        super().__init__()
        _share(self, backbone, names)
        self.channels, self.stride = backbone.channels[feature_map], backbone.strides[feature_map]
        self.preprocessing = backbone.preprocessing
        self.classifier_keys = backbone.classifier_keys

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images -> the features that the RPN and all regions share."""
        for module in self.children():
            images = module(images)
        return images


class SequentialHead(C4Head):
    """Some of a backbone's modules, one after the other, and average pooling: (R, C, S, S) -> (R, channels)."""

    def __init__(self, backbone: Backbone, names: Sequence[str], feature_map: str) -> None:
        super().__init__()
        _share(self, backbone, names)
        self.channels = backbone.channels[feature_map]

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled features of R regions -> one vector a region."""
        for module in self.children():
            pooled = module(pooled)
        return global_average(pooled)


def split_modules(
    backbone: Backbone, trunk: Sequence[str], head: Sequence[str], *, trunk_map: str = "c4", head_map: str = "c5"
) -> tuple[C4Trunk, C4Head]:
    """The two halves of a backbone whose named child modules run one after the other: a `split_c4` in one line.

    The trunk ends with the feature map `trunk_map`; the head goes on to `head_map` and its average. They share the backbone's
    modules and keep frozen what it froze. Raises BackboneError for a module or map that the backbone has not.
    """
    for name in (trunk_map, head_map):
        if name not in backbone.channels:
            raise BackboneError(f"{type(backbone).__name__} has no map '{name}'; it has {', '.join(backbone.channels)}")
    return SequentialTrunk(backbone, trunk, trunk_map), SequentialHead(backbone, head, head_map)


def _share(half: C4Trunk | C4Head, backbone: Backbone, names: Sequence[str]) -> None:
    children = dict(backbone.named_children())
    for name in names:
        if name not in children:
            raise BackboneError(f"{type(backbone).__name__} has no module '{name}'; it has {', '.join(children)}")
        half.add_module(name, children[name])
    half.freeze([name for name in backbone.frozen if name.partition(".")[0] in names])
