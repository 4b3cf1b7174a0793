"""COCO's twelve numbers, computed by faster-coco-eval, which gives the same numbers as pycocotools, the reference, faster.

A number is -1 where there is nothing to measure it on, as in pycocotools: APs without small objects. COCO has no
`difficult` flag: such objects of VOC data are passed as crowd, which it ignores (see docs/evaluation.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from detection.evaluation.coco_files import read_annotations, read_results
from detection.evaluation.detection_files import coco_results, corners_to_xywh
from detection.evaluation.voc import check_images
from detection.structures import DetectionsByImage, ImageId, Record

COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""Keys of METRICS in the reference's order: s, m, l are small, medium and large objects; 1, 10, 100 detections per image."""


@dataclass(frozen=True)
class CocoResult:
    """The twelve numbers by the keys of COCO_METRICS, and AP per class name for the classes that have objects."""

    numbers: dict[str, float]
    class_ap: dict[str, float]


def evaluate_coco(records: Sequence[Record], detections: DetectionsByImage, class_names: Sequence[str]) -> dict[str, float]:
    """The twelve numbers of N records. Raises DatasetError for detections of an image without a record."""
    return evaluate_coco_records(records, detections, class_names).numbers


def evaluate_coco_files(annotations: Path, detections: Path) -> dict[str, float]:
    """The twelve numbers of an annotation and a result file. Raises DatasetError for what cannot be used."""
    dataset = read_annotations(annotations)
    return evaluate_coco_results(dataset, read_results(detections, dataset)).numbers


def evaluate_coco_records(records: Sequence[Record], detections: DetectionsByImage, class_names: Sequence[str]) -> CocoResult:
    """The twelve numbers of N records and the AP per class. Raises DatasetError for detections of an image without a record."""
    check_images(records, detections)
    dataset = records_as_coco(records, class_names)
    ids = {name: label for label, name in enumerate(class_names)}
    return evaluate_coco_results(dataset, coco_results(detections, class_names, ids))


def records_as_coco(records: Sequence[Record], class_names: Sequence[str]) -> dict[str, Any]:
    """Records as the content of an annotation file; category ids are the labels."""
    annotations: list[dict[str, Any]] = []
    for record in records:
        ignored = (record.crowd | record.difficult).tolist()
        for box, label, area, crowd in zip(
            corners_to_xywh(record.boxes), record.labels.tolist(), record.areas.tolist(), ignored, strict=True
        ):
            annotation = {"id": len(annotations) + 1, "image_id": record.image_id, "category_id": label}
            annotations.append(annotation | {"bbox": box, "area": area, "iscrowd": int(crowd)})
    return {
        "images": [{"id": record.image_id} for record in records],
        "annotations": annotations,
        "categories": [{"id": label, "name": name} for label, name in enumerate(class_names)],
    }


def evaluate_coco_results(
    dataset: Mapping[str, Any], results: Sequence[Mapping[str, Any]], class_names: Sequence[str] | None = None
) -> CocoResult:
    """Run COCO's algorithm on the content of an annotation and a result file, both already checked.

    `class_names`: only these categories count; all if None."""
    names = {category["id"]: category["name"] for category in dataset["categories"]}
    kept = sorted(key for key, name in names.items() if class_names is None or name in class_names)
    numbers = _image_numbers(dataset)
    truth = _index(dataset, [_ground_truth(each, numbers) for each in dataset["annotations"]], numbers)
    found = _index(dataset, [_detection(each, position, numbers) for position, each in enumerate(results, 1)], numbers)
    evaluation = COCOeval_faster(truth, found, "bbox")
    evaluation.params.catIds = kept
    evaluation.run()
    values = dict(zip(COCO_METRICS, map(float, evaluation.stats), strict=True))
    return CocoResult(values, _class_ap(np.asarray(evaluation.eval["precision"]), [names[key] for key in kept]))


def _image_numbers(dataset: Mapping[str, Any]) -> dict[ImageId, int]:
    """Image id of any type -> 1, 2, ... In sorted order, because the reference orders equal scores by image id."""
    ids = [image["id"] for image in dataset["images"]]
    ordered = sorted(ids) if len({type(each) for each in ids}) == 1 else ids
    return {image_id: number for number, image_id in enumerate(ordered, 1)}


def _index(dataset: Mapping[str, Any], annotations: list[dict[str, Any]], numbers: Mapping[ImageId, int]) -> COCO:
    images = [{"id": number} for number in numbers.values()]
    categories = [dict(category) for category in dataset["categories"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about an annotation with id 0, which read_annotations reports
        return COCO({"images": images, "annotations": annotations, "categories": categories})


def _ground_truth(annotation: Mapping[str, Any], numbers: Mapping[ImageId, int]) -> dict[str, Any]:
    """An annotation with what the algorithm reads and nothing else: segmentations take most of a file's memory."""
    box = annotation["bbox"]
    return {
        "id": int(annotation["id"]),
        "image_id": numbers[annotation["image_id"]],
        "category_id": int(annotation["category_id"]),
        "bbox": box,
        "area": annotation.get("area", box[2] * box[3]),
        "iscrowd": annotation.get("iscrowd", 0),
    }


def _detection(result: Mapping[str, Any], position: int, numbers: Mapping[ImageId, int]) -> dict[str, Any]:
    box = result["bbox"]
    return {
        "id": position,
        "image_id": numbers[result["image_id"]],
        "category_id": int(result["category_id"]),
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
        "score": result["score"],
    }


def _class_ap(precision: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Precisions (IoU, recall, class, area range, detections) -> AP per class that has objects; the others' are -1."""
    by_class = {name: precision[:, :, index, 0, -1] for index, name in enumerate(names)}
    return {name: float(values.mean()) for name, values in by_class.items() if (values > -1).all()}
