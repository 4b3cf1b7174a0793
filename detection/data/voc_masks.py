"""Pascal VOC's instance masks: the pictures of SegmentationObject/, whose pixels are the numbers of objects.

The picture's pixel value i stands for object i of the image's XML, counted from 1, 0 for background, 255 for void: the border
of an object, five pixels wide, where nobody can tell. The numbers are those of a palette; its colours mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from backbones.errors import printable, shorten
from detection.data.images import read_indices
from detection.data.records import list_files
from detection.errors import DatasetError
from detection.masks import Masks
from detection.structures import Record

VOID = 255
MASK_FOLDER = "SegmentationObject"


@dataclass(frozen=True)
class MaskTruth:
    """The ground truth of an image beside its record's: G masks, and the pixels that count neither way."""

    masks: Masks  # G, as the record's objects; without a pixel where the data have none of an object
    void: Masks  # one


def read_voc_masks(file: Path, num_objects: int) -> MaskTruth:
    """The masks of an image's objects, in the order of its XML. Raises DatasetError naming the file.

    Refused: a picture in colours, a damaged one, one with the number of an object that the XML lacks.
    """
    numbers = torch.from_numpy(read_indices(file))
    unknown = numbers[(numbers > num_objects) & (numbers != VOID)]
    if len(unknown):
        raise DatasetError(f"{printable(str(file))} has object {int(unknown.max())}; its XML file has {num_objects}")
    # One bitmap at a time: all together may be many times the picture.
    masks = [Masks.from_bitmaps((numbers == number)[None]) for number in (*range(1, num_objects + 1), VOID)]
    rles = [mask.rles[0] for mask in masks]
    size_hw = masks[-1].size_hw
    return MaskTruth(Masks.of(rles[:-1], size_hw), Masks.of(rles[-1:], size_hw))


def read_mask_truth(folder: Path, records: Sequence[Record]) -> list[Record]:
    """Those of the records that have a picture in `folder`/SegmentationObject, with their objects' masks and void pixels.

    The records' objects must be all of the XML's, as `read_devkit` gives them without `class_names`.

    Raises DatasetError: no such folder, no picture of any record, or what `read_voc_masks` and the record's size refuse.
    """
    place = folder / MASK_FOLDER
    pictures = list_files(place)
    found = [(record, place / f"{record.image_id}.png") for record in records if f"{record.image_id}.png" in pictures]
    if not found:
        raise DatasetError(f"{printable(str(place))} has no picture of the {len(records)} images, as of {_first(records)}")
    return [_with_masks(record, picture) for record, picture in found]


def _with_masks(record: Record, picture: Path) -> Record:
    truth = read_voc_masks(picture, len(record.labels))
    if record.size_hw not in ((0, 0), truth.masks.size_hw):
        sizes = [f"{width}x{height}" for height, width in (truth.masks.size_hw, record.size_hw)]
        raise DatasetError(f"{printable(str(picture))} is {sizes[0]}, its image {sizes[1]}")
    return replace(record, size_hw=truth.masks.size_hw, masks=truth.masks, void=truth.void)


def _first(records: Sequence[Record]) -> str:
    return shorten(f"{records[0].image_id}.png") if records else "none"
