"""Matches made of which objects are found, without geometry: each object is found by a box equal to its own, or not at all."""

from __future__ import annotations

import numpy as np

from detection.evaluation.matches import COCO_THRESHOLDS, NONE, DetectedTable, Matches, ObjectTable
from detection.evaluation.precision_recall import ScoredCurve, precision_recall


def plain_ranking(matches: Matches, label: int | np.integer, counted: np.ndarray | None = None) -> np.ndarray:
    """`Matches.ranked_by_class` of one class."""
    chosen = matches.detections.labels == label
    (rows,) = np.nonzero(chosen if counted is None else chosen & counted)
    return rows[np.argsort(-matches.detections.scores[rows], kind="stable")]


def plain_curve(matches: Matches, label: int | np.integer, row: int) -> ScoredCurve:
    """`scored_curves` of one class."""
    ranked = plain_ranking(matches, label, ~matches.ignored(row))
    true = matches.true_positives(row)[ranked]
    return ScoredCurve(matches.detections.scores[ranked], *precision_recall(true, int(matches.num_objects[label])))


def one_class_matches(found: np.ndarray, scores: np.ndarray, iou_thresholds: np.ndarray = COCO_THRESHOLDS) -> Matches:
    """N images with one object each; (N,) whether the one detection of an image finds it, and its score."""
    images = np.arange(len(found))
    boxes = np.tile([0.0, 0.0, 10.0, 10.0], (len(found), 1))
    elsewhere = boxes + np.where(found, 0.0, 50.0)[:, None]
    none = np.full(len(found), NONE)
    objects = ObjectTable(images, np.zeros_like(images), boxes, np.full(len(found), 100.0), np.zeros(len(found), bool))
    detections = DetectedTable(images, np.zeros_like(images), scores, elsewhere, np.arange(len(images)))
    object_of = np.tile(np.where(found, images, NONE), (len(iou_thresholds), 1))
    return Matches(
        ("cat",), len(found), iou_thresholds, detections, objects, object_of, object_of[0], found * 1.0, none, found * 0.0
    )
