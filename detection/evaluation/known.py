"""What an evaluation counts of images whose annotations do not know all classes.

A detection of a class that its image does not know may well be right: it is neither a true nor a false positive, as in LVIS and
Open Images. An object of such a class, if one is annotated, need not be found, for others beside it may have been left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from detection.structures import Detections, DetectionsByImage, Record


def ignore_unknown(records: Sequence[Record]) -> list[Record]:
    """The records; in those that do not know all classes, objects of the unknown ones are difficult, which no metric counts."""
    return [
        record if record.known is None else replace(record, difficult=record.difficult | ~record.known[record.labels])
        for record in records
    ]


def without_unknown(records: Sequence[Record], detections: DetectionsByImage) -> DetectionsByImage:
    """The detections without those of classes that their images do not know."""
    known = {record.image_id: record.known for record in records if record.known is not None}

    def counted(image_id: object, found: Detections) -> Detections:
        return found[known[image_id].to(found.labels.device)[found.labels]] if image_id in known else found

    return {image_id: counted(image_id, found) for image_id, found in detections.items()} if known else detections
