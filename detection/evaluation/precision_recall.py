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


def scored_curves(matches: Matches, row: int) -> list[ScoredCurve]:
    """The K classes' curves at the IoU threshold of a row, with a point for each detection that is not ignored."""
    scores, true = matches.detections.scores, matches.true_positives(row)
    pairs = zip(matches.ranked_by_class(~matches.ignored(row)), matches.num_objects.tolist(), strict=True)
    return [ScoredCurve(scores[ranked], *precision_recall(true[ranked], count)) for ranked, count in pairs]


def precision_recall(true: Bools, num_objects: int) -> tuple[Floats, Floats]:
    """(D,) whether each detection is a true positive; the others are false -> precision and recall, (D,) each."""
    num_true = np.cumsum(true)
    return num_true / np.arange(1, len(true) + 1), num_true / max(num_objects, 1)


def interpolated_precision(precision: Floats, recall: Floats, recalls: Floats = COCO_RECALLS) -> Floats:
    """(101,): the best precision at or beyond each of `recalls`, 0 beyond the greatest recall."""
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    values: Floats = envelope[np.searchsorted(recall, recalls, side="left")]
    return values


def coco_average_precision(matches: Matches, row: int) -> Floats:
    """(K,) COCO's AP of each class at the IoU threshold of a row; NaN without objects of the class."""
    values = [interpolated_precision(curve.precision, curve.recall).mean() for curve in scored_curves(matches, row)]
    return np.where(matches.num_objects > 0, np.array(values, dtype=np.float64), np.nan)
