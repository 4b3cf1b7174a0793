"""A detector that computes in milliseconds, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detection import Detector, build_detector
from detection.config import Config, TestConfig
from detection.inference.select import select
from detection.structures import Detections, ScoredRegions

SMALL: dict[str, dict[str, Any]] = {
    "model": {"backbone": "resnet18"},
    "rpn": {
        "channels": 32,
        "anchor_sizes": [16, 32],
        "min_size": 4,
        "post_nms_train": 40,
        "post_nms_test": 20,
        "sample_size": 32,
    },
    "roi": {"pool_size": 6, "sample_size": 16, "pooling": "align", "sampling_ratio": 2, "negative_iou": [0, 0.5]},
    "data": {"classes": ["cat", "dog"]},
    "test": {"shorter_side": 64, "longer_side": 100, "score_threshold": 0.0},
}


def detector(**sections: dict[str, Any]) -> Detector:
    """SMALL with some keys changed: `detector(test={"flip": True})`."""
    values = {key: {**SMALL.get(key, {}), **sections.get(key, {})} for key in SMALL | sections}
    return build_detector(Config.model_validate(values))


def noise(*size_hw: int) -> torch.Tensor:
    """A random image (3, H, W)."""
    return torch.randint(0, 256, (3, *size_hw), dtype=torch.uint8)


def select_one(
    scores: Tensor, boxes: Tensor, size_hw: tuple[int, int], test: TestConfig, threshold: float | Tensor
) -> Detections:
    """`select` of one image alone: scores (P, K) and boxes (P, K, 4)."""
    [found] = select(ScoredRegions([scores], [boxes]), size_hw, test, threshold)
    return found


PYRAMID: dict[str, dict[str, Any]] = {
    "model": {"backbone": "resnet18", "neck": "fpn"},
    "fpn": {"channels": 16, "head_channels": 32},
    "rpn": {"anchor_sizes": [8, 16, 32, 64, 128]},
    "roi": {"pool_size": 3},
}


def pyramid(**sections: dict[str, Any]) -> Detector:
    """The same with a feature pyramid: `pyramid(test={"flip": True})`."""
    return detector(**{key: {**PYRAMID.get(key, {}), **sections.get(key, {})} for key in PYRAMID | sections})
