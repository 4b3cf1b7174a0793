"""A report's data as a data set of FiftyOne, to look through it there.

Its format `FiftyOneDataset` without a version: two JSON files, which each of its versions reads.

    fiftyone.Dataset.from_dir("runs/mine/report/fiftyone", dataset_type=fiftyone.types.FiftyOneDataset)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detection.evaluation.errors import FOREGROUND, ErrorKind
from detection.evaluation.matches import NONE
from detection.evaluation.voc import Floats, Ints
from detection.files import replacing, write_json
from detection.report.exports.coco import absolute_name, json_text
from detection.report.exports.errors_csv import error_name
from detection.report.reported import Analysis
from detection.structures import Record

FOLDER = "fiftyone"

Label = dict[str, Any]
"""A `Detection` of FiftyOne in JSON."""


def write_fiftyone(analysis: Analysis, folder: Path) -> Path:
    """Write the data set into the folder `fiftyone` of a folder: images by absolute paths, `ground_truth` and `predictions`.

    Each label has `eval` ("tp", "fp", "fn", or "ignored") and `lost_ap`; each prediction that is wrong has `error`, the kind
    of it, and predictions have `iou` with what they are at. They are the best 100 of an image and a class, as in COCO's AP.
    Returns that folder. Raises OSError.
    """
    reported = analysis.reported
    classes = [json_text(name) for name in reported.class_names]
    info = {"classes": classes, "description": json_text(reported.label)}
    write_json(folder / FOLDER / "metadata.json", {"media_type": "image", "info": info})
    separator = '{"samples":[\n'
    with replacing(folder / FOLDER / "samples.json") as file:
        for sample in _samples(analysis, classes):
            file.write((separator + json.dumps(sample, separators=(",", ":"), allow_nan=False)).encode())
            separator = ",\n"
        file.write(b'{"samples":[]}\n' if not reported.dataset.records else b"\n]}\n")
    return folder / FOLDER


def relative_boxes(boxes: Floats, size_hw: tuple[int, int], corner: tuple[int, int] = (0, 0)) -> list[list[float]]:
    """(N, 4) xyxy pixels, counted from a corner (x, y) -> N times (x, y, width, height) as shares of the image's sides."""
    height, width = size_hw
    shares = (boxes + np.tile(corner, 2)) / np.maximum([width, height, width, height], 1)
    return np.concatenate([shares[:, :2], shares[:, 2:] - shares[:, :2]], axis=1).round(6).tolist()


def _samples(analysis: Analysis, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    records, matches = analysis.reported.dataset.records, analysis.matches
    predictions, ground_truth = _prediction_maker(analysis, classes), _object_maker(analysis, classes)
    found, there = (_rows_of_images(table.images, len(records)) for table in (matches.detections, matches.objects))
    for record, found_rows, there_rows in zip(records, found, there, strict=True):
        yield {
            "filepath": absolute_name(record),
            "tags": [],
            "metadata": {"_cls": "ImageMetadata", "width": record.size_hw[1], "height": record.size_hw[0]},
            "image_id": json_text(str(record.image_id)),
            "ground_truth": {"_cls": "Detections", "detections": ground_truth(there_rows, record)},
            "predictions": {"_cls": "Detections", "detections": predictions(found_rows, record)},
        }


def _rows_of_images(images: Ints, num_images: int) -> list[Ints]:
    """(D,) the image of each row -> the rows of each image."""
    order = np.argsort(images, kind="stable")
    return np.split(order, np.searchsorted(images[order], np.arange(1, num_images))) if num_images else []


Maker = Callable[[Ints, Record], list[Label]]
"""The labels of some rows of an image."""


def _prediction_maker(analysis: Analysis, classes: Sequence[str]) -> Maker:
    matches, kinds = analysis.matches, analysis.errors.kinds
    lost = analysis.lost_ap.detections.round(9)
    ious = np.where(analysis.errors.at_other, matches.best_other_iou, matches.best_same_iou).round(4)

    def make(rows: Ints, record: Record) -> list[Label]:
        found = matches.detections
        boxes = relative_boxes(found.boxes[rows], record.size_hw, record.corner)
        columns = [values[rows].tolist() for values in (found.labels, found.scores, kinds, ious, lost)]
        labels = []
        for box, label, score, number, iou, cost in zip(boxes, *columns, strict=True):
            kind = ErrorKind(number)
            made = {"_cls": "Detection", "label": classes[label], "bounding_box": box, "confidence": score}
            made |= {"eval": _VERDICTS.get(kind, "fp"), "iou": iou, "lost_ap": cost}
            labels.append(made if kind in _VERDICTS else made | {"error": error_name(kind)})
        return labels

    return make


_VERDICTS = {ErrorKind.CORRECT: "tp", ErrorKind.IGNORED: "ignored"}


def _object_maker(analysis: Analysis, classes: Sequence[str]) -> Maker:
    matches, objects = analysis.matches, analysis.matches.objects
    found = matches.detection_of(matches.at(FOREGROUND)) != NONE
    verdicts = np.select([objects.ignored, found], ["ignored", "tp"], "fn")
    lost = analysis.lost_ap.objects.round(9)

    def make(rows: Ints, record: Record) -> list[Label]:
        boxes = relative_boxes(objects.boxes[rows], record.size_hw, record.corner)
        columns = [values[rows].tolist() for values in (objects.labels, objects.ignored, verdicts, lost)]
        return [
            {
                "_cls": "Detection",
                "label": classes[label],
                "bounding_box": box,
                "iscrowd": int(ignored),
                "eval": verdict,
                "lost_ap": cost,
            }
            for box, label, ignored, verdict, cost in zip(boxes, *columns, strict=True)
        ]

    return make
