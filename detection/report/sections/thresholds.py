"""Which score threshold to choose for each class, and whether scores are the share of detections that are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backbones.errors import printable
from detection.evaluation.calibration import LEAST_SCORE, class_reliabilities, overall_reliability
from detection.evaluation.thresholds import (
    NO_THRESHOLD,
    ThresholdCurve,
    class_curves,
    overall_curve,
)
from detection.evaluation.voc import Floats
from detection.report.reported import Analysis

WANTED: Floats = np.arange(50, 100) / 100
"""The precisions that the page lets the reader want: the threshold for each is a point of the curves it gets."""

_MANY_CLASSES = 100
_DIGITS = 4


@dataclass(frozen=True)
class ThresholdsData:
    """What `report/thresholds.js` shows. Lists of K + 1: the classes, and all of them together as the last."""

    label: str  # of the detector, in one line
    names: list[str]  # (K,)
    num_objects: list[int]  # (K + 1,)
    thresholds: list[list[float]]  # (K + 1,) of M points, ascending; M differs from class to class
    num_true: list[list[int]]  # (K + 1,) of M
    num_detections: list[list[int]]  # (K + 1,) of M
    best: list[int | None]  # (K + 1,) the point with the best F1
    no_threshold: float  # where there is none, not for all together either
    least_score: float  # above which detections are in the bins
    bin_counts: list[list[int]]  # (K + 1,) of B
    bin_scores: list[list[float]]  # (K + 1,) of B, the mean scores; NaN in empty bins
    bin_precision: list[list[float]]  # (K + 1,) of B; NaN in empty bins
    error: list[float]  # (K + 1,) expected calibration error
    bias: list[float]  # (K + 1,)


def build(analysis: Analysis) -> ThresholdsData:
    """Curves of about 100 points at most for each class, of less where there are many, but exact at every choice."""
    matches = analysis.matches
    curves = [*class_curves(matches), overall_curve(matches)]
    few = len(matches.class_names) > _MANY_CLASSES
    points = [*(_shown(curve, 8 if few else 25) for curve in curves[:-1]), _shown(curves[-1], 25)]
    pairs = list(zip(curves, points, strict=True))
    bins = [*class_reliabilities(matches), overall_reliability(matches)]
    return ThresholdsData(
        printable(analysis.reported.label),
        list(matches.class_names),
        [curve.num_objects for curve in curves],
        [curve.thresholds[shown].tolist() for curve, shown in pairs],
        [curve.num_true[shown].tolist() for curve, shown in pairs],
        [curve.num_detections[shown].tolist() for curve, shown in pairs],
        [int(curve.f1[shown].argmax()) if curve.num_true.any() else None for curve, shown in pairs],
        NO_THRESHOLD,
        LEAST_SCORE,
        [each.counts.tolist() for each in bins],
        [_rounded(each.mean_scores) for each in bins],
        [_rounded(each.precision) for each in bins],
        [round(each.error, _DIGITS) for each in bins],
        [round(each.bias, _DIGITS) for each in bins],
    )


def _shown(curve: ThresholdCurve, spread: int) -> list[int]:
    """The points of a curve that the page gets: each that the reader can choose there, and others to draw a line.

    The latter are `spread` points at equal steps of the threshold and as many at equal steps of the number of points.
    """
    if not len(curve):
        return []
    wanted = np.searchsorted(np.maximum.accumulate(curve.precision), WANTED)
    drawn = np.searchsorted(curve.thresholds, np.linspace(0, 1, spread))
    stepped = np.linspace(0, len(curve) - 1, spread).astype(np.int64)
    chosen = {int(curve.f1.argmax()), *wanted.tolist(), *drawn.tolist(), *stepped.tolist()} - {len(curve)}
    return sorted(chosen)


def _rounded(values: Floats) -> list[float]:
    return np.round(values, _DIGITS).tolist()
