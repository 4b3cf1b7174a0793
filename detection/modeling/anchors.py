"""Anchors: the reference boxes of the RPN (Faster R-CNN, section 3.1.1).

There are A anchors per feature cell, one for each size and ratio. A feature map of H x W cells has H * W * A anchors, in the
order of the RPN's outputs: row by row, in a row cell by cell, in a cell anchor by anchor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detection.config import RpnConfig


def generate_cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """The anchors of one cell, (A, 4) xyxy around the origin, not rounded: area size^2, height / width = ratio.

    All ratios of the first size come first.
    """
    boxes = []
    for size in sizes:
        for ratio in ratios:
            width = size / ratio**0.5
            height = size * ratio**0.5
            boxes.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(boxes, dtype=torch.float32, device="cpu")


def anchors_of_maps(strides: Sequence[int], config: RpnConfig) -> Tensor:
    """The anchors of one cell of each of L maps, (L, A, 4), around the pixel on which `grid_anchors` puts them.

    A single map has those of all sizes; of several, a pyramid's, each has those of one size, the finest map of the first.
    With `round_anchors` the corners are whole pixels, halves to the even one.
    """
    single = len(strides) == 1
    sizes = [config.anchor_sizes] if single else [(size,) for size in config.anchor_sizes]
    cells = [generate_cell_anchors(each, config.anchor_ratios) for each in sizes]
    if config.round_anchors:
        cells = [cell.round() for cell in cells]
    return torch.stack([cell + config.anchor_offset * stride for cell, stride in zip(cells, strides, strict=True)])


def grid_anchors(
    cell_anchors: Tensor, stride: int, feature_hw: tuple[int, int], apart: tuple[int, int] | None = None
) -> Tensor:
    """The anchors of a whole feature map: those of one cell (A, 4), put on each of H x W cells -> (H * W * A, 4).

    Cell (y, x) is centred on pixel (y * stride, x * stride): where padded convolutions centre their receptive fields. With
    `apart` (y, x) these are the pixels between cells, not the stride.
    """
    stride_y, stride_x = apart or (stride, stride)
    height, width = feature_hw
    y = torch.arange(height, device=cell_anchors.device, dtype=cell_anchors.dtype) * stride_y
    x = torch.arange(width, device=cell_anchors.device, dtype=cell_anchors.dtype) * stride_x
    y, x = torch.meshgrid(y, x, indexing="ij")
    centers = torch.stack([x, y, x, y], dim=-1)
    return (centers[:, :, None] + cell_anchors).reshape(-1, 4)


def inside_image(anchors: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Which anchors do not cross the border of the image: (M, 4) -> (M,) bool."""
    height, width = size_hw
    return (anchors[:, :2] >= 0).all(dim=1) & (anchors[:, 2] <= width) & (anchors[:, 3] <= height)


def centered_on_image(anchors: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """Which anchors have their centre on the image and not on a batch's padding: (M, 4) -> (M,) bool.

    For N images at once `height` and `width` are tensors (N, 1), and the result is (N, M).
    """
    center_x = (anchors[:, 0] + anchors[:, 2]) / 2
    center_y = (anchors[:, 1] + anchors[:, 3]) / 2
    return (center_x < width) & (center_y < height)
