"""The polygons of masks, as annotation files have them: looked at, packed into few bytes, and rasterised by pycocotools.

A mask is one or more polygons whose insides are united. P corners each, x and y in turn, in continuous pixels of an image of
(height, width); they may reach out of it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as mask_api

from backbones.errors import shorten
from detection.errors import DatasetError

MAX_OUTLINE = 2**22
"""px, the outlines of a mask's polygons together; pycocotools takes some 80 bytes for each."""

_MAX_COORDINATE = 1e8  # px; pycocotools multiplies by five and keeps the product in 32 bits
_MAX_PACKED = 2**31 - 1  # hundredths of a pixel
_MARK = b"!"  # no character of COCO's text, which begins at "0"

Polygon = Sequence[float] | npt.NDArray[np.float64]
"""(2 P,) x and y of each corner in turn."""


def read_polygons(value: Sequence[Any]) -> Sequence[Sequence[float]]:
    """COCO's `segmentation` as it stands, a list of lists of numbers. Raises DatasetError for what pycocotools must not see."""
    if not value:
        raise DatasetError("a mask has no polygon: its list is empty")
    for number, part in enumerate(value, 1):
        _check_polygon(part, f"polygon {number} of {len(value)}")
    # A bound, which is cheaper, is enough for most.
    if sum(len(part) * (max(part) - min(part)) for part in value) > MAX_OUTLINE:
        outline = sum(map(_outline, value))
        if outline > MAX_OUTLINE:
            raise DatasetError(
                f"the outlines of a mask's polygons have {outline:.3g} px; at most {MAX_OUTLINE} can be rasterised"
            )
    return value


def polygon_bounds(polygons: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """The box around all of them, xyxy."""
    across, down = ([value for part in polygons for value in part[first::2]] for first in (0, 1))
    return min(across), min(down), max(across), max(down)


def rasterise_polygons(polygons: Sequence[Polygon], size_hw: tuple[int, int]) -> bytes:
    """Their pixels as run lengths, COCO's text."""
    rles = mask_api.frPyObjects(list(polygons), *size_hw)
    united: bytes = (mask_api.merge(rles) if len(rles) > 1 else rles[0])["counts"]
    return united


def pack_polygons(polygons: Sequence[Polygon]) -> bytes:
    """The numbers as bytes, which `is_packed` tells from run lengths: those with two decimals, as in COCO, take four each."""
    lengths, values = list(map(len, polygons)), np.array(list(chain.from_iterable(polygons)), dtype=np.float64)
    hundredths = np.rint(values * 100)
    small = bool(np.abs(hundredths).max() <= _MAX_PACKED and (hundredths / 100 == values).all())
    content = hundredths.astype("<i4") if small else values.astype("<f8")
    return _MARK + struct.pack(f"<?I{len(lengths)}I", small, len(lengths), *lengths) + content.tobytes()


def unpack_polygons(packed: bytes) -> list[npt.NDArray[np.float64]]:
    """What was packed, to the last bit."""
    small, count = struct.unpack_from("<?I", packed, 1)
    lengths = struct.unpack_from(f"<{count}I", packed, 6)
    content = packed[6 + 4 * count :]
    values = np.frombuffer(content, "<i4") / 100 if small else np.frombuffer(content, "<f8")
    return [values[end - length : end] for length, end in zip(lengths, accumulate(lengths), strict=True)]


def is_packed(mask: bytes) -> bool:
    """Whether these are packed polygons, not run lengths."""
    return mask[:1] == _MARK


def _check_polygon(part: Any, name: str) -> None:
    if not isinstance(part, list) or not {*map(type, part)} <= {int, float}:
        raise DatasetError(f"{name} of a mask must be a list of numbers, found {shorten(part)}")
    if len(part) < 6 or len(part) % 2:
        box = ", which pycocotools would take for a box" if len(part) == 4 else ""
        raise DatasetError(f"{name} of a mask must have x and y of at least 3 corners, found {len(part)} numbers{box}")
    if not _fits(part):
        bad = next(value for value in part if not abs(value) <= _MAX_COORDINATE)
        raise DatasetError(
            f"{name} of a mask must have finite coordinates up to {_MAX_COORDINATE:.0e} px, found {shorten(bad)}"
        )


def _fits(part: Sequence[float]) -> bool:
    """Whether all numbers are finite and small enough."""
    try:
        # NaN is neither the least nor the greatest, but the sum is NaN.
        return math.isfinite(sum(part)) and min(part) >= -_MAX_COORDINATE and max(part) <= _MAX_COORDINATE
    except OverflowError:  # a whole number that no float holds
        return False


def _outline(polygon: Sequence[float]) -> float:
    """The length of a closed polygon in px, where an edge is as long as its greater side."""
    points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
