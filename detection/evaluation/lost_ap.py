"""How much average precision each single error costs. D detections, G objects, K classes, N images.

AP is the uninterpolated one, which every error moves: of a class with G objects, whose k-th true positive stands at rank r_k,
it is the sum of k / r_k over the true positives, divided by G. The mean is over the classes that have objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from detection.evaluation.matches import NONE, Matches
from detection.evaluation.voc import Bools, Floats, Ints


@dataclass(frozen=True)
class LostAp:
    """The mean AP that each error costs, in [0, 1]; 0 for true positives, ignored ones, and classes without objects."""

    detections: Floats  # (D,) of false positives
    objects: Floats  # (G,) of missed objects

    @property
    def total(self) -> float:
        """The sum over all errors."""
        return float(self.detections.sum() + self.objects.sum())


def lost_ap(matches: Matches, row: int) -> LostAp:
    """What the mean AP would gain if an error alone were put right, at the IoU threshold of a row.

    A false positive is put right by removing it; a missed object by finding it with the highest score of its class.
    Gains of errors put right together do not add up: see `divided_lost_ap`.
    """
    lost = _nothing(matches)
    for ranking in _rankings(matches, row):
        rank, count, weight = ranking.ranks, ranking.num_true, ranking.weight
        removed = np.where(ranking.true, count / np.maximum(rank - 1, 1) - count / rank, 0.0)
        lost.detections[ranking.rows] = np.where(ranking.true, 0.0, _sum_after(removed)) * weight
        added = np.where(ranking.true, (count + 1) / (rank + 1) - count / rank, 0.0)
        lost.objects[ranking.missed] = (1 + added.sum()) * weight
    return lost


def divided_lost_ap(matches: Matches, row: int) -> LostAp:
    """All that the mean AP lacks to 1, divided among the errors: they add up to 1 - AP.

    A missed object costs what it would have given: 1 of the G objects of its class. A true positive at rank r has r - k false
    positives before it and so gives k / r instead of 1: each of them costs 1 / r of it.
    """
    lost = _nothing(matches)
    for ranking in _rankings(matches, row):
        before = np.where(ranking.true, 1 / ranking.ranks, 0.0)
        lost.detections[ranking.rows] = np.where(ranking.true, 0.0, _sum_after(before)) * ranking.weight
        lost.objects[ranking.missed] = ranking.weight
    return lost


def lost_ap_of_images(lost: LostAp, matches: Matches) -> Floats:
    """(N,): the sum over the errors of each image, by which the images can be sorted."""
    found, there = matches.detections.images, matches.objects.images
    return _sums(found, lost.detections, matches.num_images) + _sums(there, lost.objects, matches.num_images)


@dataclass(frozen=True)
class _Ranking:
    """The detections of a class that count, best first, and its missed objects."""

    rows: Ints  # (D',) of the detections
    true: Bools  # (D',)
    missed: Ints  # rows of the objects
    weight: float  # of one object in the mean AP

    @property
    def ranks(self) -> Ints:
        return np.arange(1, len(self.rows) + 1)

    @property
    def num_true(self) -> Ints:
        counts: Ints = np.cumsum(self.true)
        return counts


def _rankings(matches: Matches, row: int) -> Iterator[_Ranking]:
    """Those of the classes that have objects."""
    counts = matches.num_objects
    present = np.flatnonzero(counts)
    true, missed = matches.true_positives(row), missed_objects(matches, row)
    ranked = matches.ranked_by_class(~matches.ignored(row))
    for label in present:
        rows = ranked[label]
        of_class = missed[matches.objects.labels[missed] == label]
        yield _Ranking(rows, true[rows], of_class, 1 / (len(present) * int(counts[label])))


def missed_objects(matches: Matches, row: int) -> Ints:
    """The rows of the objects to find that no detection found at the IoU threshold of a row."""
    return np.flatnonzero((matches.detection_of(row) == NONE) & ~matches.objects.ignored)


def _sums(numbers: Ints, values: Floats, length: int) -> Floats:
    """The sum of the values that have each number below `length`."""
    return np.bincount(numbers, values, length).astype(np.float64)


def _sum_after(values: Floats) -> Floats:
    """The sum of what comes after each value; exactly 0 where that is nothing."""
    sums: Floats = np.append(np.cumsum(values[::-1])[::-1][1:], 0.0)
    return sums[: len(values)]


def _nothing(matches: Matches) -> LostAp:
    return LostAp(np.zeros(len(matches.detections)), np.zeros(len(matches.objects)))
