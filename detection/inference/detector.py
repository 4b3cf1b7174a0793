"""The detector that people use: images in, detections out, by the settings in `config.test`.

`Detector.predict` groups images of equal size, or their tiles, and detects in each group: `detect_plainly` with the four steps
of Faster R-CNN, or `detect_in_views` where the settings ask for improvements of appendix B.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from backbones.modes import evaluating, one_thread_after_fork, own_defaults
from backbones.weights.files import load_state, without_prefix
from detection.config import Config
from detection.device import find_device
from detection.errors import ConfigError, DatasetError
from detection.inference.images import ImageInputs, InputImage, batch_of_size, each_image, network_sizes
from detection.inference.predictor import ReportError
from detection.inference.refinement import refine_boxes
from detection.inference.results import ImageDetections
from detection.inference.select import select_detections
from detection.inference.tiling import merge_windows, windows_of
from detection.inference.views import View, classify_in_views, segment_in_views, unite_proposals
from detection.modeling import FasterRCNN
from detection.out_of_memory import is_out_of_memory, out_of_memory_as
from detection.structures import Detections
from detection.weights.checkpoint import (
    WEIGHT_KEYS,
    checkpoint_config,
    read_checkpoint,
    require_fitting_heads,
    require_same_classes,
    require_same_values,
)
from detection.weights.zoo import find_detector

if TYPE_CHECKING:
    from detection.data.catalog import Dataset
    from detection.inference.evaluate import EvaluationResult

_BATCHES_AT_A_TIME = 4

Detect = Callable[[Sequence[np.ndarray]], list[Detections]]
"""From images (H, W, 3) that have the same sizes for the networks to what is in them; boxes in each image's own pixels."""


class Detector(FasterRCNN):
    """A Faster R-CNN that predicts: `model(batch)` gives losses, `model.predict(images)` detections."""

    def predict(self, images: ImageInputs) -> list[ImageDetections]:
        """Objects in each image, boxes in its own pixels.

        Images are paths, web addresses, folders, globs, Pillow's images, arrays (H, W, 3) or tensors (3, H, W) of uint8 RGB:
        one, or any number of them. Those of equal size run together, up to `test.batch_size`; none is ever padded, so a list
        gives what each image alone gives. Files are read a few at a time. Several threads may predict with one detector at
        once, whose mode, training or evaluation, stays what it is. Raises DatasetError for a file that cannot be read,
        ValueError for pixels that are no uint8 RGB image, and CheckpointError where the network gives values that are not
        finite.
        """
        return list(predict_each([self], images))

    def predict_each(self, images: ImageInputs, on_error: ReportError | None = None) -> Iterator[ImageDetections]:
        """What `predict` gives, image by image, for folders of any size: a few images are in memory at a time.

        With `on_error`, a file that cannot be read is told there, and the others follow.
        """
        return predict_each([self], images, on_error)

    def evaluate(self, dataset: Dataset | None = None) -> EvaluationResult:
        """Every metric on a data set, by default the test split of the config: `detection.evaluate` has more options."""
        from detection.inference.evaluate import evaluate

        return evaluate(self, dataset)


def build_detector(config: Config) -> Detector:
    """A detector with fresh weights, for the classes of `config.data`. Raises BackboneError for an unknown backbone."""
    return Detector(config)


def load_detector(
    path: str | Path,
    config: Config | Callable[[Config], Config] | None = None,
    device: torch.device | str = "cpu",
    *,
    find_weights: Callable[[Path], Path] = find_detector,
) -> Detector:
    """The detector of a checkpoint, in evaluation mode.

    `path` may be a name of the zoo, such as "detectron2/COCO-Detection/faster_rcnn_R_101_C4_3x". Without `config` the
    checkpoint's own is used; a function gets that one and returns the one to use. `find_weights` turns `path` into a file.
    `device`: cpu, cuda, cuda:1, mps, xpu, or auto for the GPU if there is one. Raises CheckpointError where the file is no
    detector's, or its classes or architecture are not those of `config`; ConfigError for a device that cannot be used.
    """
    one_thread_after_fork()
    place = find_device(device)
    path = find_weights(Path(path))
    checkpoint = read_checkpoint(path, "detector")
    own = checkpoint_config(checkpoint, path)
    used = config(own) if callable(config) else config or own
    require_same_classes(checkpoint.metadata.class_names, used.data.class_names, path)
    require_same_values(own, used, WEIGHT_KEYS, path)
    state = without_prefix(checkpoint.state, ("trunk.", "rpn.", "roi_head."), str(path))
    require_fitting_heads(state, own, path)
    model = Detector(used, checkpoint.metadata.preprocessing)
    load_state(model, state, str(path))
    return model.to(place).eval()


def predict_each(
    detectors: Sequence[FasterRCNN], images: ImageInputs, on_error: ReportError | None = None
) -> Iterator[ImageDetections]:
    """Objects in each image, boxes in its own pixels, by one or several detectors. Raises what `Detector.predict` does."""
    return predict_each_by(partial(detect_in_evaluation, detectors), [each.config for each in detectors], images, on_error)


def predict_each_by(
    detect_alike: Detect, configs: Sequence[Config], images: ImageInputs, on_error: ReportError | None = None
) -> Iterator[ImageDetections]:
    """`predict_each` by whatever detects in images that have the same sizes for the networks of these configs.

    The first config has the class names and all settings but the sizes.
    """
    waiting = each_image(images, configs[0].data.max_pixels, on_error)
    # More images than a batch at a time, so that some of equal size are found to run together.
    while some := list(islice(waiting, _BATCHES_AT_A_TIME * configs[0].test.batch_size)):
        if on_error is None:
            with out_of_memory_as(lambda: ConfigError(_describe_lack(configs[0]))):
                found = _predict_some(detect_alike, configs, some)
        else:
            found = _past_memory(detect_alike, configs, some, on_error)
        yield from found


