"""What kind of mistake each detection is, and which objects were missed. D detections, G objects.

TIDE: "A General Toolbox for Identifying Object Detection Errors", Bolya et al. 2020, section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from detection.evaluation.matches import NONE, Matches
from detection.evaluation.voc import Bools, Ints

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


def find_errors(matches: Matches) -> Errors:
    """The errors of detections that were matched at IoU 0.5 (among others)."""
    row = matches.at(FOREGROUND)
    same, other = matches.best_same_iou, matches.best_other_iou
    rules = [
        (matches.ignored(row), ErrorKind.IGNORED),
        (matches.true_positives(row), ErrorKind.CORRECT),
        ((same >= BACKGROUND) & (same < FOREGROUND), ErrorKind.LOCALISATION),
        (same >= FOREGROUND, ErrorKind.DUPLICATE),
        (other >= FOREGROUND, ErrorKind.CLASS),
        (other >= BACKGROUND, ErrorKind.BOTH),
    ]
    kinds = np.select([condition for condition, _ in rules], [kind for _, kind in rules], ErrorKind.BACKGROUND)
    missed = (matches.detection_of(row) == NONE) & ~matches.objects.ignored
    for kind, best in ((ErrorKind.LOCALISATION, matches.best_same), (ErrorKind.CLASS, matches.best_other)):
        missed[best[kinds == kind]] = False
    return Errors(kinds, missed)
