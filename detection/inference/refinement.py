"""Iterative box refinement (appendix B): the boxes that the first pass predicts are pooled and classified again.

N images, P regions each, K classes. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detection.modeling.boxes import clip_boxes, nonempty_boxes
from detection.modeling.fixed_sizes import all_of_them
from detection.structures import ScoredRegions

Classify = Callable[[Sequence[Tensor]], ScoredRegions]
"""A function from regions N x (P, 4) to their class probabilities and boxes."""


def refine_boxes(classify: Classify, proposals: Sequence[Tensor], size_hw: tuple[int, int], passes: int) -> ScoredRegions:
    """Classify the proposals, then `passes` times the boxes that came out, and unite all predictions.

    The paper unites 300 new predictions with the 300 old ones: one new region for each, the box of its likeliest class.
    """
    found = classify(proposals)
    rounds = [found]
    for _ in range(passes):
        pairs = zip(found.scores, found.boxes, strict=True)
        found = classify([refined_regions(scores, boxes, size_hw) for scores, boxes in pairs])
        rounds.append(found)
    return ScoredRegions(
        [torch.cat(parts) for parts in zip(*(each.scores for each in rounds), strict=True)],
        [torch.cat(parts) for parts in zip(*(each.boxes for each in rounds), strict=True)],
        all_of_them(each.finite for each in rounds),
    )


def refined_regions(scores: Tensor, boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """The next pass's regions of one image: (P, K) and (P, K, 4) -> (P', 4). Boxes that clipping leaves empty are dropped."""
    regions = clip_boxes(likeliest_boxes(scores, boxes), size_hw)
    return regions[nonempty_boxes(regions)]


def likeliest_boxes(scores: Tensor, boxes: Tensor) -> Tensor:
    """Each region's box of its best class: (..., P, K) and (..., P, K, 4) -> (..., P, 4)."""
    best = scores.argmax(dim=-1)[..., None, None].expand(*scores.shape[:-1], 1, 4)
    return boxes.gather(-2, best).squeeze(-2)
