"""What people predict with: a detector, or several as one. Images in, detections out, by the settings in `config.test`.

The way of an image: views of it (sizes, mirror image) -> proposals -> scores and boxes, refined -> select.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backbones import Preprocessing
from backbones.weights.files import load_checkpoint, load_state
from detection.config import Config
from detection.inference.ensemble import average, unite_proposals
from detection.inference.refinement import classify_repeatedly
from detection.inference.select import select, to_image_pixels
from detection.inference.views import View, network_sizes
from detection.modeling import FasterRCNN
from detection.structures import Detections
from detection.weights.checkpoint import (
    MEANING_OF_WEIGHTS,
    checkpoint_config,
    require_kind,
    require_same_classes,
    require_same_values,
)
from detection.weights.zoo import weights_file

Image = Tensor | np.ndarray
"""uint8 RGB of any size: an array (H, W, 3) or a tensor (3, H, W)."""


class Detector(FasterRCNN):
    """A Faster R-CNN that predicts: `model(batch)` gives losses, `model.predict(images)` detections."""

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        """Objects in each image, boxes in its own pixels.

        Images of equal size run together, up to `test.batch_size`; none is ever padded, so a list gives what each image
        alone gives. Raises ValueError for what is no uint8 RGB image.
        """
        return predict([self], images)


class Ensemble:
    """Several detectors of the same classes as one (appendix B): united proposals, averaged scores and boxes.

    Each sees the images at its own sizes; thresholds, refinement and voting are the first one's. Raises CheckpointError
    where class names differ.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self.detectors = list(detectors)
        self.config = detectors[0].config
        self.class_names = detectors[0].class_names
        for number, detector in enumerate(detectors[1:], start=2):
            require_same_classes(detector.class_names, self.class_names, f"member {number} of the ensemble")

    @property
    def device(self) -> torch.device:
        """Where the first member computes."""
        return self.detectors[0].device

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        """Objects in each image, as `Detector.predict`."""
        return predict(self.detectors, images)


def build_detector(config: Config, class_names: Sequence[str] | None = None) -> Detector:
    """A detector with fresh weights. `class_names` defaults to the config's. Raises BackboneError for an unknown name."""
    return Detector(config, config.data.class_names if class_names is None else class_names)


def load_detector(
    path: str | Path, config: Config | Callable[[Config], Config] | None = None, device: torch.device | str = "cpu"
) -> Detector:
    """The detector of a checkpoint, ready to predict, with the checkpoint's own config, that one changed, or another.

    `path` may be a name of the zoo, such as "detectron2/COCO-Detection/faster_rcnn_R_101_C4_3x".
    Raises CheckpointError where the file is no detector's, or its classes or architecture are not those of `config`.
    """
    path = weights_file(path, "detector")
    checkpoint = load_checkpoint(path)
    require_kind(checkpoint, "detector", path)
    own = checkpoint_config(checkpoint, path)
    used = config(own) if callable(config) else config or own
    require_same_classes(checkpoint["class_names"], used.data.class_names, path)
    require_same_values(own, used, MEANING_OF_WEIGHTS, path)
    model = Detector(used, tuple(checkpoint["class_names"]), Preprocessing.from_dict(checkpoint["preprocessing"]))
    load_state(model, checkpoint["model"], str(path))
    return model.to(device).eval()


@torch.inference_mode()
def predict(detectors: Sequence[Detector], images: Sequence[Image]) -> list[Detections]:
    """Objects in each image, boxes in its own pixels, by one detector or several as one."""
    arrays = [to_array(image) for image in images]
    groups: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for index, array in enumerate(arrays):
        sizes = [size for detector in detectors for size in network_sizes(array.shape[:2], detector.config.test).values()]
        groups[tuple(sizes)].append(index)
    results: dict[int, Detections] = {}
    with evaluating(detectors):
        for indices in groups.values():
            for chunk in torch.tensor(indices).split(detectors[0].config.test.batch_size):
                members = chunk.tolist()
                results |= zip(members, detect(views_of(detectors, [arrays[index] for index in members])), strict=True)
    return [results[index] for index in range(len(arrays))]


def views_of(detectors: Sequence[FasterRCNN], arrays: Sequence[np.ndarray]) -> list[View]:
    """Every detector's view of images of one size, and of their mirror images where its settings say so."""
    views = [View(detector, arrays) for detector in detectors]
    return views + [View(detector, arrays, mirrored=True) for detector in detectors if detector.config.test.flip]


def detect(views: Sequence[View]) -> list[Detections]:
    """Objects in each of the views' images, in its own pixels. Thresholds and passes are those of the first view's settings.

    Proposals come from the images as they are; mirrored views only help to classify them.
    """
    first = views[0]
    test = first.test
    proposals = unite_proposals([view for view in views if not view.mirrored])
    scores, boxes = classify_repeatedly(average(views), proposals, first.size_hw, test.refinement_passes)
    return [
        to_image_pixels(select(*pair, first.size_hw, test), first.size_hw, array.shape[:2])
        for pair, array in zip(zip(scores, boxes, strict=True), first.arrays, strict=True)
    ]


@contextmanager
def evaluating(detectors: Sequence[FasterRCNN]) -> Iterator[None]:
    """Evaluation mode for as long as it lasts."""
    modes = [detector.training for detector in detectors]
    for detector in detectors:
        detector.eval()
    try:
        yield
    finally:
        for detector, mode in zip(detectors, modes, strict=True):
            detector.train(mode)


def to_array(image: Image) -> np.ndarray:
    """(H, W, 3) uint8, whatever of the two forms was given."""
    array = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) else image
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"predict takes uint8 RGB images (H, W, 3) or (3, H, W), got {array.dtype} {tuple(array.shape)}")
    return array
