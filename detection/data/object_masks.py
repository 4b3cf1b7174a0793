"""The masks of a data set's objects, as its readers find them. What is wrong with a mask is noted; its object keeps its box.

A mask is kept as in `detection.masks`: run lengths as COCO's text, or polygons, which are rasterised where they are used and
not while annotations are read, unless all faults are looked for. G objects of one image of (height, width) pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backbones.errors import printable
from detection.data.faults import Faults
from detection.data.records import AnnotatedObject, Box
from detection.errors import DatasetError
from detection.masks import Masks, compact
from detection.polygons import is_packed, polygon_bounds
from detection.structures import Record

MIN_FIT = 0.5
"""Least IoU of an object's box with the smallest one around its mask. Of VOC 2012's hand-drawn ones 97 % have more."""

_BORDER = 1.0  # px by which polygons may reach out of the image without a note: people click there


def read_segmentation(value: Any, size_hw: tuple[int, int], where: str, faults: Faults) -> bytes | None:
    """COCO's `segmentation` of an object, in any of its forms; None where it has none, or one that is noted in `faults`.

    That polygons have no pixel is found where `faults.thorough` has them rasterised; without it, if they are beside the image.
    """
    if value is None or value == []:
        return None
    try:
        masks = Masks(size_hw, (compact(value, size_hw),))
    except DatasetError as error:
        faults.note(f"{where}: {printable(str(error))}", "mask that cannot be read", "left out")
        return None
    size = f"a {size_hw[1]}x{size_hw[0]} image"
    inside, distance = _reach(value, size_hw)
    masks = masks.rasterised() if faults.thorough else masks
    (mask,) = masks.counts
    if not inside or not (is_packed(mask) or masks.areas[0]):
        faults.note(f"{where} in {size}", f"mask {'outside the image' if distance else 'without a pixel'}", "left out")
        return None
    if distance > _BORDER:
        faults.note(f"{where} in {size}, by {distance:.4g} px", "mask reaching out of the image", "clipped")
    return mask


def _reach(value: Any, size_hw: tuple[int, int]) -> tuple[bool, float]:
    """Whether the box around polygons meets the image, and how far it reaches out of it in px; run lengths never do."""
    if not isinstance(value, list):
        return True, 0.0
    (height, width), (x1, y1, x2, y2) = size_hw, polygon_bounds(value)
    meets = x2 > -_BORDER and y2 > -_BORDER and x1 < width + _BORDER and y1 < height + _BORDER
    return meets, max(-x1, -y1, x2 - width, y2 - height, 0.0)


def note_misfit(each: AnnotatedObject, size_hw: tuple[int, int], where: str, faults: Faults) -> None:
    """Note an object's box that is not the one around its mask, by MIN_FIT, and how far it is off; crowds may be coarse.

    Of polygons only where all faults are looked for."""
    if each.mask is None or each.crowd or is_packed(each.mask):
        return
    x1, y1, x2, y2 = Masks(size_hw, (each.mask,)).boxes()[0].tolist()
    if x2 > x1 and _iou(each.box, (x1, y1, x2, y2)) < MIN_FIT:
        off = max(abs(a - b) for a, b in zip(each.box, (x1, y1, x2, y2), strict=True))
        told = f"{where}: box {_text(each.box)}, that of its mask is {_text((x1, y1, x2, y2))}: up to {off:.4g} px apart"
        faults.note(told, "box that does not fit its mask", "both kept", each.box)


def _iou(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _text(box: Box) -> str:
    return " ".join(f"{value:.6g}" for value in box)


def describe_masks(name: str, records: Sequence[Record], *, needed: bool) -> str | None:
    """How many images and objects of the split `name` have no mask, for a detector of masks; None where all have theirs.

    Raises DatasetError where no object has one and they are `needed`, to learn from.
    """
    images = [record for record in records if record.masks is not None and bool(record.masks.known.any())]
    if not images:
        if needed:
            raise DatasetError(
                f"{name}: model.mask is true, and no object of its {len(records)} images has a mask: name data with masks "
                "(COCO's `segmentation`, SegmentationObject/ beside VOC's Annotations/, polygons of labelme or YOLO), or set "
                "model.mask to false"
            )
        return f"{name}: no object has a mask: masks are not measured, boxes are"
    bare = len(records) - len(images)
    objects = sum(int((~record.masks.known).sum()) for record in images if record.masks is not None)
    if not bare and not objects:
        return None
    return (
        f"{name}: {bare} of {len(records)} images have no masks, and {objects} objects of the others: of these only boxes count"
    )
