"""Which class was taken for which, at every score threshold.

K classes, C <= K of which have rows and columns of their own; the others share one. Level i stands for the threshold i / 100.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.evaluation.confusion import SCORE_THRESHOLD, score_levels
from detection.evaluation.matches import NONE
from detection.evaluation.voc import Bools, Ints
from detection.report.packed import packed_small
from detection.report.reported import Analysis

NUM_LEVELS = 101
MAX_CELLS = 6600
"""Cells that a page holds, about 0.1 MB: the classes least often confused go without. 80 classes have at most 6,561."""


@dataclass(frozen=True)
class ConfusionData:
    """What `report/confusion.js` shows: of each cell that is not empty, the detections at every level.

    Places 0..C-1 are the classes, C all other classes, C+1 background. A detection of level i counts at the thresholds up to
    i / 100. Missed objects are those that no detection of their row has found. The four texts are packed numbers.
    """

    num_classes: int  # K
    score_threshold: float  # where the page starts
    labels: list[int]  # (C,) the classes' numbers, the most often confused first
    names: list[str]  # (C,)
    objects: list[int]  # (C + 1,) objects to find, the last of all other classes
    cells: str  # of each cell, ascending, place of the true class * (C + 2) + place of the detected one, less the cell before
    sizes: str  # of each cell, its number of levels
    levels: str  # of each cell in turn, its levels, ascending, each less the one before
    counts: str  # of each of these levels, the detections


def build(analysis: Analysis) -> ConfusionData:
    """Count the cells."""
    matches, confusion = analysis.matches, analysis.confusion
    num_classes = len(matches.class_names)
    levels = score_levels(matches.detections.scores, NUM_LEVELS)
    counted = (confusion.true_labels != NONE) & (levels >= 0)
    true, detected, levels = confusion.true_labels[counted], matches.detections.labels[counted], levels[counted]
    objects = matches.objects.labels[~matches.objects.ignored]
    ranked = most_confused(true, detected, levels >= round(SCORE_THRESHOLD * (NUM_LEVELS - 1)), matches.num_objects)
    kept = ranked[: _num_kept(true, detected, ranked)]
    place = np.full(num_classes + 1, len(kept))
    place[kept] = np.arange(len(kept))
    place[num_classes] = len(kept) + 1
    codes, counts = np.unique((place[true] * (len(kept) + 2) + place[detected]) * NUM_LEVELS + levels, return_counts=True)
    cells, sizes = np.unique(codes // NUM_LEVELS, return_counts=True)
    return ConfusionData(
        num_classes,
        SCORE_THRESHOLD,
        kept.tolist(),
        [matches.class_names[label] for label in kept],
        np.bincount(place[objects], minlength=len(kept) + 1).tolist(),
        packed_small(np.diff(cells, prepend=0)),
        packed_small(sizes),
        packed_small(_steps(codes % NUM_LEVELS, sizes)),
        packed_small(counts),
    )


def most_confused(true: Ints, detected: Ints, confident: Bools, num_objects: Ints) -> Ints:
    """(D,), (D,), (D,), (K,) -> (K,) the classes, those first that were most often taken for others or others for them.

    `confident` detections decide, then all; then the number of objects, and the class's number.
    """
    num_classes = len(num_objects)
    confused = (true != detected) & (true < num_classes)
    by_number = [
        np.bincount(np.concatenate([true[which], detected[which]]), minlength=num_classes)
        for which in (confused & confident, confused)
    ]
    order: Ints = np.lexsort((-num_objects, -by_number[1], -by_number[0]))
    return order


def _num_kept(true: Ints, detected: Ints, ranked: Ints) -> int:
    """How many of the ranked classes have no more than MAX_CELLS cells with each other, the others and background."""
    num_classes = len(ranked)
    rank = np.zeros(num_classes + 1, dtype=np.int64)
    rank[ranked] = np.arange(num_classes)
    pairs = np.unique(true * (num_classes + 1) + detected)
    last = np.maximum(rank[pairs // (num_classes + 1)], rank[pairs % (num_classes + 1)])
    own = np.cumsum(np.bincount(last, minlength=num_classes))
    shared = np.minimum(2 * np.arange(1, num_classes + 1) + 2, MAX_CELLS)
    if own.max(initial=0) <= MAX_CELLS:
        return num_classes
    return int(np.searchsorted(own + shared, MAX_CELLS, side="right"))


def _steps(levels: Ints, sizes: Ints) -> Ints:
    """Each level less the one before it in its cell."""
    steps = np.diff(levels, prepend=0)
    firsts = np.cumsum(sizes) - sizes
    steps[firsts] = levels[firsts]
    return steps
