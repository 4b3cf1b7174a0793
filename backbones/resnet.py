"""ResNet-18/34/50/101/152 and the plain nets (table 1), with torchvision's parameter names.

Stages by number: 1 = conv1, 2 = conv2_x (`layer1`), ... 5 = conv5_x (`layer4`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import get_args

from torch import Tensor, nn

from backbones.base import Backbone, C4Head, C4Trunk, MapToPool
from backbones.blocks import BasicBlock, Bottleneck, Shortcut, global_average, initialise_convolutions, make_norm, stem
from backbones.errors import BackboneError
from backbones.options import DEFAULT_OPTIONS, BackboneOptions, StemPool

BLOCKS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
# Those of tables 2-4; of ResNet(depth, shortcut=...) there are more.
NETS: dict[str, tuple[int, Shortcut]] = {
    **{f"resnet{depth}": (depth, "B") for depth in BLOCKS},
    **{"plain18": (18, "none"), "plain34": (34, "none")},
    **{"resnet18_a": (18, "A"), "resnet34_a": (34, "A"), "resnet34_c": (34, "C")},
}
HALF = "_half"
"""The end of the names of nets with half as many channels in every block; conv1 has its 64."""
STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))


class ResNet(Backbone):
    """A residual network, or with shortcut="none" its plain counterpart. He initialisation.

    `width` is that of conv2_x's blocks, 64 in the paper: conv3_x to conv5_x have 2, 4 and 8 times as much, conv1 always 64.
    Raises BackboneError for an unknown depth or shortcut.
    """

    classifier_keys = ("fc.weight", "fc.bias")
    stage_parts = STAGES
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self, depth: int, options: BackboneOptions = DEFAULT_OPTIONS, *, shortcut: Shortcut = "B", width: int = 64
    ) -> None:
        super().__init__()
        _check_layout(depth, shortcut)
        self.stem_pool: StemPool = options.stem_pool
        block, counts = BLOCKS[depth]
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(options.norm, 64)
        in_channels = 64
        for index, count in enumerate(counts):
            stage_width = width * 2**index
            blocks = []
            for position in range(count):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(block(in_channels, stage_width, stride, shortcut, options.norm, options.stride_in_1x1))
                in_channels = stage_width * block.expansion
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(in_channels, options.num_classes) if options.num_classes else None
        self.channels = {f"c{index + 2}": width * 2**index * block.expansion for index in range(4)}
        self.strides = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
        initialise_convolutions(self)
        self.freeze([name for stage in STAGES[: options.freeze_stages] for name in stage])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised (N, 3, H, W) -> {"c2", "c3", "c4", "c5"}: (N, channels, H/stride, W/stride), rounded up if the
        stem's pool pads."""
        x = stem(self.conv1, self.bn1, images, self.stem_pool)
        features = {}
        for name, layer in zip(self.channels, (self.layer1, self.layer2, self.layer3, self.layer4), strict=True):
            x = features[name] = layer(x)
        return features

    def logits(self, images: Tensor) -> Tensor:
        """Class scores before the softmax: (N, 3, H, W) -> (N, num_classes)."""
        if self.fc is None:
            raise BackboneError("this ResNet has no classifier: build it with num_classes")
        return self.fc(global_average(self(images)["c5"]))

    def split_c4(self) -> tuple[ResNetTrunk, ResNetHead]:
        """conv1..conv4_x, and conv5_x with its average pooling; they share this network's modules."""
        return ResNetTrunk(self), ResNetHead(self)


class ResNetTrunk(C4Trunk):
    """conv1..conv4_x: (N, 3, H, W) -> (N, channels, H/16, W/16), rounded up. Frozen stages build no autograd graph."""

    stride = 16
    stage_parts = STAGES
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

    stage_parts = STAGES
    layer4: nn.Sequential

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.layer4 = resnet.layer4
        self.channels = resnet.channels["c5"]
        self.freeze([name for name in resnet.frozen if name == "layer4"])

    def forward(self, pooled_features: Tensor) -> Tensor:
        """Pooled features of R regions -> one vector per region."""
        return global_average(self.maps(pooled_features))

    def maps(self, pooled_features: Tensor) -> Tensor:
        """Pooled features of R regions -> conv5_x's maps of them."""
        maps: Tensor = self.layer4(pooled_features)
        return maps

    def before_pooling(self, features: Tensor) -> list[MapToPool]:
        """The trunk's features -> the maps to pool. A bottleneck's first 1x1 convolutions have been applied to them already."""
        first = self.layer4[0]
        return first.before_pooling(features) if isinstance(first, Bottleneck) else [MapToPool(features)]

    def after_pooling(self, cells: Sequence[Tensor]) -> Tensor:
        """The cells of these maps -> one vector per region."""
        return global_average(self.maps_after_pooling(cells))

    def maps_after_pooling(self, cells: Sequence[Tensor]) -> Tensor:
        """The cells of these maps -> conv5_x's maps of each region."""
        first, *others = self.layer4
        if not isinstance(first, Bottleneck):
            (pooled_features,) = cells
            return self.maps(pooled_features)
        shortcut, narrow = cells
        x = first.after_pooling(shortcut, narrow)
        for block in others:
            x = block(x)
        return x


def _check_layout(depth: int, shortcut: Shortcut) -> None:
    """Raises BackboneError naming the option, the value and what it may be."""
    if depth not in BLOCKS:
        raise BackboneError(f"depth must be one of {list(BLOCKS)}, got {depth!r}")
    if shortcut not in get_args(Shortcut):
        raise BackboneError(f"shortcut must be one of {list(get_args(Shortcut))}, got {shortcut!r}")


BUILDERS = {
    **{name: partial(ResNet, depth, shortcut=shortcut) for name, (depth, shortcut) in NETS.items()},
    f"resnet50{HALF}": partial(ResNet, 50, width=32),
}
