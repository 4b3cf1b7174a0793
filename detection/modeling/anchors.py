"""Anchors: the reference boxes of the RPN (Faster R-CNN, section 3.1.1).

A anchors a cell = sizes x ratios; a feature map of H x W cells has H * W * A, in the order of the RPN's outputs: row by
row, then cell by cell, then anchor by anchor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """(A, 4) xyxy around the origin, exact: area size^2, height / width = ratio. Sizes vary slowest."""
    boxes = []
    for size in sizes:
        for ratio in ratios:
            width = size / ratio**0.5
            height = size * ratio**0.5
            boxes.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(boxes)


def grid_anchors(cells: Tensor, stride: int, feature_hw: tuple[int, int]) -> Tensor:
    """(A, 4) anchors put on each of H x W cells -> (H * W * A, 4).

    Cell (y, x) is centred on pixel (y * stride, x * stride): where padded convolutions centre their receptive fields.
    """
    height, width = feature_hw
    y = torch.arange(height, device=cells.device, dtype=cells.dtype) * stride
    x = torch.arange(width, device=cells.device, dtype=cells.dtype) * stride
    y, x = torch.meshgrid(y, x, indexing="ij")
    centers = torch.stack([x, y, x, y], dim=-1)
    return (centers[:, :, None] + cells).reshape(-1, 4)


def inside(anchors: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(N,) bool: the anchor does not cross the border of the image."""
    height, width = size_hw
    return (anchors[:, :2] >= 0).all(dim=1) & (anchors[:, 2] <= width) & (anchors[:, 3] <= height)


def centered_inside(anchors: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(N,) bool: the anchor's centre lies on the image and not on a batch's padding."""
    height, width = size_hw
    center_x = (anchors[:, 0] + anchors[:, 2]) / 2
    center_y = (anchors[:, 1] + anchors[:, 3]) / 2
    return (center_x < width) & (center_y < height)
