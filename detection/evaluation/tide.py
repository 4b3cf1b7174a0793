"""How much average precision the errors of each kind cost together: TIDE's dAP. D detections, G objects, K classes.

TIDE: "A General Toolbox for Identifying Object Detection Errors", Bolya et al. 2020, section 2. The numbers are those of its
authors' package `tidecv`, with its own rules, which are not COCO's:

- Of an image the best 100 detections count, whatever their classes.
- A class without objects counts with an AP of 0 as long as a detection of it counts.
- Of an object without a detection, the best localisation or class error is put right; the others at it are removed.
- A detection that is ignored can be put right, too.
- Of equal scores the errors come before the true positives, except in the AP of the detections as they are.

Two differences remain where numbers are equal to the last digit: of two objects that a detection overlaps equally `tidecv`
takes the first (COCO and `Matches` the last), and a detection with exactly half of its area in a crowd counts there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from detection.evaluation.errors import FOREGROUND, ErrorKind, best_repairs, kinds_of_all, repaired_object
from detection.evaluation.matches import NONE, Matches
from detection.evaluation.precision_recall import interpolated_precision, precision_recall
from detection.evaluation.voc import Bools, Floats, Ints

MAX_DETECTIONS = 100
"""How many detections of an image count."""
RECALLS: Floats = np.arange(101) / 100
"""Where TIDE reads a curve: COCO's recalls are the sums of 0.01, which differ in the last digit."""


class Fix(IntEnum):
    """Which errors are put right. The first six are TIDE's main kinds, the last two its special ones, which overlap them."""

    CLASS = 0
    LOCALISATION = 1
    BOTH = 2
    DUPLICATE = 3
    BACKGROUND = 4
    MISSED = 5
    FALSE_POSITIVES = 6  # all of them behind all true positives
    FALSE_NEGATIVES = 7  # none of the objects that were not found counts

    @property
    def kind(self) -> ErrorKind | None:
        """The kind of the detections that are put right; None where it is not the detections of one kind."""
        return ErrorKind(self + 1) if self < Fix.MISSED else None


MAIN_FIXES = tuple(Fix)[:6]
"""The six kinds to which every error belongs, to one of them."""


@dataclass(frozen=True)
class Tide:
    """AP at IoU 0.5, and what it would gain by each fix alone. All in [0, 1]; of classes with nothing to count 0."""

    ap: float
    gains: Floats  # (8,) by Fix: dAP, the gain of the mean
    class_ap: Floats  # (K,)
    class_gains: Floats  # (8, K); class errors cost both the class that was there and the one that was said


def tide(matches: Matches, max_detections: int = MAX_DETECTIONS) -> Tide:
    """TIDE's errors at IoU 0.5 and their costs."""
    facts = _Facts.of(matches, max_detections)
    now = _class_ap(facts.as_they_are())
    fixed = [_class_ap(facts.fixed(fix)) for fix in Fix]
    gains = np.array([each.mean - now.mean for each in fixed])
    class_gains = np.array([each.values - now.values for each in fixed])
    # With a main kind TIDE takes a loss for a matter of rounding.
    main = len(MAIN_FIXES)
    gains[:main], class_gains[:main] = gains[:main].clip(min=0), class_gains[:main].clip(min=0)
    return Tide(now.mean, gains, now.values, class_gains)


@dataclass(frozen=True)
class _Points:
    """P detections that count for an AP."""

    labels: Ints  # (P,)
    scores: Floats  # (P,)
    true: Bools  # (P,)
    late: Bools  # (P,) of equal scores those come last
    num_objects: Ints  # (K,)


@dataclass(frozen=True)
class _ClassAp:
    """The AP of each class, and whether it has part in the mean."""

    values: Floats  # (K,)
    counted: Bools  # (K,)

    @property
    def mean(self) -> float:
        """0 without a class that counts."""
        return float(self.values[self.counted].mean()) if self.counted.any() else 0.0


