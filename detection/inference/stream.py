"""Detections of many image files, one after the other, as commands find them: at the config's precision, past bad files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from detection.data.media import MediaInput
from detection.engine.precision import autocast, resolve_precision
from detection.inference.predictor import Predictor, ReportError
from detection.inference.results import ImageDetections


def predict_files(
    model: Predictor, inputs: Sequence[MediaInput], on_error: ReportError | None = None
) -> Iterator[ImageDetections]:
    """Detections of each image file, on the CPU, in the order of `inputs`; videos and cameras are left out.

    Each result's `source` is the file, its `size_hw` the image's. A few images are in memory at a time. Where one cannot be
    read or does not fit into the memory, `on_error` is called and the others follow; without it DatasetError is raised.
    """
    precision = resolve_precision(model.config.train.precision, model.device)
    results = model.predict_each([each.path for each in inputs if each.kind == "image"], on_error)
    while True:
        with autocast(model.device, precision):  # not around the `yield`: it would hold for what the caller computes too
            found = next(results, None)
        if found is None:
            return
        yield found.to("cpu")
