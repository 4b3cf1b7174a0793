"""Which class was taken for which: detections matched with objects of any class.

D detections, G objects, K classes. The confusion matrix has one more row, for background that was detected, and one more
column, for missed objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from detection.evaluation.matches import NONE, Matches, overlaps, single
from detection.evaluation.voc import Bools, Floats, Ints

SCORE_THRESHOLD = 0.5
"""Where a confusion matrix is looked at first."""


@dataclass(frozen=True)
class Confusion:
    """What each detection turned out to be, whatever its class. By descending score each took the object it overlaps most.

    A lower score threshold adds detections at the end and changes nothing before it: one `Confusion` has the matrices of all
    score thresholds.
    """

    true_labels: Ints  # (D,) K for background; NONE (-1) where it lies on ignored objects alone and is not counted
    found_by: Ints  # (G,) the detection that took each object; NONE for missed ones


def confuse(matches: Matches, iou_threshold: float = 0.5) -> Confusion:
    """Match detections and objects whatever their classes. Crowd and difficult objects are not counted."""
    objects, num_classes = matches.objects, len(matches.class_names)
    true_labels = np.full(len(matches.detections), num_classes, dtype=np.int64)
    found_by = np.full(len(objects), NONE, dtype=np.int64)
    for found, there in rows_by_image(matches):
        iou = overlaps(matches.detections.boxes[found], objects.boxes[there], np.zeros(len(there), dtype=bool))
        ignored = objects.ignored[there]
        taken = _greedy(np.where(ignored, -1.0, iou), iou_threshold)
        at_ignored = (iou[:, ignored] >= iou_threshold).any(axis=1)
        true_labels[found[(taken == NONE) & at_ignored]] = NONE
        matched = np.flatnonzero(taken != NONE)
        true_labels[found[matched]] = objects.labels[there[taken[matched]]]
        found_by[there[taken[matched]]] = found[matched]
    return Confusion(true_labels, found_by)


def confusion_matrix(matches: Matches, confusion: Confusion, score_threshold: float = SCORE_THRESHOLD) -> Ints:
    """(K + 1, K + 1) counts of the detections that score at least so much: rows are true classes, columns detected ones."""
    confident = reach(matches.detections.scores, score_threshold)
    num_classes = len(matches.class_names)
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    counted = confident & (confusion.true_labels != NONE)
    np.add.at(matrix, (confusion.true_labels[counted], matches.detections.labels[counted]), 1)
    found = confusion.found_by != NONE
    found[found] = confident[confusion.found_by[found]]
    missed = matches.objects.labels[~found & ~matches.objects.ignored]
    np.add.at(matrix, (missed, num_classes), 1)
    return matrix


def reach(scores: Floats, threshold: float) -> Bools:
    """(D,) whether each score is at least the threshold in float32, which detectors' scores are: 0.29 reaches 0.29."""
    reached: Bools = single(scores) >= np.float32(threshold)
    return reached


def score_levels(scores: Floats, num_levels: int) -> Ints:
    """(D,) the greatest of the thresholds 0, 1 / (num_levels - 1), ..., 1 that each score reaches, by number; -1 below 0."""
    thresholds = (np.arange(num_levels) / (num_levels - 1)).astype(np.float32)
    levels: Ints = np.searchsorted(thresholds, single(scores), side="right") - 1
    return levels


def rows_by_image(matches: Matches) -> Iterator[tuple[Ints, Ints]]:
    """The detections and the objects of each image that has both."""
    found, there = (_runs(table.images) for table in (matches.detections, matches.objects))
    for image in found.keys() & there.keys():
        yield found[image], there[image]


def _runs(images: Ints) -> dict[int, Ints]:
    """Image -> its rows, which are one after the other."""
    starts = np.flatnonzero(np.diff(images, prepend=-1))
    ends = np.append(starts, len(images))[1:]
    return {int(images[start]): np.arange(start, end) for start, end in zip(starts, ends, strict=True)}


def _greedy(iou: Floats, threshold: float) -> Ints:
    """(D, G) -> (D,) the object that each detection takes, the first of equals; NONE where none is left."""
    taken = np.full(len(iou), NONE, dtype=np.int64)
    left: Bools = np.ones(iou.shape[1], dtype=bool)
    for detection in np.flatnonzero(iou.max(axis=1) >= threshold):
        values = np.where(left, iou[detection], -1.0)
        best = int(values.argmax())
        if values[best] >= threshold:
            taken[detection], left[best] = best, False
    return taken
