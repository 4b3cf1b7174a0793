"""COCO's two files, annotations.json and detections.json, of exactly what a report shows: for all that reads that format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detection.evaluation.coco import records_as_coco
from detection.evaluation.detection_files import coco_results
from detection.files import replacing, write_whole
from detection.report.reported import Analysis, ReportedDetector
from detection.structures import Detections, ImageId, Record

ANNOTATIONS_FILE, DETECTIONS_FILE = "annotations.json", "detections.json"
"""The ground truth and the detections in a report's folder, which also can be reported again."""


def write_coco(analysis: Analysis, folder: Path) -> None:
    """Write ground truth and detections into a folder; they give the same numbers when they are read. Raises OSError.

    Images are named by absolute paths. Difficult objects are crowds, as in the evaluation. Categories have ids from 1 on.
    """
    reported = analysis.reported
    records, names = reported.dataset.records, reported.class_names
    content = json.dumps(annotation_content(records, names), separators=(",", ":"), allow_nan=False)
    write_whole(folder / ANNOTATIONS_FILE, content + "\n")
    with replacing(folder / DETECTIONS_FILE) as file:
        for text in _result_texts(_found_in_files(reported), names):
            file.write(text.encode())


def annotation_content(records: Sequence[Record], class_names: Sequence[str]) -> dict[str, Any]:
    """The content of an annotation file."""
    content = records_as_coco([_in_file(record) for record in records], class_names)
    for annotation in content["annotations"]:
        annotation["image_id"] = json_id(annotation["image_id"])
        annotation["category_id"] += 1
    return {
        "images": [_image(record) for record in records],
        "annotations": content["annotations"],
        "categories": [{"id": number, "name": json_text(name)} for number, name in enumerate(class_names, start=1)],
    }


def _image(record: Record) -> dict[str, Any]:
    height, width = record.size_hw
    return {"id": json_id(record.image_id), "file_name": absolute_name(record), "width": width, "height": height}


def _in_file(record: Record) -> Record:
    """A record with boxes in the pixels of its image's file, also where it is a tile."""
    return record if record.window is None else replace(record, boxes=moved(record.boxes, record.corner))


def _found_in_files(reported: ReportedDetector) -> Iterator[tuple[ImageId, Detections]]:
    """Detections by image, in the pixels of the images' files."""
    corners = {record.image_id: record.corner for record in reported.dataset.records if record.window is not None}
    for image_id, found in reported.detections.items():
        corner = corners.get(image_id)
        yield image_id, found if corner is None else replace(found, boxes=moved(found.boxes, corner))


def moved(boxes: Tensor, corner: tuple[int, int]) -> Tensor:
    """Boxes (N, 4) that count from a corner (x, y), in float64, so that their sizes stay as they are."""
    return boxes.double() + boxes.new_tensor(corner * 2, dtype=torch.float64)


def _result_texts(detections: Iterable[tuple[ImageId, Detections]], class_names: Sequence[str]) -> Iterator[str]:
    """A result file in pieces, one of each image: as objects all detections would fill the memory."""
    ids: Mapping[str, int] = {name: number for number, name in enumerate(class_names, start=1)}
    separator = "[\n"
    for image_id, found in detections:
        if len(found):
            results = coco_results({json_id(image_id): found}, class_names, ids)
            yield separator + json.dumps(results, separators=(",", ":"), allow_nan=False)[1:-1]
            separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def absolute_name(record: Record) -> str:
    """The absolute path of a record's image, as JSON can hold it."""
    return json_text(record.file.absolute().as_posix())


def json_id(image_id: ImageId) -> ImageId:
    """An image's id as JSON can hold it."""
    return json_text(image_id) if isinstance(image_id, str) else image_id


def json_text(text: str) -> str:
    r"""A text as JSON can hold it: half characters, as of a file name that is no UTF-8, become `\udcff`."""
    return text.encode(errors="backslashreplace").decode()
