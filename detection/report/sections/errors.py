"""Where the AP goes: what each kind of error costs, and at which sizes and how crowded objects. K classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.evaluation.breakdown import (
    Breakdown,
    break_down_by_crowding,
    break_down_by_size,
    losses_by_kind,
)
from detection.evaluation.errors import FOREGROUND, Errors
from detection.evaluation.matches import Matches
from detection.evaluation.precision_recall import coco_average_precision
from detection.evaluation.tide import MAIN_FIXES
from detection.evaluation.voc import Floats, Ints
from detection.report.reported import Analysis


@dataclass(frozen=True)
class BinsData:
    """Objects in B bins, for each class and for all of them together."""

    bins: list[str]  # B
    num_objects: list[list[int]]  # (K + 1, B)
    num_found: list[list[int]]  # (K + 1, B)
    missing: list[list[float | None]]  # (K + 1, B) shares of the lost AP; None where none is lost
    false: list[list[float | None]]  # (K + 1, B)


@dataclass(frozen=True)
class ErrorsData:
    """What `report/errors.html` and `report/errors.js` show; the last of K + 1 rows stands for all classes together."""

    names: list[str]  # K
    num_objects: list[int]  # (K + 1,)
    ap50: list[float | None]  # (K,) COCO's; None without objects
    gains: list[list[float]]  # (K + 1, 8) by Fix, in AP
    counts: list[list[int]]  # (K + 1, 6) errors by MAIN_FIXES
    shares: list[list[float | None]]  # (K + 1, 6) of the lost AP; None where none is lost
    sizes: BinsData
    crowding: BinsData


def build(analysis: Analysis) -> ErrorsData:
    """TIDE's errors and the lost AP at IoU 0.5."""
    matches = analysis.matches
    row = matches.at(FOREGROUND)
    result, divided = analysis.tide, analysis.divided_lost_ap
    by_kind = losses_by_kind(analysis.losses, len(matches.class_names))
    lost = _with_all(by_kind.sum(axis=1))
    return ErrorsData(
        list(matches.class_names),
        _with_all(matches.num_objects).tolist(),
        [None if np.isnan(ap) else round(ap, 4) for ap in coco_average_precision(matches, row).tolist()],
        np.vstack([result.class_gains.T, result.gains]).round(4).tolist(),
        _with_all(count_errors(matches, analysis.errors)).tolist(),
        _shares(_with_all(by_kind), lost),
        _bins(break_down_by_size(matches, row, divided), lost),
        _bins(break_down_by_crowding(matches, row, divided), lost),
    )


def count_errors(matches: Matches, errors: Errors) -> Ints:
    """(K, 6): how many errors of each of MAIN_FIXES each class has, by the detected class or that of the missed object."""
    num_classes = len(matches.class_names)
    columns = [
        np.bincount(matches.detections.labels[errors.kinds == fix.kind], minlength=num_classes)
        for fix in MAIN_FIXES
        if fix.kind is not None
    ]
    missed = np.bincount(matches.objects.labels[errors.missed], minlength=num_classes)
    return np.stack([*columns, missed], axis=1)


def _bins(parts: Breakdown, lost: Floats) -> BinsData:
    """`lost`: (K + 1,) all the AP that is lost by each class, and by all."""
    missing, false = (_shares(_with_all(values), lost) for values in (parts.lost_missing, parts.lost_false))
    objects, found = (_with_all(values).tolist() for values in (parts.num_objects, parts.num_found))
    return BinsData(list(parts.bins), objects, found, missing, false)


def _with_all(values: np.ndarray) -> np.ndarray:
    """(K, ...) -> (K + 1, ...), with the sum over the classes at the end."""
    return np.concatenate([values, values.sum(axis=0, keepdims=True)])


def _shares(values: Floats, lost: Floats) -> list[list[float | None]]:
    """(K + 1, B) parts of (K + 1,) that is lost; None where that is nothing."""
    parts = np.divide(values, lost[:, None], out=np.zeros_like(values), where=lost[:, None] > 0).round(4)
    return [row.tolist() if whole > 0 else [None] * values.shape[1] for row, whole in zip(parts, lost, strict=True)]
