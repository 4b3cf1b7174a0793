"""Data sets with detections, made of a seed: each kind of error occurs, scores and classes are those of no real detector."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from detection.data.catalog import Dataset
from detection.evaluation.coco import evaluate_coco_records
from detection.evaluation.voc import evaluate_voc
from detection.report.reported import ReportedDetector
from detection.structures import Detections, DetectionsByImage, Record

HOSTILE_NAMES = ("<b>cat</b>", "</script><script>alert(1)</script>", "a \"quoted\" 'name'", "über & кот 猫", "{{ 7 * 7 }}")


def scene(
    num_images: int = 12,
    class_names: tuple[str, ...] = ("cat", "dog", "bird"),
    num_detections: int = 30,
    num_objects: int = 6,
    seed: int = 0,
    folder: Path | None = None,
) -> tuple[Dataset, DetectionsByImage]:
    """Images of 320 x 240 px, with files where a folder is given; 10 % of the objects are ignored ones.

    Half of the detections lie near objects; scores are whole hundredths, so that some are equal.
    """
    random = np.random.default_rng(seed)
    records, found = [], {}
    for index in range(num_images):
        file = (folder or Path("images")) / f"image {index} '{index}'.png"
        record = _record(index, file, len(class_names), int(random.integers(0, 2 * num_objects + 1)), random)
        records.append(record)
        found[index] = _detections(record, len(class_names), num_detections, random)
        if folder is not None:
            cv2.imwrite(str(file), random.integers(0, 255, (240, 320, 3), dtype=np.uint8))
    return Dataset(class_names, records), found


def reported(dataset: Dataset, detections: DetectionsByImage, label: str = "runs/mine") -> ReportedDetector:
    """The detections as a report takes them, with their metrics."""
    records, names = dataset.records, dataset.class_names
    coco = evaluate_coco_records(records, detections, names)
    area = evaluate_voc(records, detections, names, metric="area")
    voc07 = evaluate_voc(records, detections, names, metric="voc07")
    metrics = {**coco.numbers, "voc_area": area.mean_ap, "voc07": voc07.mean_ap}
    class_ap = {"AP": coco.class_ap, "voc_area": area.ap, "voc07": voc07.ap}
    return ReportedDetector(label, dataset, detections, metrics, class_ap)


def _boxes(count: int, random: np.random.Generator) -> torch.Tensor:
    corners, sides = random.uniform(0, 180, (count, 2)), random.uniform(8, 120, (count, 2))
    return torch.tensor(np.concatenate([corners, corners + sides], axis=1), dtype=torch.float32).reshape(-1, 4)


def _record(index: int, file: Path, num_classes: int, count: int, random: np.random.Generator) -> Record:
    boxes = _boxes(count, random)
    labels = torch.tensor(random.integers(0, num_classes, count))
    ignored = torch.tensor(random.random(count) < 0.1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return Record(index, file, (240, 320), boxes, labels, ignored, torch.zeros(count, dtype=torch.bool), areas)


def _detections(record: Record, num_classes: int, count: int, random: np.random.Generator) -> Detections:
    near = count // 2 if len(record.boxes) else 0
    chosen = torch.tensor(random.integers(0, max(len(record.boxes), 1), near))
    moved = record.boxes[chosen] + torch.tensor(random.normal(0, 6, (near, 4)), dtype=torch.float32)
    boxes = torch.cat([moved, _boxes(count - near, random)])
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = torch.tensor(random.integers(0, num_classes, count))
    labels[:near] = torch.where(torch.tensor(random.random(near) < 0.8), record.labels[chosen], labels[:near])
    scores = torch.tensor(np.round(random.random(count), 2), dtype=torch.float32)
    order = torch.argsort(-scores, stable=True)
    return Detections(boxes[order], scores[order], labels[order])
