"""Which detections found which objects, by COCO's rules: the facts from which errors, thresholds and curves are computed.

N images, D detections, G objects, K classes, T IoU thresholds. Boxes: xyxy pixels, float64, so that rounding moves no IoU
across a threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detection.evaluation.coco import COCO_CAP
from detection.evaluation.coco_files import sorted_ids
from detection.evaluation.voc import Bools, Floats, Ints, check_images
from detection.structures import Detections, DetectionsByImage, Record

COCO_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""The IoU thresholds whose mean is COCO's AP."""

NONE = -1
"""In place of a row: no such object, or no such detection."""

GREATEST_SCORE = 3e38
"""In float32; scores beyond it, or below its negative, are taken for it where they are compared with thresholds."""


@dataclass(frozen=True)
class DetectedTable:
    """D detections, image by image in the order of the images' ids; in an image by descending score."""

    images: Ints  # (D,) position among the records
    labels: Ints  # (D,)
    scores: Floats  # (D,)
    boxes: Floats  # (D, 4)
    places: Ints  # (D,) among the detections of the image as they were given

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class ObjectTable:
    """G ground-truth objects, image by image in the order of the images' ids; in an image as annotated."""

    images: Ints  # (G,) position among the records
    labels: Ints  # (G,)
    boxes: Floats  # (G, 4)
    areas: Floats  # (G,) px^2: the segment's where the data have one
    ignored: Bools  # (G,) crowd or difficult: finding it is neither right nor wrong

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Matches:
    """Detections and objects of a data set, and which belong together. Rows stand for both: NONE (-1) is "no such row".

    As in COCO: of an image and a class the best 100 detections count; by descending score each takes the object of its class
    that it overlaps most and that none has taken; and an ignored object takes any number of detections, by the share of their
    area that lies in it.
    """

    class_names: tuple[str, ...]  # K
    num_images: int
    iou_thresholds: Floats  # (T,) ascending
    detections: DetectedTable
    objects: ObjectTable
    object_of: Ints  # (T, D) the object that a detection took, also where that is an ignored one
    best_same: Ints  # (D,) the object to find of its class that it overlaps most, taken or not
    best_same_iou: Floats  # (D,) 0 without one
    best_other: Ints  # (D,) the object to find of another class that it overlaps most
    best_other_iou: Floats  # (D,)

    def at(self, iou_threshold: float) -> int:
        """The row of an IoU threshold. Raises KeyError for one that was not asked for."""
        (rows,) = np.nonzero(np.isclose(self.iou_thresholds, iou_threshold))
        if not len(rows):
            raise KeyError(iou_threshold)
        return int(rows[0])

    def ignored(self, row: int) -> Bools:
        """(D,) the detections that took an ignored object at the threshold of a row: neither true nor false positives."""
        taken = self.object_of[row]
        ignored: Bools = (taken != NONE) & self.objects.ignored[taken] if len(self.objects) else np.zeros(len(taken), bool)
        return ignored

    def true_positives(self, row: int) -> Bools:
        """(D,) the detections that found an object at the threshold of a row."""
        found: Bools = (self.object_of[row] != NONE) & ~self.ignored(row)
        return found

    def above(self, threshold: float) -> Bools:
        """(D,) the detections that score above a threshold, compared as `test.score_threshold` is, in float32."""
        counted: Bools = single(self.detections.scores) > np.float32(threshold)
        return counted

    def detection_of(self, row: int) -> Ints:
        """(G,) the detection that found each object at the threshold of a row; NONE for missed and for ignored ones."""
        found = np.full(len(self.objects), NONE, dtype=np.int64)
        (rows,) = np.nonzero(self.true_positives(row))
        found[self.object_of[row][rows]] = rows
        return found

    @property
    def num_objects(self) -> Ints:
        """(K,) objects to find of each class."""
        counts: Ints = np.bincount(self.objects.labels[~self.objects.ignored], minlength=len(self.class_names))
        return counts

    def ranked_by_class(self, counted: Bools | None = None) -> list[Ints]:
        """K arrays of rows: each class's detections by descending score, equal scores in the order of the images' ids, as COCO.

        `counted`: (D,) which detections are among them; all by default.
        """
        scores, labels = self.detections.scores, self.detections.labels
        rows = np.arange(len(labels)) if counted is None else np.flatnonzero(counted)
        order = rows[np.lexsort((-scores[rows], labels[rows]))]
        ends = np.searchsorted(labels[order], np.arange(1, len(self.class_names) + 1))
        return np.split(order, ends)[: len(self.class_names)]


def match(
    records: Sequence[Record],
    detections: DetectionsByImage,
    class_names: Sequence[str],
    iou_thresholds: Floats = COCO_THRESHOLDS,
    max_detections: int = COCO_CAP,
) -> Matches:
    """Match the detections of N records. An image that `detections` lacks counts as one without detections.

    Raises DatasetError for detections of an image without a record.
    """
    check_images(records, detections)
    thresholds = np.asarray(iou_thresholds, dtype=np.float64)
    positions = {record.image_id: index for index, record in enumerate(records)}
    order = [positions[image_id] for image_id in sorted_ids(list(positions))]  # type: ignore[arg-type]
    images = [_Image.of(records[index], detections.get(records[index].image_id), max_detections) for index in order]
    firsts = np.cumsum([0, *(len(image.object_labels) for image in images)])
    parts = [_match_image(image, first, thresholds) for image, first in zip(images, firsts, strict=False)]
    empty = _match_image(_Image.of(None, None, max_detections), 0, thresholds)
    joined = _ImageMatches(*(np.concatenate(columns, axis=-1) for columns in zip(empty, *parts, strict=True)))
    return Matches(
        tuple(class_names),
        len(records),
        thresholds,
        DetectedTable(
            np.repeat(order, [len(image.labels) for image in images]).astype(np.int64),
            _joined([image.labels for image in images], np.int64),
            _joined([image.scores for image in images], np.float64),
            _joined([image.boxes for image in images], np.float64, 4),
            _joined([image.places for image in images], np.int64),
        ),
        ObjectTable(
            np.repeat(order, [len(image.object_labels) for image in images]).astype(np.int64),
            _joined([image.object_labels for image in images], np.int64),
            _joined([image.object_boxes for image in images], np.float64, 4),
            _joined([image.object_areas for image in images], np.float64),
            _joined([image.object_ignored for image in images], np.bool_),
        ),
        *joined,
    )


