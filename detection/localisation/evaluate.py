"""One box for each of some classes in many images, and the errors of such boxes (appendix C).

N images, C classes of each, K in all. Boxes: xyxy pixels of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from detection.config import LocConfig
from detection.config.localiser import LocTestConfig
from detection.engine.distributed import World, all_gather
from detection.engine.precision import autocast, resolve_precision
from detection.errors import DatasetError
from detection.evaluation.ilsvrc import LocGroundTruth, LocGuesses, LocResult, evaluate_loc
from detection.localisation.classes import NUM_GUESSES
from detection.localisation.images import LocImages
from detection.localisation.merging import ClassBoxes, best_box, top_proposals
from detection.localisation.networks import LocRcnn, LocRpn
from detection.localisation.rescoring import rescore
from detection.localisation.test_loading import loc_test_loader
from detection.localisation.testing import find_boxes_in_each
from detection.modeling.boxes import scale_boxes

Report = Callable[[int], object]
"""Gets the number of images that are done."""


@dataclass(frozen=True)
class LocatedBoxes:
    """The box of each image and class, float32 on the CPU."""

    rpn: Tensor  # (N, C, 4)
    rcnn: Tensor | None = None  # (N, C, 4), where there is an R-CNN

    @property
    def final(self) -> Tensor:
        """(N, C, 4): the R-CNN's, or else the RPN's."""
        return self.rpn if self.rcnn is None else self.rcnn


def localise_images(
    rpns: Sequence[LocRpn],
    rcnns: Sequence[LocRcnn],
    images: LocImages,
    config: LocConfig,
    classes: Tensor,
    *,
    report: Report = lambda done: None,
) -> LocatedBoxes:
    """The boxes of C classes (N, C) in each of the images, in the views of `config.test`; several networks as one.

    The R-CNNs, if any, score and move the RPNs' best `rcnn.num_proposals` of each class anew. A few images are in memory at a
    time. Raises DatasetError where an image cannot be read, CheckpointError or ConfigError where the networks do not fit
    together.
    """
    boxes = torch.zeros((*classes.shape, 4), dtype=torch.float32, device="cpu")
    found = LocatedBoxes(boxes, boxes.clone() if rcnns else None)
    for rows, pixels in _in_parts(images, config):
        in_each = find_boxes_at(rpns, pixels, classes[rows], config)
        for row, image, of_image in zip(rows, pixels, in_each, strict=True):
            # The file may be larger or smaller than its annotation says, whose pixels the objects are in.
            annotated_hw = images.size_hw(row)
            found.rpn[row] = _best_boxes(of_image, config, annotated_hw)
            if found.rcnn is not None:
                rescored = _rescored(rcnns, image, of_image, classes[row], config)
                found.rcnn[row] = _best_boxes(rescored, config, annotated_hw)
        report(rows[-1] + 1)
    return found


def _best_boxes(found: ClassBoxes, config: LocConfig, annotated_hw: tuple[int, int]) -> Tensor:
    """The best box (C, 4) of each class, in pixels of the annotated size, on the CPU."""
    return scale_boxes(best_box(found, config.test)[0].float().cpu(), found.size_hw, annotated_hw)


def find_boxes_at(rpns: Sequence[LocRpn], images: Sequence[Tensor], classes: Tensor, config: LocConfig) -> list[ClassBoxes]:
    """`find_boxes_in_each` in the precision of `rpn_train`."""
    device = rpns[0].device
    with autocast(device, resolve_precision(config.rpn_train.precision, device)):
        return find_boxes_in_each(rpns, images, classes.to(device), config.test)


def _rescored(rcnns: Sequence[LocRcnn], image: Tensor, found: ClassBoxes, classes: Tensor, config: LocConfig) -> ClassBoxes:
    """What the R-CNN makes of the RPN's best boxes, in the precision of `rcnn_train`."""
    device = rcnns[0].device
    proposals, _ = top_proposals(found, config.rcnn)
    with autocast(device, resolve_precision(config.rcnn_train.precision, device)):
        return rescore(rcnns, image, proposals, classes.to(device), config.test)


def _in_parts(images: LocImages, config: LocConfig) -> Iterator[tuple[list[int], list[Tensor]]]:
    """`test.batch_size` images (3, H, W) at a time, with their places. Raises DatasetError for one that cannot be read."""
    with closing(loc_test_loader(images, config)) as loader:
        while part := list(islice(loader, config.test.batch_size)):
            for _, image in part:
                if isinstance(image, DatasetError):
                    raise image
            yield [index for index, _ in part], [image for _, image in part if isinstance(image, Tensor)]


def localise_together(
    world: World,
    rpns: Sequence[LocRpn],
    rcnns: Sequence[LocRcnn],
    images: LocImages,
    config: LocConfig,
    classes: Tensor,
) -> LocatedBoxes:
    """`localise_images` with the images shared out among the processes, all of which call this and get all boxes."""
    own = np.arange(world.rank, len(images), world.size)
    parts = all_gather(world, localise_images(rpns, rcnns, images.subset(own), config, classes[own]))
    return LocatedBoxes(
        _joined([part.rpn for part in parts]),
        _joined([part.rcnn for part in parts if part.rcnn is not None]) if rcnns else None,
    )


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Every world_size-th row is of one process."""
    whole = parts[0].new_zeros((sum(map(len, parts)), *parts[0].shape[1:]))
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


def truth_of(images: LocImages) -> LocGroundTruth:
    """The ground truth of a split, whose labels are in the order of the WNIDs."""
    owners = np.repeat(np.arange(len(images)), images.num_boxes)
    return LocGroundTruth(len(images.class_names), images.labels, owners, images.boxes.astype(np.float64), images.unevaluated)


def true_classes(images: LocImages) -> Tensor:
    """(N, 1) int64: the class of each image."""
    return torch.from_numpy(images.labels.astype(np.int64))[:, None]


def with_guesses(images: LocImages, guessed: Tensor | None) -> Tensor:
    """The class of each image and, where there are guesses (N, 5), these after it: (N, 1) or (N, 6) int64."""
    return true_classes(images) if guessed is None else torch.cat([true_classes(images), guessed], dim=1)


def guesses_of(classes: Tensor, boxes: Tensor) -> LocGuesses:
    """Up to five classes (N, C), -1 where there is none, and their boxes (N, C, 4), the best first."""
    labels = np.full((len(classes), NUM_GUESSES), -1, np.int64)
    corners = np.zeros((len(classes), NUM_GUESSES, 4))
    labels[:, : classes.shape[1]], corners[:, : classes.shape[1]] = classes.numpy(), boxes.double().numpy()
    return LocGuesses(labels, corners)


def gt_class_error(images: LocImages, boxes: Tensor) -> float:
    """The share of images whose box (N, 4), of the true class, has an IoU below 0.5 with all of its objects; NaN without any.

    Blacklisted images are left out.
    """
    return evaluate_loc(truth_of(images), guesses_of(true_classes(images), boxes[:, None])).gt_class_error


def measure_guesses(images: LocImages, classes: Tensor, boxes: Tensor) -> LocResult:
    """The errors of up to five guesses: classes (N, C), -1 where there is none, and their boxes (N, C, 4)."""
    return evaluate_loc(truth_of(images), guesses_of(classes, boxes))


def centre_view(config: LocConfig) -> LocConfig:
    """The same experiment tested on the centre view alone: one forward pass per image."""
    return with_test(config, config.test.model_copy(update={"views": "center"}))


def with_test(config: LocConfig, test: LocTestConfig) -> LocConfig:
    """The same experiment tested in another way."""
    return config.model_copy(update={"test": test})
