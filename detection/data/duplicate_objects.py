"""Objects that are in an image twice: one box with one class or with two, or two boxes that are nearly one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from backbones.errors import printable
from detection.structures import Record

NEARLY_EQUAL = 0.95
"""IoU above which two boxes are taken for one that was drawn twice."""

_BLOCK = 256  # boxes that are compared with all others of their image at once

Duplication = Literal["same box and class", "same box, another class", "nearly the same box"]


class DuplicateObject(NamedTuple):
    """Two objects of an image, by their places in its record, the first of which comes before the second."""

    kind: Duplication
    first: int
    second: int


def find_duplicate_objects(record: Record) -> list[DuplicateObject]:
    """Each object that is there before, with the first such; crowds, which may hold others, do not count."""
    places = np.flatnonzero(~record.crowd.numpy())
    boxes, labels = record.boxes.numpy()[places].astype(np.float64), record.labels.numpy()[places]
    found = []
    for start in range(0, len(places), _BLOCK):
        overlaps = np.tril(_pairwise_iou(boxes[start : start + _BLOCK], boxes), start - 1)
        for row, column in _first_of_each(overlaps > NEARLY_EQUAL):
            second = start + row
            kind = _kind(bool((boxes[second] == boxes[column]).all()), bool(labels[second] == labels[column]))
            found.append(DuplicateObject(kind, int(places[column]), int(places[second])))
    return found


def _kind(same_box: bool, same_class: bool) -> Duplication:
    if not same_box:
        return "nearly the same box"
    return "same box and class" if same_class else "same box, another class"


def _first_of_each(overlapping: np.ndarray) -> list[tuple[int, int]]:
    """The first True of each row that has one: (row, column)."""
    return [(int(row), int(overlapping[row].argmax())) for row in np.flatnonzero(overlapping.any(axis=1))]


def _pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, 4) and (M, 4) xyxy -> (N, M)."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (bottom_right - top_left).clip(0).prod(axis=2)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (first, second)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9))


def describe_duplicate_objects(records: Sequence[Record]) -> list[str]:
    """How many objects of how many images are there twice, a line a kind; equal ones are `describe_equal_objects`'s."""
    files: dict[Duplication, list[Path]] = {"same box, another class": [], "nearly the same box": []}
    for record in records:
        for each in find_duplicate_objects(record):
            files.get(each.kind, []).append(record.file)
    return [
        f"{len(found)} objects of {len(set(found))} images are there twice, {kind}, e.g. in {printable(str(found[0]))}"
        for kind, found in files.items()
        if found
    ]


def describe_equal_objects(records: Sequence[Record]) -> str | None:
    """How many objects have exactly the box and class of another of their image, and where the first is; None without any."""
    extra = {record.file: count for record in records if (count := _num_equal(record))}
    if not extra:
        return None
    first = f"the first: {extra[(file := next(iter(extra)))]} in {printable(str(file))}"
    return f"{sum(extra.values())} objects in {len(extra)} images have the very box and class of another; {first}"


def _num_equal(record: Record) -> int:
    if len(record.labels) < 2:
        return 0
    objects = zip(map(tuple, record.boxes.tolist()), record.labels.tolist(), strict=True)
    return len(record.labels) - len(set(objects))
