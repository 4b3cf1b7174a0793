"""Several detectors that predict as one (appendix B)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from detection.config import Config
from detection.inference.detector import Detector, predict_each
from detection.inference.images import ImageInputs
from detection.inference.predictor import ReportError
from detection.inference.results import ImageDetections
from detection.weights.checkpoint import require_same_classes

if TYPE_CHECKING:
    from detection.data.catalog import Dataset
    from detection.inference.evaluate import EvaluationResult


class Ensemble:
    """Several detectors of the same classes as one: united proposals, averaged scores, boxes and masks.

    Each member sees the images at its own sizes; thresholds, refinement and voting are those of the first member's config.
    Raises CheckpointError where class names differ.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self.detectors = list(detectors)
        for number, detector in enumerate(self.detectors[1:], start=2):
            require_same_classes(detector.class_names, self.class_names, f"member {number} of the ensemble")

    @property
    def config(self) -> Config:
        """The first member's config."""
        return self.detectors[0].config

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K class names in the order of the labels."""
        return self.detectors[0].class_names

    @property
    def predicts_masks(self) -> bool:
        """Whether a member has a mask head: those that have one make the masks of all."""
        return any(detector.predicts_masks for detector in self.detectors)

    @property
    def device(self) -> torch.device:
        """Where the first member computes."""
        return self.detectors[0].device

    def predict(self, images: ImageInputs) -> list[ImageDetections]:
        """Objects in each image, as `Detector.predict`."""
        return list(predict_each(self.detectors, images))

    def predict_each(self, images: ImageInputs, on_error: ReportError | None = None) -> Iterator[ImageDetections]:
        """Objects in each image, image by image, as `Detector.predict_each`."""
        return predict_each(self.detectors, images, on_error)

    def evaluate(self, dataset: Dataset | None = None) -> EvaluationResult:
        """Every metric on a data set, as `Detector.evaluate`."""
        from detection.inference.evaluate import evaluate

        return evaluate(self, dataset)
