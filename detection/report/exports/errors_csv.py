"""Every error of a report as one line of a table, errors.csv, for spreadsheets and pandas: those that cost most come first."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backbones.errors import printable
from detection.evaluation.errors import ErrorKind, objects_at
from detection.evaluation.matches import NONE, values_at
from detection.evaluation.voc import Floats, Ints
from detection.files import replacing
from detection.report.reported import Analysis

logger = logging.getLogger(__name__)

ERRORS_FILE = "errors.csv"
MAX_ERRORS = 1_000_000
"""Lines of the table: no spreadsheet opens more than 1,048,576."""

COLUMNS = (
    *("image", "image_id", "error", "detected_class", "score", "x1", "y1", "x2", "y2"),
    *("true_class", "true_x1", "true_y1", "true_x2", "true_y2", "iou", "lost_ap"),
)
MISSED = "missed"
"""The error of an object that no detection found; those of detections are called by their ErrorKind."""

_LINES_AT_A_TIME = 10_000  # as Python's objects, of which each line is twenty
_FORMULA = tuple("=+-@＝＋－＠")  # noqa: RUF001 (spreadsheets take the wide ones as well)


def write_errors(analysis: Analysis, folder: Path) -> None:
    """Write the errors by descending lost AP, at most MAX_ERRORS. Raises OSError.

    Text from outside (files, ids, classes) is never a formula: where it begins as one, an apostrophe stands before it.
    """
    errors = _all_errors(analysis)
    if len(errors) > MAX_ERRORS:
        logger.warning("%s holds the %d errors that cost most, of %d", ERRORS_FILE, MAX_ERRORS, len(errors))
    with replacing(folder / ERRORS_FILE) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        names = _Names.of(analysis)
        for start in range(0, min(len(errors), MAX_ERRORS), _LINES_AT_A_TIME):
            writer.writerows(_lines(analysis, errors[start : min(start + _LINES_AT_A_TIME, MAX_ERRORS)], names))
        text.flush()
        text.detach()  # or it would close the file


def cell_text(text: str) -> str:
    """A text from outside as a spreadsheet shows it: in one line, and not computed if it begins as a formula."""
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def error_name(kind: ErrorKind) -> str:
    """What a kind of error is called in files: "class", "localisation", "duplicate" and so on."""
    return kind.name.lower()


@dataclass(frozen=True)
class _ErrorRows:
    """E errors: wrong detections and missed objects."""

    detections: Ints  # (E,) NONE for missed objects
    objects: Ints  # (E,) NONE for background
    ious: Floats  # (E,)
    lost: Floats  # (E,) AP

    def __len__(self) -> int:
        return len(self.lost)

    def __getitem__(self, rows: Ints | slice) -> _ErrorRows:
        return _ErrorRows(self.detections[rows], self.objects[rows], self.ious[rows], self.lost[rows])


def _all_errors(analysis: Analysis) -> _ErrorRows:
    """By descending lost AP, then by descending score."""
    matches, errors = analysis.matches, analysis.errors
    lost = analysis.lost_ap
    wrong, missed = np.flatnonzero(errors.wrong), np.flatnonzero(errors.missed)
    objects = objects_at(matches, errors)
    ious = np.where(errors.at_other, matches.best_other_iou, matches.best_same_iou)
    found = _ErrorRows(
        np.concatenate([wrong, np.full(len(missed), NONE)]),
        np.concatenate([objects[wrong], missed]),
        np.concatenate([ious[wrong], np.zeros(len(missed))]),
        np.concatenate([lost.detections[wrong], lost.objects[missed]]),
    )
    scores = np.concatenate([matches.detections.scores[wrong], np.zeros(len(missed))])
    return found[np.lexsort((-scores, -found.lost))]


@dataclass(frozen=True)
class _Names:
    """What images, classes and kinds are called in the table, and where images' boxes count from."""

    files: Sequence[str]  # of each image
    ids: Sequence[object]
    classes: Sequence[str]
    kinds: Sequence[str]
    corners: Ints  # (N, 4) what is added to a box, so that it is in the pixels of the image's file

    @classmethod
    def of(cls, analysis: Analysis) -> _Names:
        records = analysis.reported.dataset.records
        ids = [cell_text(each.image_id) if isinstance(each.image_id, str) else each.image_id for each in records]
        classes = [cell_text(name) for name in analysis.reported.class_names]
        corners = np.array([record.corner * 2 for record in records], dtype=np.int64).reshape(-1, 4)
        files, kinds = [cell_text(str(record.file)) for record in records], [error_name(kind) for kind in ErrorKind]
        return cls(files, ids, classes, kinds, corners)


def _lines(analysis: Analysis, errors: _ErrorRows, names: _Names) -> Iterator[list[object]]:
    """A cell a column; None is an empty one."""
    detections, objects = analysis.matches.detections, analysis.matches.objects
    images = values_at(detections.images, errors.detections)
    images = np.where(images == NONE, values_at(objects.images, errors.objects), images)
    corners = names.corners[images]
    columns = (
        images,
        values_at(analysis.errors.kinds, errors.detections),
        values_at(detections.labels, errors.detections),
        values_at(detections.scores, errors.detections).round(6),
        (values_at(detections.boxes, errors.detections) + corners).round(2),
        values_at(objects.labels, errors.objects),
        (values_at(objects.boxes, errors.objects) + corners).round(2),
        errors.ious.round(4),
        errors.lost.round(9),
    )
    empty: list[None] = [None] * 6
    # As Python's own numbers, which are written many times faster than numpy's.
    for image, kind, label, score, box, true_label, true_box, iou, lost in zip(*(c.tolist() for c in columns), strict=True):
        yield [
            names.files[image],
            names.ids[image],
            MISSED if kind == NONE else names.kinds[kind],
            *(empty if kind == NONE else (names.classes[label], score, *box)),
            *(empty[:5] if true_label == NONE else (names.classes[true_label], *true_box)),
            None if NONE in (kind, true_label) else iou,
            lost,
        ]
