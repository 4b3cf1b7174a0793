"""AP^r: Pascal VOC's average precision with the IoU of masks (Hariharan et al., Simultaneous Detection and Segmentation, 2014).

All else is as with boxes; papers report it at IoU 0.5 and 0.7. Pixels that are void count neither way: they are taken from the
detections' masks, and no object has any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from backbones.errors import shorten
from detection.data.voc_masks import MaskTruth
from detection.errors import DatasetError
from detection.evaluation.metrics import VocMetric
from detection.evaluation.voc import (
    Floats,
    Ints,
    Regions,
    VocResult,
    evaluate_voc_regions,
    objects_by_class,
    split_by_class,
)
from detection.masks import Masks
from detection.structures import DetectionsByImage, ImageId, Record


def evaluate_voc_masks(
    records: Sequence[Record],
    truth: Mapping[Any, MaskTruth],
    detections: DetectionsByImage,
    masks: Mapping[Any, Masks],
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
    metric: VocMetric = "area",
) -> VocResult:
    """AP^r of N records. `masks`: by image, of its detections in their order; the boxes of neither side are looked at.

    Objects that are difficult, and those without a pixel, are not to be found. An image that `detections` lacks counts as one
    without. Raises DatasetError for a record without `truth`, detections of an image without a record, and where the masks
    of an image are not as many, or not as large, as what they belong to.
    """
    found = split_by_class(records, detections, class_names)
    objects = objects_by_class(records, class_names)
    detected = [record.image_id for record in records if record.image_id in detections]
    true_masks = [_of(truth, record.image_id, len(record.labels)) for record in records]
    found_masks = [_found(truth[key], masks, key, len(detections[key])) for key in detected]
    labels = np.concatenate([record.labels.numpy() for record in records] or [np.zeros(0)])
    found_labels = np.concatenate([detections[key].labels.cpu().numpy() for key in detected] or [np.zeros(0)])
    with_masks = {
        name: replace(found[name], boxes=region) for name, region in _by_class(found_masks, found_labels, class_names).items()
    }
    to_find = {
        name: replace(objects[name], boxes=region, ignored=objects[name].ignored | (_areas(region) == 0))
        for name, region in _by_class(true_masks, labels, class_names).items()
    }
    return evaluate_voc_regions(to_find, with_masks, iou_threshold, metric, aligned_mask_iou)


def aligned_mask_iou(masks_a: Regions, masks_b: Regions) -> Floats:
    """IoU pair by pair: P Rle and P Rle -> (P,). Masks that do not overlap give -1, as boxes do."""
    pairs = zip(masks_a, masks_b, strict=True)
    iou: Floats = np.array([mask_api.iou([one], [other], [0])[0, 0] for one, other in pairs], dtype=np.float64)
    return np.where(iou > 0, iou, -1.0)


def _of(truth: Mapping[Any, MaskTruth], key: ImageId, num_objects: int) -> Masks:
    if key not in truth:
        raise DatasetError(f"image {shorten(key)} has no masks to compare with: leave it out")
    return _counted(truth[key].masks, key, num_objects, "objects")


def _found(truth: MaskTruth, masks: Mapping[Any, Masks], key: ImageId, num_detections: int) -> Masks:
    found = _counted(masks.get(key, Masks(truth.void.size_hw)), key, num_detections, "detections")
    try:
        return found.without(truth.void)
    except DatasetError as error:
        raise DatasetError(f"detections of image {shorten(key)}: {error}") from None


def _counted(masks: Masks, key: ImageId, number: int, what: str) -> Masks:
    if len(masks) != number:
        raise DatasetError(f"image {shorten(key)} has {number} {what} and {len(masks)} masks of them")
    return masks


def _by_class(masks: Sequence[Masks], labels: Ints | Floats, class_names: Sequence[str]) -> dict[str, Regions]:
    """The masks of all images, one after the other, of each class."""
    rles = np.array([rle for each in masks for rle in each.rles], dtype=object)
    return {name: rles[labels == label] for label, name in enumerate(class_names)}


def _areas(rles: Regions) -> Ints:
    return np.asarray(mask_api.area(list(rles)) if len(rles) else [], dtype=np.int64)
