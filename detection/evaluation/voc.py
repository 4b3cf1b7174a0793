"""Pascal VOC's average precision, as the development kit computes it (VOCevaldet.m).

N images, K classes; for one class D detections and G ground-truth objects over all images. Boxes: xyxy pixels,
continuous. The kit's boxes are 1-based with both ends included, width = x2 - x1 + 1; as (x1 - 1, y1 - 1, x2, y2) they
have the same IoU. Everything is float64, so that rounding moves no IoU across the threshold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.errors import shorten
from detection.errors import DatasetError
from detection.evaluation.metrics import VocMetric
from detection.structures import DetectionsByImage, Record

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Regions = npt.NDArray[Any]
"""The regions of R objects or detections: boxes, (R, 4) float64 xyxy; or whatever else an AlignedIou compares, (R,)."""

AlignedIou = Callable[[Regions, Regions], Floats]
"""IoU row by row: P regions and P regions, each pair of one image -> (P,). Regions that do not overlap give -1."""

# These eleven numbers are part of the metric: the fourth is 0.30000000000000004, which a recall of 3/10 does not reach.
VOC07_RECALLS: Floats = np.arange(0.0, 1.1, 0.1)

NOTHING_TO_MEASURE = "none of the classes has an object in the evaluated split: there is nothing to measure"


@dataclass(frozen=True)
class ClassDetections:
    """All detections of one class. Equal scores keep this order."""

    images: Ints  # (D,) position of the image among the records
    scores: Floats  # (D,)
    boxes: Regions  # (D, 4) xyxy, or other regions


@dataclass(frozen=True)
class ClassObjects:
    """All ground-truth objects of one class, ordered by image."""

    images: Ints  # (G,) position of the image among the records, ascending
    boxes: Regions  # (G, 4) xyxy, or other regions
    ignored: Bools  # (G,) difficult (or COCO's crowd): a detection of it is neither a true nor a false positive


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision against recall of one class: one point per detection, by descending score."""

    scores: Floats  # (D,)
    recall: Floats  # (D,) in [0, 1]
    precision: Floats  # (D,) in [0, 1]
    num_objects: int  # without the ignored ones


@dataclass(frozen=True)
class VocResult:
    """AP per class and their mean, all in [0, 1]. Classes without any object to find have no AP and are not in the mean."""

    mean_ap: float  # NaN if no class has objects
    ap: dict[str, float]
    metric: VocMetric
    iou_threshold: float
    curves: dict[str, PrecisionRecallCurve]
    absent: tuple[str, ...]  # classes without any object to find

    def as_json(self) -> dict[str, object]:
        """Plain data: `mAP`, `AP` by class name, and `metric`."""
        return {"mAP": self.mean_ap, "AP": self.ap, "metric": self.metric}


def evaluate_voc(
    records: Sequence[Record],
    detections: DetectionsByImage,
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
    metric: VocMetric = "area",
) -> VocResult:
    """VOC's AP of N records. An image that `detections` lacks counts as one without detections.

    Raises DatasetError for detections of an image without a record.
    """
    found = split_by_class(records, detections, class_names)
    return evaluate_voc_classes(records, found, class_names, iou_threshold, metric)


def evaluate_voc_classes(
    records: Sequence[Record],
    detections: Mapping[str, ClassDetections],
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
    metric: VocMetric = "area",
) -> VocResult:
    """VOC's AP of detections that are already sorted into classes, as detection files hold them.

    Only the classes in `detections` are evaluated. `class_names` says what the records' labels mean.
    """
    return evaluate_voc_regions(objects_by_class(records, class_names), detections, iou_threshold, metric)


