"""VGG-16, the baseline of the detection experiments (appendix A), with torchvision's parameter names.

Stages by number: 1 = conv1_x, 2 = conv2_x, ... 5 = conv5_x. Each ends with a 2x2 max-pool, which rounds sizes down.
"""

from __future__ import annotations

from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Backbone, C4Head, C4Trunk
from backbones.convolution import Conv2d
from backbones.errors import BackboneError
from backbones.options import DEFAULT_OPTIONS, BackboneOptions

# The convolutions of the five stages; a ReLU follows each.
STAGES = (
    ("features.0", "features.2"),
    ("features.5", "features.7"),
    ("features.10", "features.12", "features.14"),
    ("features.17", "features.19", "features.21"),
    ("features.24", "features.26", "features.28"),
)
POOL_SIZE = 7
NUM_HEAD_LAYERS = 6  # of `classifier`: fc6 and fc7, each with ReLU and dropout


class VGG16(Backbone):
    """13 convolutions and, with `num_classes`, fc6, fc7 and the classifier. He initialisation.

    c2..c5 are the outputs of conv2_x..conv5_x before their pooling, so their strides are half of a ResNet's. There is no norm
    and no 1x1 convolution: `norm`, `stride_in_1x1` and `stem_pool` change nothing. `freeze_stages` 5 freezes all convolutions,
    not fc6 and fc7. `width` (of conv1_x) and `fc_channels` make a smaller net.
    """

    head_keys = ("classifier.0.weight", "classifier.0.bias", "classifier.3.weight", "classifier.3.bias")
    classifier_keys = ("classifier.6.weight", "classifier.6.bias")
    stage_parts = STAGES

    def __init__(self, options: BackboneOptions = DEFAULT_OPTIONS, *, width: int = 64, fc_channels: int = 4096) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.fc_channels = fc_channels
        self.features = conv_stages(widths)
        self.classifier: nn.Sequential | None = None
        if options.num_classes:
            self.classifier = fc6_fc7(widths[-1], fc_channels).append(linear(fc_channels, options.num_classes))
        self.channels = dict(zip(("c2", "c3", "c4", "c5"), widths[1:], strict=True))
        self.strides = {"c2": 2, "c3": 4, "c4": 8, "c5": 16}
        self.freeze(list(chain(*STAGES[: options.freeze_stages])))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised (N, 3, H, W) -> {"c2", "c3", "c4", "c5"}: (N, channels, H/stride, W/stride), rounded down.

        Raises BackboneError for images of less than 16 pixels a side.
        """
        _require_size(images, 16)
        maps, x = [], images
        for layer in self.features[:-1]:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
            x = layer(x)
        return dict(zip(self.channels, [*maps[1:], x], strict=True))

    def logits(self, images: Tensor) -> Tensor:
        """Class scores before the softmax: (N, 3, H, W) -> (N, num_classes). H and W are 32 or more, and 224 as trained."""
        if self.classifier is None:
            raise BackboneError("this VGG16 has no classifier: build it with num_classes")
        _require_size(images, 32)
        pooled = F.adaptive_avg_pool2d(self.features(images), POOL_SIZE)
        return self.classifier(pooled.flatten(1))

    def dense_logits(self, images: Tensor) -> Tensor:
        """fc6 as a 7x7 convolution, fc7 and fc8 as 1x1: the scores averaged over all places, (N, num_classes)."""
        if self.classifier is None or min(images.shape[-2:]) < POOL_SIZE * 32 or images.shape[-2:] == (224, 224):
            return self.logits(images)
        windows = self.features(images).unfold(2, POOL_SIZE, 1).unfold(3, POOL_SIZE, 1)  # (N, C, h, w, 7, 7)
        num_images, _, height, width = windows.shape[:4]
        scores = self.classifier(windows.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2))
        exact = torch.promote_types(scores.dtype, torch.float32)  # the mean is no part of the network
        return scores.view(num_images, height * width, -1).to(exact).mean(dim=1)

    def split_c4(self) -> tuple[VGG16Trunk, VGG16Head]:
        """The convolutions, and fc6 and fc7; they share this network's modules.

        Without `num_classes` there are no fc6 and fc7 to share: the head gets new ones.
        """
        return VGG16Trunk(self), VGG16Head(self)


class VGG16Trunk(C4Trunk):
    """The 13 convolutions, without the fifth pooling: (N, 3, H, W) -> (N, channels, H/16, W/16), rounded down, at least 1."""

    stride = 16
    stage_parts = STAGES

    def __init__(self, vgg: VGG16) -> None:
        super().__init__()
        self.features = vgg.features[:-1]
        self.channels = vgg.channels["c5"]
        self.preprocessing = vgg.preprocessing
        self.classifier_keys = vgg.classifier_keys
        self.freeze(vgg.frozen)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images -> the features that the RPN and all regions share."""
        height, width = images.shape[-2:]
        if min(height, width) < self.stride:
            # Four poolings would leave nothing; zeros are what a batch is padded with, too.
            images = F.pad(images, (0, max(0, self.stride - width), 0, max(0, self.stride - height)))
        return self.features(images)


class VGG16Head(C4Head):
    """fc6 and fc7, with dropout in training: (R, C, 7, 7) -> (R, channels). R may be 0."""

    pool_size = POOL_SIZE

    def __init__(self, vgg: VGG16) -> None:
        super().__init__()
        self.channels = vgg.fc_channels
        if vgg.classifier is None:
            self.classifier = fc6_fc7(vgg.channels["c5"], vgg.fc_channels)
        else:
            self.classifier = vgg.classifier[:NUM_HEAD_LAYERS]

    def forward(self, pooled_features: Tensor) -> Tensor:
        """Pooled features of R regions -> one vector per region."""
        return self.classifier(pooled_features.flatten(1))


def conv_stages(widths: list[int]) -> nn.Sequential:
    """The five stages as torchvision numbers them: 3x3 convolutions with ReLU, and a 2x2 max-pool after each stage."""
    layers: list[nn.Module] = []
    in_channels = 3
    for names, width in zip(STAGES, widths, strict=True):
        for _ in names:
            conv = Conv2d(in_channels, width, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
            layers += [conv, nn.ReLU(inplace=True)]
            in_channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def fc6_fc7(in_channels: int, channels: int) -> nn.Sequential:
    """Two fully connected layers with ReLU and dropout 0.5: (R, in_channels * 7 * 7) -> (R, channels)."""
    layers: list[nn.Module] = []
    for inputs in (in_channels * POOL_SIZE**2, channels):
        layers += [linear(inputs, channels), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    return nn.Sequential(*layers)


def linear(in_channels: int, out_channels: int) -> nn.Linear:
    """A fully connected layer: normal weights with standard deviation 0.01, no bias yet."""
    layer = nn.Linear(in_channels, out_channels)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def _require_size(images: Tensor, smallest_side: int) -> None:
    """Raises BackboneError where the poolings would leave nothing of the images."""
    height, width = images.shape[-2:]
    if min(height, width) < smallest_side:
        raise BackboneError(f"VGG-16 needs {smallest_side} pixels a side here, got images of {width} x {height}")


BUILDERS = {"vgg16": VGG16}
