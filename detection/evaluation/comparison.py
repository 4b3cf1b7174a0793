"""Which of several detectors is better, and how much of that is chance: AP differences with intervals, by resampling images.

Each resample draws the images of the data set anew, with replacement, and measures all detectors on the same draw (a paired
bootstrap): that some images are harder than others widens no interval, since they are so for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from detection.evaluation.matches import Matches, ObjectTable
from detection.evaluation.metrics import RESAMPLED_METRICS
from detection.evaluation.resampling import ResampledAp, resample_ap
from detection.evaluation.voc import Floats, Ints

INTERVAL = 0.95
"""The share of the resamples that an interval holds: half of the others lie below it, half above."""
LEAST_IMAGES = 10
"""Fewer images hold too little chance for an interval to mean anything."""


@dataclass(frozen=True)
class Difference:
    """An AP of two detectors, in [0, 1], and the second's minus the first's. All are NaN where there are no objects."""

    first: float
    second: float
    low: float  # of the interval around the difference
    high: float
    better: float  # the share of the resamples in which the second is better, in [0, 1]
    num_images: int  # that have the objects

    @property
    def value(self) -> float:
        """The second's minus the first's."""
        return self.second - self.first

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0, with enough images to say so."""
        return self.num_images >= LEAST_IMAGES and (self.low > 0 or self.high < 0)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.value,
            "interval": [self.low, self.high],
            "second_better": self.better,
            "images": self.num_images,
            "clear": self.is_clear,
        }


@dataclass(frozen=True)
class ClassDifference:
    """The AP difference, COCO's mean of ten IoU thresholds, of one class."""

    label: int
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """A detector beside a reference, the first."""

    metrics: Mapping[str, Difference]  # by RESAMPLED_METRICS
    classes: tuple[ClassDifference, ...]  # that have objects: the greatest gain first, the greatest loss last
    resamples: int

    def gained(self, most: int) -> list[ClassDifference]:
        """The classes whose AP has risen, the greatest gain first."""
        return [each for each in self.classes if each.difference.value > 0][:most]

    def lost(self, most: int) -> list[ClassDifference]:
        """The classes whose AP has fallen, the greatest loss first."""
        return [each for each in reversed(self.classes) if each.difference.value < 0][:most]


def compare(first: Matches, second: Matches, *, resamples: int = 1000, seed: int = 0) -> Comparison:
    """Compare a second detector with a first one. Raises ValueError where the images, classes or objects are not the same."""
    (comparison,) = compare_all([first, second], resamples=resamples, seed=seed)
    return comparison


def compare_all(matches: Sequence[Matches], *, resamples: int = 1000, seed: int = 0) -> list[Comparison]:
    """Compare each detector but the first with the first. Raises ValueError as `compare` does."""
    reference, *others = matches
    for other in others:
        _require_same(reference, other)
    images = _images_by_class(reference)
    resampled = resample_ap(reference, resamples, seed)
    return [_comparison(resampled, resample_ap(other, resamples, seed), images, reference.num_images) for other in others]


def _require_same(first: Matches, second: Matches) -> None:
    same = (first.num_images, first.class_names) == (second.num_images, second.class_names)
    if not same or not _equal(first.objects, second.objects):
        raise ValueError("detectors can be compared on the same images, classes and objects only")


def _equal(first: ObjectTable, second: ObjectTable) -> bool:
    return all(np.array_equal(getattr(first, each.name), getattr(second, each.name)) for each in fields(ObjectTable))


def _images_by_class(matches: Matches) -> Ints:
    """(K,) how many images have an object to find of each class."""
    objects = matches.objects
    pairs = np.unique(np.stack([objects.labels, objects.images])[:, ~objects.ignored], axis=1)
    return np.bincount(pairs[0], minlength=len(matches.class_names))


def _comparison(first: ResampledAp, second: ResampledAp, images: Ints, num_images: int) -> Comparison:
    metrics = {
        name: _difference(*rows, num_images)
        for name, rows in zip(RESAMPLED_METRICS, zip(first.mean_ap, second.mean_ap, strict=True), strict=True)
    }
    classes = [
        ClassDifference(int(label), _difference(first.class_ap[0, :, label], second.class_ap[0, :, label], int(images[label])))
        for label in np.flatnonzero(images)
    ]
    classes.sort(key=lambda each: -each.difference.value)
    return Comparison(metrics, tuple(classes), first.class_ap.shape[1] - 1)


def _difference(first: Floats, second: Floats, num_images: int) -> Difference:
    """(1 + R,) APs of each: the data set's own and those of resamples, in some of which there may be no objects."""
    differences = (second - first)[1:]
    differences = differences[~np.isnan(differences)]
    if np.isnan(first[0]) or not len(differences):
        low = high = better = float("nan")
    else:
        low, high = np.quantile(differences, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2]).tolist()
        better = float((differences > 0).mean())
    return Difference(float(first[0]), float(second[0]), low, high, better, num_images)
