"""TIDE, image by image and detection by detection, as its authors' package goes about it: an oracle, and slow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

KINDS = ("class", "localisation", "both", "duplicate", "background", "missed")


@dataclass
class Thing:
    """A detection or an object; boxes as xyxy."""

    label: int
    box: Any
    score: float = 1.0
    ignored: bool = False  # an object that is not to be found, or a detection at one
    found: bool = False  # of an object: by a detection; of a detection: it is a true positive
    best: Any = None  # of an object: the detection that would find it if it were put right


@dataclass
class Error:
    kind: str
    detection: Thing | None
    target: Thing | None = None


@dataclass
class Run:
    """One evaluation: the counted detections, the objects to find and the errors, in the order of the images."""

    counted: list[Thing] = field(default_factory=list)
    objects: list[Thing] = field(default_factory=list)
    errors: list[Error] = field(default_factory=list)


def plain_tide(images, max_detections=100):
    """[(detections, objects)] -> AP, {kind or special: dAP}, {kind: {label: dAP}}; AP in 0..100."""
    run = Run()
    for detections, objects in images:
        look_at_image(run, sorted(detections, key=lambda each: -each.score)[:max_detections], objects)
    now = class_ap(data_points(run), count(run.objects))
    mean = mean_of(now)
    costs, class_costs = {}, {}
    for kind in (*KINDS, "false positives", "false negatives"):
        fixed = class_ap(*fixed_points(run, kind))
        change = {label: fixed.get(label, 0) - now.get(label, 0) for label in {*now, *fixed}}
        least = 0 if kind in KINDS else -np.inf
        costs[kind] = max(mean_of(fixed) - mean, least)
        class_costs[kind] = {label: max(value, least) for label, value in change.items()}
    return mean, costs, class_costs


def look_at_image(run, detections, objects):
    """Match one image, and say what its errors are."""
    to_find, crowds = [each for each in objects if not each.ignored], [each for each in objects if each.ignored]
    run.objects += to_find
    for detection in detections:
        free = [
            (iou(detection.box, there.box), there) for there in to_find if there.label == detection.label and not there.found
        ]
        if free and max(free, key=lambda pair: pair[0])[0] >= 0.5:
            detection.found = max(free, key=lambda pair: pair[0])[1].found = True
    for detection in detections:
        shares = [share(detection.box, crowd.box) for crowd in crowds if crowd.label == detection.label]
        detection.ignored = not detection.found and any(each > 0.5 for each in shares)
        if not detection.ignored:
            run.counted.append(detection)
    for detection in detections:
        if not detection.found:
            run.errors.append(error_of(detection, to_find))
    run.errors += [Error("missed", None, there) for there in to_find if not there.found and there.best is None]


def error_of(detection, to_find):
    """The error that a detection is which found nothing."""
    same = best_of(detection, [each for each in to_find if each.label == detection.label])
    other = best_of(detection, [each for each in to_find if each.label != detection.label])
    if 0.1 <= same[0] <= 0.5:
        return repairable("localisation", detection, same[1])
    if other[0] >= 0.5:
        return repairable("class", detection, other[1])
    if same[0] > 0.5:
        return Error("duplicate", detection)
    return Error("background" if max(same[0], other[0]) <= 0.1 else "both", detection)


def repairable(kind, detection, target):
    """An error that finds its target when put right, unless that is found already or by a better one that is put right."""
    if target.found:
        return Error(kind, detection)
    if target.best is None or target.best.score < detection.score:
        target.best = detection
    return Error(kind, detection, target)


def best_of(detection, objects):
    return max(((iou(detection.box, there.box), there) for there in objects), key=lambda pair: pair[0], default=(0, None))


def data_points(run):
    return [(each.label, each.score, each.found) for each in run.counted]


def fixed_points(run, kind):
    """The data points with all errors of a kind put right, errors first, and the objects to find of each class."""
    points, objects = [], count(run.objects)
    for error in run.errors:
        detection = error.detection
        if error.kind == kind == "missed":
            objects[error.target.label] -= 1
        elif error.kind == kind:
            if error.target is not None and error.target.best is detection:
                points.append((error.target.label, detection.score, True))
        elif detection is not None and not detection.ignored:
            points.append((detection.label, detection.score, False))
    points += [(each.label, each.score, True) for each in run.counted if each.found]
    if kind == "false positives":
        points = [(label, 1.0 if true else 0.0, true) for label, _, true in points]
    if kind == "false negatives":
        objects = {label: sum(each.found for each in run.objects if each.label == label) for label in objects}
    return points, objects


def class_ap(points, objects):
    """{label: AP} of the classes that have a data point or an object."""
    labels = {label for label, *_ in points} | {label for label, number in objects.items() if number}
    return {label: average_precision([each for each in points if each[0] == label], objects.get(label, 0)) for label in labels}


def average_precision(points, num_objects):
    if not num_objects:
        return 0.0
    points = sorted(points, key=lambda point: -point[1])
    true = np.cumsum([each[2] for each in points])
    precisions, recalls = [number / rank for rank, number in enumerate(true, 1)], [number / num_objects for number in true]
    heights = []
    for step in range(101):
        beyond = [value for value, recall in zip(precisions, recalls, strict=True) if recall >= step / 100]
        heights.append(max(beyond, default=0))
    return 100 * sum(heights) / 101


def mean_of(values):
    return sum(values.values()) / len(values) if values else 0.0


def count(objects):
    numbers: dict[int, int] = {}
    for each in objects:
        numbers[each.label] = numbers.get(each.label, 0) + 1
    return numbers


def intersection(a, b):
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def iou(a, b):
    return intersection(a, b) / (area(a) + area(b) - intersection(a, b))


def share(box, crowd):
    return intersection(box, crowd) / area(box)
