"""The maps that a detector looks at: one for C4, several levels for a pyramid.

N images, P regions each, R regions of all images, L maps or other choices. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detection.modeling.boxes import box_areas

CANONICAL_SIDE = 224  # px: a region of the size of ImageNet's images ...
CANONICAL_STRIDE = 16  # ... is pooled from the map that a C4 detector pools from

PoolChosen = Callable[[int, Sequence[int], Sequence[Tensor]], Tensor]
"""Pools regions at one choice: its index, the indices of n images, and their regions n x (P, 4) -> cells (R, C, S, S)."""


def joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The parts as one tensor; of a single one no copy is made."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


def pool_at_chosen(pool: PoolChosen, regions: Sequence[Tensor], choices: Sequence[Tensor], num_choices: int) -> Tensor:
    """The cells (R, C, S, S) of regions N x (P, 4), in their order, each pooled at the choice whose index N x (P,) is given:
    a scale of the image, or a map of a pyramid.

    `pool` is called only for the choices and images that some region needs; where there is no region at all, for the first
    choice and all images.
    """
    if not any(len(boxes) for boxes in regions):
        return pool(0, range(len(regions)), regions)
    numbers = torch.arange(num_choices, device=choices[0].device)[:, None]
    # One copy for all images: each would wait for a GPU.
    counts = torch.stack([(own == numbers).sum(dim=1) for own in choices], dim=1).tolist()  # of each choice, of each image
    order = torch.cat(list(choices)).argsort(stable=True)
    grouped = torch.cat(list(regions))[order].split([sum(sizes) for sizes in counts])
    parts = []
    for number, (sizes, boxes) in enumerate(zip(counts, grouped, strict=True)):
        images = [index for index, size in enumerate(sizes) if size]
        if images:
            parts.append(pool(number, images, boxes.split([sizes[index] for index in images])))
    return torch.cat(parts)[order.argsort()]


def levels_of(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """The index (P,) of the map of a pyramid that each region (P, 4) is pooled from (FPN, section 4.2).

    A region of 224 x 224 px is pooled at stride 16, one of twice the side at twice the stride; the strides are successive
    powers of two, and what is smaller or larger than they suit is pooled from the finest or the coarsest map.
    """
    sides = box_areas(boxes).sqrt()
    levels = torch.zeros_like(sides, dtype=torch.long)
    for stride in strides[1:]:  # not by logarithms, which other runtimes round otherwise
        levels = levels + (sides >= CANONICAL_SIDE / CANONICAL_STRIDE * stride)
    return levels
