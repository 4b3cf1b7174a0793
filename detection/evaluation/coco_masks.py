"""The masks of COCO's annotation and result files, which hold them in three forms, as run lengths of their images' sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pycocotools import mask as mask_api

from backbones.errors import shorten
from detection.data.coco_format import CocoAnnotation, CocoFile, CocoId, describe, image_name, read_id
from detection.data.faults import Faults
from detection.errors import DatasetError
from detection.masks import Rle, rasterise

SizesHw = dict[CocoId, tuple[int, int]]


def image_sizes(images: Sequence[Mapping[str, Any]], where: str = "the annotations") -> SizesHw:
    """Image id -> (height, width), as the annotation file says; its images need not be there.

    Raises DatasetError, which names the file as `where`."""
    sizes = {}
    for image in images:
        height, width = read_id(image.get("height")), read_id(image.get("width"))
        if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
            found = f"{shorten(image.get('height'))} and {shorten(image.get('width'))}"
            raise DatasetError(
                f"{where}: image {shorten(image['id'])} must have its 'height' and 'width', whole numbers from 1 on, to "
                f"compare masks in it; found {found}"
            )
        sizes[image["id"]] = height, width
    return sizes


def with_masks(content: CocoFile, faults: Faults) -> tuple[CocoFile, list[Rle]]:
    """The annotations that have a usable mask, and their masks. A mask that cannot be used is noted in `faults`.

    The box of an annotation becomes its mask's, and so does the area, where it has none: the annotated one decides which size
    an object has. Raises DatasetError for an annotation without 'segmentation', or an image without a size.
    """
    sizes = image_sizes([image.entry | {"id": image.id} for image in content.images], str(content.path))
    names = {image.id: image_name(image) for image in content.images}
    annotations, rles = [], []
    for each in content.annotations:
        rle = _annotated_mask(each, sizes[each.image_id], names[each.image_id], content, faults)
        if rle is not None:
            own_area = each.entry.get("area")
            area = float(mask_api.area(rle)) if own_area is None else own_area
            entry = {"bbox": mask_api.toBbox(rle).tolist(), "area": area, "iscrowd": each.entry.get("iscrowd")}
            annotations.append(each._replace(entry=entry))
            rles.append(rle)
    return replace(content, annotations=annotations), rles


def _annotated_mask(
    annotation: CocoAnnotation, size_hw: tuple[int, int], image: str, content: CocoFile, faults: Faults
) -> Rle | None:
    if annotation.entry.get("segmentation") is None:
        where = describe(annotation, image, content.path)
        raise DatasetError(f"{where} has no 'segmentation': its file can be used to compare boxes, not masks")
    try:
        return rasterise(annotation.entry["segmentation"], size_hw)
    except DatasetError as error:
        faults.note(f"{describe(annotation, image, content.path)}: {error}", "mask that cannot be used", "dropped")
        return None


def result_mask(segmentation: Any, size_hw: tuple[int, int], where: str) -> Rle:
    """The mask of a result. Raises DatasetError that begins with `where`."""
    try:
        return rasterise(segmentation, size_hw)
    except DatasetError as error:
        raise DatasetError(f"{where}: 'segmentation' cannot be used: {error}") from None
