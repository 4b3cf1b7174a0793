"""COCO's twelve numbers, and AP and AR with more detections per image, by faster-coco-eval, which gives the same numbers as
pycocotools, the reference, faster.

A number is -1 where there is nothing to measure it on, as in pycocotools: APs without small objects. COCO has no
`difficult` flag: such objects of VOC data are passed as crowd, which it ignores (see docs/evaluation.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as mask_api

from detection.data.coco_format import CocoId
from detection.errors import DatasetError
from detection.evaluation.coco_files import read_annotations, read_results, sorted_ids
from detection.evaluation.coco_masks import image_sizes
from detection.evaluation.detection_files import coco_results, corners_to_xywh
from detection.evaluation.metrics import IouType
from detection.evaluation.voc import check_images
from detection.structures import DetectionsByImage, ImageId, Record

COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""Keys of METRICS in the reference's order: s, m, l are small, medium and large objects; 1, 10, 100 detections per image."""

CAPPED_METRICS = ("APcap", "ARcap")
"""Keys of METRICS: AP and AR where more than COCO_CAP detections of an image count, as many as a config allows."""

COCO_CAP = 100
"""Detections per image in COCO's AP, at most."""

MAX_CATEGORIES = 20_000
"""With objects, in one evaluation; it takes up to a gigabyte for the tables of 2000 and some 60 kB for each further one."""

_CAPS = (1, 10, COCO_CAP)

_CATEGORIES_AT_A_TIME = 2000

_MAX_PAIRS = 10_000_000  # of an image and a category, of which the algorithm makes a list; 200 bytes each


@dataclass(frozen=True)
class CocoResult:
    """The twelve numbers by the keys of COCO_METRICS, and AP per class name for the classes that have objects.

    With more than COCO_CAP detections per image the numbers are followed by CAPPED_METRICS.
    """

    numbers: dict[str, float]
    class_ap: dict[str, float]


def evaluate_coco(records: Sequence[Record], detections: DetectionsByImage, class_names: Sequence[str]) -> dict[str, float]:
    """The twelve numbers of N records. Raises DatasetError for detections of an image without a record."""
    return evaluate_coco_records(records, detections, class_names).numbers


def evaluate_coco_files(annotations: Path, detections: Path, iou_type: IouType = "boxes") -> dict[str, float]:
    """The twelve numbers of an annotation and a result file. Raises DatasetError for what cannot be used."""
    dataset = read_annotations(annotations, iou_type)
    return evaluate_coco_results(dataset, read_results(detections, dataset, iou_type), iou_type=iou_type).numbers


def evaluate_coco_records(
    records: Sequence[Record], detections: DetectionsByImage, class_names: Sequence[str], max_detections: int = COCO_CAP
) -> CocoResult:
    """The numbers of N records and the AP per class. Raises DatasetError for detections of an image without a record.

    `max_detections`, of one image, is what CAPPED_METRICS are measured with, where it is above COCO_CAP.
    """
    check_images(records, detections)
    dataset = records_as_coco(records, class_names)
    ids = {name: label for label, name in enumerate(class_names)}
    return evaluate_coco_results(dataset, coco_results(detections, class_names, ids), max_detections=max_detections)


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
    dataset: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    class_names: Sequence[str] | None = None,
    max_detections: int = COCO_CAP,
    iou_type: IouType = "boxes",
) -> CocoResult:
    """Run COCO's algorithm on the content of an annotation and a result file, both already checked.

    `class_names`: only these categories count; all if None. Categories of one name are one class. `max_detections`: of one
    image, for CAPPED_METRICS. `iou_type`: "masks" compares what both have as `segmentation`, an Rle, as files are read with it;
    an object is as large as it is annotated, a detection as its mask. Raises DatasetError where more categories than
    MAX_CATEGORIES have objects."""
    classes = _class_numbers(dataset)
    kept = _classes_with_objects(dataset, classes, class_names)
    with_cap = max_detections > COCO_CAP
    if not kept:
        return CocoResult(dict.fromkeys(COCO_METRICS + (CAPPED_METRICS if with_cap else ()), -1.0), {})
    evaluation = _comparison(dataset, results, classes, iou_type)
    evaluation.params.maxDets = [*_CAPS, max_detections] if with_cap else [*_CAPS]
    try:
        tables = _evaluate_classes(evaluation, kept, len(dataset["images"]))
        numbers = _twelve_numbers(evaluation, tables, kept)
    except MemoryError:
        raise DatasetError(f"not enough memory to evaluate {len(kept)} categories with objects together") from None
    if with_cap:
        numbers |= zip(CAPPED_METRICS, map(_mean, (tables.capped_precision, tables.capped_recall)), strict=True)
    names = {number: name for name, number in classes.by_name.items()}
    return CocoResult(numbers, _class_ap(tables.precision, [names[number] for number in kept]))