def _describe_lack(config: Config) -> str:
    test = config.test
    return (
        f"the memory does not suffice for these images. Lower test.batch_size (now {test.batch_size}), test.shorter_side with "
        f"test.longer_side (now {test.shorter_side} and {test.longer_side}), or rpn.post_nms_test, which is "
        f"{config.rpn.post_nms_test}"
    )


def _past_memory(
    detect_alike: Detect, configs: Sequence[Config], images: Sequence[InputImage], on_error: ReportError
) -> list[ImageDetections]:
    """The detections of the images that fit into the memory, if not together then alone."""
    try:
        return _predict_some(detect_alike, configs, images)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(images) == 1:
            on_error(DatasetError(f"{images[0].source or 'an image'} is too large for the memory"))
            return []
    return [found for image in images for found in _past_memory(detect_alike, configs, [image], on_error)]


def _predict_some(detect_alike: Detect, configs: Sequence[Config], images: Sequence[InputImage]) -> list[ImageDetections]:
    one_thread_after_fork()
    names, test = tuple(configs[0].data.class_names), configs[0].test
    windows = [windows_of(image.pixels.shape[:2], test) for image in images]
    parts = [window.crop(image.pixels) for image, own in zip(images, windows, strict=True) for window in own]
    with own_defaults(), torch.inference_mode():
        found = iter(detect_each(detect_alike, configs, parts))
        return [
            _of_image(merge_windows(list(islice(found, len(own))), own, image.pixels.shape[:2], test), names, image)
            for image, own in zip(images, windows, strict=True)
        ]


def _of_image(found: Detections, class_names: tuple[str, ...], image: InputImage) -> ImageDetections:
    height, width = image.pixels.shape[:2]
    return ImageDetections(
        found.boxes, found.scores, found.labels, class_names, (height, width), image.source, masks=found.masks
    )


def detect_each(detect_alike: Detect, configs: Sequence[Config], arrays: Sequence[np.ndarray]) -> list[Detections]:
    """Objects in each image (H, W, 3), boxes in its own pixels: images of equal sizes for the networks together, up to
    `test.batch_size`."""
    groups: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for index, array in enumerate(arrays):
        sizes = [network_sizes(array.shape[:2], config.test, config.data.resizing) for config in configs]
        groups[tuple(size for by_side in sizes for size in by_side.values())].append(index)
    batch_size = configs[0].test.batch_size
    found: dict[int, Detections] = {}
    for indices in groups.values():
        for start in range(0, len(indices), batch_size):
            members = indices[start : start + batch_size]
            found |= zip(members, detect_alike([arrays[index] for index in members]), strict=True)
    return [found[index] for index in range(len(arrays))]


def detect_in_evaluation(detectors: Sequence[FasterRCNN], arrays: Sequence[np.ndarray]) -> list[Detections]:
    """`detect` with the detectors in evaluation mode."""
    with evaluating(detectors):
        return detect(detectors, arrays)


def detect(detectors: Sequence[FasterRCNN], arrays: Sequence[np.ndarray]) -> list[Detections]:
    """Objects in images (H, W, 3) that have the same sizes for the networks; boxes in each image's own pixels."""
    test = detectors[0].config.test
    if len(detectors) > 1 or test.scales or test.flip or test.refinement_passes:
        return detect_in_views(views_of(detectors, arrays))
    return detect_plainly(detectors[0], arrays)


def detect_plainly(detector: FasterRCNN, arrays: Sequence[np.ndarray]) -> list[Detections]:
    """Objects in images of one size for the network, by Faster R-CNN as it is: one network at one scale."""
    test = detector.config.test
    resizing = detector.config.data.resizing
    size_hw = network_sizes(arrays[0].shape[:2], test, resizing)[test.shorter_side]
    batch = batch_of_size(arrays, size_hw, resizing).to(detector.device)
    features = detector.extract(batch)
    proposals = detector.propose(features, batch.sizes_hw)
    begun = detector.roi_head.begin(features)
    regions = detector.classify(features, proposals, batch.sizes_hw, begun)
    image_sizes = [array.shape[:2] for array in arrays]
    segment = partial(detector.segment, features, begun=begun) if detector.predicts_masks else None
    pasting = detector.config.mask.pasting
    return select_detections(regions, size_hw, image_sizes, test, detector.score_threshold, segment, pasting)


def detect_in_views(views: Sequence[View]) -> list[Detections]:
    """Objects in the images of the views: by several scales, with mirror images, by several detectors, with refined boxes.

    Settings and pixels are the first view's. Proposals come from the images as they are; mirrored views only help to classify
    them. Masks are the means of the views whose detectors predict them. One view at one scale without refinement gives what
    `detect_plainly` gives, to the last bit.
    """
    first = views[0]
    proposals = unite_proposals([view for view in views if not view.mirrored])
    regions = refine_boxes(partial(classify_in_views, views), proposals, first.size_hw, first.test)
    image_sizes = [array.shape[:2] for array in first.arrays]
    seeing = [view for view in views if view.detector.predicts_masks]
    segment = partial(segment_in_views, seeing, first.size_hw) if seeing else None
    pasting = seeing[0].detector.config.mask.pasting if seeing else "grid"
    return select_detections(regions, first.size_hw, image_sizes, first.test, first.score_threshold, segment, pasting)


def views_of(detectors: Sequence[FasterRCNN], arrays: Sequence[np.ndarray]) -> list[View]:
    """Every detector's view of the images, then of their mirror images where its settings ask for them."""
    views = [View(detector, arrays) for detector in detectors]
    return views + [View(detector, arrays, mirrored=True) for detector in detectors if detector.config.test.flip]
