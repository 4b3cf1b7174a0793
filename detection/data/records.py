"""From one image's annotated objects to a Record: what both readers share. Boxes: xyxy pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from detection.data.faults import Faults
from detection.errors import DatasetError
from detection.structures import ImageId, Record

Box = tuple[float, float, float, float]

# COCO rounds to 0.01 px, so that a box at the border may pass it by a hair. That is clipped without a word.
_ROUNDING = 0.05
LEAST_SIDE = 0.01  # px; a thinner box is rounding's, and may have no width left in float32


@dataclass(frozen=True)
class AnnotatedObject:
    """One object as an annotation file tells it."""

    box: Box
    label: int
    difficult: bool = False
    crowd: bool = False
    area: float | None = None  # px^2; None: the box's


def make_record(image_id: ImageId, file: Path, size_hw: tuple[int, int], objects: Sequence[AnnotatedObject]) -> Record:
    """Objects of one image as tensors; none gives tensors of length 0."""
    areas = [(item.box[2] - item.box[0]) * (item.box[3] - item.box[1]) if item.area is None else item.area for item in objects]
    return Record(
        image_id,
        file,
        size_hw,
        boxes=torch.tensor([item.box for item in objects], dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([item.label for item in objects], dtype=torch.long),
        difficult=torch.tensor([item.difficult for item in objects], dtype=torch.bool),
        crowd=torch.tensor([item.crowd for item in objects], dtype=torch.bool),
        areas=torch.tensor(areas, dtype=torch.float32),
    )


def repair_box(box: Box, size_hw: tuple[int, int], where: str, faults: Faults) -> Box | None:
    """The part of a box inside the image, or None where nothing is left. A fault is noted with `where`."""
    height, width = size_hw
    clipped = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))
    image = f"{where} in a {width}x{height} image"
    if _least_side(box) < LEAST_SIDE:
        faults.note(where, "inverted box" if _least_side(box) <= -LEAST_SIDE else "box without area", "dropped")
        return None
    if _least_side(clipped) < LEAST_SIDE:
        faults.note(image, "box outside the image", "dropped")
        return None
    if max(abs(a - b) for a, b in zip(box, clipped, strict=True)) > _ROUNDING:
        faults.note(image, "box reaching out of the image", "clipped")
    return clipped


def _least_side(box: Box) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def list_files(folder: Path) -> set[str]:
    """Names of the files in a folder, in one call (a look at each file is slow over a network). Raises DatasetError."""
    try:
        return {entry.name for entry in os.scandir(folder)}
    except OSError as error:
        raise DatasetError(f"cannot list the folder {folder}: {error.strerror}") from None