def evaluate_voc_regions(
    objects: Mapping[str, ClassObjects],
    detections: Mapping[str, ClassDetections],
    iou_threshold: float = 0.5,
    metric: VocMetric = "area",
    iou: AlignedIou | None = None,
) -> VocResult:
    """VOC's AP of regions of any kind, which `iou` compares: boxes if None. Only the classes in `detections` are evaluated."""
    evaluated = [name for name in objects if name in detections]
    curves = {name: precision_recall_curve(objects[name], detections[name], iou_threshold, iou) for name in evaluated}
    ap = {name: average_precision(curve, metric) for name, curve in curves.items() if curve.num_objects}
    mean_ap = float(np.mean(list(ap.values()))) if ap else float("nan")
    absent = tuple(name for name in evaluated if name not in ap)
    return VocResult(mean_ap, ap, metric, iou_threshold, {name: curves[name] for name in ap}, absent)


def split_by_class(
    records: Sequence[Record], detections: DetectionsByImage, class_names: Sequence[str]
) -> dict[str, ClassDetections]:
    """Detections per image -> per class, images in the records' order. Raises DatasetError for an image without a record."""
    check_images(records, detections)
    found = [(index, detections[record.image_id]) for index, record in enumerate(records) if record.image_id in detections]
    images = np.concatenate([np.full(len(each), index) for index, each in found] or [np.zeros(0)]).astype(np.int64)
    scores = np.concatenate([each.scores.double().cpu().numpy() for _, each in found] or [np.zeros(0)])
    labels = np.concatenate([each.labels.cpu().numpy() for _, each in found] or [np.zeros(0)])
    boxes = np.concatenate([each.boxes.double().cpu().numpy() for _, each in found] or [np.zeros((0, 4))])
    masks = {name: labels == label for label, name in enumerate(class_names)}
    return {name: ClassDetections(images[mask], scores[mask], boxes[mask]) for name, mask in masks.items()}


def check_images(records: Sequence[Record], detections: DetectionsByImage) -> None:
    """Raise DatasetError if two records have one image id, or if there are detections of an image without a record."""
    known = {record.image_id for record in records}
    if len(known) < len(records):
        (repeated, _), *_ = Counter(record.image_id for record in records).most_common(1)
        raise DatasetError(f"two images have the id {shorten(repeated)}: give tiles ids of their own to evaluate them")
    unknown = set(detections) - known
    if unknown:
        raise DatasetError(f"detections of image '{min(unknown, key=str)}', which the evaluated split does not hold")


def num_objects(records: Sequence[Record]) -> int:
    """How many objects there are to find: neither difficult nor crowd."""
    return sum(int(record.trainable.sum()) for record in records)


def objects_by_class(records: Sequence[Record], class_names: Sequence[str]) -> dict[str, ClassObjects]:
    """The records' ground truth per class; G may be 0."""
    images = np.repeat(np.arange(len(records)), [len(record.labels) for record in records]).astype(np.int64)
    labels = np.concatenate([record.labels.numpy() for record in records] or [np.zeros(0)])
    boxes = np.concatenate([record.boxes.double().numpy() for record in records] or [np.zeros((0, 4))])
    ignored = np.concatenate([(record.difficult | record.crowd).numpy() for record in records] or [np.zeros(0, bool)])
    masks = {name: labels == label for label, name in enumerate(class_names)}
    return {name: ClassObjects(images[mask], boxes[mask], ignored[mask]) for name, mask in masks.items()}


def precision_recall_curve(
    objects: ClassObjects, detections: ClassDetections, iou_threshold: float, iou: AlignedIou | None = None
) -> PrecisionRecallCurve:
    """Precision and recall of one class after each detection, best score first."""
    order = np.argsort(-detections.scores, kind="stable")
    ranked = ClassDetections(detections.images[order], detections.scores[order], detections.boxes[order])
    true_positives, false_positives = match_detections(objects, ranked, iou_threshold, iou)
    num_true, num_false = np.cumsum(true_positives), np.cumsum(false_positives)
    num_objects = int((~objects.ignored).sum())
    # Before the first detection that counts precision is 0 / 0, which is taken as 0.
    precision = num_true / np.maximum(num_true + num_false, 1)
    return PrecisionRecallCurve(ranked.scores, num_true / max(num_objects, 1), precision, num_objects)


