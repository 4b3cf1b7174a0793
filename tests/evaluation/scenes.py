"""Small data sets and detections for the evaluation's tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from detection.structures import Detections, ImageId, Record

Box = Sequence[float]


def make_record(
    image_id: ImageId,
    boxes: Sequence[Box] = (),
    labels: Sequence[int] | None = None,
    difficult: Sequence[bool] | None = None,
    crowd: Sequence[bool] | None = None,
    areas: Sequence[float] | None = None,
) -> Record:
    count = len(boxes)
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    box_areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    return Record(
        image_id=image_id,
        file=Path(f"{image_id}.jpg"),
        size_hw=(200, 200),
        boxes=corners,
        labels=torch.tensor(labels if labels is not None else [0] * count, dtype=torch.long),
        difficult=torch.tensor(difficult if difficult is not None else [False] * count, dtype=torch.bool),
        crowd=torch.tensor(crowd if crowd is not None else [False] * count, dtype=torch.bool),
        areas=box_areas if areas is None else torch.tensor(areas, dtype=torch.float32),
    )


def make_detections(boxes: Sequence[Box], scores: Sequence[float], labels: Sequence[int] | None = None) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels if labels is not None else [0] * len(boxes), dtype=torch.long),
    )


def random_scene(seed: int, num_images: int = 6, num_classes: int = 3) -> tuple[list[Record], dict[ImageId, Detections]]:
    """Boxes on a coarse grid and few scores, so that equal IoUs, equal scores and IoUs of exactly .5 are common."""
    random = np.random.default_rng(seed)
    records, detections = [], {}
    for index in range(num_images):
        boxes = _grid_boxes(random, int(random.integers(0, 5)))
        count = len(boxes)
        labels = random.integers(0, num_classes, count).tolist()
        record = make_record(index * 7 + 1, boxes, labels, difficult=(random.random(count) < 0.25).tolist())
        records.append(record)
        if random.random() < 0.8:
            detections[record.image_id] = _near(random, boxes, labels, num_classes)
    return records, detections


def jittered(records: Sequence[Record], seed: int, num_classes: int) -> dict[ImageId, Detections]:
    """What a fair detector might find: moved ground truth, some of it missed, doubled or misnamed, and false boxes."""
    random = np.random.default_rng(seed)
    detections = {}
    for record in records:
        truth = record.boxes.double().numpy()
        kept = np.repeat(np.arange(len(truth)), random.integers(0, 3, len(truth)))
        sizes = np.tile(truth[kept, 2:] - truth[kept, :2], 2)
        boxes = truth[kept] + random.normal(0, 0.08, (len(kept), 4)) * sizes
        wrong = random.random(len(kept)) < 0.1
        labels = np.where(wrong, random.integers(0, num_classes, len(kept)), record.labels.numpy()[kept])
        scores = random.random(len(kept)).round(2)
        order = np.argsort(-scores, kind="stable")
        detections[record.image_id] = make_detections(boxes[order].tolist(), scores[order].tolist(), labels[order].tolist())
    return detections


def _grid_boxes(random: np.random.Generator, count: int) -> list[list[float]]:
    corners = random.integers(0, 8, (count, 2)) * 10
    sizes = random.integers(1, 5, (count, 2)) * 10
    return np.concatenate([corners, corners + sizes], axis=1).astype(float).tolist()


def _near(random: np.random.Generator, boxes: list[list[float]], labels: list[int], num_classes: int) -> Detections:
    found, names = _grid_boxes(random, int(random.integers(0, 3))), []
    names = random.integers(0, num_classes, len(found)).tolist()
    for box, label in zip(boxes, labels, strict=True):
        for _ in range(int(random.integers(0, 3))):
            moved = np.array(box) + random.integers(-1, 2, 4) * 10
            if moved[2] > moved[0] and moved[3] > moved[1]:
                found.append(moved.tolist())
                names.append(label)
    scores = (random.integers(1, 6, len(found)) / 5).tolist()
    return make_detections(found, scores, names)


def write_devkit(folder: Path, records: Sequence[Record], class_names: Sequence[str], split: str = "test") -> None:
    """Records as a devkit's annotations, without pictures."""
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{record.image_id}\n" for record in records))
    for record in records:
        objects = [
            f"<object><name>{class_names[label]}</name><difficult>{int(difficult)}</difficult><bndbox>"
            f"<xmin>{x1 + 1:g}</xmin><ymin>{y1 + 1:g}</ymin><xmax>{x2:g}</xmax><ymax>{y2:g}</ymax></bndbox></object>"
            for (x1, y1, x2, y2), label, difficult in zip(
                record.boxes.tolist(), record.labels.tolist(), record.difficult.tolist(), strict=True
            )
        ]
        height, width = record.size_hw
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        text = f"<annotation>{size}{''.join(objects)}</annotation>"
        (folder / "Annotations" / f"{record.image_id}.xml").write_text(text)
