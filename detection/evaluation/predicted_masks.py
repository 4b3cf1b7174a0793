"""COCO's twelve numbers of the masks that a detector predicted, on records with masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from backbones.errors import shorten
from detection.errors import DatasetError
from detection.evaluation.coco import COCO_METRICS, CocoResult, evaluate_coco_results, records_as_coco
from detection.evaluation.voc import check_images
from detection.masks import Masks
from detection.structures import Detections, DetectionsByImage, Record

PREFIX = "mask_"
"""Before COCO's keys: the metrics of masks are others than those of the same detections' boxes."""

MASK_METRICS = tuple(PREFIX + key for key in COCO_METRICS)
"""Keys of METRICS, in COCO's order."""


def evaluate_predicted_masks(
    records: Sequence[Record], detections: DetectionsByImage, class_names: Sequence[str]
) -> CocoResult | None:
    """The numbers, by COCO's keys, and the AP per class, of the images that have masks; None where there are none to compare.

    An object without a pixel, whose mask is not known, counts neither way; its size class is that of its area. Raises
    DatasetError for detections of an image without a record, and where some have masks of another size than their image.
    """
    check_images(records, detections)
    with_masks = comparable(records, detections)
    if not with_masks:
        return None
    dataset = records_as_coco(with_masks, class_names)
    sizes = {record.image_id: record.size_hw for record in with_masks}
    dataset["images"] = [{"id": key, "height": height, "width": width} for key, (height, width) in sizes.items()]
    rles = [rle for record in with_masks if record.masks is not None for rle in record.masks.rles]
    areas = [area for record in with_masks if record.masks is not None for area in record.masks.areas.tolist()]
    for annotation, rle, area in zip(dataset["annotations"], rles, areas, strict=True):
        annotation["segmentation"] = rle
        annotation["iscrowd"] = annotation["iscrowd"] or int(area == 0)
    results = [entry for record in with_masks for entry in _results(record, detections)]
    return evaluate_coco_results(dataset, results, class_names, iou_type="masks")


def comparable(records: Sequence[Record], detections: DetectionsByImage) -> list[Record]:
    """The records that have masks, these as run lengths; none where no detection has any."""
    if not any(found.masks is not None for found in detections.values()):
        return []
    return [replace(record, masks=record.masks.rasterised()) for record in records if record.masks is not None]


def masks_of(record: Record, found: Detections) -> Masks:
    """The masks of an image's detections. Raises DatasetError where they are not as many, or of another size than the image."""
    masks = Masks(record.size_hw) if found.masks is None else found.masks
    if len(masks) != len(found) or masks.size_hw != tuple(record.size_hw):
        raise DatasetError(
            f"image {shorten(record.image_id)} has {len(found)} detections with {len(masks)} masks of {masks.size_hw}; its own "
            f"size is {tuple(record.size_hw)} (height, width)"
        )
    return masks


def _results(record: Record, detections: DetectionsByImage) -> list[dict[str, Any]]:
    """The detections of an image as the entries of a result file; none where the detector found nothing there."""
    found = detections.get(record.image_id)
    if found is None or not len(found):
        return []
    rows = zip(found.labels.tolist(), found.scores.tolist(), masks_of(record, found).rles, strict=True)
    return [
        {"image_id": record.image_id, "category_id": label, "score": score, "segmentation": rle} for label, score, rle in rows
    ]
