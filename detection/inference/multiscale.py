"""Multi-scale testing (appendix B): a region is pooled from the two scales at which its area is nearest to a given one.

P regions of one image, L scales. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backbones.constants import constant
from detection.modeling.boxes import box_areas


def adjacent_scales(boxes: Tensor, size_hw: tuple[int, int], sizes_hw: Sequence[tuple[int, int]], scale_area: float) -> Tensor:
    """The two scales of each region by SPP-net's rule: (P, 4) -> (P, 2) indices, or (P, 1) where there is one scale only.

    `boxes` are pixels of an image of `size_hw`; `sizes_hw` are the sizes of the same image at the scales, ascending. The first
    index is the scale at which the region's area is closest to scale_area^2, the second is the better of its neighbours.
    """
    growth = [(height * width) / (size_hw[0] * size_hw[1]) for height, width in sizes_hw]
    distance = (box_areas(boxes)[:, None] * constant(tuple(growth), boxes.device, boxes.dtype) - scale_area**2).abs()  # (P, L)
    best = distance.argmin(dim=1, keepdim=True)
    if len(sizes_hw) == 1:
        return best
    steps = torch.arange(len(sizes_hw), device=boxes.device) - best
    neighbour = distance.masked_fill(steps.abs() != 1, torch.inf).argmin(dim=1, keepdim=True)
    return torch.cat([best, neighbour], dim=1)
