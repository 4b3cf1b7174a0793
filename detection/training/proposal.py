"""Settings that fit a data set and a machine: sizes, steps, rates. Pure functions of a few numbers; lengths in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from detection.structures import Record

LEAST_OBJECT = 32
"""px that a small object should have in the network's input: two cells of C4's feature map."""
TILED_OBJECT = 20
ASPECT = 5 / 3  # of the longer to the shorter side, at most: the paper's 1000 to 600
SIDES = {"cpu": (400, 600), "cuda": (600, 800)}
"""Shortest and longest shorter side of the input, where time or memory bound it."""
IMAGES_SEEN = {"cpu": (1_500, 8_000), "cuda": (4_000, 40_000)}
"""Images that a run sees, at least and at most; between these it is EPOCHS times the number of images."""
EPOCHS = 40
BATCH = {"cpu": 2, "cuda": 8}
RATE_PER_IMAGE = 0.02 / 16  # of Faster R-CNN's usual recipe, 0.02 for 16 images
SIDED = frozenset({"left", "right"})


@dataclass(frozen=True)
class DataSummary:
    """What of a data set decides about settings."""

    num_images: int
    image_side: float  # px, median of the images' shorter sides
    small_object: float  # 10th percentile of the square roots of the boxes' areas, as a share of their image's shorter side
    most_objects: int  # of an image


def summarise(records: Sequence[Record]) -> DataSummary:
    """The summary of at least one record. Without any object `small_object` is 1."""
    sides = [min(record.size_hw) for record in records]
    relative = [_box_sides(record) / side for record, side in zip(records, sides, strict=True) if len(record.boxes)]
    small = float(np.percentile(torch.cat(relative).numpy(), 10)) if relative else 1.0
    return DataSummary(len(records), float(np.median(sides)), small, max(len(record.boxes) for record in records))


def _box_sides(record: Record) -> torch.Tensor:
    return (record.boxes[:, 2:] - record.boxes[:, :2]).prod(dim=1).sqrt()


def input_side(data: DataSummary, device: str) -> int:
    """The shorter side of the network's input: small objects get `LEAST_OBJECT` px if the device allows it."""
    low, high = SIDES[device]
    wanted = LEAST_OBJECT / max(data.small_object, 1e-6)
    return int(min(max(_up_to(wanted, 32), low), high))


def tile_side(data: DataSummary, side: int) -> int | None:
    """The side of a tile of an image, in its own px, that shows small objects with `TILED_OBJECT` px; None where whole images
    do, or tiles would be nearly as large."""
    if data.small_object * side >= TILED_OBJECT:
        return None
    tile = data.small_object * data.image_side * side / TILED_OBJECT
    return max(_up_to(tile, 32), 64) if tile < 0.75 * data.image_side else None


def training_sides(side: int) -> list[int]:
    """Shorter sides to draw from in training: from four fifths of that of the test to itself, in steps of 32."""
    return list(range(_up_to(0.8 * side, 32), side, 32)) + [side]


def longer_side(side: int) -> int:
    """The bound of the longer side that goes with a shorter side."""
    return round(side * ASPECT)


def steps_of(num_images: int, batch_size: int, device: str) -> int:
    """The steps of a run, rounded up to two digits."""
    low, high = IMAGES_SEEN[device]
    steps = min(max(EPOCHS * num_images, low), high) / batch_size
    unit = 10 ** max(int(math.log10(steps)) - 1, 0)
    return _up_to(steps, unit)


def detections_of(most_objects: int) -> int:
    """`test.max_detections` for images with so many objects: 100, or half as many again in hundreds."""
    return max(100, _up_to(1.5 * most_objects, 100))


def mirrors(class_names: Sequence[str]) -> bool:
    """Whether a mirrored image shows the same classes: not where their names tell left from right."""
    words = {word for name in class_names for word in name.lower().replace("-", " ").replace("_", " ").split()}
    return not words & SIDED


def _up_to(value: float, unit: int) -> int:
    """The least multiple of `unit` that is not below the value."""
    return math.ceil(value / unit) * unit
