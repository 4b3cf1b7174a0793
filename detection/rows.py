"""One box as the formats of files write it. Boxes: xyxy pixels of the image."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np


def coco_box(box: Sequence[float]) -> list[float]:
    """COCO's (x, y, width, height), rounded to 0.001 px."""
    x1, y1, x2, y2 = box
    return [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]


def yolo_row(label: int, box: Sequence[float], size_hw: tuple[int, int], score: float | None = None) -> str:
    """A line of a YOLO label file, "label cx cy width height", as fractions of the image's size; then the score, if given."""
    (x1, y1, x2, y2), (height, width) = box, size_hw
    values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    return " ".join([str(label), *(f"{value:.6f}" for value in values), *([] if score is None else [f"{score:.4f}"])])


def voc_box(box: Sequence[float]) -> list[str]:
    """VOC's (xmin, ymin, xmax, ymax), which count from 1 and include the last pixel: the shortest texts that give the float32
    values back, "13" or "13.3"."""
    x1, y1, x2, y2 = (Decimal(str(np.float32(value))) for value in box)
    return [_plain(value) for value in (x1 + 1, y1 + 1, x2, y2)]


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
