"""Box geometry. Boxes: (N, 4) float32 xyxy, absolute pixels, continuous.

Deltas are the regression targets of R-CNN: (dx, dy) is the shift of the centre in units of the anchor's size, (dw, dh) the
logarithm of the ratio of the sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from backbones.constants import constant

# Larger dw and dh are cut off: a side grows at most from 16 px to 1000 px, and exp() never overflows.
MAX_LOG_RATIO = math.log(1000 / 16)


def box_areas(boxes: Tensor) -> Tensor:
    """(N, 4) -> (N,). Inverted boxes have area 0."""
    width_height = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return width_height[:, 0] * width_height[:, 1]


def pairwise_intersection(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Shared area of every pair: (A, 4) and (B, 4) -> (A, B)."""
    top_left = torch.maximum(boxes_a[:, None, :2], boxes_b[:, :2])
    bottom_right = torch.minimum(boxes_a[:, None, 2:], boxes_b[:, 2:])
    width_height = (bottom_right - top_left).clamp(min=0)
    return width_height[..., 0] * width_height[..., 1]


def pairwise_iou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """IoU of every pair: (A, 4) and (B, 4) -> (A, B) in [0, 1]. Empty boxes score 0."""
    intersection = pairwise_intersection(boxes_a, boxes_b)
    union = box_areas(boxes_a)[:, None] + box_areas(boxes_b) - intersection
    return torch.where(union > 0, intersection / union, 0)


def pairwise_coverage(boxes: Tensor, regions: Tensor) -> Tensor:
    """Share of each box that lies in each region: (A, 4) and (B, 4) -> (A, B) in [0, 1]. Empty boxes score 0."""
    areas = box_areas(boxes)[:, None]
    return torch.where(areas > 0, pairwise_intersection(boxes, regions) / areas, 0)


def encode_boxes(boxes: Tensor, anchors: Tensor, std: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """Deltas that turn anchors into boxes, divided by `std`: (..., 4) and (..., 4) -> (..., 4). All boxes have an area."""
    anchor_sizes = anchors[..., 2:] - anchors[..., :2]
    sizes = boxes[..., 2:] - boxes[..., :2]
    shifts = (boxes[..., :2] + boxes[..., 2:] - anchors[..., :2] - anchors[..., 2:]) / 2 / anchor_sizes
    deltas = torch.cat([shifts, torch.log(sizes / anchor_sizes)], dim=-1)
    return deltas if _is_one(std) else deltas / constant(tuple(std), deltas.device, deltas.dtype)


def decode_boxes(deltas: Tensor, anchors: Tensor, std: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """Boxes from deltas and anchors, the inverse of `encode_boxes`: (..., 4) and (..., 4), broadcast -> (..., 4)."""
    if not _is_one(std):
        deltas = deltas * constant(tuple(std), deltas.device, deltas.dtype)
    anchor_sizes = anchors[..., 2:] - anchors[..., :2]
    centers = (anchors[..., :2] + anchors[..., 2:]) / 2 + deltas[..., :2] * anchor_sizes
    half_sizes = anchor_sizes * deltas[..., 2:].clamp(max=MAX_LOG_RATIO).exp() / 2
    return torch.cat([centers - half_sizes, centers + half_sizes], dim=-1)


def clip_boxes(boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Cut (..., 4) boxes off at the border of one image; a box that lies outside becomes empty."""
    height, width = size_hw
    return _join_axes(boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height))


def clip_boxes_to(boxes: Tensor, limits: Tensor) -> Tensor:
    """`clip_boxes` for images of several sizes at once: (..., 4) boxes and `limits` (..., 4) that broadcast with them, the
    (width, height, width, height) of each box's image."""
    return torch.minimum(boxes.clamp(min=0), limits)


def scale_boxes(boxes: Tensor, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) of an image of size `from_hw`, in the pixels of the same image resized to `to_hw`."""
    if from_hw == to_hw:
        return boxes
    ratio_y, ratio_x = to_hw[0] / from_hw[0], to_hw[1] / from_hw[1]
    # Not by a tensor of the ratios: its copy to a GPU would make the host wait.
    return _join_axes(boxes[..., 0::2] * ratio_x, boxes[..., 1::2] * ratio_y)


def mirror_boxes(boxes: Tensor, width: int) -> Tensor:
    """Boxes (..., 4) of an image of this width, in the image mirrored left to right. Its own inverse."""
    return torch.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], dim=-1)


def _join_axes(x: Tensor, y: Tensor) -> Tensor:
    """Both x (..., 2) and both y (..., 2) of boxes -> (..., 4)."""
    return torch.stack([x, y], dim=-1).flatten(-2)


def _is_one(std: Sequence[float]) -> bool:
    return all(value == 1 for value in std)


def nonempty_boxes(boxes: Tensor, min_size: float = 0) -> Tensor:
    """Which boxes have an area, and both sides of `min_size` pixels or more: (..., 4) -> (...) bool."""
    width_height = boxes[..., 2:] - boxes[..., :2]
    return ((width_height >= min_size) & (width_height > 0)).all(dim=-1)
