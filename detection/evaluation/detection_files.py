"""Detections on disk: the VOC development kit's text files, one per class, and COCO's result JSON.

A line of the kit's `comp4_det_SPLIT_CLASS.txt` is `stem score x1 y1 x2 y2`, 1-based with both ends included; in
memory boxes are xyxy pixels, continuous: (x1 - 1, y1 - 1, x2, y2). COCO's boxes are (x, y, width, height).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detection.errors import DatasetError
from detection.evaluation.voc import ClassDetections
from detection.files import read_text, write_whole
from detection.structures import DetectionsByImage, ImageId, Record

FIELDS = "stem score x1 y1 x2 y2"


def write_voc_detections(
    folder: Path, detections: DetectionsByImage, class_names: Sequence[str], split: str = "test"
) -> list[Path]:
    """Write one file per class, empty if nothing was found, and return their paths.

    Raises DatasetError for a class name that cannot be part of a file name.
    """
    bad = next((name for name in class_names if "/" in name or "\\" in name), None)
    if bad is not None:
        raise DatasetError(f"class '{bad}' cannot be part of a file name: rename it to write detection files")
    lines: list[list[str]] = [[] for _ in class_names]
    for image_id, found in detections.items():
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
            lines[label].append(_voc_line(image_id, box, score))
    files = [folder / f"comp4_det_{split}_{name}.txt" for name in class_names]
    for file, rows in zip(files, lines, strict=True):
        write_whole(file, "".join(rows))
    return files


def _voc_line(image_id: ImageId, box: Sequence[float], score: float) -> str:
    # Nine digits tell any two float32 scores apart, so that the order, and with it the AP, survives.
    x1, y1, x2, y2 = box
    return f"{image_id} {score:.9g} {x1 + 1:.6f} {y1 + 1:.6f} {x2:.6f} {y2:.6f}\n"


def find_voc_detections(folder: Path, split: str) -> dict[str, Path]:
    """Class name -> its detection file in a folder, whatever the competition's number (comp3, comp4).

    The files named for `split` or, where there are none, those of any split. Raises DatasetError: no folder, no file, or two
    files for one class.
    """
    if not folder.is_dir():
        raise DatasetError(f"no such folder of detections: {folder}")
    files = sorted(folder.glob("comp*_det_*_*.txt"))
    named = _by_class(files, re.escape(split)) or _by_class(files, "[^_]+")
    if not named:
        raise DatasetError(f"no detection file in {folder}: expected comp4_det_{split}_CLASS.txt for each class")
    return named


def _by_class(files: Sequence[Path], split_pattern: str) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for file in files:
        match = re.fullmatch(rf"comp[^_]*_det_{split_pattern}_(.+)\.txt", file.name)
        if match is None:
            continue
        name = match.group(1)
        if name in named:
            raise DatasetError(f"two detection files for class '{name}': {named[name]} and {file}; keep one")
        named[name] = file
    return named


def read_voc_detections(file: Path, records: Sequence[Record]) -> ClassDetections:
    """The detections in the file of one class, in the file's order. Raises DatasetError naming file and line."""
    positions = {str(record.image_id): index for index, record in enumerate(records)}
    rows = [_parse_line(text, f"{file}:{number}", positions) for number, text in _lines(file)]
    images = np.array([image for image, _ in rows], dtype=np.int64)
    values = np.array([numbers for _, numbers in rows], dtype=np.float64).reshape(-1, 5)
    return ClassDetections(images, values[:, 0], values[:, 1:] - np.array([1.0, 1.0, 0.0, 0.0]))


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, numbered from 1."""
    for number, text in enumerate(read_text(file).splitlines(), start=1):
        if text.strip():
            yield number, text


def _parse_line(text: str, where: str, positions: Mapping[str, int]) -> tuple[int, list[float]]:
    # From the right, because a stem may hold spaces.
    stem, *fields = text.strip().rsplit(maxsplit=5)
    if len(fields) != 5:
        raise DatasetError(f"{where}: expected 6 fields ({FIELDS}), found {len(fields) + 1}")
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        raise DatasetError(f"{where}: expected five numbers after the stem ({FIELDS}), found '{text.strip()}'") from None
    if not all(map(math.isfinite, numbers)):
        raise DatasetError(f"{where}: numbers must be finite, found '{text.strip()}'")
    if stem not in positions:
        extra = f"; expected 6 fields ({FIELDS}), found {len(text.split())}" if len(text.split()) > 6 else ""
        raise DatasetError(f"{where}: image '{stem}' is not in the evaluated split{extra}")
    return positions[stem], numbers


def coco_results(
    detections: DetectionsByImage, class_names: Sequence[str], category_ids: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Detections as the content of a COCO result file. `category_ids`: class name -> category id.

    Raises DatasetError for a class without a category.
    """
    missing = [name for name in class_names if name not in category_ids]
    if missing:
        raise DatasetError(f"class '{missing[0]}' is no category of the annotations: {', '.join(category_ids)}")
    results = []
    for image_id, found in detections.items():
        for box, score, label in zip(corners_to_xywh(found.boxes), found.scores.tolist(), found.labels.tolist(), strict=True):
            category = category_ids[class_names[label]]
            results.append({"image_id": image_id, "category_id": category, "bbox": box, "score": score})
    return results


def corners_to_xywh(boxes: Tensor) -> list[list[float]]:
    """(N, 4) xyxy -> N lists (x, y, width, height), in float64: COCO breaks ties on the last digit."""
    corners = boxes.double()
    return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
