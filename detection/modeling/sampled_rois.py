"""Which RoIs the head learns from, and what: a sample of the proposals, and the boxes that the head makes of it.

N images, T RoIs of an image, R of all images, G ground-truth boxes, K classes; background is class K. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detection.config import RoiConfig
from detection.modeling.boxes import clip_boxes, decode_boxes, nonempty_boxes
from detection.modeling.matching import IGNORED, POSITIVE, ignore_covered, match_proposals, sample_matches
from detection.structures import Target


class SampledRois(NamedTuple):
    """The RoIs of one image that enter the loss, T of them."""

    rois: Tensor  # (T, 4)
    labels: Tensor  # (T,) int64, K for background, IGNORED for what has no part in the loss after all
    gt_boxes: Tensor  # (T, 4): the ground-truth box of each
    matched: Tensor  # (T,) int64: which object that is; of no meaning for background


def draw_rois(proposals: Tensor, target: Target, config: RoiConfig, num_classes: int) -> tuple[SampledRois, Tensor]:
    """A random sample of one image's proposals (P, 4) and ground-truth boxes, and which of it counts (T,): the first ones."""
    proposals = torch.cat([proposals, target.boxes])
    match_labels, matched = match_proposals(proposals, target.boxes, config.positive_iou, config.negative_iou)
    match_labels = ignore_covered(match_labels, proposals, target.ignored, config.ignore_coverage)
    chosen, sampled = sample_matches(match_labels, config.sample_size, config.positive_fraction)
    return _with_objects(proposals[chosen], match_labels[chosen], matched[chosen], target, num_classes), sampled


@torch.no_grad()
def refined_rois(
    samples: Sequence[SampledRois],
    logits: Tensor,
    deltas: Tensor,
    sizes_hw: Sequence[tuple[int, int]],
    targets: Sequence[Target],
    config: RoiConfig,
) -> list[SampledRois]:
    """The boxes that the head makes of the sampled RoIs by logits (R, C) and deltas (R, K, 4), matched again at `refined_iou`.

    As Cascade R-CNN's second stage (Cai & Vasconcelos 2018): one box for each RoI, and background is all that is below the IoU.
    A RoI with an object gives the box of the object's class, another one that of its likeliest class, as in inference.
    """
    num_classes = deltas.shape[1]
    truth = torch.cat([sample.labels for sample in samples])
    labels = torch.where(truth < num_classes, truth, logits[:, :num_classes].argmax(dim=1))
    boxes = decode_boxes(of_labels(deltas, labels), torch.cat([sample.rois for sample in samples]), config.delta_std)
    per_image = boxes.split([len(sample.rois) for sample in samples])
    return [
        _match_again(sample, clip_boxes(own, size_hw), target, config, num_classes)
        for sample, own, size_hw, target in zip(samples, per_image, sizes_hw, targets, strict=True)
    ]


def _match_again(sample: SampledRois, boxes: Tensor, target: Target, config: RoiConfig, num_classes: int) -> SampledRois:
    """The refined boxes (T, 4) with their objects. An empty one, or NaN, is IGNORED, and its RoI stands in its place: as many
    rows as before, so that a GPU is not asked how many are left."""
    usable = nonempty_boxes(boxes)
    boxes = torch.where(usable[:, None], boxes, sample.rois)
    match_labels, matched = match_proposals(boxes, target.boxes, config.refined_iou, (0, config.refined_iou))
    match_labels = torch.where(usable, match_labels, IGNORED)
    match_labels = ignore_covered(match_labels, boxes, target.ignored, config.ignore_coverage)
    return _with_objects(boxes, match_labels, matched, target, num_classes)


def _with_objects(rois: Tensor, match_labels: Tensor, matched: Tensor, target: Target, num_classes: int) -> SampledRois:
    """RoIs (T, 4) with what their match labels (T,) and the indices (T,) of their objects say."""
    background = torch.where(match_labels == IGNORED, IGNORED, num_classes)
    if len(target.boxes) == 0:
        return SampledRois(rois, background, rois, matched)
    labels = torch.where(match_labels == POSITIVE, target.labels[matched], background)
    return SampledRois(rois, labels, target.boxes[matched], matched)


def of_labels(values: Tensor, labels: Tensor) -> Tensor:
    """Each row's values of its class: (R, K, 4) and (R,) -> (R, 4)."""
    return values.gather(1, labels[:, None, None].expand(-1, 1, 4)).squeeze(1)
