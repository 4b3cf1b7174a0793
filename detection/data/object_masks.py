"""The masks of a data set's objects, as its readers find them. What is wrong with a mask is noted; its object keeps its box.

A mask is run lengths as COCO's text, as in `detection.masks`. G objects of one image of (height, width) pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from backbones.errors import printable
from detection.data.faults import Faults
from detection.data.records import AnnotatedObject, Box
from detection.errors import DatasetError
from detection.masks import Masks, rasterise
from detection.structures import Record

MIN_FIT = 0.5
"""Least IoU of an object's box with the smallest one around its mask. Of VOC 2012's hand-drawn ones 97 % have more."""

_BORDER = 1.0  # px by which polygons may reach out of the image without a note: people click there


def read_segmentation(value: Any, size_hw: tuple[int, int], where: str, faults: Faults) -> bytes | None:
    """COCO's `segmentation` of an object, in any of its forms; None where it has none, or one that is noted in `faults`."""
    if value is None or value == []:
        return None
    try:
        rle = rasterise(value, size_hw)
    except DatasetError as error:
        faults.note(f"{where}: {printable(str(error))}", "mask that cannot be read", "left out")
        return None
    size = f"a {size_hw[1]}x{size_hw[0]} image"
    if not Masks.of([rle], size_hw).areas[0]:
        beyond = "outside the image" if isinstance(value, list) and _beyond(value, size_hw) else "without a pixel"
        faults.note(f"{where} in {size}", f"mask {beyond}", "left out")
        return None
    if isinstance(value, list) and (distance := _beyond(value, size_hw)) > _BORDER:
        faults.note(f"{where} in {size}, by {distance:.4g} px", "mask reaching out of the image", "clipped")
    return rle["counts"]


def _beyond(polygons: list[list[float]], size_hw: tuple[int, int]) -> float:
    """How far polygons reach out of the image, in px; 0 where they do not."""
    across, down = (list(chain.from_iterable(part[first::2] for part in polygons)) for first in (0, 1))
    return max(-min(across), -min(down), max(across) - size_hw[1], max(down) - size_hw[0], 0.0)


def note_misfit(each: AnnotatedObject, size_hw: tuple[int, int], where: str, faults: Faults) -> None:
    """Note an object's box that is not the one around its mask, by MIN_FIT, and how far it is off; crowds may be coarse."""
    if each.mask is None or each.crowd:
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
    images = [record for record in records if record.masks is not None and bool(record.masks.areas.any())]
    if not images:
        if needed:
            raise DatasetError(
                f"{name}: model.mask is true, and no object of its {len(records)} images has a mask: name data with masks "
                "(COCO's `segmentation`, or SegmentationObject/ beside VOC's Annotations/), or set model.mask to false"
            )
        return f"{name}: no object has a mask: masks are not measured, boxes are"
    bare = len(records) - len(images)
    objects = sum(int((record.masks.areas == 0).sum()) for record in images if record.masks is not None)
    if not bare and not objects:
        return None
    return (
        f"{name}: {bare} of {len(records)} images have no masks, and {objects} objects of the others: of these only boxes count"
    )
