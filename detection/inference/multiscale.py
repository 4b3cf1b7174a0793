"""Multi-scale testing (appendix B): each region is pooled from the two scales at which it is nearest the size it is known in.

N images, P regions each, R of all of them, L scales. Boxes: xyxy pixels of the size at which proposals are made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detection.inference.views import View
from detection.modeling.boxes import box_areas, scale_boxes


def region_vectors(view: View, regions: Sequence[Tensor]) -> Tensor:
    """conv5's vector of each region, (R, D): the greater of the two scales, element by element."""
    test, head = view.test, view.detector.roi_head
    sides = test.scales or (test.shorter_side,)
    if len(sides) == 1:
        return head.vectors(view.features(sides[0], range(len(regions))), _scaled(view, regions, sides[0]))
    sizes_hw = [view.sizes_hw[side] for side in sides]
    choices = [adjacent_scales(boxes, view.size_hw, sizes_hw, test.scale_area) for boxes in regions]
    pooled = [_pool(view, regions, [choice[:, column] for choice in choices], sides) for column in range(2)]
    if test.scale_merge == "conv5":
        return torch.maximum(*(head.conv5(cells) for cells in pooled))
    return head.conv5(torch.maximum(*pooled))


def adjacent_scales(boxes: Tensor, size_hw: tuple[int, int], sizes_hw: Sequence[tuple[int, int]], scale_area: float) -> Tensor:
    """(P, 4) -> (P, 2) indices of ascending scales, or (P, 1) of a single one: SPP-net's rule.

    First the scale at which the region's area is closest to scale_area^2, then the better of its neighbours.
    """
    growth = [(height * width) / (size_hw[0] * size_hw[1]) for height, width in sizes_hw]
    distance = (box_areas(boxes)[:, None] * boxes.new_tensor(growth) - scale_area**2).abs()  # (P, L)
    best = distance.argmin(dim=1, keepdim=True)
    if len(sizes_hw) == 1:
        return best
    steps = torch.arange(len(sizes_hw), device=boxes.device) - best
    neighbour = distance.masked_fill(steps.abs() != 1, torch.inf).argmin(dim=1, keepdim=True)
    return torch.cat([best, neighbour], dim=1)


def _pool(view: View, regions: Sequence[Tensor], choices: Sequence[Tensor], sides: Sequence[int]) -> Tensor:
    """Each region's cells (R, C, S, S) from the scale chosen for it; only scales that some region needs are computed."""
    head = view.detector.roi_head
    starts = torch.tensor([0, *(len(boxes) for boxes in regions)]).cumsum(0).tolist()
    places, parts = [], []
    for index, side in enumerate(sides):
        members = [(choice == index).nonzero().squeeze(1) for choice in choices]
        rows = [row for row, chosen in enumerate(members) if len(chosen)]
        if rows:
            boxes = [regions[row][members[row]] for row in rows]
            parts.append(head.pool(view.features(side, rows), _scaled(view, boxes, side)))
            places.append(torch.cat([members[row] + starts[row] for row in rows]))
    order = torch.cat(places).argsort()
    return torch.cat(parts)[order]


def _scaled(view: View, regions: Sequence[Tensor], shorter_side: int) -> list[Tensor]:
    return [scale_boxes(boxes, view.size_hw, view.sizes_hw[shorter_side]) for boxes in regions]
