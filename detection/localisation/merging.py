"""Of the many boxes that a network gives for a class, the best one, or the best few.

C classes of one image, P boxes of each. Boxes: xyxy pixels of the image. A box without an area counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detection.config.localiser import LocRcnnConfig, LocTestConfig
from detection.inference.voting import vote
from detection.modeling.boxes import nonempty_boxes
from detection.modeling.nms import nms
from detection.structures import Detections


@dataclass(frozen=True)
class ClassBoxes:
    """The boxes of one image that were found for each of some classes, in any order, clipped to the image.

    Classes with fewer boxes than others are filled up with empty ones of score 0.
    """

    scores: Tensor  # (C, P) float32 in 0..1
    boxes: Tensor  # (C, P, 4) float32
    size_hw: tuple[int, int]  # of the image

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def valid(self) -> Tensor:
        """(C, P) bool: the boxes that have an area."""
        return nonempty_boxes(self.boxes)


def best_box(found: ClassBoxes, test: LocTestConfig) -> tuple[Tensor, Tensor]:
    """One box (C, 4) for each class and its score (C,): the box with the best score.

    With `test.merging` voting it is the score-weighted mean of the class's boxes that have an IoU of `test.voting_iou` or more
    with that one. For a class without any valid box it is the whole image, of score 0.
    """
    (num_classes, num_boxes), (height, width) = found.scores.shape, found.size_hw
    boxes = found.boxes.new_tensor([0, 0, width, height]).repeat(num_classes, 1)
    scores = found.scores.new_zeros(num_classes)
    if num_classes == 0 or num_boxes == 0:
        return boxes, scores
    valid = found.valid
    best = found.scores.masked_fill(~valid, -1).argmax(dim=1)
    rows = torch.arange(num_classes, device=boxes.device)
    exists = valid.any(dim=1)
    boxes = torch.where(exists[:, None], found.boxes[rows, best], boxes)
    scores = torch.where(exists, found.scores[rows, best], scores)
    if test.merging == "none":
        return boxes, scores
    # Even with a voting_iou of 0 an empty box does not vote.
    votes = found.scores.masked_fill(~valid, 0)
    voted = vote(Detections(boxes, scores, rows), votes.T, found.boxes.transpose(0, 1), test.voting_iou)
    return voted.boxes, voted.scores


def top_proposals(found: ClassBoxes, rcnn: LocRcnnConfig) -> tuple[list[Tensor], list[Tensor]]:
    """The best boxes of each class after NMS, C x (P', 4), and their scores, C x (P',), by descending score.

    There are at most `rcnn.num_proposals` of each, and none for a class without any valid box.
    """
    kept = [_best_of_class(*each, rcnn) for each in zip(found.scores, found.boxes, found.valid, strict=True)]
    return [boxes for boxes, _ in kept], [scores for _, scores in kept]


def _best_of_class(scores: Tensor, boxes: Tensor, valid: Tensor, rcnn: LocRcnnConfig) -> tuple[Tensor, Tensor]:
    scores, boxes = scores[valid], boxes[valid]
    kept = nms(boxes, scores, rcnn.nms_threshold)[: rcnn.num_proposals]
    return boxes[kept], scores[kept]
