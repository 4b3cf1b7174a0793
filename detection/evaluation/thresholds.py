"""Precision, recall and F1 against the score threshold, and which threshold to choose. K classes.

A detection counts when its score is above the threshold, compared as float32: so does `test.score_threshold`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backbones.errors import printable
from detection.evaluation.matches import GREATEST_SCORE, Matches
from detection.evaluation.voc import Bools, Floats, Ints
from detection.files import write_whole

NO_THRESHOLD = 0.5
"""What is exported where neither a class nor all together have a threshold; `predict`'s own default."""

_DIGITS = range(2, 10)
_LOWEST_DIGITS = 3


@dataclass(frozen=True)
class Operation:
    """What a detector does at a score threshold."""

    threshold: float
    num_true: int  # true positives
    num_detections: int  # that score above the threshold
    num_objects: int

    @property
    def precision(self) -> float:
        """The share of the detections that are true positives."""
        return self.num_true / self.num_detections

    @property
    def recall(self) -> float:
        """The share of the objects that are found; 0 without objects."""
        return self.num_true / max(self.num_objects, 1)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.num_true / (self.num_detections + self.num_objects)


@dataclass(frozen=True)
class ThresholdCurve:
    """True positives against the score threshold, with a point for each number of detections that a threshold can leave.

    A threshold lies in the middle between two neighbouring scores, rounded to the fewest digits that leave it near there; the
    lowest just below the lowest score. The counts are exact, so that they give exact precision, recall and F1.
    """

    thresholds: Floats  # (M,) ascending
    num_true: Ints  # (M,) true positives that score above each
    num_detections: Ints  # (M,) detections that score above each, at least 1
    num_objects: int

    def __len__(self) -> int:
        return len(self.thresholds)

    @property
    def precision(self) -> Floats:
        """(M,) in [0, 1]."""
        values: Floats = self.num_true / self.num_detections
        return values

    @property
    def recall(self) -> Floats:
        """(M,) in [0, 1]; 0 without objects."""
        values: Floats = self.num_true / max(self.num_objects, 1)
        return values

    @property
    def f1(self) -> Floats:
        """(M,) in [0, 1]."""
        values: Floats = 2 * self.num_true / (self.num_detections + self.num_objects)
        return values

    def at(self, point: int) -> Operation:
        """A point of the curve."""
        counts = int(self.num_true[point]), int(self.num_detections[point])
        return Operation(float(self.thresholds[point]), *counts, self.num_objects)


def threshold_curve(scores: Floats, true: Bools, num_objects: int) -> ThresholdCurve:
    """The curve of D detections, best first: their scores (D,), and which of them are true positives (D,).

    Scores may be any finite numbers. Where the lowest is 0, its detections are in no point: no threshold from 0 to 1 has them.
    """
    scores = scores.clip(-GREATEST_SCORE, GREATEST_SCORE)
    last = np.flatnonzero(np.diff(scores.astype(np.float32), append=np.float32(-np.inf)) < 0)
    if not len(last):
        return ThresholdCurve(np.zeros(0), last, last, num_objects)
    thresholds = np.append(_between(scores[last[:-1] + 1], scores[last[:-1]]), _below(float(scores[-1])))
    reached = slice(None, -1 if np.float32(scores[-1]) == 0 else None)
    points = last[reached][::-1]
    return ThresholdCurve(thresholds[reached][::-1], np.cumsum(true, dtype=np.int64)[points], points + 1, num_objects)


def class_curves(matches: Matches, iou_threshold: float = 0.5) -> list[ThresholdCurve]:
    """The K classes' curves at one of the IoU thresholds of `matches`. Ignored detections count nowhere."""
    row = matches.at(iou_threshold)
    scores, true = matches.detections.scores, matches.true_positives(row)
    pairs = zip(matches.ranked_by_class(~matches.ignored(row)), matches.num_objects.tolist(), strict=True)
    return [threshold_curve(scores[ranked], true[ranked], count) for ranked, count in pairs]


def overall_curve(matches: Matches, iou_threshold: float = 0.5) -> ThresholdCurve:
    """The curve of all classes' detections and objects together, with one threshold for all (micro average)."""
    row = matches.at(iou_threshold)
    counted = np.flatnonzero(~matches.ignored(row))
    order = counted[np.argsort(-matches.detections.scores[counted], kind="stable")]
    true = matches.true_positives(row)[order]
    return threshold_curve(matches.detections.scores[order], true, int(matches.num_objects.sum()))


def best_f1(curve: ThresholdCurve) -> Operation | None:
    """The threshold with the best F1, the lowest of equals; None without a true positive."""
    return curve.at(int(curve.f1.argmax())) if curve.num_true.any() else None


