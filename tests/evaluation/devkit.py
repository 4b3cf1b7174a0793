"""The development kit's VOCevaldet, followed line by line in slow Python: an oracle for the tests.

It works on the kit's own boxes, 1-based with both ends included, and knows nothing of the code under test."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

Box = tuple[float, float, float, float]


@dataclass
class Image:
    """One class's ground truth in one image."""

    boxes: list[Box] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)


def overlap(found: Box, truth: Box) -> float:
    width = min(found[2], truth[2]) - max(found[0], truth[0]) + 1
    height = min(found[3], truth[3]) - max(found[1], truth[1]) + 1
    if width <= 0 or height <= 0:
        return -math.inf
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (found, truth)]
    return width * height / (sum(areas) - width * height)


def curve(images: dict[str, Image], detections: list[tuple[str, float, Box]], least: float) -> tuple[list[float], list[float]]:
    """Recall and precision after each detection, best score first; equal scores in the given order."""
    taken = {stem: [False] * len(image.boxes) for stem, image in images.items()}
    num_objects = sum(not flag for image in images.values() for flag in image.difficult)
    right = wrong = 0
    recalls, precisions = [], []
    for stem, _, box in sorted(detections, key=lambda detection: -detection[1]):
        image = images[stem]
        best, where = -math.inf, -1
        for index, truth in enumerate(image.boxes):
            if overlap(box, truth) > best:
                best, where = overlap(box, truth), index
        if best >= least:
            if not image.difficult[where]:
                if taken[stem][where]:
                    wrong += 1
                else:
                    right += 1
                    taken[stem][where] = True
        else:
            wrong += 1
        recalls.append(right / num_objects)
        precisions.append(right / (right + wrong) if right + wrong else 0.0)
    return recalls, precisions


def eleven_points(recalls: list[float], precisions: list[float]) -> float:
    total = 0.0
    for step in range(11):
        reached = [p for r, p in zip(recalls, precisions, strict=True) if r >= 0.1 * step]
        total += max(reached, default=0.0) / 11
    return total


def area(recalls: list[float], precisions: list[float]) -> float:
    recalls, precisions = [0.0, *recalls, 1.0], [0.0, *precisions, 0.0]
    for index in reversed(range(len(precisions) - 1)):
        precisions[index] = max(precisions[index], precisions[index + 1])
    return sum((recalls[i] - recalls[i - 1]) * precisions[i] for i in range(1, len(recalls)))


def evaluate(images: dict[str, Image], detections: list[tuple[str, float, Box]], metric: str, least: float = 0.5) -> float:
    """AP of one class; NaN if there is nothing to find."""
    if all(all(image.difficult) for image in images.values()):
        return math.nan
    points = curve(images, detections, least)
    return eleven_points(*points) if metric == "voc07" else area(*points)


def evaluate_folder(folder: Path, split: str, file: Path, name: str, metric: str) -> float:
    """AP of one class, from the files on disk."""
    images: dict[str, Image] = {}
    for line in (folder / "ImageSets/Main" / f"{split}.txt").read_text().split():
        image = images[line] = Image()
        for element in ElementTree.parse(folder / "Annotations" / f"{line}.xml").findall("object"):
            if element.findtext("name") == name:
                x1, y1, x2, y2 = (float(element.findtext(f"bndbox/{tag}", "")) for tag in ("xmin", "ymin", "xmax", "ymax"))
                image.boxes.append((x1, y1, x2, y2))
                image.difficult.append(element.findtext("difficult") == "1")
    rows: list[tuple[str, float, Box]] = []
    for line in file.read_text().splitlines():
        stem, *fields = line.split()
        score, x1, y1, x2, y2 = map(float, fields)
        rows.append((stem, score, (x1, y1, x2, y2)))
    return evaluate(images, rows, metric)
