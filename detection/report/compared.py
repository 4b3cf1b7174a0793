"""Several detectors on the same images: what was found out about them together, for the page, the command and programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from backbones.errors import shorten
from detection.errors import DatasetError
from detection.evaluation.comparison import Comparison, compare_all
from detection.evaluation.matches import Matches, match
from detection.report.reported import ReportedDetector
from detection.structures import Record


@dataclass(frozen=True)
class Compared:
    """Detectors on the same images. The first is the reference."""

    reported: tuple[ReportedDetector, ...]
    comparisons: tuple[Comparison, ...]  # of each but the first with the first
    matches: tuple[Matches, ...] = field(repr=False)  # of each, with the records of the first

    @property
    def names(self) -> tuple[str, ...]:
        """What each is called for short: A, B, ..., Z, A2, ..."""
        return tuple(map(detector_name, range(len(self.reported))))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K class names in the order of the labels."""
        return self.matches[0].class_names

    @property
    def num_images(self) -> int:
        """All of the data set's."""
        return self.matches[0].num_images

    def as_json(self) -> dict[str, Any]:
        """Plain data: the reference, and each other detector's differences from it, of the metrics and of the classes."""
        pairs = zip(self.reported[1:], self.comparisons, strict=True)
        return {
            "reference": self.reported[0].label,
            "images": self.num_images,
            "comparisons": [self._comparison_json(each.label, comparison) for each, comparison in pairs],
        }

    def _comparison_json(self, label: str, comparison: Comparison) -> dict[str, Any]:
        classes = [{"class": self.class_names[each.label], **each.difference.as_json()} for each in comparison.classes]
        metrics = {key: each.as_json() for key, each in comparison.metrics.items()}
        return {"detector": label, "resamples": comparison.resamples, "metrics": metrics, "classes": classes}


def detector_name(number: int) -> str:
    """A, B, ..., Z, A2, B2, ..."""
    return chr(ord("A") + number % 26) + (str(number // 26 + 1) if number >= 26 else "")


def compare_reported(reported: Sequence[ReportedDetector], *, resamples: int = 1000, seed: int = 0) -> Compared:
    """Compare each detector with the first. Images that one has no detections of count as found empty by it.

    Raises DatasetError, naming both, where two have not the same classes, images and objects.
    """
    same = on_one_dataset(reported)
    matches = [match(each.dataset.records, each.detections, each.class_names) for each in same]
    return compare_matched(same, matches, resamples=resamples, seed=seed)


def compare_matched(
    reported: Sequence[ReportedDetector], matches: Sequence[Matches], *, resamples: int = 1000, seed: int = 0
) -> Compared:
    """`compare_reported` of what `on_one_dataset` returned, matched already."""
    return Compared(tuple(reported), tuple(compare_all(matches, resamples=resamples, seed=seed)), tuple(matches))


def on_one_dataset(reported: Sequence[ReportedDetector]) -> list[ReportedDetector]:
    """The detectors with the records of the first, in its order. Raises DatasetError where their data are not the same."""
    for other in reported[1:]:
        require_same_truth(reported[0], other)
    return [replace(each, dataset=reported[0].dataset) for each in reported]


def require_same_truth(first: ReportedDetector, other: ReportedDetector) -> None:
    """Raise DatasetError, naming both and what differs, unless they have the same classes, images and objects."""
    if first.dataset is other.dataset:
        return
    fault = _different_classes(first, other) or _different_images(first, other) or _different_objects(first, other)
    if fault is not None:
        both = f"{shorten(first.label)} and {shorten(other.label)}"
        raise DatasetError(f"{both} cannot be compared: {fault}; have both measured on the same data")


def _different_classes(first: ReportedDetector, other: ReportedDetector) -> str | None:
    if first.class_names == other.class_names:
        return None
    pairs = zip(first.class_names, other.class_names, strict=False)
    numbers = (number for number, (one, another) in enumerate(pairs) if one != another)
    number = next(numbers, min(len(first.class_names), len(other.class_names)))
    one, another = (_name(each.class_names, number) for each in (first, other))
    return f"their classes differ, the first at number {number}: {one} and {another}"


def _name(names: Sequence[str], number: int) -> str:
    return shorten(names[number]) if number < len(names) else "none"


def _different_images(first: ReportedDetector, other: ReportedDetector) -> str | None:
    one, another = ({record.image_id for record in each.dataset.records} for each in (first, other))
    if one == another:
        return None
    holder = first if one - another else other
    example = min(one - another or another - one, key=str)
    return f"image {shorten(example)} is only in the data of {shorten(holder.label)}"


def _different_objects(first: ReportedDetector, other: ReportedDetector) -> str | None:
    records = {record.image_id: record for record in other.dataset.records}
    for record in first.dataset.records:
        if not all(map(torch.equal, _objects(record), _objects(records[record.image_id]))):
            return f"the objects of image {shorten(record.image_id)} are not the same"
    return None


def _objects(record: Record) -> tuple[Tensor, Tensor, Tensor]:
    return record.boxes, record.labels, record.trainable
