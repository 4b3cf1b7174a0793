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

Doubling = Literal["same box and class", "same box, another class", "nearly the same box"]


class DoubledObject(NamedTuple):
    """Two objects of an image, by their places in its record, the first of which comes before the second."""

    kind: Doubling
    first: int
    second: int


def find_doubled(record: Record) -> list[DoubledObject]:
    """Each object that an object before it doubles, with the first such; crowds, which may hold others, do not count."""
    places = np.flatnonzero(~record.crowd.numpy())
    boxes, labels = record.boxes.numpy()[places].astype(np.float64), record.labels.numpy()[places]
    found = []
    for start in range(0, len(places), _BLOCK):
        overlaps = np.tril(_pairwise_iou(boxes[start : start + _BLOCK], boxes), start - 1)
        for row, column in _first_of_each(overlaps > NEARLY_EQUAL):
            second = start + row
            equal = bool((boxes[second] == boxes[column]).all())
            alike = "same box and class" if labels[second] == labels[column] else "same box, another class"
            kind: Doubling = alike if equal else "nearly the same box"  # type: ignore[assignment]
            found.append(DoubledObject(kind, int(places[column]), int(places[second])))
    return found


def _first_of_each(doubled: np.ndarray) -> list[tuple[int, int]]:
    """The first True of each row that has one: (row, column)."""
    return [(int(row), int(doubled[row].argmax())) for row in np.flatnonzero(doubled.any(axis=1))]


def _pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, 4) and (M, 4) xyxy -> (N, M)."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (bottom_right - top_left).clip(0).prod(axis=2)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (first, second)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9))


def describe_doubled(records: Sequence[Record]) -> list[str]:
    """How many objects of how many images are doubled, a line a kind; equal boxes of one class are told elsewhere."""
    files: dict[Doubling, list[Path]] = {"same box, another class": [], "nearly the same box": []}
    for record in records:
        for each in find_doubled(record):
            files.get(each.kind, []).append(record.file)
    return [
        f"{len(found)} objects of {len(set(found))} images are there twice, {kind}, e.g. in {printable(str(found[0]))}"
        for kind, found in files.items()
        if found
    ]
