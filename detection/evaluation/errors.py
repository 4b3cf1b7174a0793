"""What kind of mistake each detection is, and which objects were missed. D detections, G objects.

The kinds are those of TIDE: "A General Toolbox for Identifying Object Detection Errors", Bolya et al. 2020, section 2.2; what
its paper leaves open (which kind comes first, what is exactly at a threshold) is as in its authors' package `tidecv`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from detection.evaluation.matches import NONE, Matches
from detection.evaluation.voc import Bools, Floats, Ints

FOREGROUND = 0.5
"""IoU from which on a detection is at an object."""
BACKGROUND = 0.1
"""IoU up to which a detection has nothing to do with an object."""


class ErrorKind(IntEnum):
    """What a detection is. The numbers are those of the report's data."""

    CORRECT = 0  # a true positive
    CLASS = 1  # at an object of another class
    LOCALISATION = 2  # near an object of its class
    BOTH = 3  # near an object of another class
    DUPLICATE = 4  # at an object of its class that a better one has found
    BACKGROUND = 5  # near nothing
    IGNORED = 6  # at a crowd or a difficult object: not counted


@dataclass(frozen=True)
class Errors:
    """The kind of every detection, and the objects that no detection found, nor a wrong one would if it were put right."""

    kinds: Ints  # (D,) ErrorKind
    missed: Bools  # (G,)

    @property
    def wrong(self) -> Bools:
        """(D,) the false positives: neither correct nor ignored."""
        wrong: Bools = (self.kinds != ErrorKind.CORRECT) & (self.kinds != ErrorKind.IGNORED)
        return wrong

    @property
    def at_other(self) -> Bools:
        """(D,) the detections that are wrong by an object of another class."""
        at_other: Bools = (self.kinds == ErrorKind.CLASS) | (self.kinds == ErrorKind.BOTH)
        return at_other


def find_errors(matches: Matches) -> Errors:
    """The errors of detections that were matched at IoU 0.5 (among others)."""
    row = matches.at(FOREGROUND)
    kinds = kinds_of_all(matches)
    missed = (matches.detection_of(row) == NONE) & ~matches.objects.ignored
    target = repaired_object(matches, kinds)
    missed[target[target != NONE]] = False
    return Errors(np.where(matches.ignored(row), ErrorKind.IGNORED, kinds), missed)


def objects_at(matches: Matches, errors: Errors) -> Ints:
    """(D,) the object that each detection found, or that makes it the kind of error that it is; NONE for background."""
    found = matches.object_of[matches.at(FOREGROUND)]
    near = np.where(errors.at_other, matches.best_other, matches.best_same)
    rows: Ints = np.where(errors.wrong, np.where(errors.kinds == ErrorKind.BACKGROUND, NONE, near), found)
    return rows


def kinds_of_all(matches: Matches) -> Ints:
    """(D,) the ErrorKind of each detection as if none were ignored: what an ignored one is with regard to the objects to find.

    The first rule that holds decides. One that takes an ignored object has found no other, so it is never CORRECT.
    """
    same, other = matches.best_same_iou, matches.best_other_iou
    rules = [
        (matches.true_positives(matches.at(FOREGROUND)), ErrorKind.CORRECT),
        ((same >= BACKGROUND) & (same <= FOREGROUND), ErrorKind.LOCALISATION),
        (other >= FOREGROUND, ErrorKind.CLASS),
        (same > FOREGROUND, ErrorKind.DUPLICATE),
        (other > BACKGROUND, ErrorKind.BOTH),
    ]
    return np.select([condition for condition, _ in rules], [kind for _, kind in rules], ErrorKind.BACKGROUND)


def repaired_object(matches: Matches, kinds: Ints) -> Ints:
    """(D,) ErrorKind -> (D,) the object that a detection would find with a better box or the right class; else NONE."""
    better = np.where(kinds == ErrorKind.LOCALISATION, matches.best_same, NONE)
    repaired: Ints = np.where(kinds == ErrorKind.CLASS, matches.best_other, better)
    return repaired


def best_repairs(target: Ints, scores: Floats, num_objects: int) -> Ints:
    """(D,) the object that each detection would find if it were put right, or NONE -> (G,) the best-scored such detection.

    Only one detection finds an object; of equal scores the first. NONE for objects that are no detection's target.
    """
    best = np.full(num_objects, NONE, dtype=np.int64)
    order = np.lexsort((-scores, target))
    objects, first = np.unique(target[order], return_index=True)
    best[objects[objects != NONE]] = order[first[objects != NONE]]
    return best
