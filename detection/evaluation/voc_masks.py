"""AP^r: Pascal VOC's average precision with the IoU of masks (Hariharan et al., Simultaneous Detection and Segmentation, 2014).

All else is as with boxes; papers report it at IoU 0.5 and 0.7. Pixels that are void count neither way: they are taken from the
detections' masks, and no object has any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from pycocotools import mask as mask_api

from detection.evaluation.metrics import VocMetric
from detection.evaluation.predicted_masks import comparable, masks_of
from detection.evaluation.voc import (
    Floats,
    Ints,
    Regions,
    VocResult,
    check_images,
    evaluate_voc_regions,
    objects_by_class,
    split_by_class,
)
from detection.masks import Masks, rle_areas
from detection.structures import Detections, DetectionsByImage, Record

VOC_MASK_IOUS = {"mask_voc50": 0.5, "mask_voc70": 0.7}
"""Keys of METRICS and the IoU from which a mask is a true positive."""


def evaluate_voc_masks(
    records: Sequence[Record],
    detections: DetectionsByImage,
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
    metric: VocMetric = "area",
) -> VocResult:
    """AP^r of those of N records that have masks, and of their detections' masks; the boxes of neither side are looked at.

    Objects that are difficult, and those without a pixel, are not to be found. An image that `detections` lacks counts as one
    without. Raises DatasetError for detections of an image without a record, and where their masks are not as many, or not as
    large, as what they belong to.
    """
    check_images(records, detections)
    records = [replace(record, masks=record.masks.rasterised()) for record in records if record.masks is not None]
    detected = {record.image_id: detections[record.image_id] for record in records if record.image_id in detections}
    true_masks = [record.masks for record in records if record.masks is not None]
    found_masks = [_counted_pixels(record, detected[record.image_id]) for record in records if record.image_id in detected]
    labels = np.concatenate([record.labels.numpy() for record in records] or [np.zeros(0)])
    found_labels = np.concatenate([found.labels.cpu().numpy() for found in detected.values()] or [np.zeros(0)])
    found, objects = split_by_class(records, detected, class_names), objects_by_class(records, class_names)
    with_masks = {
        name: replace(found[name], boxes=region) for name, region in _by_class(found_masks, found_labels, class_names).items()
    }
    to_find = {
        name: replace(objects[name], boxes=region, ignored=objects[name].ignored | (rle_areas(region) == 0))
        for name, region in _by_class(true_masks, labels, class_names).items()
    }
    return evaluate_voc_regions(to_find, with_masks, iou_threshold, metric, aligned_mask_iou)


def evaluate_predicted_voc_masks(
    records: Sequence[Record], detections: DetectionsByImage, class_names: Sequence[str]
) -> Mapping[str, VocResult]:
    """AP^r by the keys of VOC_MASK_IOUS, as the area under the curve; nothing where there are no masks to compare."""
    check_images(records, detections)
    with_masks = comparable(records, detections)
    found = {record.image_id: detections[record.image_id] for record in with_masks if record.image_id in detections}
    measured = VOC_MASK_IOUS.items() if with_masks else ()
    return {key: evaluate_voc_masks(with_masks, found, class_names, least) for key, least in measured}


def aligned_mask_iou(masks_a: Regions, masks_b: Regions) -> Floats:
    """IoU pair by pair: P Rle and P Rle -> (P,). Masks that do not overlap give -1, as boxes do."""
    pairs = zip(masks_a, masks_b, strict=True)
    iou: Floats = np.array([mask_api.iou([one], [other], [0])[0, 0] for one, other in pairs], dtype=np.float64)
    return np.where(iou > 0, iou, -1.0)


def _counted_pixels(record: Record, found: Detections) -> Masks:
    """The masks of an image's detections without the pixels that are void."""
    masks = masks_of(record, found)
    return masks if record.void is None else masks.without(record.void)


def _by_class(masks: Sequence[Masks], labels: Ints | Floats, class_names: Sequence[str]) -> dict[str, Regions]:
    """The masks of all images, one after the other, of each class."""
    rles = np.array([rle for each in masks for rle in each.rles], dtype=object)
    return {name: rles[labels == label] for label, name in enumerate(class_names)}