def _class_ap(points: _Points) -> _ClassAp:
    num_classes = len(points.num_objects)
    order = np.lexsort((points.late, -points.scores, points.labels))
    ends = np.searchsorted(points.labels[order], np.arange(num_classes + 1))
    values, true = np.zeros(num_classes), points.true[order]
    for label in np.flatnonzero((points.num_objects > 0) & (np.diff(ends) > 0)):
        curve = precision_recall(true[ends[label] : ends[label + 1]], int(points.num_objects[label]))
        values[label] = interpolated_precision(*curve, RECALLS).mean()
    return _ClassAp(values, (points.num_objects > 0) | (np.diff(ends) > 0))


@dataclass(frozen=True)
class _Facts:
    """What TIDE knows of the detections that are among the best of their image."""

    labels: Ints  # (D,)
    scores: Floats  # (D,)
    kinds: Ints  # (D,) ErrorKind, of the ignored ones too
    ignored: Bools  # (D,)
    new_labels: Ints  # (D,) of those that are put right, the class of the object that they find then; else NONE
    num_objects: Ints  # (K,) to find
    num_missed: Ints  # (K,) that no error would find if it were put right
    num_found: Ints  # (K,)

    @classmethod
    def of(cls, matches: Matches, max_detections: int) -> _Facts:
        row, num_classes, objects = matches.at(FOREGROUND), len(matches.class_names), matches.objects
        (kept,) = np.nonzero(_rank_in_run(matches.detections.images) < max_detections)
        labels, scores = matches.detections.labels[kept], matches.detections.scores[kept]
        all_kinds = kinds_of_all(matches)
        kinds = all_kinds[kept]
        found = np.zeros(len(objects), dtype=bool)
        found[matches.object_of[row][kept[kinds == ErrorKind.CORRECT]]] = True
        target = repaired_object(matches, all_kinds)[kept]
        target = np.where((target != NONE) & ~found[target], target, NONE) if len(objects) else target
        left = ~found & ~objects.ignored
        left[target[target != NONE]] = False
        counts = (np.bincount(objects.labels[which], minlength=num_classes) for which in (~objects.ignored, left, found))
        return cls(labels, scores, kinds, matches.ignored(row)[kept], _new_labels(target, scores, objects.labels), *counts)

    def as_they_are(self) -> _Points:
        counted = ~self.ignored
        true = (self.kinds == ErrorKind.CORRECT)[counted]
        return _Points(self.labels[counted], self.scores[counted], true, np.zeros_like(true), self.num_objects)

    def fixed(self, fix: Fix) -> _Points:
        """The detections and the number of objects when the errors are put right, and all else is as it is."""
        correct = self.kinds == ErrorKind.CORRECT
        errors = np.zeros_like(correct) if fix.kind is None else self.kinds == fix.kind
        repaired = errors & (self.new_labels != NONE)
        kept = np.where(errors, repaired, ~self.ignored)
        labels = np.where(repaired, self.new_labels, self.labels)
        scores = np.where(correct, 1.0, 0.0) if fix is Fix.FALSE_POSITIVES else self.scores
        fewer = {Fix.MISSED: self.num_objects - self.num_missed, Fix.FALSE_NEGATIVES: self.num_found}
        true = correct | repaired
        return _Points(labels[kept], scores[kept], true[kept], correct[kept], fewer.get(fix, self.num_objects))


def _new_labels(target: Ints, scores: Floats, object_labels: Ints) -> Ints:
    """(D,) the object at which each error would be put right -> its class, for the best-scored error of each object alone."""
    labels = np.full(len(target), NONE, dtype=np.int64)
    best = best_repairs(target, scores, len(object_labels))
    labels[best[best != NONE]] = object_labels[best != NONE]
    return labels


def _rank_in_run(values: Ints) -> Ints:
    """How many equal values stand directly before each."""
    places = np.arange(len(values))
    starts = np.diff(values, prepend=NONE) != 0
    ranks: Ints = places - np.maximum.accumulate(np.where(starts, places, 0))
    return ranks
