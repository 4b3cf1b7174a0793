"""What the batches of localisation are made of: random crops for the RPN, warped regions for the R-CNN.

S = data.image_size. Each is a function of what it is drawn from: the number of an image, and a random seed. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from detection.config import LocConfig
from detection.data.augmentations import build_augmentation, reseed
from detection.data.sampler import SampleIndex
from detection.data.transforms import augment
from detection.errors import ConfigError
from detection.localisation.images import LocImages
from detection.localisation.warping import Colour, warp_region
from detection.modeling.boxes import mirror_boxes, nonempty_boxes, pairwise_iou, scale_boxes
from detection.pretraining.data import fill_sizes, require_view
from detection.structures import Target

LEAST_PART = 1 / 14
"""Of the crop's side: an object of which less than this is left along an axis is dropped, 16 of 224 px. That is half a cell of
conv5, and has no IoU to speak of with any anchor; a larger part may well be all that the crop shows."""
MAX_DRAWS = 50
"""Images that are drawn for one RoI, at most: nearly all have a negative among 200 proposals."""


class Proposals(Protocol):
    """The stored proposals of each image for its own class, in the order of the images."""

    def __len__(self) -> int: ...

    def boxes(self, index: int) -> Tensor:
        """(P, 4) float32 xyxy: those of an image, in the pixels of its annotated size."""


class Crop(NamedTuple):
    """One element of an RpnBatch."""

    image: np.ndarray  # (S, S, 3) uint8 RGB
    label: int
    boxes: Tensor  # (G, 4)
    file: str


class RandomCrops:
    """An image and a seed -> a crop of the image, by `data.augmentations`."""

    def __init__(self, images: LocImages, config: LocConfig) -> None:
        self.images, self.data = images, config.data
        self.augmentation = build_augmentation(fill_sizes(config.data.augmentations, config.data.image_size))

    def __call__(self, draw: SampleIndex) -> Crop:
        index, file, size = draw.image, self.images.file_of(draw.image), self.data.image_size
        pixels = self.images.image(index, self.data.max_pixels)
        boxes = scale_boxes(self.images.boxes_of(index), self.images.size_hw(index), pixels.shape[:2])
        target = Target(boxes, torch.zeros(len(boxes), dtype=torch.long, device="cpu"), boxes[:0])
        reseed(self.augmentation, draw.seed)
        image, target = augment(pixels, target, self.augmentation, file)
        require_view(image, size, "data.augmentations", file)
        left = target.boxes[nonempty_boxes(target.boxes, LEAST_PART * size)]
        return Crop(image, int(self.images.labels[index]), left, file)


class RoiDraw(NamedTuple):
    """One RoI of the endless stream: of which image, the random seed for it, and which kind."""

    image: int
    seed: int
    is_positive: bool


@dataclass(frozen=True)
class RoiDraws:
    """Batches of images, of each of which one RoI is drawn: a positive of the first ones, a negative of the others."""

    batches: Iterable[list[SampleIndex]]
    positive_fraction: float
    first_batch: int

    def __iter__(self) -> Iterator[list[RoiDraw]]:
        for number, batch in enumerate(self.batches, start=self.first_batch):
            # Over all batches, as a small one may have less than one positive.
            before, after = (int((number + step) * len(batch) * self.positive_fraction) for step in (0, 1))
            yield [RoiDraw(*item, is_positive=place < after - before) for place, item in enumerate(batch)]


class WarpedRoi(NamedTuple):
    """One element of a RoiBatch."""

    image: np.ndarray  # (S, S, 3) uint8 RGB
    label: int
    roi_and_gt: Tensor  # (2, 4): the RoI, and the object with the best IoU
    is_positive: bool
    file: str


class WarpedRois:
    """A RoiDraw -> the RoI: one of the image's objects and proposals, warped, and mirrored half the time."""

    def __init__(self, images: LocImages, proposals: Proposals, config: LocConfig, fill: Colour) -> None:
        self.images, self.proposals, self.config, self.fill = images, proposals, config, fill

    def __call__(self, draw: RoiDraw) -> WarpedRoi:
        data, rng = self.config.data, np.random.default_rng(draw.seed)
        is_mirrored = rng.random() < 0.5
        index, boxes = self._draw(draw, rng)
        pixels = self.images.image(index, data.max_pixels)
        boxes = scale_boxes(boxes, self.images.size_hw(index), pixels.shape[:2])
        warped = warp_region(pixels, boxes[0], data.image_size, self.config.rcnn.padding, self.fill)
        if is_mirrored:
            warped, boxes = warped[:, ::-1], mirror_boxes(boxes, pixels.shape[1])
        return WarpedRoi(warped, int(self.images.labels[index]), boxes, draw.is_positive, self.images.file_of(index))

    def _draw(self, draw: RoiDraw, rng: np.random.Generator) -> tuple[int, Tensor]:
        """An image, and one of its RoIs with its object (2, 4): another image where this one has none of the kind.

        Raises ConfigError where that is not found.
        """
        index, rcnn = draw.image, self.config.rcnn
        for _ in range(MAX_DRAWS):
            gt_boxes, proposals = self.images.boxes_of(index), self.proposals.boxes(index)
            rois = torch.cat([gt_boxes, proposals[nonempty_boxes(proposals)]])
            iou, best = pairwise_iou(rois, gt_boxes).max(dim=1)
            usable = iou >= rcnn.positive_iou if draw.is_positive else iou < rcnn.negative_iou
            if usable.any():
                row = int(rng.choice(usable.nonzero()[:, 0].numpy()))
                return index, torch.stack([rois[row], gt_boxes[best[row]]])
            index = int(rng.integers(len(self.images)))
        raise ConfigError(
            f"rcnn.negative_iou is {rcnn.negative_iou}, and none of {MAX_DRAWS} images has a proposal with a lower IoU with "
            "all of its objects: raise it, or rcnn.num_proposals and make the proposals anew"
        )
