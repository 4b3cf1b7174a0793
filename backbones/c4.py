"""The two halves of a C4 detector (appendix A) from any network whose modules run one after the other.

State-dict keys are the network's own in both halves. The ResNets' and VGG-16's halves are beside their networks.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from backbones.base import Backbone, C4Head, C4Trunk
from backbones.blocks import global_average
from backbones.errors import BackboneError


class SequentialTrunk(C4Trunk):
    """Some of a backbone's modules, one after the other: (N, 3, H, W) -> (N, channels, H/stride, W/stride)."""

    def __init__(self, backbone: Backbone, names: Sequence[str], feature_map: str) -> None:
        super().__init__()
        _share_modules(self, backbone, names)
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
        _share_modules(self, backbone, names)
        self.channels = backbone.channels[feature_map]

    def forward(self, pooled_features: Tensor) -> Tensor:
        """Pooled features of R regions -> one vector per region."""
        return global_average(self.maps(pooled_features))

    def maps(self, pooled_features: Tensor) -> Tensor:
        """Pooled features of R regions -> the last module's maps of them."""
        for module in self.children():
            pooled_features = module(pooled_features)
        return pooled_features


def split_modules(
    backbone: Backbone, trunk: Sequence[str], head: Sequence[str], *, trunk_map: str = "c4", head_map: str = "c5"
) -> tuple[C4Trunk, C4Head]:
    """The two halves of a backbone whose named child modules run one after the other: a `split_c4` in one line.

    The trunk ends with the feature map `trunk_map`; the head goes on to `head_map` and its average. They share the backbone's
    modules and keep frozen what it froze. Raises BackboneError for a module or map that the backbone does not have.
    """
    for name in (trunk_map, head_map):
        if name not in backbone.channels:
            raise BackboneError(f"{type(backbone).__name__} has no map '{name}'; it has {', '.join(backbone.channels)}")
    return SequentialTrunk(backbone, trunk, trunk_map), SequentialHead(backbone, head, head_map)


def _share_modules(half: C4Trunk | C4Head, backbone: Backbone, names: Sequence[str]) -> None:
    half.stage_parts = backbone.stage_parts
    children = dict(backbone.named_children())
    for name in names:
        if name not in children:
            raise BackboneError(f"{type(backbone).__name__} has no module '{name}'; it has {', '.join(children)}")
        half.add_module(name, children[name])
    half.freeze([name for name in backbone.frozen if name.partition(".")[0] in names])
