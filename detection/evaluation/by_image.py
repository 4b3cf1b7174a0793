"""Detections by image, as a detector gives them, from the forms in which files hold them: by class, or as one list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from detection.data.coco_format import CocoId
from detection.evaluation.voc import ClassDetections, Floats, Ints
from detection.structures import Detections, ImageId, Record


def group_by_image(
    records: Sequence[Record], detections: Mapping[str, ClassDetections], class_names: Sequence[str]
) -> dict[ImageId, Detections]:
    """Detections by image from detections by class, as the development kit's files hold them."""
    parts = [(label, detections[name]) for label, name in enumerate(class_names) if name in detections]
    if not parts:
        return {}
    return _grouped(
        records,
        np.concatenate([part.images for _, part in parts]),
        np.concatenate([np.full(len(part.scores), label) for label, part in parts]),
        np.concatenate([part.scores for _, part in parts]),
        np.concatenate([part.boxes for _, part in parts]),
    )


def results_by_image(
    records: Sequence[Record],
    results: Sequence[Mapping[str, Any]],
    categories: Mapping[CocoId, str],
    class_names: Sequence[str],
) -> dict[ImageId, Detections]:
    """Detections by image from the checked content of a COCO result file; those of other categories are left out.

    `categories`: id -> name of the class.
    """
    labels_of = {name: label for label, name in enumerate(class_names)}
    labels = {key: labels_of[name] for key, name in categories.items() if name in labels_of}
    positions = {record.image_id: index for index, record in enumerate(records)}
    kept = [each for each in results if each["category_id"] in labels]
    xywh = np.array([each["bbox"] for each in kept], dtype=np.float64).reshape(-1, 4)
    return _grouped(
        records,
        np.array([positions[each["image_id"]] for each in kept], dtype=np.int64),
        np.array([labels[each["category_id"]] for each in kept], dtype=np.int64),
        np.array([each["score"] for each in kept], dtype=np.float64),
        np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
    )


def _grouped(records: Sequence[Record], images: Ints, labels: Ints, scores: Floats, boxes: Floats) -> dict[ImageId, Detections]:
    """D detections, each with the position of its image -> those of each image, the best first."""
    order = np.lexsort((-scores, images))
    starts = np.searchsorted(images[order], np.arange(len(records) + 1))
    joined = Detections(*(torch.from_numpy(column[order]) for column in (boxes, scores, labels)))
    return {record.image_id: joined[starts[i] : starts[i + 1]] for i, record in enumerate(records)}
