"""Files that are submitted to ImageNet's evaluation: detections of DET, guesses of CLS-LOC. DatasetError names the line.

Images and classes count from 1 in the files, and boxes from 0 with both ends included.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np

from backbones.errors import shorten
from detection.data.records import parse_number
from detection.errors import DatasetError
from detection.evaluation.ilsvrc import DetDetections, DetResult, LocGuesses, LocResult, evaluate_det, evaluate_loc
from detection.evaluation.ilsvrc_devkit import read_det_truth, read_loc_truth
from detection.evaluation.voc import Floats
from detection.files import read_text, write_whole

DET_FIELDS = "image_index DET_ID confidence xmin ymin xmax ymax"
LOC_FIELDS = "label xmin ymin xmax ymax"
MAX_GUESSES = 5
_LAST_PIXEL = np.array([0.0, 0.0, 1.0, 1.0])
_MAX_COORDINATE = 1e9
_NUMBERED_ANEW = "; the list of {} numbers its images anew: a submission for the whole of val is measured as val (--split val)"


def evaluate_det_files(devkit: Path, detections: Path, split: str = "val", annotations: Path | None = None) -> DetResult:
    """DET's AP of a submission for `val`, `val1` or `val2`; `annotations` is a folder of XML files instead of the .mat file."""
    truth, _ = read_det_truth(devkit, split, annotations)
    return evaluate_det(truth, read_det_detections(detections, truth.num_images, len(truth.class_names), split))


def evaluate_loc_files(devkit: Path, detections: Path) -> LocResult:
    """CLS-LOC's errors of a submission for the validation images."""
    truth, _ = read_loc_truth(devkit)
    return evaluate_loc(truth, read_loc_guesses(detections, len(truth.labels), truth.num_classes))


def read_det_detections(file: Path, num_images: int, num_classes: int, split: str = "val") -> DetDetections:
    """A file of lines "image_index DET_ID confidence xmin ymin xmax ymax"; `split` is named where an index is too large."""
    text = read_text(file)
    rows = _read_table(text)
    if rows is None or _faulty_det_rows(rows, num_images, num_classes).any():
        _explain_det_fault(file, text, num_images, num_classes, split)
        raise DatasetError(f"{file} is no table of numbers: expected lines '{DET_FIELDS}'")
    images, labels = (rows[:, column].astype(np.int64) - 1 for column in (0, 1))
    return DetDetections(images, labels, rows[:, 2], rows[:, 3:] + _LAST_PIXEL)


def _read_table(text: str) -> Floats | None:
    """(D, 7) numbers, or None where some line has not seven."""
    if not text.strip():
        return np.zeros((0, 7))
    try:
        rows: Floats = np.loadtxt(io.StringIO(text), dtype=np.float64, comments=None, ndmin=2)
    except ValueError:
        return None
    return rows if rows.shape[1] == 7 else None


def _faulty_det_rows(rows: Floats, num_images: int, num_classes: int) -> np.ndarray:
    """(D,) whether something is wrong with each row."""
    images, labels = rows[:, 0], rows[:, 1]
    right = (
        np.isfinite(rows).all(axis=1) & (images % 1 == 0) & (labels % 1 == 0) & (np.abs(rows) <= _MAX_COORDINATE).all(axis=1)
    )
    return ~(right & (images >= 1) & (images <= num_images) & (labels >= 1) & (labels <= num_classes))


