"""Run a detector over a data set: records in, detections out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter

import torch

from detection.data.loader import test_loader
from detection.engine.distributed import World, on_all
from detection.engine.precision import autocast, resolve_precision
from detection.inference.predictor import Predictor
from detection.structures import Detections, ImageId, Record


def predict_together(
    model: Predictor,
    records: Sequence[Record],
    world: World,
    *,
    workers: int = 2,
    report: Callable[[int], None] | None = None,
    on_timed: Callable[[int, float], None] | None = None,
) -> dict[ImageId, Detections]:
    """`predict_dataset` by all processes, each a share of the images; all get all detections, in the order of the records.

    `report` and `on_timed` hear of this process's share, the number of images done as if all were equally far. Each process
    raises the error of the first, by rank.
    """

    def tell(done: int) -> None:
        if report is not None:
            report(min(done * world.size, len(records)))

    def predict() -> dict[ImageId, Detections]:
        return predict_dataset(model, world.share(records), workers=workers, report=tell, on_timed=on_timed)

    return joined(records, on_all(world, predict))


def joined(records: Sequence[Record], shares: Iterable[Mapping[ImageId, Detections]]) -> dict[ImageId, Detections]:
    """The detections of several shares of the records in one, in the order of the records."""
    found = {image_id: detections for share in shares for image_id, detections in share.items()}
    return {record.image_id: found[record.image_id] for record in records}


def predict_dataset(
    model: Predictor,
    records: Sequence[Record],
    *,
    workers: int = 2,
    report: Callable[[int], None] | None = None,
    on_timed: Callable[[int, float], None] | None = None,
) -> dict[ImageId, Detections]:
    """Detections of each record's image, in its own pixels, on the CPU.

    The model's config decides the precision and how many images of equal size run together. `report` is called with the
    number of images done so far, `on_timed` with the number of images of each call of `predict` and its seconds. Raises
    DatasetError for an image that cannot be read.
    """
    precision = resolve_precision(model.config.train.precision, model.device)
    found: dict[ImageId, Detections] = {}
    # More images than a batch at a time, so that `predict` finds some of equal size to run together.
    images_at_a_time = max(model.config.test.batch_size * 4, 4)
    data = model.config.data
    loader = test_loader(records, images_at_a_time, workers, max_pixels=data.max_pixels, timeout=data.loader_timeout)
    for members, images in loader:
        start = perf_counter()
        with autocast(model.device, precision):
            detections = model.predict(images)
        for record, image_detections in zip(members, detections, strict=True):
            found[record.image_id] = image_detections.to(torch.device("cpu"))  # which waits for a GPU to be done
        if on_timed is not None:
            on_timed(len(members), perf_counter() - start)
        if report is not None:
            report(len(found))
    return found
