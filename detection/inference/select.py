"""From scores and boxes of every region to detections: threshold, NMS, and box voting where it is asked for."""

from __future__ import annotations

from torch import Tensor

from detection.config import TestConfig
from detection.inference.voting import vote
from detection.modeling.boxes import at_least, clip_boxes, scale_boxes
from detection.modeling.nms import batched_nms
from detection.structures import Detections


def select(scores: Tensor, boxes: Tensor, size_hw: tuple[int, int], test: TestConfig) -> Detections:
    """The best of one image's (P, K) scores and (P, K, 4) boxes: threshold, NMS in each class, top detections.

    Boxes that clipping leaves empty overlap nothing, so they live through NMS; as in detectron2 they count among the top
    ones and are dropped then.
    """
    boxes = clip_boxes(boxes, size_hw)
    eligible = scores > test.score_threshold
    rows, labels = eligible.nonzero(as_tuple=True)
    found = Detections(boxes[rows, labels], scores[rows, labels], labels)
    kept = found[batched_nms(found.boxes, found.scores, labels, test.nms_threshold)[: test.max_detections]]
    kept = kept[at_least(kept.boxes, 0).nonzero().squeeze(1)]
    if not test.voting:
        return kept
    usable = at_least(boxes, 0)
    voters = usable if test.voting_candidates == "all" else usable & eligible
    return vote(kept, scores * voters, boxes, test.voting_iou)


def to_image_pixels(detections: Detections, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Detections:
    """The same detections in the pixels of an image of another size."""
    boxes = scale_boxes(detections.boxes, from_hw, to_hw)
    return Detections(clip_boxes(boxes, to_hw), detections.scores, detections.labels)
