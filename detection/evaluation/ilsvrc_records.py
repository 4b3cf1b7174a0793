"""ImageNet DET's measure of a detector: from records and detections by image, as any data set has them.

N images, D detections, G objects, K classes. In three lines:

    result = evaluate_det_records(records, detections, class_names, unevaluated)
    result.mean_ap, result.ap["dog"]
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from detection.evaluation.ilsvrc import DetDetections, DetGroundTruth, DetResult, evaluate_det
from detection.evaluation.voc import check_images
from detection.structures import Detections, DetectionsByImage, Record

Unevaluated = Mapping[Any, Collection[str]]
"""The names of the classes that are not evaluated in an image, by its ImageId: the kit's blacklist."""

_NONE: Unevaluated = {}


def evaluate_det_records(
    records: Sequence[Record],
    detections: DetectionsByImage,
    class_names: Sequence[str],
    unevaluated: Unevaluated = _NONE,
) -> DetResult:
    """DET's AP of N records. An image that `detections` lacks counts as one without detections.

    `unevaluated`: of a split of ImageNet DET that is `detection.evaluation.ilsvrc_split.unevaluated_of`. Raises DatasetError
    for detections of an image without a record.
    """
    return evaluate_det(det_truth_of(records, class_names, unevaluated), detections_as_det(records, detections))


def det_truth_of(records: Sequence[Record], class_names: Sequence[str], unevaluated: Unevaluated = _NONE) -> DetGroundTruth:
    """The objects of N records, images by their position.

    A class is not evaluated in an image where `unevaluated` or the record itself (`known`) says so; names that are none of
    the K do not matter. Objects of other data sets that are `difficult` or crowds are no objects to find.
    """
    counted = [record.trainable for record in records]
    counts = [int(mask.sum()) for mask in counted]
    boxes = [record.boxes[mask] for record, mask in zip(records, counted, strict=True)]
    labels = [record.labels[mask] for record, mask in zip(records, counted, strict=True)]
    return DetGroundTruth(
        tuple(class_names),
        len(records),
        np.repeat(np.arange(len(records), dtype=np.int64), counts),
        torch.cat(labels or [Detections.empty().labels]).numpy(),
        torch.cat(boxes or [Detections.empty().boxes]).double().numpy(),
        np.array(_unevaluated_pairs(records, class_names, unevaluated), dtype=np.int64).reshape(-1, 2),
    )


def _unevaluated_pairs(
    records: Sequence[Record], class_names: Sequence[str], unevaluated: Unevaluated
) -> list[tuple[int, int]]:
    """Position of the image and label."""
    labels = {name: label for label, name in enumerate(class_names)}
    pairs = []
    for image, record in enumerate(records):
        names = unevaluated.get(record.image_id, ())
        pairs += [(image, labels[name]) for name in names if name in labels]
        if record.known is not None:
            pairs += [(image, label) for label in (~record.known).nonzero().flatten().tolist()]
    return pairs


def detections_as_det(records: Sequence[Record], detections: DetectionsByImage) -> DetDetections:
    """The detections of N records in one table, images by their position.

    Raises DatasetError for detections of an image without a record.
    """
    check_images(records, detections)
    empty = Detections.empty()
    found = [detections.get(record.image_id, empty).to("cpu") for record in records] or [empty]
    return DetDetections(
        np.repeat(np.arange(len(found), dtype=np.int64), [len(each) for each in found]),
        torch.cat([each.labels for each in found]).numpy(),
        torch.cat([each.scores for each in found]).double().numpy(),
        torch.cat([each.boxes for each in found]).double().numpy(),
    )
