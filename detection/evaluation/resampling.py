"""AP of a data set whose images were drawn again with replacement, for many such draws: how much of an AP is chance.

N images, D detections and G objects of a class, K classes, T curves, R resamples. A resample is how often each image was
drawn, (N,) counts. What is true and what is false stays as it was matched; each image counts as often as it was drawn. A
detection of an image drawn twice stands twice in the ranking, one directly after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detection.evaluation.matches import Matches
from detection.evaluation.metrics import RESAMPLED_METRICS
from detection.evaluation.precision_recall import COCO_RECALLS
from detection.evaluation.voc import VOC07_RECALLS, Bools, ClassDetections, ClassObjects, Floats, Ints, match_detections

_MAX_ELEMENTS = 2_000_000  # of one table, resamples by images or detections: about 80 bytes of memory each in all

Counts = npt.NDArray[np.int32]


@dataclass(frozen=True)
class ResampledAp:
    """AP per class: of the data set as it is, first, and then of each of R resamples. M metrics: RESAMPLED_METRICS."""

    class_ap: Floats  # (M, 1 + R, K) in [0, 1]; NaN where a class has no objects

    @property
    def mean_ap(self) -> Floats:
        """(M, 1 + R): the mean over the classes that have objects; NaN without any."""
        measured = ~np.isnan(self.class_ap)
        total, number = np.where(measured, self.class_ap, 0.0).sum(axis=2), measured.sum(axis=2)
        mean: Floats = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
        return mean


def resample_ap(matches: Matches, resamples: int = 1000, seed: int = 0) -> ResampledAp:
    """Draw the images R times. The same seed draws the same images for every detector that was matched with them.

    Needs matches at COCO_THRESHOLDS. VOC's numbers are those of the detections in `matches`: at most 100 per image and class.
    """
    labels, outcomes, ranked = np.flatnonzero(matches.num_objects), _Outcomes.of(matches), matches.ranked_by_class()
    classes = [_ClassRankings.of(matches, int(label), ranked[label], outcomes) for label in labels]
    class_ap = np.full((len(RESAMPLED_METRICS), 1 + resamples, len(matches.class_names)), np.nan)
    done = 0
    for counts in _draws(matches.num_images, resamples, seed, _chunk_size(matches.num_images, classes)):
        for label, each in zip(labels, classes, strict=True):
            class_ap[:, done : done + len(counts), label] = each.average_precision(counts)
        done += len(counts)
    return ResampledAp(class_ap)


def _draws(num_images: int, resamples: int, seed: int, chunk: int) -> Iterator[Counts]:
    """(chunk, N) at a time: each image once, and then R resamples."""
    random = np.random.default_rng(seed)
    for start in range(0, 1 + resamples, chunk):
        rows = range(start, min(start + chunk, 1 + resamples))
        yield np.array([_draw(num_images, random) if row else np.ones(num_images) for row in rows], dtype=np.int32)


def _draw(num_images: int, random: np.random.Generator) -> Ints:
    return np.bincount(random.integers(max(num_images, 1), size=num_images), minlength=num_images)


def _chunk_size(num_images: int, classes: Sequence[_ClassRankings]) -> int:
    widths = (max(len(each.coco.images), len(each.voc.images), len(each.object_images)) for each in classes)
    return max(_MAX_ELEMENTS // max(num_images, *widths, 1), 1)


class _Outcomes(NamedTuple):
    """What became of all detections of a data set."""

    true: Bools  # (T, D)
    ignored: Bools  # (T, D)

    @classmethod
    def of(cls, matches: Matches) -> _Outcomes:
        rows = range(len(matches.iou_thresholds))
        return cls(np.array([matches.true_positives(row) for row in rows]), np.array([matches.ignored(row) for row in rows]))


class _Curve(NamedTuple):
    """One precision-recall curve, as places in a ranking."""

    true: Ints  # ascending
    ignored: Ints  # ascending: neither true nor false


class _Ranking(NamedTuple):
    """The detections of a class, best first, down to the last that is true on a curve: false ones after it change no AP."""

    images: Ints  # (D,)
    curves: tuple[_Curve, ...]  # T

    @classmethod
    def of(cls, images: Ints, true: Bools, ignored: Bools) -> _Ranking:
        """(D,), (T, D), (T, D)."""
        hit = np.flatnonzero(true.any(axis=0))
        end = int(hit[-1]) + 1 if len(hit) else 0
        curves = (_Curve(*map(np.flatnonzero, rows)) for rows in zip(true[:, :end], ignored[:, :end], strict=True))
        return cls(images[:end], tuple(curves))


class _ClassRankings(NamedTuple):
    """A class, ranked and matched by the rules of both metrics."""

    object_images: Ints  # (G,) of the objects to find
    coco: _Ranking
    voc: _Ranking
    rows: tuple[int, int]  # the curves at IoU 0.5 and 0.75

    @classmethod
    def of(cls, matches: Matches, label: int, ranked: Ints, outcomes: _Outcomes) -> _ClassRankings:
        """`ranked`: the detections of the class, best first."""
        objects = matches.objects
        to_find = (objects.labels == label) & ~objects.ignored
        coco = _Ranking.of(matches.detections.images[ranked], outcomes.true[:, ranked], outcomes.ignored[:, ranked])
        return cls(objects.images[to_find], coco, _voc_ranking(matches, label), (matches.at(0.5), matches.at(0.75)))

    def average_precision(self, counts: Counts) -> Floats:
        """(R, N) -> (M, R); NaN where no object was drawn."""
        num_objects = counts.take(self.object_images, axis=1).sum(axis=1)
        points = [_at_recalls(found, precision, COCO_RECALLS) for found, precision in _curves(self.coco, counts, num_objects)]
        ((found, precision),) = _curves(self.voc, counts, num_objects)
        voc = [_area(found, precision), _at_recalls(found, precision, VOC07_RECALLS)]
        values = np.array([np.mean(points, axis=0), *(points[row] for row in self.rows), *voc])
        return np.where(num_objects, values, np.nan)


def _voc_ranking(matches: Matches, label: int) -> _Ranking:
    """Matched by VOC's rules at IoU 0.5. Equal scores are in the order of the records, as `evaluate_voc` has them."""
    detections, objects = matches.detections, matches.objects
    (rows,) = np.nonzero(detections.labels == label)
    rows = rows[np.lexsort((detections.images[rows], -detections.scores[rows]))]
    (there,) = np.nonzero(objects.labels == label)
    there = there[np.argsort(objects.images[there], kind="stable")]
    ranked = ClassDetections(detections.images[rows], detections.scores[rows], detections.boxes[rows])
    true, false = match_detections(
        ClassObjects(objects.images[there], objects.boxes[there], objects.ignored[there]), ranked, iou_threshold=0.5
    )
    return _Ranking.of(ranked.images, true[None], ~(true | false)[None])


