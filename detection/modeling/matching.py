"""Which anchors and proposals are positive, which are negative, and which of them enter the loss.

N candidates (anchors or proposals), G ground-truth boxes, R ignored regions of one image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detection.modeling.boxes import pairwise_coverage, pairwise_iou

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def match_anchors(anchors: Tensor, gt_boxes: Tensor, positive_iou: float, negative_iou: float) -> tuple[Tensor, Tensor]:
    """(N, 4) and (G, 4) -> roles (N,) of POSITIVE / NEGATIVE / IGNORED, and the box (N,) each anchor belongs to.

    Positive: IoU >= positive_iou, or the best anchor of a box (all of them, where several tie). Without boxes all are
    negative and the second result is 0 everywhere.
    """
    roles = torch.full((len(anchors),), IGNORED, device=anchors.device)
    if len(gt_boxes) == 0 or len(anchors) == 0:
        return roles.fill_(NEGATIVE), torch.zeros_like(roles)
    iou = pairwise_iou(anchors, gt_boxes)
    best_iou, best_box = iou.max(dim=1)
    roles[best_iou < negative_iou] = NEGATIVE
    roles[best_iou >= positive_iou] = POSITIVE
    # A box that no anchor overlaps has no best anchor: 0 == 0 would make every anchor positive.
    best_of_box = iou.max(dim=0).values
    roles[((iou == best_of_box) & (best_of_box > 0)).any(dim=1)] = POSITIVE
    return roles, best_box


def match_proposals(
    proposals: Tensor, gt_boxes: Tensor, positive_iou: float, negative_iou: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """(N, 4) and (G, 4) -> roles (N,) and the box (N,) each proposal belongs to.

    Positive: IoU >= positive_iou; negative: IoU in [low, high). Without boxes all are negative.
    """
    roles = torch.full((len(proposals),), IGNORED, device=proposals.device)
    if len(gt_boxes) == 0 or len(proposals) == 0:
        return roles.fill_(NEGATIVE), torch.zeros_like(roles)
    best_iou, best_box = pairwise_iou(proposals, gt_boxes).max(dim=1)
    low, high = negative_iou
    roles[(best_iou >= low) & (best_iou < high)] = NEGATIVE
    roles[best_iou >= positive_iou] = POSITIVE
    return roles, best_box


def ignore_covered(roles: Tensor, candidates: Tensor, regions: Tensor, coverage: float) -> Tensor:
    """Roles (N,) in which a negative that lies in an ignored region (R, 4) by `coverage` or more is ignored too."""
    if len(regions) == 0 or len(candidates) == 0:
        return roles
    covered = pairwise_coverage(candidates, regions).amax(dim=1) >= coverage
    return torch.where(covered & (roles == NEGATIVE), IGNORED, roles)


def sample(roles: Tensor, size: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Random indices of positives and negatives: at most `size` in all, positives at most their fraction of it.

    Too few positives are made up for by negatives, never the other way round.
    """
    positive = _choose((roles == POSITIVE).nonzero().squeeze(1), int(size * positive_fraction))
    negative = _choose((roles == NEGATIVE).nonzero().squeeze(1), size - len(positive))
    return positive, negative


def _choose(indices: Tensor, count: int) -> Tensor:
    """`count` of the indices, or all if there are fewer, in random order."""
    return indices[torch.randperm(len(indices), device=indices.device)[:count]]
