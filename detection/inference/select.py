"""From scores and boxes of every region to detections: threshold, NMS, box voting where the settings ask for it,
and the masks of what is left.

N images, P regions of an image, K classes. Boxes: xyxy pixels. A score threshold is a number, or (K,) on the scores' device, a
number for each class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from detection.config import Pasting, TestConfig
from detection.inference.pasting import paste_masks
from detection.inference.voting import vote
from detection.modeling.boxes import clip_boxes, nonempty_boxes, scale_boxes
from detection.modeling.fixed_sizes import counts_of_finite, places_of
from detection.modeling.nms import batched_nms
from detection.structures import Detections, ScoredRegions

Segment = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]
"""From the boxes N x (D, 4) of found objects and their labels N x (D,) to the masks in the boxes, N x (D, M, M)."""


def select_detections(
    regions: ScoredRegions,
    size_hw: tuple[int, int],
    image_sizes: Sequence[tuple[int, int]],
    test: TestConfig,
    score_threshold: float | Tensor,
    segment: Segment | None = None,
    pasting: Pasting = "grid",
) -> list[Detections]:
    """The detections in N images: regions in pixels of `size_hw`, results in the pixels of each image's own size (h, w).

    With `segment` they have masks, which are made for the final boxes alone and pasted as `mask.pasting` says.
    """
    found = select(regions, size_hw, test, score_threshold)
    moved = [to_image_pixels(each, size_hw, image_hw) for each, image_hw in zip(found, image_sizes, strict=True)]
    if segment is None:
        return moved
    masks = segment([each.boxes for each in found], [each.labels for each in found])
    return [
        replace(each, masks=paste_masks(own, each.boxes, image_hw, pasting))
        for each, own, image_hw in zip(moved, masks, image_sizes, strict=True)
    ]


def select(
    regions: ScoredRegions, size_hw: tuple[int, int], test: TestConfig, score_threshold: float | Tensor
) -> list[Detections]:
    """The detections in N images, in the pixels of the regions: threshold, NMS in each class, top detections.

    `score_threshold` is that of `test`, as `FasterRCNN.score_threshold` has it ready on the device. Raises CheckpointError
    where the network's outputs were not finite.

    Boxes that clipping leaves empty overlap nothing, so NMS keeps them; as in detectron2 they count among the top detections,
    and are dropped after that, unless `test.min_size` drops them before.
    """
    found = [
        _candidates(scores, clip_boxes(boxes, size_hw), test, score_threshold)
        for scores, boxes in zip(regions.scores, regions.boxes, strict=True)
    ]
    # The numbers of all images at once: a GPU is waited for once.
    sums = [mask.sum() for each in found for mask in (each.eligible, each.eligible & ~each.nonempty)]
    numbers = counts_of_finite(sums, regions.finite)
    return [
        _best(candidates, eligible, empty, test)
        for candidates, eligible, empty in zip(found, numbers[0::2], numbers[1::2], strict=True)
    ]


class _Candidates(NamedTuple):
    """One image's boxes."""

    boxes: Tensor  # (P, K, 4), clipped
    scores: Tensor  # (P, K)
    nonempty: Tensor  # (P, K) bool: those with an area
    eligible: Tensor  # (P, K) bool: those that NMS chooses from


def _candidates(scores: Tensor, boxes: Tensor, test: TestConfig, score_threshold: float | Tensor) -> _Candidates:
    eligible, nonempty = scores > score_threshold, nonempty_boxes(boxes)
    if test.min_size:
        eligible = eligible & nonempty_boxes(boxes, test.min_size)
    return _Candidates(boxes, scores, nonempty, eligible)


def _best(candidates: _Candidates, num_eligible: int, num_empty: int, test: TestConfig) -> Detections:
    """One image's detections; of its candidates so many are eligible, and so many of these empty."""
    boxes, scores, nonempty, eligible = candidates
    places = places_of(eligible.flatten(), num_eligible)
    labels = places % scores.shape[1]
    found = Detections(boxes.flatten(0, 1)[places], scores.flatten()[places], labels)
    kept = found[batched_nms(found.boxes, found.scores, labels, test.nms_threshold)[: test.max_detections]]
    if num_empty:
        kept = kept[nonempty_boxes(kept.boxes).nonzero().squeeze(1)]
    if not test.voting:
        return kept
    voters = nonempty if test.voting_candidates == "all" else nonempty & eligible
    return vote(kept, scores * voters, boxes, test.voting_iou)


def to_image_pixels(detections: Detections, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Detections:
    """The same detections in the pixels of an image of another size."""
    boxes = scale_boxes(detections.boxes, from_hw, to_hw)
    return Detections(clip_boxes(boxes, to_hw), detections.scores, detections.labels)
