"""The polygons of masks, as annotation files have them: looked at, packed into few bytes, and rasterised by pycocotools.

A mask is one or more polygons whose insides are united. P corners each, x and y in turn, in continuous pixels of an image of
(height, width); they may reach out of it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
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

Corners = npt.NDArray[np.float64]
"""(2 P,) of one polygon."""


def read_polygons(value: Sequence[Any]) -> list[Corners]:
    """COCO's `segmentation` as a list of lists of numbers. Raises DatasetError for what pycocotools must not see."""
    if not value:
        raise DatasetError("a mask has no polygon: its list is empty")
    polygons = [_polygon(part, f"polygon {number} of {len(value)}") for number, part in enumerate(value, 1)]
    if sum(map(_longest_outline, polygons)) > MAX_OUTLINE and (outline := sum(map(_outline, polygons))) > MAX_OUTLINE:
        raise DatasetError(f"the outlines of a mask's polygons have {outline:.3g} px; at most {MAX_OUTLINE} can be rasterised")
    return polygons


def polygon_bounds(polygons: Sequence[Corners]) -> tuple[float, float, float, float]:
    """The box around all of them, xyxy."""
    points = np.concatenate(polygons).reshape(-1, 2)
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x1, y1, x2, y2


def rasterise_polygons(polygons: Sequence[Corners], size_hw: tuple[int, int]) -> bytes:
    """Their pixels as run lengths, COCO's text."""
    rles = mask_api.frPyObjects(list(polygons), *size_hw)
    united: bytes = (mask_api.merge(rles) if len(rles) > 1 else rles[0])["counts"]
    return united


def pack_polygons(polygons: Sequence[Corners]) -> bytes:
    """The numbers as bytes, which `is_packed` tells from run lengths: those with two decimals, as in COCO, take four each."""
    lengths, values = list(map(len, polygons)), np.concatenate(polygons)
    hundredths = np.rint(values * 100)
    small = bool((np.abs(hundredths) <= _MAX_PACKED).all() and (hundredths / 100 == values).all())
    content = hundredths.astype("<i4") if small else values.astype("<f8")
    return _MARK + struct.pack(f"<?I{len(lengths)}I", small, len(lengths), *lengths) + content.tobytes()


def unpack_polygons(packed: bytes) -> list[Corners]:
    """What was packed, to the last bit."""
    small, count = struct.unpack_from("<?I", packed, 1)
    lengths = struct.unpack_from(f"<{count}I", packed, 6)
    content = packed[6 + 4 * count :]
    values = np.frombuffer(content, "<i4") / 100 if small else np.frombuffer(content, "<f8")
    ends = np.cumsum(lengths)
    return [values[end - length : end] for length, end in zip(lengths, ends, strict=True)]


def is_packed(mask: bytes) -> bool:
    """Whether these are packed polygons, not run lengths."""
    return mask[:1] == _MARK


def _polygon(part: Any, name: str) -> Corners:
    """The corners of one polygon, x and y in turn."""
    if not isinstance(part, list) or not {*map(type, part)} <= {int, float}:
        raise DatasetError(f"{name} of a mask must be a list of numbers, found {shorten(part)}")
    if len(part) < 6 or len(part) % 2:
        box = ", which pycocotools would take for a box" if len(part) == 4 else ""
        raise DatasetError(f"{name} of a mask must have x and y of at least 3 corners, found {len(part)} numbers{box}")
    try:
        corners = np.array(part, dtype=np.float64)
    except OverflowError:  # a whole number that no float holds
        corners = np.array([np.inf])
    # Not the other way round: NaN is not greater either.
    if not np.abs(corners).max() <= _MAX_COORDINATE:
        bad = next(value for value in part if not abs(value) <= _MAX_COORDINATE)
        raise DatasetError(
            f"{name} of a mask must have finite coordinates up to {_MAX_COORDINATE:.0e} px, found {shorten(bad)}"
        )
    return corners


def _outline(corners: Corners) -> float:
    """The length of a closed polygon in px, where an edge is as long as its greater side."""
    points = corners.reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


def _longest_outline(corners: Corners) -> float:
    """A bound of it that is quicker to have."""
    return len(corners) * float(corners.max() - corners.min())