def match_detections(
    objects: ClassObjects, ranked: ClassDetections, iou_threshold: float, iou: AlignedIou | None = None
) -> tuple[Bools, Bools]:
    """Detections, best first -> the masks (D,) of true and of false positives; a match with an ignored object is neither.

    A detection is matched with the object that it overlaps most, even if that one is ignored or already matched. Only the
    first match of an object is a true positive, so all matches can be decided at once.
    """
    overlaps, matches = best_overlaps(ranked, objects, iou)
    matched = overlaps >= iou_threshold
    neutral = np.zeros_like(matched)
    neutral[matched] = objects.ignored[matches[matched]]
    candidates = np.flatnonzero(matched & ~neutral)
    _, first = np.unique(matches[candidates], return_index=True)
    true_positives = np.zeros_like(matched)
    true_positives[candidates[first]] = True
    return true_positives, ~true_positives & ~neutral


def best_overlaps(detections: ClassDetections, objects: ClassObjects, iou: AlignedIou | None = None) -> tuple[Floats, Ints]:
    """For each detection its greatest IoU with an object of its image, and that object (the first of equals).

    Returns (D,) IoUs and (D,) positions in `objects`; -1 and 0 where nothing overlaps.
    """
    pair_detection, pair_object, pair_iou = overlapping_pairs(detections, objects, iou)
    order = np.lexsort((pair_object, -pair_iou, pair_detection))
    paired, first = np.unique(pair_detection[order], return_index=True)
    overlaps = np.full(len(detections.scores), -1.0)
    matches = np.zeros(len(detections.scores), dtype=np.int64)
    overlaps[paired] = pair_iou[order][first]
    matches[paired] = pair_object[order][first]
    return overlaps, matches


def overlapping_pairs(
    detections: ClassDetections, objects: ClassObjects, iou: AlignedIou | None = None
) -> tuple[Ints, Ints, Floats]:
    """Every pair of a detection and an object of its image: P detections, in their order, P objects, and P IoUs."""
    begin = np.searchsorted(objects.images, detections.images, side="left")
    counts = np.searchsorted(objects.images, detections.images, side="right") - begin
    pair_detection = np.repeat(np.arange(len(counts)), counts)
    pair_object = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(begin, counts)
    pair_iou = (iou or aligned_iou)(detections.boxes[pair_detection], objects.boxes[pair_object])
    return pair_detection, pair_object, pair_iou


def aligned_iou(boxes_a: Floats, boxes_b: Floats) -> Floats:
    """IoU row by row: (P, 4) and (P, 4) -> (P,). Boxes that do not overlap give -1, because the kit skips them."""
    width, height = (np.minimum(boxes_a[:, 2:], boxes_b[:, 2:]) - np.maximum(boxes_a[:, :2], boxes_b[:, :2])).T
    overlap = (width > 0) & (height > 0)
    inter = width * height
    union = _area(boxes_a) + _area(boxes_b) - inter
    return np.divide(inter, union, out=np.full(len(inter), -1.0), where=overlap)


def _area(boxes: Floats) -> Floats:
    area: Floats = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def average_precision(curve: PrecisionRecallCurve, metric: VocMetric) -> float:
    """The AP of a curve, in [0, 1], by the metric `voc07` (11-point) or `area`."""
    return _eleven_points(curve) if metric == "voc07" else _area_under_envelope(curve)


def _eleven_points(curve: PrecisionRecallCurve) -> float:
    """VOC 2007 to 2009: the mean of the best precision at or beyond eleven recalls."""
    best = [curve.precision[curve.recall >= recall].max(initial=0.0) for recall in VOC07_RECALLS]
    return float(np.mean(best))


def _area_under_envelope(curve: PrecisionRecallCurve) -> float:
    """From VOC 2010 on: the exact area under precision made non-increasing."""
    recall = np.concatenate([[0.0], curve.recall, [1.0]])
    precision = np.concatenate([curve.precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))