def _classes_with_objects(dataset: Mapping[str, Any], classes: _ClassNumbers, class_names: Sequence[str] | None) -> list[int]:
    """The numbers of the classes that count, ascending. Raises DatasetError for more than MAX_CATEGORIES."""
    # A category without objects has no AP and is in no mean; thousands of them would fill the memory.
    annotated = {classes.by_id[each["category_id"]] for each in dataset["annotations"]}
    if class_names is not None:
        annotated &= {classes.by_name[name] for name in class_names if name in classes.by_name}
    if len(annotated) > MAX_CATEGORIES:
        raise DatasetError(f"{len(annotated)} categories have objects; at most {MAX_CATEGORIES} can be evaluated together")
    return sorted(annotated)


def _comparison(
    dataset: Mapping[str, Any], results: Sequence[Mapping[str, Any]], classes: _ClassNumbers, iou_type: IouType
) -> COCOeval_faster:
    """The algorithm, given the annotations and results of both files; it has not run yet."""
    images = _image_numbers(dataset)
    region_of = _mask if iou_type == "masks" else _box
    truth = [
        region_of(each) | _ground_truth(each, number, images, classes) for number, each in enumerate(dataset["annotations"], 1)
    ]
    found = [region_of(each) | _detection(each, number, images, classes) for number, each in enumerate(results, 1)]
    entries = _image_entries(dataset, images, iou_type)
    indices = (_index(each, entries, classes) for each in (truth, found))
    return COCOeval_faster(*indices, "segm" if iou_type == "masks" else "bbox")


def _twelve_numbers(evaluation: COCOeval_faster, tables: _Tables, kept: Sequence[int]) -> dict[str, float]:
    """The numbers by the keys of COCO_METRICS, summarised by the reference from tables of all the classes."""
    precision = np.broadcast_to(tables.precision, (*tables.precision.shape[:-1], len(_CAPS)))
    evaluation.eval = {"precision": precision, "recall": tables.recall}
    evaluation.params.catIds, evaluation.params.maxDets = kept, [*_CAPS]
    evaluation.summarize()
    return dict(zip(COCO_METRICS, map(float, evaluation.stats), strict=True))


class _Tables(NamedTuple):
    """What the algorithm measures of K classes, as far as a number is made of it; -1 where there is nothing to measure."""

    precision: np.ndarray  # (IoU, recall, K, area range, 1), at COCO_CAP detections per image
    recall: np.ndarray  # (IoU, K, area range, 3), at 1, 10 and COCO_CAP
    capped_precision: np.ndarray  # (IoU, recall, K, 0 or 1), all areas, at more detections, if asked for
    capped_recall: np.ndarray  # (IoU, K, 0 or 1)


