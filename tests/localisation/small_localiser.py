"""Localisation networks that compute in milliseconds, with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from backbones import BACKBONES, Backbone, BackboneOptions, ResNet
from detection.config import LocConfig
from detection.localisation.networks import LocRcnn, LocRpn, build_rcnn, build_rpn

NAMES = ("n01440764", "n01443537", "n01484850")
CHANNELS = 8


class TinyNet(Backbone):
    """Means of 8 x 8 pixels, and one convolution that sees a cell's and its neighbours'. Sizes are rounded up."""

    stage_parts = (("conv",),)

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 9, stride=4, padding=4)
        self.channels, self.strides = {"c5": CHANNELS}, {"c5": 32}
        self.freeze([name for name in ("conv",) if options.freeze_stages])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"c5": self.conv(nn.functional.avg_pool2d(images, 8, ceil_mode=True)).relu()}


@contextmanager
def small_backbones() -> Iterator[None]:
    """Inside, "tiny" is a backbone's name, and "narrow" that of a ResNet-18 with an eighth of its channels."""
    before = dict(BACKBONES)
    BACKBONES.update(tiny=TinyNet, narrow=partial(ResNet, 18, width=8))
    try:
        yield
    finally:
        BACKBONES.clear()
        BACKBONES.update(before)


def make_config(**sections: dict[str, Any]) -> LocConfig:
    """A config of the tiny network, with some keys changed: `make_config(rpn={"sample_size": 4})`."""
    values: dict[str, dict[str, Any]] = {
        "model": {"backbone": "tiny"},
        "data": {"image_size": 64},
        "rpn": {"anchor_sizes": [24, 48], "anchor_ratios": [1.0, 2.0]},
        "test": {"scales": [64, 96], "longer_side": 200, "batch_size": 4},
    }
    return LocConfig.model_validate({key: {**values.get(key, {}), **sections.get(key, {})} for key in values | sections})


def make_rpn(names: tuple[str, ...] = NAMES, **sections: dict[str, Any]) -> LocRpn:
    """An RPN whose scores and boxes differ visibly between classes and anchors."""
    with small_backbones():
        return _lively(build_rpn(make_config(**sections), names))


def make_rcnn(names: tuple[str, ...] = NAMES, **sections: dict[str, Any]) -> LocRcnn:
    """An R-CNN whose scores and boxes differ visibly between classes and regions."""
    with small_backbones():
        return _lively(build_rcnn(make_config(**sections), names))


def _lively(model: Any) -> Any:
    nn.init.normal_(model.head.scores.weight, std=0.5)
    nn.init.normal_(model.head.deltas.weight, std=0.2)
    return model.eval()


def noise(*size_hw: int) -> Tensor:
    """A random image (3, H, W), smooth enough to look alike at several scales."""
    rough = torch.rand(1, 3, 6, 8)
    return (nn.functional.interpolate(rough, size_hw, mode="bilinear")[0] * 255).to(torch.uint8)
