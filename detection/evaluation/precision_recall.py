"""Precision and recall of matched detections, and COCO's average precision of them. D detections of one class, best first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detection.evaluation.matches import Matches
from detection.evaluation.voc import Bools, Floats

COCO_RECALLS: Floats = np.linspace(0, 1, 101)
"""Where COCO reads a curve."""


class ScoredCurve(NamedTuple):
    """Precision and recall when the detections down to each one count."""

    scores: Floats  # (D,) descending
    precision: Floats  # (D,) in [0, 1]; 0 before the first detection that counts
    recall: Floats  # (D,) in [0, 1]; 0 without objects


def scored_curve(matches: Matches, label: int, row: int) -> ScoredCurve:
    """The curve of one class at the IoU threshold of a row, with a point for each detection that is not ignored."""
    ranked = matches.ranked(label)
    ranked = ranked[~matches.ignored(row)[ranked]]
    true = matches.true_positives(row)[ranked]
    return ScoredCurve(matches.detections.scores[ranked], *precision_recall(true, int(matches.num_objects[label])))


def scored_curves(matches: Matches, row: int) -> list[ScoredCurve]:
    """(K) `scored_curve` of every class, in one go."""
    scores, labels = matches.detections.scores, matches.detections.labels
    counted, true = ~matches.ignored(row), matches.true_positives(row)
    order = np.lexsort((-scores, labels))
    order = order[counted[order]]
    parts = np.split(order, np.searchsorted(labels[order], np.arange(1, len(matches.class_names))))
    counts = matches.num_objects.tolist()
    return [
        ScoredCurve(scores[ranked], *precision_recall(true[ranked], count)) for ranked, count in zip(parts, counts, strict=True)
    ]


def precision_recall(true: Bools, num_objects: int) -> tuple[Floats, Floats]:
    """(D,) whether each detection is a true positive; the others are false -> precision and recall, (D,) each."""
    num_true = np.cumsum(true)
    return num_true / np.arange(1, len(true) + 1), num_true / max(num_objects, 1)


def interpolated_precision(precision: Floats, recall: Floats, recalls: Floats = COCO_RECALLS) -> Floats:
    """(101,): the best precision at or beyond each of `recalls`, 0 beyond the greatest recall."""
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    values: Floats = envelope[np.searchsorted(recall, recalls, side="left")]
    return values


def coco_average_precision(matches: Matches, label: int, row: int) -> float:
    """COCO's AP of one class at one IoU threshold; NaN without objects of the class."""
    if not matches.num_objects[label]:
        return float("nan")
    _, precision, recall = scored_curve(matches, label, row)
    return float(interpolated_precision(precision, recall).mean())


def mean_average_precision(matches: Matches, row: int) -> float:
    """The mean over the classes that have objects, at one IoU threshold; NaN without any."""
    values = [coco_average_precision(matches, int(label), row) for label in np.flatnonzero(matches.num_objects)]
    return float(np.mean(values)) if values else float("nan")