def _explain_det_fault(file: Path, text: str, num_images: int, num_classes: int, split: str) -> None:
    """Raise DatasetError for the first line at fault."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where, words = f"{file}, line {number}", line.split()
        numbers = [value for word in words if (value := parse_number(word)) is not None and math.isfinite(value)]
        if len(words) != 7 or len(numbers) != 7:
            raise DatasetError(f"{where}: expected seven numbers, {DET_FIELDS}, found {shorten(line.strip())}")
        for value, title, largest in zip(numbers, ("image_index", "DET_ID"), (num_images, num_classes), strict=False):
            if value % 1 or not 1 <= value <= largest:
                hint = _NUMBERED_ANEW.format(split) if title == "image_index" and value > largest and split != "val" else ""
                raise DatasetError(f"{where}: {title} must be a whole number from 1 to {largest}, found {value:.10g}{hint}")
        if max(map(abs, numbers)) > _MAX_COORDINATE:
            raise DatasetError(f"{where}: numbers must lie within {_MAX_COORDINATE:.0e}, found {shorten(line.strip())}")


def write_det_detections(file: Path, detections: DetDetections) -> None:
    """Write the lines that `read_det_detections` reads, by image; scores keep their order to the last bit of a float32."""
    order = np.lexsort((-detections.scores, detections.images))
    boxes = detections.boxes[order] - _LAST_PIXEL
    columns = (detections.images[order] + 1, detections.labels[order] + 1, detections.scores[order])
    rows = zip(*(column.tolist() for column in columns), boxes.tolist(), strict=True)
    lines = (
        f"{image} {label} {score:.9g} {x1:.6f} {y1:.6f} {x2:.6f} {y2:.6f}\n" for image, label, score, (x1, y1, x2, y2) in rows
    )
    write_whole(file, "".join(lines))


def read_loc_guesses(file: Path, num_images: int, num_classes: int) -> LocGuesses:
    """A line per image with up to five groups "label xmin ymin xmax ymax"; of an image without guesses an empty line."""
    lines = read_text(file).removesuffix("\n").split("\n")
    if len(lines) != num_images:
        raise DatasetError(
            f"{file} has {len(lines)} lines for {num_images} images: a line per image, empty where nothing is guessed"
        )
    labels = np.full((num_images, MAX_GUESSES), -1, dtype=np.int64)
    boxes = np.zeros((num_images, MAX_GUESSES, 4))
    for image, line in enumerate(lines):
        values = _guesses(line, f"{file}, line {image + 1}", num_classes)
        labels[image, : len(values)] = values[:, 0].astype(np.int64) - 1
        boxes[image, : len(values)] = values[:, 1:] + _LAST_PIXEL
    return LocGuesses(labels, boxes)


def _guesses(line: str, where: str, num_classes: int) -> Floats:
    """(guesses, 5) numbers of a line."""
    words = line.split()
    numbers = [parse_number(word) for word in words]
    if len(words) % 5 or len(words) > 5 * MAX_GUESSES or any(number is None for number in numbers):
        raise DatasetError(f"{where}: expected up to five groups of five numbers, {LOC_FIELDS}, found {shorten(line.strip())}")
    values = np.array(numbers, dtype=np.float64).reshape(-1, 5)
    wrong = [label for label in values[:, 0].tolist() if label % 1 or not 1 <= label <= num_classes]
    if wrong:
        raise DatasetError(f"{where}: a label must be a whole number from 1 to {num_classes}, found {wrong[0]:g}")
    if not (np.abs(values[:, 1:]) <= _MAX_COORDINATE).all():
        raise DatasetError(f"{where}: boxes must lie within {_MAX_COORDINATE:.0e} px, found {shorten(line.strip())}")
    return values


def write_loc_guesses(file: Path, guesses: LocGuesses) -> None:
    """Write the lines that `read_loc_guesses` reads; guesses after a missing one (-1) are written without a gap."""
    boxes = guesses.boxes - _LAST_PIXEL
    lines = []
    for labels, corners in zip(guesses.labels.tolist(), boxes.tolist(), strict=True):
        groups = [(label + 1, *box) for label, box in zip(labels, corners, strict=True) if label >= 0]
        lines.append(" ".join(f"{label} {x1:.6f} {y1:.6f} {x2:.6f} {y2:.6f}" for label, x1, y1, x2, y2 in groups))
    write_whole(file, "".join(f"{line}\n" for line in lines))
