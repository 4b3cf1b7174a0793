"""ImageNet DET's average precision and CLS-LOC's errors, as the kit's eval_detection.m and eval_clsloc.m compute them.

N images, D detections, G objects, K classes. Boxes: xyxy pixels, continuous: the kit's are 0-based with both ends included, and
as (xmin, ymin, xmax + 1, ymax + 1) they have the same widths and the same IoU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.evaluation.voc import (
    Bools,
    ClassDetections,
    ClassObjects,
    Floats,
    Ints,
    PrecisionRecallCurve,
    aligned_iou,
    average_precision,
    overlapping_pairs,
)

_MARGIN = 10.0  # px: an object of w x h px has to be met with the IoU of a box that is larger by so much on each axis ...
_LARGEST_THRESHOLD = 0.5  # ... or with this, if that is less


@dataclass(frozen=True)
class DetGroundTruth:
    """The objects of N images, and the pairs of image and class that are not evaluated."""

    class_names: tuple[str, ...]  # K
    num_images: int
    images: Ints  # (G,) ascending
    labels: Ints  # (G,)
    boxes: Floats  # (G, 4)
    unevaluated: Ints  # (B, 2) image and label: the blacklist

    def of_class(self, label: int) -> ClassObjects:
        """The objects of a class, but for those in images where it is not evaluated."""
        rows = np.flatnonzero(self.labels == label)
        rows = rows[~self.is_unevaluated(self.images[rows], label)]
        return ClassObjects(self.images[rows], self.boxes[rows], np.zeros(len(rows), dtype=bool))

    def is_unevaluated(self, images: Ints, label: int) -> Bools:
        """(D,) whether the class is not evaluated in each of these images."""
        return np.isin(images, self.unevaluated[self.unevaluated[:, 1] == label, 0])


@dataclass(frozen=True)
class DetDetections:
    """D detections; equal scores keep this order."""

    images: Ints  # (D,)
    labels: Ints  # (D,)
    scores: Floats  # (D,)
    boxes: Floats  # (D, 4)


@dataclass(frozen=True)
class DetResult:
    """AP per class, its mean and its median, all in [0, 1]; NaN without any class that has objects."""

    mean_ap: float
    median_ap: float
    ap: dict[str, float]  # of the classes that have objects

    def as_json(self) -> dict[str, object]:
        """Plain data: `mAP`, `median_AP`, and `AP` by class name."""
        return {"mAP": self.mean_ap, "median_AP": self.median_ap, "AP": self.ap}


def evaluate_det(truth: DetGroundTruth, detections: DetDetections) -> DetResult:
    """DET's AP of each class. Objects and detections of blacklisted pairs of image and class do not count."""
    ap = {}
    # One sort for all classes; each class's rows then are a run of the order, by image and in an image by score.
    order = np.lexsort((-detections.scores, detections.images, detections.labels))
    labels = detections.labels[order]
    for label, name in enumerate(truth.class_names):
        rows = order[slice(*np.searchsorted(labels, (label, label + 1)))]
        rows = rows[~truth.is_unevaluated(detections.images[rows], label)]
        found = ClassDetections(detections.images[rows], detections.scores[rows], detections.boxes[rows])
        curve = det_curve(truth.of_class(label), found)
        if curve.num_objects:
            ap[name] = average_precision(curve, "area")
    values = list(ap.values())
    return DetResult(float(np.mean(values)), float(np.median(values)), ap) if values else DetResult(np.nan, np.nan, {})


def det_curve(objects: ClassObjects, detections: ClassDetections) -> PrecisionRecallCurve:
    """Precision and recall of one class after each detection, best score first.

    `detections` are ordered by image, and in an image by descending score.
    """
    true = match_det(objects, detections)
    order = np.argsort(-detections.scores, kind="stable")
    num_true, num_objects = np.cumsum(true[order]), len(objects.images)
    precision = num_true / np.arange(1, len(order) + 1)
    return PrecisionRecallCurve(detections.scores[order], num_true / max(num_objects, 1), precision, num_objects)


