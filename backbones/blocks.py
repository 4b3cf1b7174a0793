"""The building blocks of residual networks (sections 3.2-3.3, figure 5), with torchvision's parameter names.

Every block maps (N, in_channels, H, W) to (N, width * expansion, H/stride, W/stride).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import MapToPool
from backbones.convolution import Conv2d
from backbones.norm import FrozenBatchNorm2d, conv1x1_before_pooling, conv_norm, norm_after_pooling
from backbones.options import Norm, StemPool

Shortcut = Literal["A", "B", "C", "none"]
"""Where dimensions grow: A zero-padding, B projection; C: all are projections; none: a plain net."""
ZeroChannels = Literal["end", "both"]
"""Where option A puts its new channels, which the paper does not say: after the others, or half before and half after them."""


def initialise_convolutions(network: nn.Module) -> None:
    """He initialisation (section 3.4): normal with variance 2 / fan-out."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """The normalisation layer of that kind."""
    return FrozenBatchNorm2d(channels) if kind == "frozen_bn" else nn.BatchNorm2d(channels)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> Conv2d:
    """A 3x3 convolution that keeps the size (or halves it, rounding up); the norm after it has the bias."""
    return Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> Conv2d:
    """A 1x1 convolution without bias."""
    return Conv2d(in_channels, out_channels, 1, stride, bias=False)


def global_average(x: Tensor) -> Tensor:
    """Global average pooling: (N, C, H, W) -> (N, C). Unlike torch's, its gradient keeps the memory order of x, which makes it
    several times as fast with channels last."""
    return x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3])


class Projection(nn.Sequential):
    """Options B and C: a strided 1x1 convolution and its norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        super().__init__(conv1x1(in_channels, out_channels, stride), make_norm(norm, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride)."""
        conv, norm = self.conv_and_norm()
        return conv_norm(conv, norm, x)

    def conv_and_norm(self) -> tuple[nn.Conv2d, nn.Module]:
        """The two layers."""
        conv, norm = self
        assert isinstance(conv, nn.Conv2d)
        return conv, norm


class ZeroPadding(nn.Module):
    """Option A, without parameters: every stride-th pixel, and zeros for the new channels."""

    def __init__(self, extra_channels: int, stride: int, zeros: ZeroChannels = "end") -> None:
        super().__init__()
        self.stride = stride
        self.before = extra_channels // 2 if zeros == "both" else 0
        self.after = extra_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, before + C + after, H/stride, W/stride), rounded up."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


def make_shortcut(
    option: Shortcut, in_channels: int, out_channels: int, stride: int, norm: Norm, zeros: ZeroChannels = "end"
) -> nn.Module | None:
    """The module on a block's shortcut connection; None: the identity, or no shortcut."""
    grows = stride != 1 or in_channels != out_channels
    if option == "C" or (option == "B" and grows):
        return Projection(in_channels, out_channels, stride, norm)
    if option == "A" and grows:
        return ZeroPadding(out_channels - in_channels, stride, zeros)
    return None


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (figure 5, left). It has no 1x1, so `stride_in_1x1` changes nothing."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shortcut: Shortcut,
        norm: Norm,
        stride_in_1x1: bool = False,
        zeros: ZeroChannels = "end",
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn1 = make_norm(norm, width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = make_norm(norm, width)
        self.downsample = make_shortcut(shortcut, in_channels, width, stride, norm, zeros)
        self.residual = shortcut != "none"

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, width * expansion, H/stride, W/stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = conv_norm(self.conv1, self.bn1, x, relu=True)
        return conv_norm(self.conv2, self.bn2, out, shortcut=identity if self.residual else None, relu=True)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up (figure 5, right). The stride is in the 3x3, or in the first 1x1 as the authors have it."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: Shortcut, norm: Norm, stride_in_1x1: bool = False
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = conv1x1(in_channels, width, stride if stride_in_1x1 else 1)
        self.bn1 = make_norm(norm, width)
        self.conv2 = conv3x3(width, width, 1 if stride_in_1x1 else stride)
        self.bn2 = make_norm(norm, width)
        self.conv3 = conv1x1(width, out_channels)
        self.bn3 = make_norm(norm, out_channels)
        self.downsample = make_shortcut(shortcut, in_channels, out_channels, stride, norm)
        self.residual = shortcut != "none"

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, width * expansion, H/stride, W/stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        return self._expand(conv_norm(self.conv1, self.bn1, x, relu=True), identity)

    def before_pooling(self, features: Tensor) -> list[MapToPool]:
        """Two maps to pool, the shortcut's and the 1x1 down's: the 1x1 convolutions run on what the regions share."""
        shortcut = MapToPool(features)
        if isinstance(self.downsample, Projection):
            conv, norm = self.downsample.conv_and_norm()
            shortcut = MapToPool(conv1x1_before_pooling(conv, norm, features), conv.stride[0])
        narrow = conv1x1_before_pooling(self.conv1, self.bn1, features)
        return [shortcut, MapToPool(narrow, self.conv1.stride[0])]

    def after_pooling(self, shortcut: Tensor, narrow: Tensor) -> Tensor:
        """The pooled cells of these two maps -> the block's output, which is that of `self(pooled_features)` up to rounding."""
        identity = shortcut
        if isinstance(self.downsample, Projection):
            _, norm = self.downsample.conv_and_norm()
            identity = norm_after_pooling(norm, shortcut)
        elif self.downsample is not None:
            identity = self.downsample(shortcut)
        return self._expand(F.relu(norm_after_pooling(self.bn1, narrow), inplace=True), identity)

    def _expand(self, narrow: Tensor, identity: Tensor) -> Tensor:
        """From the first layer's output to the block's."""
        out = conv_norm(self.conv2, self.bn2, narrow, relu=True)
        return conv_norm(self.conv3, self.bn3, out, shortcut=identity if self.residual else None, relu=True)


def stem(conv1: nn.Conv2d, bn1: nn.Module, images: Tensor, pool: StemPool = "pad1") -> Tensor:
    """conv1, its norm, ReLU and the 3x3 max-pool: (N, 3, H, W) -> (N, 64, H/4, W/4), rounded as `StemPool` says."""
    x = conv_norm(conv1, bn1, images, relu=True)
    if pool == "pad1":
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    if torch.compiler.is_compiling():
        # `ceil_mode` cannot be exported for images of any size; a border of zeros does the same: one pixel for the last window
        # to stand on, or two where it is the only one.
        x = F.pad(x, (0, 2 if x.shape[3] == 1 else 1, 0, 2 if x.shape[2] == 1 else 1))
        return F.max_pool2d(x, kernel_size=3, stride=2)
    # No window fits on a map of less than 3 pixels; after the ReLU zeros change no maximum.
    x = F.pad(x, (0, max(0, 3 - x.shape[3]), 0, max(0, 3 - x.shape[2])))
    return F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