class _Image(NamedTuple):
    """One image's detections, best first, and its objects."""

    labels: Ints
    scores: Floats
    boxes: Floats
    places: Ints
    object_labels: Ints
    object_boxes: Floats
    object_areas: Floats
    object_ignored: Bools

    @classmethod
    def of(cls, record: Record | None, found: Detections | None, max_detections: int) -> _Image:
        found = Detections.empty() if found is None else found.to("cpu")
        labels, scores = found.labels.numpy(), found.scores.double().numpy()
        order = np.argsort(-scores, kind="stable")
        kept = order[_rank_in_class(labels[order]) < max_detections]
        boxes = found.boxes.double().numpy()[kept]
        if record is None:
            nothing = np.zeros(0, int), np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool)
            return cls(labels[kept], scores[kept], boxes, kept, *nothing)
        objects = (record.labels.numpy(), record.boxes.double().numpy(), record.areas.double().numpy())
        return cls(labels[kept], scores[kept], boxes, kept, *objects, (~record.trainable).numpy())


class _ImageMatches(NamedTuple):
    """The columns of `Matches` for one image."""

    object_of: Ints  # (T, D)
    best_same: Ints
    best_same_iou: Floats
    best_other: Ints
    best_other_iou: Floats


def _match_image(image: _Image, first_object: int, thresholds: Floats) -> _ImageMatches:
    """`first_object` is the row of the image's first object."""
    num_found, num_objects = len(image.labels), len(image.object_labels)
    object_of = np.full((len(thresholds), num_found), NONE, dtype=np.int64)
    none, zero = np.full(num_found, NONE, dtype=np.int64), np.zeros(num_found)
    if not num_objects or not num_found:
        return _ImageMatches(object_of, none, zero, none, zero)
    iou = overlaps(image.boxes, image.object_boxes, image.object_ignored)
    same = image.labels[:, None] == image.object_labels
    for detection, taken in _greedy(np.where(same, iou, -1.0), image.object_ignored, thresholds):
        object_of[:, detection] = np.where(taken == NONE, NONE, taken + first_object)
    to_find = ~image.object_ignored
    best = [_best(np.where(which & to_find, iou, 0.0), first_object) for which in (same, ~same)]
    return _ImageMatches(object_of, *best[0], *best[1])


def _greedy(iou: Floats, ignored: Bools, thresholds: Floats) -> Iterator[tuple[int, Ints]]:
    """(D, G) overlaps, -1 between classes -> each detection that takes an object at any threshold, and the object at each.

    Of equal overlaps the later object is taken, as in COCO, and an ignored one only where there is no other.
    """
    num_objects = iou.shape[1]
    taken = np.zeros((len(thresholds), num_objects), dtype=bool)
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]
    rows = np.arange(len(thresholds))
    for detection in np.flatnonzero(iou.max(axis=1) >= least[0]):
        possible = (iou[detection] >= least) & ~taken
        # An object to find comes before any ignored one.
        value = np.where(possible, iou[detection] + np.where(ignored, 0.0, 10.0), -1.0)
        best = num_objects - 1 - value[:, ::-1].argmax(axis=1)
        matched = possible[rows, best]
        if matched.any():
            taken[rows[matched], best[matched]] = ~ignored[best[matched]]
            yield int(detection), np.where(matched, best, NONE)


def _best(iou: Floats, first_object: int) -> tuple[Ints, Floats]:
    """The row of the object with the greatest overlap of each detection, the first of equals, and the overlap."""
    best = iou.argmax(axis=1)
    values = iou[np.arange(len(best)), best]
    return np.where(values > 0, best + first_object, NONE), values


def values_at(values: np.ndarray, rows: Ints) -> np.ndarray:
    """The values in some rows, (R, ...); NONE where the row is NONE."""
    return np.concatenate([values, np.full((1, *values.shape[1:]), NONE, values.dtype)])[rows]


def overlaps(boxes: Floats, object_boxes: Floats, crowd: Bools) -> Floats:
    """(D, 4), (G, 4), (G,) -> (D, G): IoU, and with a crowd the share of the detection's area that lies in it."""
    corner, far = boxes[:, None, :2], boxes[:, None, 2:]
    sides = (np.minimum(far, object_boxes[:, 2:]) - np.maximum(corner, object_boxes[:, :2])).clip(min=0)
    shared = sides.prod(axis=2)
    area, object_area = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, object_boxes))
    union = np.where(crowd, area[:, None], area[:, None] + object_area - shared)
    result: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result


def single(scores: Floats) -> npt.NDArray[np.float32]:
    """(D,) scores in float32, as detectors have them: other programs' may be any finite numbers."""
    return scores.clip(-GREATEST_SCORE, GREATEST_SCORE).astype(np.float32)


def _rank_in_class(labels: Ints) -> Ints:
    """How many of the same label stand before each."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return ranks


def _joined(parts: Sequence[np.ndarray], kind: type, width: int | None = None) -> np.ndarray:
    """The arrays one after the other; empty without any."""
    empty = np.zeros(0 if width is None else (0, width))
    return np.concatenate([empty, *parts]).astype(kind)
