"""From one image's annotated objects to a Record: what the VOC and the COCO reader share. Boxes: xyxy pixels."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detection.data.faults import Faults
from detection.errors import DatasetError
from detection.masks import Masks
from detection.structures import ImageId, Record

Box = tuple[float, float, float, float]

# px; COCO rounds to 0.01 px, so a box may pass the image's border by as little. That is clipped without a note.
_ROUNDING = 0.05
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MAX_DIGITS = 400  # of a number as text: no float is written with more
MIN_SIDE = 0.01  # px; a thinner box comes from rounding, and may have no width left in float32


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of an annotation file."""

    box: Box
    label: int
    difficult: bool = False
    crowd: bool = False
    area: float | None = None  # px^2; None: the box's area
    mask: bytes | None = None  # as `Masks` of the image's size keeps it; None: it has none


def make_record(
    image_id: ImageId,
    file: Path,
    size_hw: tuple[int, int],
    objects: Sequence[AnnotatedObject],
    known: torch.Tensor | None = None,
    void: Masks | None = None,
) -> Record:
    """The record of one image; its tensors have length 0 where it has no objects. `known` and `void` as `Record`."""
    areas = [(item.box[2] - item.box[0]) * (item.box[3] - item.box[1]) if item.area is None else item.area for item in objects]
    return Record(
        image_id,
        file,
        size_hw,
        boxes=torch.tensor([item.box for item in objects], dtype=torch.float32, device="cpu").reshape(-1, 4),
        labels=torch.tensor([item.label for item in objects], dtype=torch.long, device="cpu"),
        difficult=torch.tensor([item.difficult for item in objects], dtype=torch.bool, device="cpu"),
        crowd=torch.tensor([item.crowd for item in objects], dtype=torch.bool, device="cpu"),
        areas=torch.tensor(areas, dtype=torch.float32, device="cpu"),
        known=known,
        masks=_masks(objects, size_hw),
        void=void,
    )


def _masks(objects: Sequence[AnnotatedObject], size_hw: tuple[int, int]) -> Masks | None:
    if all(item.mask is None for item in objects):
        return None
    empty = Masks.empty(size_hw)
    return Masks(size_hw, tuple(empty if item.mask is None else item.mask for item in objects))


def needs_no_repair(box: Box, size_hw: tuple[int, int]) -> bool:
    """Whether `repair_box` would return the box as it is, as nearly all are: no message has to be made for them."""
    height, width = size_hw
    x1, y1, x2, y2 = box
    return x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height and x2 - x1 >= MIN_SIDE and y2 - y1 >= MIN_SIDE


def repair_box(box: Box, size_hw: tuple[int, int], where: str, faults: Faults) -> Box | None:
    """The part of a box inside the image, or None where nothing is left. What is repaired is noted in `faults` with `where`."""
    height, width = size_hw
    clipped = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))
    image = f"{where} in a {width}x{height} image"
    if _shorter_side(box) < MIN_SIDE:
        faults.note(where, "inverted box" if _shorter_side(box) <= -MIN_SIDE else "box without area", "dropped", box)
        return None
    if _shorter_side(clipped) < MIN_SIDE:
        faults.note(image, "box outside the image", "dropped", box)
        return None
    if max(abs(a - b) for a, b in zip(box, clipped, strict=True)) > _ROUNDING:
        faults.note(image, "box reaching out of the image", "clipped", box)
    return clipped


def finite_number(value: Any) -> float | None:
    """A JSON value that is a number, as float; None for text, true and false, NaN, and what no float holds (10^400)."""
    if type(value) is float:  # most of them, and the first thing asked of millions
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def parse_number(text: str | None) -> float | None:
    """A text that is a finite decimal number, such as " 12.5 " or "-1e3"; else None.

    Python's own float() also takes "1_0", "nan", "infinity" and digits of other scripts, which no other reader does.
    """
    stripped = (text or "").strip()
    return finite_number(float(stripped)) if len(stripped) <= _MAX_DIGITS and _DECIMAL.fullmatch(stripped) else None


def _shorter_side(box: Box) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def describe_relative(records: Sequence[Record]) -> str | None:
    """That all boxes lie within the first pixel, as those do that are fractions of the image's size; else None."""
    counts = [len(record.boxes) for record in records if len(record.boxes)]
    if not counts or any(len(record.boxes) and float(record.boxes.max()) > 1 for record in records):
        return None
    return f"all {sum(counts)} boxes lie within the first pixel of their images: are they fractions? Boxes are in pixels"


def describe_crowded(records: Sequence[Record], max_detections: int) -> str | None:
    """How many images have more objects to find than detections are kept of one, and how many cannot be found; else None."""
    counts = [int(record.trainable.sum()) for record in records]
    crowded = [count for count in counts if count > max_detections]
    if not crowded:
        return None
    lost = sum(crowded) - len(crowded) * max_detections
    return (
        f"{len(crowded)} images have more objects than test.max_detections ({max_detections}), up to {max(crowded)}: "
        f"{lost} of {sum(counts)} objects cannot be found"
    )


def list_files(folder: Path) -> set[str]:
    """Names of the files in a folder, in one call (asking for each file is slow over a network). Raises DatasetError."""
    try:
        return {entry.name for entry in os.scandir(folder)}
    except OSError as error:
        raise DatasetError(f"cannot list the folder {folder}: {error.strerror}") from None


def count_classes(records: Sequence[Record], class_names: Sequence[str]) -> dict[str, int]:
    """Number of objects of each class."""
    labels = torch.cat([torch.zeros(0, dtype=torch.long, device="cpu"), *(record.labels for record in records)])
    return dict(zip(class_names, torch.bincount(labels, minlength=len(class_names)).tolist(), strict=True))
