"""The residual and plain nets for CIFAR (section 4.2), with the same names of parameters as the ImageNet ones.

6n + 2 layers: a 3x3 convolution, three stages of n blocks of two 3x3 at 16, 32 and 64 channels, which for a 32x32 image are
maps of 32, 16 and 8 pixels a side, global average pooling and the classifier. Stages by number: 1 = conv1, 2 = `layer1`,
3 = `layer2`, 4 = `layer3`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

import torch
from torch import Tensor, nn

from backbones.base import Backbone
from backbones.blocks import BasicBlock, Shortcut, conv3x3, global_average, initialise_convolutions, make_norm
from backbones.checkpointing import checkpointed
from backbones.errors import BackboneError, shorten
from backbones.norm import conv_norm
from backbones.options import DEFAULT_OPTIONS, BackboneOptions

WIDTHS = (16, 32, 64)
RESNET_DEPTHS = (20, 32, 44, 56, 110, 1202)  # table 6
PLAIN_DEPTHS = (20, 32, 44, 56, 110)  # figure 6
STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",))
MAX_DEPTH = 5000  # four times the paper's deepest: what is deeper takes minutes to build
DEEP = 200  # layers; what deeper nets would keep for the backward pass fills a GPU


class CifarResNet(Backbone):
    """A residual net of 6n + 2 layers, or with shortcut="none" its plain counterpart. He initialisation.

    Option A puts half of its zero channels before and half after the others, as the weights that circulate have it. There are
    four stages to freeze, no 1x1 convolution to stride and no pool in the stem. `checkpoint_activations`: compute activations
    again in the backward pass and keep few of them; None: in nets of more than 200 layers. Raises BackboneError for a depth,
    shortcut or number of stages out of range.
    """

    classifier_keys = ("fc.weight", "fc.bias")
    stage_parts = STAGES
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(
        self,
        depth: int,
        options: BackboneOptions = DEFAULT_OPTIONS,
        *,
        shortcut: Shortcut = "A",
        checkpoint_activations: bool | None = None,
    ) -> None:
        super().__init__()
        _check_layout(depth, shortcut, options.freeze_stages)
        self.checkpoint_activations = depth > DEEP if checkpoint_activations is None else checkpoint_activations
        self.conv1 = conv3x3(3, WIDTHS[0])
        self.bn1 = make_norm(options.norm, WIDTHS[0])
        in_channels = WIDTHS[0]
        for index, width in enumerate(WIDTHS):
            blocks = []
            for position in range((depth - 2) // 6):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(BasicBlock(in_channels, width, stride, shortcut, options.norm, zeros="both"))
                in_channels = width
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(in_channels, options.num_classes) if options.num_classes else None
        self.channels = dict(zip(("c2", "c3", "c4"), WIDTHS, strict=True))
        self.strides = {"c2": 1, "c3": 2, "c4": 4}
        initialise_convolutions(self)
        self.freeze([name for stage in STAGES[: options.freeze_stages] for name in stage])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised (N, 3, H, W) -> {"c2", "c3", "c4"}: (N, channels, H/stride, W/stride), rounded up."""
        x = conv_norm(self.conv1, self.bn1, images, relu=True)
        features = {}
        for name, layer in zip(self.channels, (self.layer1, self.layer2, self.layer3), strict=True):
            saves_memory = self.checkpoint_activations and torch.is_grad_enabled()
            x = features[name] = checkpointed(layer, x) if saves_memory else layer(x)
        return features

    def logits(self, images: Tensor) -> Tensor:
        """Class scores before the softmax: (N, 3, H, W) -> (N, num_classes)."""
        if self.fc is None:
            raise BackboneError("this CIFAR net has no classifier: build it with num_classes")
        return self.fc(global_average(self(images)["c4"]))


def _check_layout(depth: int, shortcut: Shortcut, freeze_stages: int) -> None:
    """Raises BackboneError naming the option, the value and what it may be."""
    if depth > MAX_DEPTH:
        raise BackboneError(f"depth must be at most {MAX_DEPTH} for a CIFAR net, got {shorten(depth)}")
    if depth < 8 or depth % 6 != 2:
        below = max(8, depth - (depth - 2) % 6)
        nearest = "the least is 8" if depth < 8 else f"the nearest are {below} and {below + 6}"
        raise BackboneError(f"depth must be 6n + 2 for a CIFAR net, got {depth!r}; {nearest}")
    if shortcut not in get_args(Shortcut):
        raise BackboneError(f"shortcut must be one of {list(get_args(Shortcut))}, got {shortcut!r}")
    if freeze_stages > len(STAGES):
        raise BackboneError(f"freeze_stages must be 0..{len(STAGES)} for a CIFAR net, got {freeze_stages!r}")


FAMILIES: dict[str, Callable[[int, BackboneOptions], CifarResNet]] = {
    "cifar_resnet": CifarResNet,
    "cifar_plain": partial(CifarResNet, shortcut="none"),
}
BUILDERS = {
    **{f"cifar_resnet{depth}": partial(CifarResNet, depth) for depth in RESNET_DEPTHS},
    **{f"cifar_plain{depth}": partial(CifarResNet, depth, shortcut="none") for depth in PLAIN_DEPTHS},
}
