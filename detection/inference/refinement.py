"""Iterative box refinement (appendix B): the boxes that the first pass predicts are pooled and classified again.

N images, P regions each, K classes. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detection.config import TestConfig
from detection.modeling.boxes import clip_boxes, nonempty_boxes
from detection.modeling.fixed_sizes import all_of_them
from detection.structures import ScoredRegions

Classify = Callable[[Sequence[Tensor]], ScoredRegions]
"""A function from regions N x (P, 4) to their class probabilities and boxes."""


def refine_boxes(classify: Classify, proposals: Sequence[Tensor], size_hw: tuple[int, int], test: TestConfig) -> ScoredRegions:
    """Classify the proposals, then `refinement_passes` times the boxes that came out, and join all predictions.

    The paper unites 300 new predictions with the 300 old ones: one new region for each, the box of its likeliest class.
    """
    found = classify(proposals)
    rounds, origins = [found], [[torch.arange(len(boxes), device=boxes.device) for boxes in proposals]]
    for _ in range(test.refinement_passes):
        images = list(zip(found.scores, found.boxes, strict=True))
        chosen = [refined_regions(scores, boxes, size_hw, test.refine_scores) for scores, boxes in images]
        found = classify([regions for regions, _ in chosen])
        rounds.append(found)
        origins.append([before[rows] for before, (_, rows) in zip(origins[-1], chosen, strict=True)])
    join = _mean_of_passes if test.refinement == "average" else _side_by_side
    by_image = list(zip(*origins, strict=True))
    scores, boxes = zip(*(each.scores for each in rounds), strict=True), zip(*(each.boxes for each in rounds), strict=True)
    return ScoredRegions(
        [join(parts, rows) for parts, rows in zip(scores, by_image, strict=True)],
        [join(parts, rows) for parts, rows in zip(boxes, by_image, strict=True)],
        all_of_them(each.finite for each in rounds),
    )


def _side_by_side(passes: Sequence[Tensor], _: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(passes))


def _mean_of_passes(passes: Sequence[Tensor], origins: Sequence[Tensor]) -> Tensor:
    """Each proposal's mean (P, ...) over the passes (P', ...) it was in; `origins` (P',) says whose their rows are."""
    total, count = torch.zeros_like(passes[0]), torch.zeros_like(passes[0])
    for found, rows in zip(passes, origins, strict=True):
        total, count = total.index_add(0, rows, found), count.index_add(0, rows, torch.ones_like(found))
    return total / count


def refined_regions(
    scores: Tensor, boxes: Tensor, size_hw: tuple[int, int], refine_scores: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """The next pass's regions of one image, (P, K) and (P, K, 4) -> (P', 4), and which of the P they come from (P',).

    Boxes that clipping leaves empty are dropped, and those of regions that are not to be refined.
    """
    regions = clip_boxes(likeliest_boxes(scores, boxes), size_hw)
    rows = (nonempty_boxes(regions) & are_refined(scores, refine_scores)).nonzero().squeeze(1)
    return regions[rows], rows


def are_refined(scores: Tensor, refine_scores: tuple[float, float]) -> Tensor:
    """Whether the best of a region's scores (..., P, K) is in [low, high]: (..., P) bool."""
    low, high = refine_scores
    best = scores.amax(dim=-1)
    # Nothing is compared by default: NaN is in no interval, and a softmax may round to more than 1.
    return torch.ones_like(best, dtype=torch.bool) if (low, high) == (0, 1) else (best >= low) & (best <= high)


def likeliest_boxes(scores: Tensor, boxes: Tensor) -> Tensor:
    """Each region's box of its best class: (..., P, K) and (..., P, K, 4) -> (..., P, 4)."""
    best = scores.argmax(dim=-1)[..., None, None].expand(*scores.shape[:-1], 1, 4)
    return boxes.gather(-2, best).squeeze(-2)
