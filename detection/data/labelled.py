"""What the readers of folders have in common: images with objects by the names of their classes -> records.

A reader of a format gives `LabelledImage`s as its files say, without repairs; classes, frames and boxes that cannot be used are
dealt with here, by the same rules for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detection.config import BoxesIn, FolderSource
from detection.data.classes import ClassMap
from detection.data.faults import Faults
from detection.data.images import ImageHeader, read_header
from detection.data.object_masks import read_segmentation
from detection.data.orientation import Turned, turn_box, turn_masks
from detection.data.records import AnnotatedObject, Box, make_record, needs_no_repair, repair_box
from detection.errors import BadImageError, DatasetError
from detection.masks import Masks
from detection.polygons import unpack_polygons
from detection.structures import ImageId, Record


@dataclass(frozen=True)
class LabelledObject:
    """One object as a label file says."""

    class_name: str  # as in the data, before data.rename
    box: Box  # xyxy from 0, continuous; see `LabelledImage.relative`
    where: str  # for messages: "labels/a.txt, line 3"
    difficult: bool = False
    crowd: bool = False
    area: float | None = None  # px^2; None: the box's
    polygons: bytes | None = None  # its outline in the box's unit, as `pack_polygons` gives it; None: it has none


@dataclass(frozen=True)
class LabelledImage:
    """One image and its objects as a label file says."""

    image_id: ImageId  # unique in its source; the path in the source's folder with "/", unless the format has ids
    file: Path
    where: str  # the label file, for messages
    size_hw: tuple[int, int] | None = None  # as the label file says; None: it does not
    objects: Sequence[LabelledObject] = field(default_factory=tuple)
    relative: bool = False  # boxes are fractions 0..1 of the image's width and height, not pixels


ReadFolder = Callable[[FolderSource, Path, Faults], list[LabelledImage]]
"""A reader of a format: the source, its root (resolved) and where faults are noted -> its images, in a fixed order.

Raises DatasetError. What an object or an image lacks is noted in the faults, and the object left out; an image without objects
is one without.
"""


def to_records(
    images: Sequence[LabelledImage], classes: ClassMap, boxes_in: BoxesIn, faults: Faults, *, masks: bool = False
) -> list[Record]:
    """Labelled images -> records: classes mapped, boxes in the displayed frame, faulty ones repaired or dropped.

    `masks`: polygons become masks, by the rules for COCO's. Raises DatasetError, or collects it in `faults`.
    """
    records, turned = [], Turned()
    for image in images:
        with faults.guard():
            records.append(_to_record(image, classes, boxes_in, faults, turned, masks))
    turned.inform(faults)
    return records


def _to_record(
    image: LabelledImage, classes: ClassMap, boxes_in: BoxesIn, faults: Faults, turned: Turned, masks: bool
) -> Record:
    header = _read_header(image)
    is_stored = bool(image.objects) and turned.is_stored(boxes_in, image.size_hw, header, image.file)
    drawn_hw = header.stored_hw if is_stored else header.size_hw
    faults.image, objects = image.file, []
    for each in image.objects:
        with faults.guard():
            label = classes.label(each.class_name, each.where)
            faults.meet(each.class_name, left_out=label is None)
            if label is None:
                continue
            kept = _repair(_in_pixels(each.box, drawn_hw) if image.relative else each.box, drawn_hw, each.where, faults)
            if kept is not None:
                box = turn_box(kept, drawn_hw, header.orientation) if is_stored else kept
                mask = _read_mask(each, image.relative, drawn_hw, faults) if masks else None
                if mask is not None and is_stored:
                    (mask,) = turn_masks(Masks(drawn_hw, (mask,)), header.orientation).counts
                objects.append(AnnotatedObject(box, label, each.difficult, each.crowd, each.area, mask))
    return make_record(image.image_id, image.file, header.size_hw, objects)


def _read_header(image: LabelledImage) -> ImageHeader:
    """The image's header. Raises DatasetError: it cannot be read (BadImageError), or its boxes are those of another size."""
    try:
        header = read_header(image.file)
    except DatasetError as error:
        raise BadImageError(str(error)) from None
    if image.size_hw not in (None, header.size_hw, header.stored_hw) and image.objects and not image.relative:
        found, said = (f"{width}x{height}" for height, width in (header.size_hw, image.size_hw or header.size_hw))
        swapped = "; are width and height swapped?" if image.size_hw == header.size_hw[::-1] else ""
        raise DatasetError(f"image {image.file} is {found}, but {image.where} says {said}: its boxes cannot fit{swapped}")
    return header


def _repair(box: Box, size_hw: tuple[int, int], where: str, faults: Faults) -> Box | None:
    if needs_no_repair(box, size_hw):
        return box
    return repair_box(box, size_hw, f"{where}, box {' '.join(f'{value:g}' for value in box)}", faults)


def _read_mask(each: LabelledObject, relative: bool, size_hw: tuple[int, int], faults: Faults) -> bytes | None:
    if each.polygons is None:
        return None
    scale = np.array(size_hw[::-1] if relative else (1, 1), dtype=np.float64)
    polygons = [(part.reshape(-1, 2) * scale).reshape(-1).tolist() for part in unpack_polygons(each.polygons)]
    return read_segmentation(polygons, size_hw, each.where, faults)


def _in_pixels(box: Box, size_hw: tuple[int, int]) -> Box:
    height, width = size_hw
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height
