"""Detections on disk: the VOC development kit's text files, one per class, and COCO's result JSON.

A line of the kit's `comp4_det_SPLIT_CLASS.txt` is `stem score x1 y1 x2 y2`, 1-based with both ends included; in
memory boxes are xyxy pixels, continuous: (x1 - 1, y1 - 1, x2, y2). COCO's boxes are (x, y, width, height).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.errors import name_fault, printable, shorten
from detection.data.coco_format import MAX_COORDINATE
from detection.data.records import parse_number
from detection.errors import DatasetError
from detection.evaluation.voc import ClassDetections
from detection.files import read_text, write_whole
from detection.structures import DetectionsByImage, ImageId, Record

FIELDS = "stem score x1 y1 x2 y2"

_MAX_NAME_BYTES = 100  # of a class or a split: a file's name has 255, and `replacing` adds to it


def write_voc_detections(
    folder: Path, detections: DetectionsByImage, class_names: Sequence[str], split: str = "test"
) -> list[Path]:
    """Write one file per class, empty if nothing was found, and return their paths.

    Raises DatasetError as `check_voc_names` does, before anything is written.
    """
    check_voc_names(class_names, detections, split)
    lines: list[list[str]] = [[] for _ in class_names]
    for image_id, found in detections.items():
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
            lines[label].append(_voc_line(image_id, box, score))
    files = [folder / f"comp4_det_{split}_{name}.txt" for name in class_names]
    for file, rows in zip(files, lines, strict=True):
        write_whole(file, "".join(rows))
    return files


def check_voc_names(class_names: Sequence[str], image_ids: Iterable[ImageId], split: str = "test") -> None:
    """Raise DatasetError if detections of these classes and images cannot be written as the kit's files and read back.

    A class and the split are parts of a file's name, an image id is the first word of a line, and two ids must not be one
    text, as 1 and "1" are.
    """
    for what, name in [*(("class", name) for name in class_names), ("split", split)]:
        if name_fault(name) is not None or "/" in name or "\\" in name or len(os.fsencode(name)) > _MAX_NAME_BYTES:
            raise DatasetError(f"{what} {shorten(name)} cannot be part of a file name: rename it to write detection files")
    seen: set[str] = set()
    for image_id in image_ids:
        stem = str(image_id)
        if stem in seen or stem != stem.strip() or not stem or "\n" in stem or "\r" in stem:
            fault = "is one text with another id" if stem in seen else "cannot be a word of a line"
            raise DatasetError(f"image id {shorten(image_id)} {fault}: change it to write detection files")
        seen.add(stem)


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
    for number, text in enumerate(read_text(file).split("\n"), start=1):
        if text.strip():
            yield number, text


_OTHER_SPLIT = ": evaluate the split that was detected on, or leave the line out"


def _parse_line(text: str, where: str, positions: Mapping[str, int]) -> tuple[int, list[float]]:
    # From the right, because a stem may hold spaces.
    stem, *fields = text.strip().rsplit(maxsplit=5)
    if len(fields) != 5:
        raise DatasetError(f"{where}: expected 6 fields ({FIELDS}), found {len(fields) + 1}")
    numbers = [number for field in fields if (number := parse_number(field)) is not None]
    if len(numbers) != 5:
        raise DatasetError(f"{where}: expected five finite numbers after the stem ({FIELDS}), found {shorten(text.strip())}")
    if max(map(abs, numbers[1:])) > MAX_COORDINATE:
        raise DatasetError(f"{where}: boxes must lie within {MAX_COORDINATE:.0e} px, found {shorten(text.strip())}")
    if stem not in positions:
        extra = f"; expected 6 fields ({FIELDS}), found {len(text.split())}" if len(text.split()) > 6 else ""
        raise DatasetError(f"{where}: image {shorten(stem)} is not in the evaluated split{extra or _OTHER_SPLIT}")
    return positions[stem], numbers


def coco_results(
    detections: DetectionsByImage, class_names: Sequence[str], category_ids: Mapping[str, int | str]
) -> list[dict[str, Any]]:
    """Detections as the content of a COCO result file, those with masks with `segmentation` (run lengths) beside the box.

    `category_ids`: class name -> category id, whole number or text.

    Raises DatasetError for a class without a category.
    """
    missing = [name for name in class_names if name not in category_ids]
    if missing:
        known = ", ".join(printable(name) for name in list(category_ids)[:10])
        raise DatasetError(f"class '{missing[0]}' is no category of the annotations: {known}")
    results = []
    for image_id, found in detections.items():
        masks = [{}] * len(found) if found.masks is None else [{"segmentation": mask} for mask in found.masks.as_json()]
        rows = zip(corners_to_xywh(found.boxes), found.scores.tolist(), found.labels.tolist(), masks, strict=True)
        for box, score, label, mask in rows:
            category = category_ids[class_names[label]]
            results.append({"image_id": image_id, "category_id": category, "bbox": box, "score": score, **mask})
    return results


def corners_to_xywh(boxes: Tensor) -> list[list[float]]:
    """(N, 4) xyxy -> N lists (x, y, width, height), in float64: COCO breaks ties on the last digit."""
    corners = boxes.double()
    return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
