"""What is written of one image, whatever the format."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from backbones.errors import printable
from detection.data.records import AnnotatedObject
from detection.errors import DatasetError
from detection.structures import Detections, Record

_PLACES = 3  # of a detection's box: 0.001 px, beyond which there is only noise


@dataclass(frozen=True)
class ImageLabels:
    """One image and its objects; boxes are xyxy pixels of the displayed image."""

    file: Path  # where its pixels are
    name: str  # what it is called in what is written, folders with "/"; different from all others' by its stem
    size_hw: tuple[int, int]  # as displayed
    objects: Sequence[AnnotatedObject]
    scores: Sequence[float] | None = None  # of detections, in the order of the objects
    image_id: int | None = None  # COCO's, where it is to be kept

    @property
    def stem(self) -> str:
        """The name without its suffix, as files of labels are called."""
        return str(PurePosixPath(self.name).with_suffix(""))

    @property
    def path(self) -> str:
        """The file's absolute path, with "/". Raises DatasetError for one that neither JSON nor XML can hold."""
        text = self.file.absolute().as_posix()
        if any(unicodedata.category(each) in ("Cc", "Cs") for each in text):
            raise DatasetError(
                f"labels cannot refer to {printable(text)}, whose name is no plain UTF-8: copy or link the images"
            )
        return text


class LabelWriter(Protocol):
    """What takes labels image by image, and has written all that it took when it is closed."""

    def add(self, image: ImageLabels) -> None:
        """Take an image. Raises OSError, DatasetError."""

    def close(self) -> None:
        """Write what is not written yet. Raises OSError."""


def labels_of_record(record: Record, name: str, image_id: int | None = None) -> ImageLabels:
    """The ground truth of an image."""
    columns = (record.boxes, record.labels, record.difficult, record.crowd, record.areas)
    masks = [None] * len(record.labels) if record.masks is None else record.masks.counts
    rows = zip(*(column.tolist() for column in columns), masks, strict=True)
    objects = [AnnotatedObject(tuple(box), *values) for box, *values in rows]
    return ImageLabels(record.file, name, record.size_hw, objects, image_id=image_id)


def labels_of_detections(detections: Detections, file: Path, name: str, size_hw: tuple[int, int]) -> ImageLabels:
    """What was found in an image, best first; boxes to 0.001 px."""
    boxes = [[round(edge, _PLACES) for edge in box] for box in detections.boxes.tolist()]
    objects = [
        AnnotatedObject((x1, y1, x2, y2), label)
        for (x1, y1, x2, y2), label in zip(boxes, detections.labels.tolist(), strict=True)
    ]
    return ImageLabels(file, name, size_hw, objects, [round(score, 4) for score in detections.scores.tolist()])
