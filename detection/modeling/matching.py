"""Match labels: which anchors and proposals are positive, which are negative, and which of them enter the loss.

N candidates (anchors or proposals), G ground-truth boxes, R ignored regions of one image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detection.modeling.boxes import pairwise_coverage, pairwise_iou

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def match_anchors(anchors: Tensor, gt_boxes: Tensor, positive_iou: float, negative_iou: float) -> tuple[Tensor, Tensor]:
    """Match labels (N,), POSITIVE / NEGATIVE / IGNORED, of anchors (N, 4), and the index (N,) of each one's box among (G, 4).

    Positive: IoU >= positive_iou, or the best anchor of a box (all of them, where several tie). Negative: IoU < negative_iou
    with every box. Without boxes all anchors are negative, and the indices are 0.
    """
    match_labels = torch.full((len(anchors),), IGNORED, device=anchors.device)
    if len(gt_boxes) == 0 or len(anchors) == 0:
        return match_labels.fill_(NEGATIVE), torch.zeros_like(match_labels)
    iou = pairwise_iou(anchors, gt_boxes)
    best_iou, best_box = iou.max(dim=1)
    match_labels[best_iou < negative_iou] = NEGATIVE
    match_labels[best_iou >= positive_iou] = POSITIVE
    # A box that no anchor overlaps has no best anchor: 0 == 0 would make every anchor positive.
    best_of_box = iou.max(dim=0).values
    match_labels[((iou == best_of_box) & (best_of_box > 0)).any(dim=1)] = POSITIVE
    return match_labels, best_box


def match_proposals(
    proposals: Tensor, gt_boxes: Tensor, positive_iou: float, negative_iou: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Match labels (N,) of proposals (N, 4), and the index (N,) of each one's box among (G, 4).

    Positive: IoU >= positive_iou. Negative: best IoU in [low, high) = negative_iou. Without boxes all proposals are negative.
    """
    match_labels = torch.full((len(proposals),), IGNORED, device=proposals.device)
    if len(gt_boxes) == 0 or len(proposals) == 0:
        return match_labels.fill_(NEGATIVE), torch.zeros_like(match_labels)
    best_iou, best_box = pairwise_iou(proposals, gt_boxes).max(dim=1)
    low, high = negative_iou
    match_labels[(best_iou >= low) & (best_iou < high)] = NEGATIVE
    match_labels[best_iou >= positive_iou] = POSITIVE
    return match_labels, best_box


def ignore_covered(match_labels: Tensor, candidates: Tensor, regions: Tensor, coverage: float) -> Tensor:
    """The match labels (N,), with IGNORED for negatives of whose area an ignored region (R, 4) covers `coverage` or more."""
    if len(regions) == 0 or len(candidates) == 0:
        return match_labels
    covered = pairwise_coverage(candidates, regions).amax(dim=1) >= coverage
    return torch.where(covered & (match_labels == NEGATIVE), IGNORED, match_labels)


def sample_matches(match_labels: Tensor, size: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Random indices of positives and of negatives: at most `size` in all, and at most `size * positive_fraction` positives.

    Negatives take the places of missing positives, never the other way round.
    """
    positive = _choose((match_labels == POSITIVE).nonzero().squeeze(1), int(size * positive_fraction))
    negative = _choose((match_labels == NEGATIVE).nonzero().squeeze(1), size - len(positive))
    return positive, negative


def _choose(indices: Tensor, count: int) -> Tensor:
    """`count` of the indices, or all if there are fewer, in random order."""
    return indices[torch.randperm(len(indices), device=indices.device)[:count]]