def threshold_for_precision(curve: ThresholdCurve, wanted: float) -> Operation | None:
    """The lowest threshold, and so that of the greatest recall, whose precision is at least `wanted`; None where none is.

    Above it, the precision may be lower again. `wanted` is above 0.
    """
    points = np.flatnonzero(curve.precision >= wanted)
    return curve.at(int(points[0])) if len(points) else None


@dataclass(frozen=True)
class Thresholds:
    """A score threshold for each class, chosen by one rule."""

    class_names: tuple[str, ...]  # K
    classes: list[Operation | None]  # (K,) None where no threshold of a class keeps the rule
    overall: Operation | None  # one threshold for all classes together
    rule: str  # "best F1", "precision >= 0.9"

    @property
    def common(self) -> float:
        """The threshold of classes that have none of their own: that of all together, NO_THRESHOLD without one."""
        return NO_THRESHOLD if self.overall is None else self.overall.threshold

    @property
    def numbers(self) -> list[float]:
        """(K,) the threshold of each class, or the common one."""
        return [self.common if each is None else each.threshold for each in self.classes]


def best_thresholds(matches: Matches) -> Thresholds:
    """The thresholds with the best F1 at IoU 0.5. Classes without objects or detections have none."""
    classes = [best_f1(curve) for curve in class_curves(matches)]
    return Thresholds(matches.class_names, classes, best_f1(overall_curve(matches)), "best F1")


def thresholds_for_precision(matches: Matches, wanted: float) -> Thresholds:
    """The lowest thresholds whose precision is at least `wanted` at IoU 0.5."""
    classes = [threshold_for_precision(curve, wanted) for curve in class_curves(matches)]
    overall = threshold_for_precision(overall_curve(matches), wanted)
    return Thresholds(matches.class_names, classes, overall, f"precision >= {number_text(wanted)}")


def write_thresholds(file: Path, thresholds: Thresholds, label: str) -> None:
    """Write the thresholds as YAML, a mapping of class names to numbers, for `--score-threshold`. Raises OSError.

    Comments say of which detector they are (`label`), by which rule, and how many classes have none of their own.
    """
    write_whole(file, thresholds_text(thresholds, label))


def thresholds_text(thresholds: Thresholds, label: str) -> str:
    """What `write_thresholds` writes."""
    comments = [f"Score thresholds of {printable(label)}: {thresholds.rule} at IoU 0.5. Detections that score above count."]
    absent = sum(each is None for each in thresholds.classes)
    if absent:
        which = "1 class has none of its own" if absent == 1 else f"{absent} classes have none of their own"
        comments.append(f"{which} and the common one, {number_text(thresholds.common)}.")
    pairs = zip(thresholds.class_names, thresholds.numbers, strict=True)
    lines = [f"{_quoted(name)}: {number_text(number)}" for name, number in pairs]
    return "\n".join([*(f"# {comment}" for comment in comments), *(lines or ["{}"]), ""])


def number_text(value: float) -> str:
    """A number as YAML of any version reads it: without an exponent, in as few digits as name it."""
    return str(np.format_float_positional(value, trim="-"))


# What JSON leaves as it is in a text, and YAML does not.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


def _quoted(name: str) -> str:
    """A text in quotes, as YAML and JSON read it; letters of all scripts stay readable."""
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(name, ensure_ascii=False))


def _between(lower: Floats, upper: Floats) -> Floats:
    """(M,) thresholds that leave out each lower score and take the upper one, as float32 and as float64.

    The middle in as few digits as stay in the middle half; where float32 has nothing between, the lower score.
    """
    middle, chosen = (lower + upper) / 2, lower.copy()
    left = np.ones(len(lower), dtype=bool)
    for digits in _DIGITS:
        rounded = np.round(middle, digits)
        single = rounded.astype(np.float32)
        fits = (np.abs(rounded - middle) <= (upper - lower) / 4) & (lower < rounded) & (rounded < upper)
        fits &= (lower.astype(np.float32) <= single) & (single < upper.astype(np.float32)) & left
        chosen[fits] = rounded[fits]
        left &= ~fits
    return chosen


def _below(score: float) -> float:
    """The greatest number of three digits below a score, as float32 and as float64, but not below 0 for a score above 0.

    Where float32 has no three digits, of scores in the thousands, the one before it in float32.
    """
    scale = 10**_LOWEST_DIGITS
    whole, single = np.floor(score * scale), np.float32(score)
    below = next((each for each in (whole / scale, (whole - 1) / scale) if np.float32(each) < single), None)
    rounded = float(np.nextafter(single, np.float32(-np.inf)) if below is None else below)
    return max(rounded, 0.0) if score > 0 else rounded
