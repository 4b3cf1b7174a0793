"""Box voting (appendix B, after Gidaris & Komodakis 2015, section 4.3): what NMS suppressed still says where the box is.

P regions, K classes, D detections of one image. Boxes: xyxy pixels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from detection.modeling.boxes import pairwise_iou
from detection.structures import Detections


def vote(kept: Detections, scores: Tensor, boxes: Tensor, iou_threshold: float) -> Detections:
    """The kept detections, each box replaced by the score-weighted mean of the candidates of its class around it.

    Candidates are boxes (P, K, 4) with scores (P, K); those with an IoU of `iou_threshold` or more vote, in proportion to their
    score. The detections' own scores, masks and order stay; a box without any vote stays as it is.
    """
    voted = kept.boxes.clone()
    # The product of autocast would have 8 bits: too few for a coordinate.
    with torch.autocast(boxes.device.type, enabled=False):
        for label in kept.labels.unique().tolist():
            members = (kept.labels == label).nonzero().squeeze(1)
            votes = (pairwise_iou(kept.boxes[members], boxes[:, label]) >= iou_threshold) * scores[:, label]  # (members, P)
            totals = votes.sum(dim=1, keepdim=True)
            voted[members] = torch.where(totals > 0, votes @ boxes[:, label] / totals, voted[members])
    return replace(kept, boxes=voted)
