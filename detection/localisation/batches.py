"""Batches for the two stages of localisation, in an order that a resumed run can continue anywhere.

N images, R RoIs, S = data.image_size. Batch n of a rank is a function of (seed, n, rank, world_size) alone, whatever the
number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from detection.config import LocConfig, LocDataConfig
from detection.data.loader import LoadedBatch, unwrap
from detection.data.sampler import GroupedBatchSampler
from detection.data.workers import load
from detection.device import to_device, uses_cuda
from detection.errors import ConfigError, DatasetError
from detection.localisation.images import LocImages
from detection.localisation.samples import Crop, Proposals, RandomCrops, RoiDraws, WarpedRoi, WarpedRois
from detection.localisation.warping import Colour


@dataclass(frozen=True)
class RpnBatch:
    """N square crops of one class each, with the boxes of what is left of its objects: perhaps none."""

    images: Tensor  # (N, 3, S, S) uint8 RGB
    labels: Tensor  # (N,) int64
    boxes: list[Tensor]  # N x (G_i, 4) float32 xyxy, in the pixels of the crops
    files: list[str]  # N, to name the culprit of a bad loss

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> RpnBatch:
        """The same batch on another device; the images stay uint8 until the model normalises them."""
        return RpnBatch(
            to_device(self.images, device),
            to_device(self.labels, device),
            [to_device(boxes, device) for boxes in self.boxes],
            self.files,
        )

    def pin_memory(self) -> RpnBatch:
        """The same batch with its images in page-locked memory, for an asynchronous copy to a GPU (the DataLoader calls it)."""
        return RpnBatch(self.images.pin_memory(), self.labels, self.boxes, self.files)


@dataclass(frozen=True)
class RoiBatch:
    """R regions, each warped to a square; `rois` and `gt_boxes` are in the pixels of the image, mirrored where the warp is."""

    images: Tensor  # (R, 3, S, S) uint8 RGB
    labels: Tensor  # (R,) int64: the class of each RoI's image
    rois: Tensor  # (R, 4) float32 xyxy
    gt_boxes: Tensor  # (R, 4) float32 xyxy: the object with the best IoU, also where that is low
    is_positive: Tensor  # (R,) bool: the RoI shows an object
    files: list[str]  # R

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> RoiBatch:
        """The same batch on another device; the images stay uint8 until the model normalises them."""
        return self._map(lambda each: to_device(each, device))

    def pin_memory(self) -> RoiBatch:
        """The same batch in page-locked memory, for an asynchronous copy to a GPU (the DataLoader calls it)."""
        return self._map(Tensor.pin_memory)

    def _map(self, move: Callable[[Tensor], Tensor]) -> RoiBatch:
        tensors = (self.images, self.labels, self.rois, self.gt_boxes, self.is_positive)
        images, labels, rois, gt_boxes, is_positive = map(move, tensors)
        return RoiBatch(images, labels, rois, gt_boxes, is_positive, self.files)


def rpn_loader(
    images: LocImages, config: LocConfig, first_batch: int = 0, *, rank: int = 0, world_size: int = 1
) -> Generator[RpnBatch, None, None]:
    """Endless batches of `rpn_train.images_per_device` random crops, beginning with this rank's batch number `first_batch`.

    In an epoch each image is seen once, by all ranks together. Raises DatasetError or ConfigError at the image concerned, and
    ConfigError for augmentations that cannot be used. `close()` ends the workers.
    """
    train = config.rpn_train
    draws = GroupedBatchSampler(len(images), None, train.micro_batch, train.seed, rank, world_size, first_batch)
    return _batches(BatchDataset(RandomCrops(images, config), collate_crops, images, config.data), draws)


def rcnn_loader(
    images: LocImages,
    proposals: Proposals,
    config: LocConfig,
    first_batch: int = 0,
    *,
    fill: Colour,
    rank: int = 0,
    world_size: int = 1,
) -> Generator[RoiBatch, None, None]:
    """Endless batches of `rcnn_train.images_per_device` RoIs, beginning with this rank's batch number `first_batch`.

    RoI-centric: each RoI is of an image of its own, and in an epoch each image gives one, so images count equally, however many
    RoIs they have: their proposals and their objects. `rcnn.positive_fraction` of those drawn are positive. `fill` is the
    colour of what lies beyond an image's border, see `mean_colour`. Raises DatasetError, also where the proposals are not of
    these images, and ConfigError. `close()` ends the workers.
    """
    if len(proposals) != len(images):
        raise DatasetError(f"there are proposals of {len(proposals)} images, and {len(images)} images: make the proposals anew")
    train = config.rcnn_train
    batches = GroupedBatchSampler(len(images), None, train.micro_batch, train.seed, rank, world_size, first_batch)
    draws = RoiDraws(batches, config.rcnn.positive_fraction, first_batch)
    return _batches(BatchDataset(WarpedRois(images, proposals, config, fill), collate_rois, images, config.data), draws)


class BatchDataset(TorchDataset[LoadedBatch | ConfigError | DatasetError]):
    """What a batch is drawn from -> the batch, or the error as a value, so that users see no traceback of a worker."""

    def __init__(
        self,
        sample: Callable[[Any], Any],
        collate: Callable[[Sequence[Any]], RpnBatch | RoiBatch],
        images: LocImages,
        data: LocDataConfig,
    ) -> None:
        self.sample, self.collate = sample, collate
        self.images, self.data = images, data

    def __getitem__(self, draws: Sequence[Any]) -> LoadedBatch | ConfigError | DatasetError:
        skipped: list[str] = []
        try:
            samples = [self._first_good(draw, skipped) for draw in draws]
        except (ConfigError, DatasetError) as error:
            return error
        return LoadedBatch(self.collate(samples), tuple(skipped))

    def _first_good(self, draw: Any, skipped: list[str]) -> Any:
        """The sample; the next image stands in for one that is skipped."""
        for step in range(len(self.images)):
            try:
                return self.sample(draw._replace(image=(draw.image + step) % len(self.images)))
            except DatasetError as error:
                if self.data.on_bad_image == "error":
                    raise
                skipped.append(str(error))
        raise DatasetError(f"none of the images can be used; the first: {skipped[0]}")


def _batches(dataset: BatchDataset, draws: Iterable[list[Any]]) -> Generator[Any, None, None]:
    # A worker is asked for a whole batch at a time.
    return unwrap(
        load(
            dataset,
            draws,
            dataset.data.workers,
            dataset.data.loader_timeout,
            name_files=lambda batch: [dataset.images.file_of(draw.image) for draw in batch],
            pin_memory=uses_cuda(),
        )
    )


def collate_crops(crops: Sequence[Crop]) -> RpnBatch:
    """Crops -> their batch."""
    return RpnBatch(
        _stack_images([crop.image for crop in crops]),
        torch.tensor([crop.label for crop in crops], dtype=torch.long, device="cpu"),
        [crop.boxes for crop in crops],
        [crop.file for crop in crops],
    )


def collate_rois(samples: Sequence[WarpedRoi]) -> RoiBatch:
    """RoIs -> their batch."""
    boxes = torch.stack([sample.roi_and_gt for sample in samples])
    return RoiBatch(
        _stack_images([sample.image for sample in samples]),
        torch.tensor([sample.label for sample in samples], dtype=torch.long, device="cpu"),
        boxes[:, 0],
        boxes[:, 1],
        torch.tensor([sample.is_positive for sample in samples], dtype=torch.bool, device="cpu"),
        [sample.file for sample in samples],
    )


def _stack_images(images: Sequence[np.ndarray]) -> Tensor:
    """(S, S, 3) each -> (N, 3, S, S): channels stay the fastest dimension in memory, the convolutions' layout."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
