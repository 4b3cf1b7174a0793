"""Precision against recall of every class, and its AP. K classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.evaluation.matches import Matches
from detection.evaluation.precision_recall import COCO_RECALLS, ScoredCurve, interpolated_precision, scored_curves
from detection.evaluation.voc import Floats, Ints
from detection.report.packed import packed_small
from detection.report.reported import Analysis

SHOWN_IOU = (0.5, 0.75)
"""The IoU thresholds with curves of their own, beside the mean over COCO's ten."""
STEPS = (1, 2, 5, 10)
"""Of COCO's 101 recalls every one is shown, or every second, and so on where there are many classes."""
MAX_POINTS = 310_000
"""Points of all curves, 0.4 MB in the page: 1,200 classes with every second recall."""
SERIES = 5
"""Per class: three curves of precision, and the scores of two."""
DIGITS = 5
"""Of an AP in the page, which shows three."""


@dataclass(frozen=True)
class CurvesData:
    """What `report/curves.js` shows. AP is None, JSON's null, for classes without objects, which have no curve either.

    The two texts are packed numbers (`packed_small`): of curves that never rise, in thousandths, what each point is below the
    one before it; the first is below 1,000. A score of 0 stands for a recall that no threshold reaches.
    """

    names: list[str]  # (K,)
    objects: list[int]  # (K,) to find
    detections: list[int]  # (K,)
    ap: list[float | None]  # (K,) the mean over COCO's ten thresholds
    ap50: list[float | None]  # (K,)
    ap75: list[float | None]  # (K,)
    score_unit: float  # that a score of 1,000 thousandths stands for: 1, or the greatest score where that is above 1
    recalls: int  # R: the recalls 0, 1 / (R - 1), ..., 1 have points
    mean: str  # (3, R) interpolated precision at IoU 0.5, at 0.75, and its mean over the ten; mean of all classes with objects
    curves: (
        str  # (classes with objects, 5, R): the same of each class, and the score at which IoU 0.5 and 0.75 reach the recall
    )


def build(analysis: Analysis) -> CurvesData:
    """Read COCO's curves at ten IoU thresholds."""
    matches = analysis.matches
    found = np.flatnonzero(matches.num_objects)
    precisions, scores = _curves(matches, found)
    step = recall_step(len(found))
    unit = max(float(matches.detections.scores.max(initial=1.0)), 1.0)
    shown = np.concatenate([precisions, scores / unit], axis=1)[:, :, ::step]
    mean = precisions.mean(axis=0)[:, ::step] if len(found) else np.zeros((3, shown.shape[2]))
    columns = [_column(matches, found, precisions[:, number].mean(axis=1)) for number in range(3)]
    return CurvesData(
        list(matches.class_names),
        matches.num_objects.tolist(),
        np.bincount(matches.detections.labels, minlength=len(matches.class_names)).tolist(),
        columns[2],
        columns[0],
        columns[1],
        unit,
        shown.shape[2],
        packed_small(_falls(mean)),
        packed_small(_falls(shown)),
    )


def recall_step(num_classes: int) -> int:
    """Every which of COCO's recalls is shown: the first of STEPS that leaves MAX_POINTS or fewer, or the last."""
    points = {step: num_classes * SERIES * (len(COCO_RECALLS) // step + 1) for step in STEPS}
    return next((step for step in STEPS if points[step] <= MAX_POINTS), STEPS[-1])


def _curves(matches: Matches, found: Ints) -> tuple[Floats, Floats]:
    """(C, 3, 101) precision at SHOWN_IOU and the mean over all, and (C, 2, 101) scores, of C classes with objects."""
    precisions, scores = np.zeros((len(found), 3, len(COCO_RECALLS))), np.zeros((len(found), 2, len(COCO_RECALLS)))
    own = [matches.at(iou_threshold) for iou_threshold in SHOWN_IOU]
    for row in range(len(matches.iou_thresholds)):
        curves = scored_curves(matches, row)
        for place, label in enumerate(found):
            values = interpolated_precision(curves[label].precision, curves[label].recall)
            precisions[place, 2] += values / len(matches.iou_thresholds)
            if row in own:
                precisions[place, own.index(row)] = values
                scores[place, own.index(row)] = scores_at_recalls(curves[label])
    return precisions, scores


def scores_at_recalls(curve: ScoredCurve) -> Floats:
    """(101,) the greatest score threshold at which each of COCO_RECALLS is reached; 0 beyond the greatest recall."""
    values: Floats = np.append(curve.scores, 0.0)[np.searchsorted(curve.recall, COCO_RECALLS, side="left")]
    return values


def _falls(values: Floats) -> Ints:
    """(..., R) that never rise, from 0 to 1 -> what each is below the one before, in thousandths; the first is below 1."""
    thousandths = np.rint(values.clip(0, 1) * 1000).astype(np.int64)
    return -np.diff(thousandths, axis=-1, prepend=1000)


def _column(matches: Matches, found: Ints, values: Floats) -> list[float | None]:
    """(K,) the values of the classes with objects, None for the others."""
    column: list[float | None] = [None] * len(matches.class_names)
    for label, value in zip(found.tolist(), values.tolist(), strict=True):
        column[label] = round(value, DIGITS)
    return column
