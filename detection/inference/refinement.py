"""Iterative box refinement (appendix B): pool again from where the first pass said the objects are.

N images, P regions each, K classes. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detection.modeling.boxes import at_least, clip_boxes

Scored = tuple[list[Tensor], list[Tensor]]
"""Class probabilities N x (P, K) and a box a class N x (P, K, 4)."""

Classify = Callable[[Sequence[Tensor]], Scored]
"""N x (P, 4) regions -> what they are and where."""


def classify_repeatedly(classify: Classify, proposals: Sequence[Tensor], size_hw: tuple[int, int], passes: int) -> Scored:
    """Classify the proposals, then `passes` times the boxes that came out, and unite all predictions.

    The paper unites 300 new predictions with the 300 old ones: one new region for each, the box of its likeliest class.
    """
    scores, boxes = classify(proposals)
    rounds = [(scores, boxes)]
    for _ in range(passes):
        regions = [regressed_regions(*pair, size_hw) for pair in zip(scores, boxes, strict=True)]
        scores, boxes = classify(regions)
        rounds.append((scores, boxes))
    united_scores, united_boxes = (
        [torch.cat(parts) for parts in zip(*lists, strict=True)] for lists in zip(*rounds, strict=True)
    )
    return united_scores, united_boxes


def regressed_regions(scores: Tensor, boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(P, K) and (P, K, 4) -> (P', 4): each region's box of its best class, clipped; what is left empty is dropped."""
    best = scores.argmax(dim=1)
    regions = clip_boxes(boxes[torch.arange(len(boxes), device=boxes.device), best], size_hw)
    return regions[at_least(regions, 0)]