def _curves(ranking: _Ranking, counts: Counts, num_objects: Ints) -> Iterator[tuple[Floats, Floats]]:
    """For each curve the recall at its H true detections, (R, H), and the best precision there or beyond, (R, H).

    Only at true detections can precision be greatest. One that was not drawn repeats the recall of the one before it.
    """
    drawn = counts.take(ranking.images, axis=1)
    passed = drawn.cumsum(axis=1, dtype=np.int32)
    for curve in ranking.curves:
        found = drawn.take(curve.true, axis=1).cumsum(axis=1, dtype=np.int32)
        counted = passed.take(curve.true, axis=1)
        if len(curve.ignored):
            ignored = drawn.take(curve.ignored, axis=1).cumsum(axis=1, dtype=np.int32)
            before = np.searchsorted(curve.ignored, curve.true)
            counted -= np.where(before, ignored.take(before - 1, axis=1), 0)
        precision = found / np.maximum(counted, 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        yield found / np.maximum(num_objects, 1)[:, None], best


def _at_recalls(recall: Floats, best: Floats, levels: Floats) -> Floats:
    """(R, H), (R, H) -> (R,): the mean of the best precision at recall levels."""
    reached = np.searchsorted(levels, recall, side="right")
    mean: Floats = np.einsum("rh,rh->r", np.diff(reached, axis=1, prepend=0), best) / len(levels)
    return mean


def _area(recall: Floats, best: Floats) -> Floats:
    """(R, H), (R, H) -> (R,): the area under the best precision."""
    area: Floats = np.einsum("rh,rh->r", np.diff(recall, axis=1, prepend=0), best)
    return area
