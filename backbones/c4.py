"""The two halves of a C4 detector (appendix A): conv1..conv4_x on the whole image, conv5_x on each region.

State-dict keys are the backbone's own: `conv1.*, bn1.*, layer1..layer3.*` in the trunk, `layer4.*` in the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import C4Head, C4Trunk
from backbones.blocks import stem
from backbones.weights import load_state

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
        return F.adaptive_avg_pool2d(self.layer4(pooled), 1).flatten(1)


def load_c4(
    trunk: C4Trunk,
    head: nn.Module,
    backbone_state: Mapping[str, Tensor],
    source: str = "the backbone's state dict",
) -> None:
    """Load a whole backbone's state dict into its two halves; its classifier has no place there and is left out.

    Keys that begin with the name of one of the head's children are the head's, all others the trunk's.
    Raises CheckpointError, naming `source` and the first keys, on anything else missing, unexpected or unfit.
    """
    both = nn.ModuleDict({"trunk": trunk, "head": head})
    head_names = tuple(f"{name}." for name, _ in head.named_children())
    state = {
        f"head.{key}" if key.startswith(head_names) else f"trunk.{key}": value
        for key, value in backbone_state.items()
        if key not in trunk.classifier_keys
    }
    load_state(both, state, source)
