"""Regions of an image warped to the network's square input, as R-CNN does (Girshick et al. 2014, appendix A).

S is the side of the square. Boxes: xyxy pixels of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from backbones import Preprocessing
from detection.resize import resize_image

Colour = tuple[int, int, int]
"""Red, green, blue, 0..255."""


def mean_colour(preprocessing: Preprocessing) -> Colour:
    """The colour that is nearest to zero after normalisation: what is shown beyond an image's border."""
    mean = preprocessing.mean[::-1] if preprocessing.channel_order == "bgr" else preprocessing.mean
    red, green, blue = (min(max(round(value), 0), 255) for value in mean)
    return red, green, blue


def warp_region(image: np.ndarray, box: Sequence[float] | Tensor, size: int, padding: int, fill: Colour) -> np.ndarray:
    """(H, W, 3) uint8 -> (S, S, 3) uint8: the box fills the square but for `padding` pixels at each side, less than half of S.

    The padding shows what is around the box. What lies beyond the image's border is `fill`. The box, enlarged by the padding's
    share, is rounded to whole pixels, at least one per side; it may reach out of the image.
    """
    low_x, low_y, high_x, high_y = (float(value) for value in box)
    x1, x2 = _whole_pixels(low_x, high_x, size / (size - 2 * padding))
    y1, y2 = _whole_pixels(low_y, high_y, size / (size - 2 * padding))
    rows, columns = _inside(y1, y2, image.shape[0]), _inside(x1, x2, image.shape[1])
    top, bottom = _place(rows, y1, y2, size)
    left, right = _place(columns, x1, x2, size)
    warped = np.empty((size, size, 3), np.uint8)
    if (top, bottom, left, right) != (0, size, 0, size):
        warped[:] = np.array(fill, np.uint8)
    if top < bottom and left < right:
        part = image[rows[0] : rows[1], columns[0] : columns[1]]
        warped[top:bottom, left:right] = resize_image(part, (bottom - top, right - left))
    return warped


def _whole_pixels(low: float, high: float, enlarged: float) -> tuple[int, int]:
    """The side from `low` to `high`, enlarged about its middle, in whole pixels: the first, and the one after the last."""
    middle, half = (low + high) / 2, (high - low) / 2 * enlarged
    start, end = _rounded(middle - half), _rounded(middle + half)
    return (start, end) if start < end else (math.floor(middle), math.floor(middle) + 1)


def _inside(start: int, end: int, limit: int) -> tuple[int, int]:
    """The part of a range of pixels that an image of `limit` pixels has; an empty range where it has none."""
    return min(max(start, 0), limit), max(min(end, limit), 0)


def _place(inside: tuple[int, int], start: int, end: int, size: int) -> tuple[int, int]:
    """Where the pixels `inside` the image of those from `start` to `end` lie in the square, at least one pixel of it."""
    if inside[0] >= inside[1]:
        return 0, 0
    scale = size / (end - start)
    first = min(_rounded((inside[0] - start) * scale), size - 1)
    return first, max(_rounded((inside[1] - start) * scale), first + 1)


def _rounded(value: float) -> int:
    """The nearest whole number, halves up."""
    return math.floor(value + 0.5)