def _evaluate_classes(evaluation: COCOeval_faster, kept: Sequence[int], num_images: int) -> _Tables:
    """The tables of some categories at a time where there are very many: each is measured by itself."""
    size = min(max(_MAX_PAIRS // max(num_images, 1), 1), _CATEGORIES_AT_A_TIME)
    parts = []
    for start in range(0, len(kept), size):
        evaluation.params.catIds = list(kept[start : start + size])
        evaluation.evaluate()
        evaluation.accumulate()
        precision, recall = np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])
        # Copies: the precisions at fewer detections are the larger part of the table.
        kept_tables = (precision[..., 2:3], recall[..., :3], precision[..., 0, 3:], recall[..., 0, 3:])
        parts.append([table.copy() for table in kept_tables])
    class_axes = (2, 1, 2, 1)
    joined = (np.concatenate(tables, axis) for tables, axis in zip(zip(*parts, strict=True), class_axes, strict=True))
    return _Tables(*joined)


def _mean(values: np.ndarray) -> float:
    """Of what was measured; -1 where nothing was."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else -1.0


class _ClassNumbers(NamedTuple):
    """Categories as numbers 1, 2, ... in the reference's order of their ids; those of one name have one number."""

    by_name: dict[str, int]
    by_id: dict[CocoId, int]


def _class_numbers(dataset: Mapping[str, Any]) -> _ClassNumbers:
    names = {category["id"]: category["name"] for category in dataset["categories"]}
    by_name = {name: number for number, name in enumerate(dict.fromkeys(names[each] for each in sorted_ids(list(names))), 1)}
    return _ClassNumbers(by_name, {key: by_name[name] for key, name in names.items()})


def _image_numbers(dataset: Mapping[str, Any]) -> dict[ImageId, int]:
    """Image id of any type -> 1, 2, ... In sorted order, because the reference orders equal scores by image id."""
    return {image_id: number for number, image_id in enumerate(sorted_ids([image["id"] for image in dataset["images"]]), 1)}


def _image_entries(dataset: Mapping[str, Any], images: Mapping[ImageId, int], iou_type: IouType) -> list[dict[str, int]]:
    """The images by their numbers, with their sizes where masks are compared."""
    if iou_type == "boxes":
        return [{"id": number} for number in images.values()]
    sizes = image_sizes(dataset["images"])
    return [{"id": images[key], "height": height, "width": width} for key, (height, width) in sizes.items()]


def _index(annotations: list[dict[str, Any]], images: list[dict[str, int]], classes: _ClassNumbers) -> COCO:
    categories = [{"id": number, "name": name} for name, number in classes.by_name.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about an annotation with id 0, which read_annotations reports
        return COCO({"images": images, "annotations": annotations, "categories": categories})


def _ground_truth(
    annotation: Mapping[str, Any], number: int, images: Mapping[ImageId, int], classes: _ClassNumbers
) -> dict[str, Any]:
    """Of an annotation what the algorithm reads beside its region; other segmentations take most of a file's memory."""
    own_area = {"area": annotation["area"]} if "area" in annotation else {}
    return own_area | {
        # Only 0 means something to the reference, which never finds such an object; it takes no negative or huge ids.
        "id": 0 if annotation["id"] == 0 else number,
        "image_id": images[annotation["image_id"]],
        "category_id": classes.by_id[annotation["category_id"]],
        "iscrowd": annotation.get("iscrowd", 0),
    }


def _detection(result: Mapping[str, Any], number: int, images: Mapping[ImageId, int], classes: _ClassNumbers) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": images[result["image_id"]],
        "category_id": classes.by_id[result["category_id"]],
        "iscrowd": 0,
        "score": result["score"],
    }


def _box(entry: Mapping[str, Any]) -> dict[str, Any]:
    box = entry["bbox"]
    return {"bbox": box, "area": box[2] * box[3]}


def _mask(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"segmentation": entry["segmentation"], "area": int(mask_api.area(entry["segmentation"]))}


def _class_ap(precision: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Precisions (IoU, recall, class, area range, detections) -> AP per class that has objects; the others' are -1."""
    by_class = {name: precision[:, :, index, 0, -1] for index, name in enumerate(names)}
    return {name: float(values.mean()) for name, values in by_class.items() if (values > -1).all()}
