"""Non-maximum suppression by torchvision's compiled operator, in one class or in each of several."""

from __future__ import annotations

import torch
from torch import Tensor

from detection.modeling.operators import load_operators

# With more boxes a CPU is faster with one NMS per class than with one for all, which compares boxes of different classes too.
MAX_BOXES_IN_ONE_NMS = 1000


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices (int64, by descending score) of the boxes that NMS keeps: boxes (P, 4) and scores (P,).

    A box is dropped where its IoU with a kept box of a higher score is above the threshold.
    """
    return torch.ops.torchvision.nms(boxes, scores, iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Indices (int64, by descending score) of the boxes that NMS keeps in each class by itself; labels (P,) int64."""
    if not len(boxes):
        return labels.new_empty(0)
    if boxes.device.type == "cpu" and len(boxes) > MAX_BOXES_IN_ONE_NMS:
        classes = [(labels == label).nonzero().squeeze(1) for label in labels.unique()]
        kept = torch.cat([members[nms(boxes[members], scores[members], iou_threshold)] for members in classes]).sort().values
        return kept[scores[kept].argsort(descending=True)]
    # Shifted by more than the largest coordinate, boxes of different classes never overlap.
    return nms(boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None], scores, iou_threshold)


load_operators()
