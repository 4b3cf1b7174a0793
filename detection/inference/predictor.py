"""What evaluation, drawing and tracking need of a model: `Detector` and `Ensemble` have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch

from detection.config import Config
from detection.errors import DatasetError
from detection.inference.images import ImageInputs
from detection.inference.results import ImageDetections

ReportError = Callable[[DatasetError], None]
"""Hears of a file that cannot be used."""


class Predictor(Protocol):
    """A model that finds objects in images."""

    @property
    def config(self) -> Config:
        """Its settings; `train.precision` says how it computes here."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K class names in the order of the labels."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def predict(self, images: ImageInputs) -> list[ImageDetections]:
        """Objects in each image, in the order of the images."""
        ...

    def predict_each(self, images: ImageInputs, on_error: ReportError | None = None) -> Iterator[ImageDetections]:
        """The same, image by image, past files that cannot be used where `on_error` is given."""
        ...
