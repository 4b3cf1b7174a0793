"""Match labels: which anchors and proposals are positive, which are negative, and which of them enter the loss.

N candidates (anchors or proposals), G ground-truth boxes, R ignored regions of one image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detection.modeling.boxes import pairwise_coverage, pairwise_iou

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def match_anchors(
    anchors: Tensor, gt_boxes: Tensor, positive_iou: float, negative_iou: float, usable: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Match labels (N,), POSITIVE / NEGATIVE / IGNORED, of anchors (N, 4), and the index (N,) of each one's box among (G, 4).

    Positive: IoU >= positive_iou, or the best anchor of a box (all of them, where several tie). Negative: IoU < negative_iou
    with every box. Without boxes all anchors are negative, and the indices are 0. Anchors that are not `usable` (N,) are
    ignored, and no box's best one.
    """
    match_labels = torch.full((len(anchors),), IGNORED, device=anchors.device)
    matched = torch.zeros_like(match_labels)
    if len(gt_boxes) == 0 or len(anchors) == 0:
        match_labels.fill_(NEGATIVE)
    else:
        iou = pairwise_iou(anchors, gt_boxes)
        if usable is not None:
            iou = iou.masked_fill(~usable[:, None], 0)
        best_iou, matched = iou.max(dim=1)
        match_labels[best_iou < negative_iou] = NEGATIVE
        match_labels[best_iou >= positive_iou] = POSITIVE
        # A box that no anchor overlaps has no best anchor: 0 == 0 would make every anchor positive.
        best_of_box = iou.amax(dim=0)
        match_labels[((iou == best_of_box) & (best_of_box > 0)).any(dim=1)] = POSITIVE
    if usable is not None:
        match_labels[~usable] = IGNORED
    return match_labels, matched


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
    """A random sample of the candidates of each row: at most `size`, and at most `size * positive_fraction` positives.

    Match labels (..., N) -> indices (..., S) and which of them are sampled (..., S) bool, S being `size` or N. Positives come
    first, then negatives, in random order, then what fills the rest. Negatives take the places of missing positives, never the
    other way round.
    """
    # The largest of random keys are a random sample, and their number is known beforehand: a GPU need not be asked for it.
    keys = torch.rand(match_labels.shape, dtype=torch.float32, device=match_labels.device)
    num_candidates = match_labels.shape[-1]
    positive = keys.masked_fill(match_labels != POSITIVE, -1).topk(min(int(size * positive_fraction), num_candidates))
    above_all = torch.where(positive.values >= 0, positive.values + 1, -1)
    keys = keys.masked_fill(match_labels != NEGATIVE, -1).scatter_reduce(-1, positive.indices, above_all, "amax")
    values, chosen = keys.topk(min(size, num_candidates))
    return chosen, values >= 0
