"""Whether scores are the share of detections that are right: reliability and expected calibration error.

"On Calibration of Modern Neural Networks", Guo et al. 2017, with precision in place of accuracy. K classes, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.evaluation.confusion import score_levels
from detection.evaluation.matches import Matches
from detection.evaluation.voc import Bools, Floats, Ints

NUM_BINS = 10
LEAST_SCORE = 0.05
"""Detections that score above it are looked at: below lie most of a detector's detections, and nobody uses them."""


@dataclass(frozen=True)
class Reliability:
    """Precision against score, in B bins of equal width from 0 to 1."""

    counts: Ints  # (B,) detections in each bin
    mean_scores: Floats  # (B,) NaN in empty bins
    precision: Floats  # (B,) share of true positives; NaN in empty bins

    @property
    def error(self) -> float:
        """Expected calibration error (ECE): how far precision and mean score are apart, averaged over the detections.

        In [0, 1]; NaN without detections.
        """
        return self._mean(np.abs(self.gaps))

    @property
    def bias(self) -> float:
        """Mean score - precision: how much scores are too high on average, negative where too low; NaN without detections."""
        return self._mean(self.gaps)

    @property
    def worst_bin(self) -> int | None:
        """The bin where precision and mean score are furthest apart (maximum calibration error); None without detections."""
        return int(np.nanargmax(np.abs(self.gaps))) if self.counts.any() else None

    @property
    def gaps(self) -> Floats:
        """(B,) mean score - precision, NaN in empty bins."""
        return self.mean_scores - self.precision

    def _mean(self, values: Floats) -> float:
        filled = self.counts > 0
        return float(np.average(values[filled], weights=self.counts[filled])) if filled.any() else float("nan")


def reliability(scores: Floats, true: Bools, num_bins: int = NUM_BINS) -> Reliability:
    """The reliability of D detections: their scores (D,), and which are true positives (D,).

    Bin b has the scores from b / B on and below (b + 1) / B, in float32; the first also those below, the last all above.
    """
    return _reliabilities(scores, true, np.zeros(len(scores), dtype=np.int64), 1, num_bins)[0]


def overall_reliability(matches: Matches, iou_threshold: float = 0.5, least_score: float = LEAST_SCORE) -> Reliability:
    """The reliability of all detections that score above `least_score` and are not ignored, at one of the IoU thresholds."""
    rows, true = _looked_at(matches, iou_threshold, least_score)
    return reliability(matches.detections.scores[rows], true[rows])


def class_reliabilities(matches: Matches, iou_threshold: float = 0.5, least_score: float = LEAST_SCORE) -> list[Reliability]:
    """The K classes' reliabilities, of detections that score above `least_score` and are not ignored."""
    rows, true = _looked_at(matches, iou_threshold, least_score)
    table = matches.detections
    return _reliabilities(table.scores[rows], true[rows], table.labels[rows], len(matches.class_names), NUM_BINS)


def _looked_at(matches: Matches, iou_threshold: float, least_score: float) -> tuple[Ints, Bools]:
    """The rows of the detections that are looked at, and of all (D,) which are true positives."""
    row = matches.at(iou_threshold)
    rows = np.flatnonzero(~matches.ignored(row) & matches.above(least_score))
    return rows, matches.true_positives(row)


def _reliabilities(scores: Floats, true: Bools, labels: Ints, num_labels: int, num_bins: int) -> list[Reliability]:
    """The reliability of the detections of each label."""
    bins = score_levels(scores, num_bins + 1).clip(0, num_bins - 1)
    place, shape = labels * num_bins + bins, (num_labels, num_bins)
    counts = np.bincount(place, minlength=num_labels * num_bins).reshape(shape)
    sums = [np.bincount(place, weights, minlength=num_labels * num_bins).reshape(shape) for weights in (scores, true)]
    means = [np.divide(each, counts, out=np.full(shape, np.nan), where=counts > 0) for each in sums]
    return [Reliability(*each) for each in zip(counts, *means, strict=True)]
