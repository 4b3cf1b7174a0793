"""Boxes of photographs that EXIF turns: from the frame of the stored pixels to that of the displayed ones.

Programs that ignore EXIF draw boxes in the picture as it is stored, and give its size so. Everything else here means the
displayed picture. Orientations are EXIF's, 1..8; sizes are (height, width), boxes xyxy pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from backbones.errors import printable
from detection.config import BoxesIn
from detection.data.faults import Faults
from detection.data.images import ImageHeader, read_header
from detection.data.records import Box
from detection.errors import DatasetError
from detection.masks import Masks
from detection.structures import Record

MAX_SAMPLED = 2000
"""Images of a set whose headers are read to see whether any was annotated as it is stored: of more, as many, evenly spread."""


@dataclass
class Turned:
    """What is told about photographs that EXIF turns."""

    stored: list[Path] = field(default_factory=list)  # whose boxes were turned
    unsure: list[Path] = field(default_factory=list)  # whose labels do not tell the frame of the boxes

    def is_stored(self, boxes_in: BoxesIn, annotated_hw: tuple[int, int] | None, header: ImageHeader, file: Path) -> bool:
        """Whether an image's boxes are in the stored frame, and have to be turned. `annotated_hw`: the size in its labels."""
        if header.orientation == 1:
            return False
        told = boxes_in if boxes_in != "auto" else frame_of_size(annotated_hw, header)
        if told is None:
            self.unsure.append(file)
        elif told == "stored":
            self.stored.append(file)
        return told == "stored"

    def inform(self, faults: Faults) -> None:
        """Tell how many there were of either kind, each with an example."""
        if self.stored:
            first = printable(str(self.stored[0]))
            faults.inform(f"the boxes of {len(self.stored)} images are turned as EXIF turns their pixels, e.g. in {first}")
        if self.unsure:
            faults.inform(
                f"{len(self.unsure)} images are turned by EXIF, and their labels give no size that tells whether their boxes "
                f"are too: they are taken as drawn in the displayed picture (if not: boxes_in: stored), e.g. in "
                f"{printable(str(self.unsure[0]))}"
            )


def frame_of_size(annotated_hw: tuple[int, int] | None, header: ImageHeader) -> BoxesIn | None:
    """The only frame in which an image has the size of its labels; None where both have it, or neither."""
    fits_stored, fits_displayed = annotated_hw == header.stored_hw, annotated_hw == header.size_hw
    if fits_stored == fits_displayed:
        return None
    return "stored" if fits_stored else "displayed"


def turn_box(box: Box, stored_hw: tuple[int, int], orientation: int) -> Box:
    """A box of the stored pixels -> the same box of the displayed ones, where `apply_orientation` puts its pixels."""
    (height, width), (x1, y1, x2, y2) = stored_hw, box
    if orientation in (5, 6, 7, 8):
        height, width, x1, y1, x2, y2 = width, height, y1, x1, y2, x2
    if orientation in (2, 3, 6, 7):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 7, 8):
        y1, y2 = height - y2, height - y1
    return x1, y1, x2, y2


def turn_masks(masks: Masks, orientation: int) -> Masks:
    """Masks of the stored pixels -> the same of the displayed ones, as `turn_box`."""
    height, width = masks.size_hw
    turned: list[bytes] = []
    for row in range(len(masks)):  # one bitmap at a time: a photograph has many pixels
        bitmap = masks.decode_part(row, (slice(height), slice(width)))
        bitmap = bitmap.T if orientation in (5, 6, 7, 8) else bitmap
        bitmap = bitmap[:, ::-1] if orientation in (2, 3, 6, 7) else bitmap
        bitmap = bitmap[::-1] if orientation in (3, 4, 7, 8) else bitmap
        turned += Masks.from_bitmaps(torch.from_numpy(bitmap[None].copy())).counts
    return Masks((width, height) if orientation in (5, 6, 7, 8) else masks.size_hw, tuple(turned))


def turn_records(records: Sequence[Record], boxes_in: BoxesIn, faults: Faults) -> list[Record]:
    """Records whose sizes are those of their annotations -> as displayed, with their boxes. What was turned is told.

    Reads the headers of all images only where it must: with "stored", or where one of MAX_SAMPLED is annotated as it is stored.
    Raises DatasetError, or collects it, where "stored" is told of an image whose annotation gives only its displayed size.
    """
    turned = Turned()
    found = []
    headers = _headers(records, boxes_in)
    for number, record in enumerate(records):
        header = headers.get(number)
        with faults.guard():
            is_stored = header is not None and turned.is_stored(boxes_in, record.size_hw, header, record.file)
            found.append(_turn(record, header) if header is not None and is_stored else record)
    turned.inform(faults)
    return found


def _headers(records: Sequence[Record], boxes_in: BoxesIn) -> Mapping[int, ImageHeader]:
    """The headers of images that EXIF turns, by their places in the records; of all of them, or of a sample without a need."""
    everything = range(len(records))
    if boxes_in == "displayed":
        return {}
    if boxes_in == "auto":
        step = max(math.ceil(len(records) / MAX_SAMPLED), 1)
        sampled = _turned_headers(records, everything[::step])
        if step == 1 or "stored" not in (frame_of_size(records[number].size_hw, header) for number, header in sampled.items()):
            return sampled
    return _turned_headers(records, everything)


def _turned_headers(records: Sequence[Record], numbers: Sequence[int]) -> dict[int, ImageHeader]:
    headers = {number: _header(records[number].file) for number in numbers}
    return {number: header for number, header in headers.items() if header is not None and header.orientation != 1}


def _header(file: Path) -> ImageHeader | None:
    """None for a damaged image, which is dealt with where its pixels are read."""
    try:
        return read_header(file)
    except DatasetError:
        return None


def _turn(record: Record, header: ImageHeader) -> Record:
    if record.size_hw != header.stored_hw and len(record.boxes):
        raise DatasetError(
            f"image {record.file}: its annotation gives the size of the displayed picture, {record.size_hw[1]}x"
            f"{record.size_hw[0]}, but 'boxes_in: stored' says that its boxes are in the stored one: set 'auto' or 'displayed'"
        )
    boxes = [turn_box((x1, y1, x2, y2), header.stored_hw, header.orientation) for x1, y1, x2, y2 in record.boxes.tolist()]
    turned = torch.tensor(boxes, dtype=torch.float32, device="cpu").reshape(-1, 4)
    masks = None if record.masks is None else turn_masks(record.masks, header.orientation)
    void = None if record.void is None else turn_masks(record.void, header.orientation)
    return replace(record, size_hw=header.size_hw, boxes=turned, masks=masks, void=void)