def match_det(objects: ClassObjects, detections: ClassDetections) -> Bools:
    """(D,) which detections are true positives; each image's stand by descending score.

    Each takes the object that it overlaps most among those that none before it took and whose own threshold it meets; of
    equals the first. (VOC chooses the object first, and looks then whether it is taken.)
    """
    detection, target, iou = overlapping_pairs(detections, objects)
    met = iou >= iou_threshold_of(objects.boxes)[target]
    detection, target, iou = detection[met], target[met], iou[met]
    order = np.lexsort((target, -iou, detection))
    true = np.zeros(len(detections.scores), dtype=bool)
    claimed = np.zeros(len(objects.images), dtype=bool)
    for row, thing in zip(detection[order].tolist(), target[order].tolist(), strict=True):
        if not true[row] and not claimed[thing]:
            true[row] = claimed[thing] = True
    return true


def iou_threshold_of(boxes: Floats) -> Floats:
    """(G, 4) -> (G,) the IoU with which each object has to be met: less for small ones, min(0.5, wh / ((w + 10)(h + 10)))."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    thresholds: Floats = np.minimum(_LARGEST_THRESHOLD, width * height / ((width + _MARGIN) * (height + _MARGIN)))
    return thresholds


@dataclass(frozen=True)
class LocGroundTruth:
    """The class of each of N images, and the boxes of its objects, which are all of that class."""

    num_classes: int
    labels: Ints  # (N,)
    images: Ints  # (G,) ascending
    boxes: Floats  # (G, 4)
    unevaluated: Bools  # (N,) the blacklist: the image counts for classification alone


@dataclass(frozen=True)
class LocGuesses:
    """Up to five guesses per image, the best first; a guess is a class and a box."""

    labels: Ints  # (N, 5) -1 where there is no guess
    boxes: Floats  # (N, 5, 4)


@dataclass(frozen=True)
class LocResult:
    """Errors in [0, 1]; NaN without an image to measure them on."""

    localisation_error: list[float]  # with the first 1, 2, ... 5 guesses: no guess has the class and a box with IoU >= 0.5
    classification_error: list[float]  # likewise: no guess has the class
    gt_class_error: float  # of the images in which the true class is guessed: its first box has an IoU < 0.5

    def as_json(self) -> dict[str, object]:
        """Plain data by the fields' names."""
        return dict(vars(self))


LOC_IOU = 0.5
"""The IoU from which on a guessed box is right."""


def evaluate_loc(truth: LocGroundTruth, guesses: LocGuesses) -> LocResult:
    """CLS-LOC's errors. A guess is right if it has the image's class and meets any of its boxes."""
    classified = guesses.labels == truth.labels[:, None]
    localised = classified & (best_iou_of_guesses(truth, guesses) >= LOC_IOU)
    measured = ~truth.unevaluated
    guessed = classified.any(axis=1) & measured
    first = classified.argmax(axis=1)
    return LocResult(
        _errors(localised[measured]),
        _errors(classified),
        float(1 - localised[np.arange(len(first)), first][guessed].mean()) if guessed.any() else float("nan"),
    )


def best_iou_of_guesses(truth: LocGroundTruth, guesses: LocGuesses) -> Floats:
    """(N, 5): the greatest IoU of each guessed box with a box of its image; 0 without one."""
    iou = np.zeros(guesses.labels.shape)
    for number in range(guesses.labels.shape[1]):
        overlaps = aligned_iou(guesses.boxes[truth.images, number], truth.boxes)
        np.maximum.at(iou[:, number], truth.images, overlaps)
    return iou


def _errors(right: Bools) -> list[float]:
    """(N, 5) -> the share of the images in which none of the first 1, 2, ... 5 guesses is right."""
    if not len(right):
        return [float("nan")] * right.shape[1]
    return [float(error) for error in 1 - np.logical_or.accumulate(right, axis=1).mean(axis=0)]
