"""Run a model over a data set: records in, compact detections out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from detection.data.loader import test_loader
from detection.engine.precision import autocast, resolve_precision
from detection.inference.detector import Detector, Ensemble
from detection.structures import Detections, ImageId, Record


def predict_dataset(
    model: Detector | Ensemble,
    records: Sequence[Record],
    *,
    workers: int = 2,
    report: Callable[[int], None] | None = None,
) -> dict[ImageId, Detections]:
    """Detections of each record's image, in its own pixels, on the CPU.

    The model's config decides the precision and how many images of equal size run together. `report` hears how many
    images are done. Raises DatasetError for an image that cannot be read.
    """
    precision = resolve_precision(model.config.train.precision, model.device)
    found: dict[ImageId, Detections] = {}
    # Several batches at once, so that images of equal size find one another.
    at_once = max(model.config.test.batch_size * 4, 4)
    for members, images in test_loader(records, batch_size=at_once, workers=workers):
        with autocast(model.device, precision):
            detections = model.predict(images)
        for record, image_detections in zip(members, detections, strict=True):
            found[record.image_id] = image_detections.to(torch.device("cpu"))
        if report is not None:
            report(len(found))
    return found
