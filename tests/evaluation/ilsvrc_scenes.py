"""Random scenes for ImageNet DET's measure, and the kit's algorithm in plain loops."""

from __future__ import annotations

import numpy as np

from detection.evaluation.ilsvrc import DetDetections, DetGroundTruth
from detection.evaluation.voc import Floats


def random_det(seed: int, num_images=12, num_classes=3):
    """A scene of small and large objects, detections near them with equal scores among them, and blacklisted pairs."""
    random = np.random.default_rng(seed)
    num_objects, num_found = 40, 120
    images = np.sort(random.integers(0, num_images, num_objects))
    corners = random.integers(0, 60, (num_objects, 2)).astype(float)
    boxes = np.concatenate([corners, corners + random.integers(4, 60, (num_objects, 2))], axis=1)
    labels = random.integers(0, num_classes, num_objects)
    chosen = random.integers(0, num_objects, num_found)
    moved: Floats = boxes[chosen] + random.integers(-4, 5, (num_found, 4)).astype(float)
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    unevaluated = np.stack([random.integers(0, num_images, 4), random.integers(0, num_classes, 4)], axis=1)
    truth = DetGroundTruth(("a", "b", "c"), num_images, images, labels, boxes, unevaluated)
    scores = np.round(random.random(num_found), 1)
    return truth, DetDetections(images[chosen], labels[chosen], scores, moved)


def plain_det(truth: DetGroundTruth, found: DetDetections, label: int) -> float:
    """eval_detection.m for one class: a loop over images, detections and objects; AP under the envelope."""
    blacklist = {tuple(pair) for pair in truth.unevaluated.tolist()}
    outcomes, positives = [], 0
    for image in range(truth.num_images):
        if (image, label) in blacklist:
            continue
        objects = truth.boxes[(truth.images == image) & (truth.labels == label)]
        positives += len(objects)
        thresholds = [min(0.5, w * h / ((w + 10) * (h + 10))) for w, h in objects[:, 2:] - objects[:, :2]]
        rows = np.flatnonzero((found.images == image) & (found.labels == label))
        taken = set()
        for row in sorted(rows, key=lambda row: -found.scores[row]):
            best, best_iou = None, -1.0
            for number, (box, threshold) in enumerate(zip(objects, thresholds, strict=True)):
                iou = plain_iou(found.boxes[row], box)
                if number not in taken and iou >= threshold and iou > best_iou:
                    best, best_iou = number, iou
            taken |= set() if best is None else {best}
            outcomes.append((found.scores[row], best is not None))
    if not positives:
        return float("nan")
    outcomes.sort(key=lambda outcome: -outcome[0])
    true = np.cumsum([hit for _, hit in outcomes]) if outcomes else np.zeros(0)
    recall = [0.0, *(true / positives), 1.0]
    precision = [0.0, *(true / np.arange(1, len(true) + 1)), 0.0]
    for index in range(len(precision) - 2, -1, -1):
        precision[index] = max(precision[index], precision[index + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))


def plain_iou(a, b) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return -1.0
    area = width * height
    return area / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - area)
