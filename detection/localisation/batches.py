"""Batches for the two stages of localisation, in an order that a resumed run can continue anywhere.

N images, R RoIs, S = data.image_size. Batch n of a rank is a function of (seed, n, rank, world_size) alone, whatever the
number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Proposals(Protocol):
    """The stored proposals of each image for its own class, in the order of the images."""

    def __len__(self) -> int: ...

    def boxes(self, index: int) -> Tensor:
        """(P, 4) float32 xyxy: those of an image, in the pixels of its annotated size."""


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
            self.images.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            [boxes.to(device, non_blocking=True) for boxes in self.boxes],
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
        return self._map(lambda each: each.to(device, non_blocking=True))

    def pin_memory(self) -> RoiBatch:
        """The same batch in page-locked memory, for an asynchronous copy to a GPU (the DataLoader calls it)."""
        return self._map(Tensor.pin_memory)

    def _map(self, move: Callable[[Tensor], Tensor]) -> RoiBatch:
        tensors = (self.images, self.labels, self.rois, self.gt_boxes, self.is_positive)
        images, labels, rois, gt_boxes, is_positive = map(move, tensors)
        return RoiBatch(images, labels, rois, gt_boxes, is_positive, self.files)
