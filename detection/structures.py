"""The plain data that modules pass to each other: Record, Target, Batch, Detections.

G ground-truth boxes, D detections, N images. Boxes are always (., 4) float32 `xyxy`, absolute pixels, continuous:
width = x2 - x1. Labels are 0..K-1 without background.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from detection.device import to_device
from detection.tiles import Window

if TYPE_CHECKING:
    from detection.masks import Masks

ImageId = Hashable
"""The name of an image in its annotation file: VOC's stem (str) or COCO's id (int)."""


@dataclass(frozen=True)
class Record:
    """One annotated image of a dataset, before its pixels are read. Tensors stay on the CPU."""

    image_id: ImageId
    file: Path
    size_hw: tuple[int, int]  # as displayed, that is after EXIF rotation
    boxes: Tensor  # (G, 4) float32 xyxy
    labels: Tensor  # (G,) int64
    difficult: Tensor  # (G,) bool: VOC's flag; not trained on, ignored in evaluation
    crowd: Tensor  # (G,) bool: COCO's iscrowd; not trained on, ignored in evaluation
    areas: Tensor  # (G,) float32 px^2: the segment's area in COCO, else the box's
    known: Tensor | None = None  # (K,) bool: the classes of which all objects are annotated; None: all classes
    masks: Masks | None = (
        None  # G, of all of the image, size_hw; one without a pixel: the object has none. None: the image has none
    )
    void: Masks | None = None  # one, with masks: pixels that are no object's and not background either; None: none
    window: Window | None = None  # the part of the image that is meant, with boxes in its pixels; None: all of the image

    @property
    def corner(self) -> tuple[int, int]:
        """(x, y) of the pixel of the image's file from which boxes count: the window's corner."""
        return (0, 0) if self.window is None else (self.window.x, self.window.y)

    def select(self, rows: Tensor) -> Record:
        """The same image with some of its objects: (G,) bool, or (M,) whole numbers."""
        masks = None if self.masks is None else self.masks[rows]
        return replace(
            self,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            difficult=self.difficult[rows],
            crowd=self.crowd[rows],
            areas=self.areas[rows],
            masks=masks,
        )

    @property
    def trainable(self) -> Tensor:
        """(G,) bool: the objects that a detector learns from."""
        return ~(self.difficult | self.crowd)


@dataclass(frozen=True)
class Target:
    """What a detector learns from one image: boxes in the pixels of the (transformed) image."""

    boxes: Tensor  # (G, 4) float32 xyxy
    labels: Tensor  # (G,) int64
    ignored: Tensor  # (I, 4) float32 xyxy: crowd and difficult regions, never sampled as background
    known: Tensor | None = None  # (K,) bool: the classes whose objects are annotated; None: all
    masks: Tensor | None = None  # (G, H, W) bool, of the image's size; one without a pixel: the object's mask is not known

    def to(self, device: torch.device | str) -> Target:
        """The same target on another device."""
        return Target(
            to_device(self.boxes, device),
            to_device(self.labels, device),
            to_device(self.ignored, device),
            None if self.known is None else to_device(self.known, device),
            None if self.masks is None else to_device(self.masks, device),
        )


@dataclass(frozen=True)
class Batch:
    """N images padded at the right and bottom to one size, with their true sizes."""

    images: Tensor  # (N, 3, H, W) RGB, uint8, or float32 in 0..255 where resizing does not round; zero in the padding
    sizes_hw: list[tuple[int, int]]  # N true sizes
    targets: list[Target] = field(default_factory=list)  # N, or none when predicting
    files: list[str] = field(default_factory=list)  # N, to name the images of a non-finite loss

    def __len__(self) -> int:
        return len(self.sizes_hw)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; the images stay as they are until the model normalises them."""
        return Batch(
            to_device(self.images, device),
            self.sizes_hw,
            [target.to(device) for target in self.targets],
            self.files,
        )

    def pin_memory(self) -> Batch:
        """The same batch with images and masks in page-locked memory, for an asynchronous copy to a GPU (by the DataLoader)."""
        targets = [
            target if target.masks is None else replace(target, masks=target.masks.pin_memory()) for target in self.targets
        ]
        return Batch(self.images.pin_memory(), self.sizes_hw, targets, self.files)


@dataclass(frozen=True)
class ScoredRegions:
    """What a detector says of regions of N images, before detections are selected: P regions of each, K classes."""

    scores: list[Tensor]  # N x (P, K): class probabilities, background left out
    boxes: list[Tensor]  # N x (P, K, 4): one box per class, not clipped
    finite: Tensor | None = (
        None  # () bool: whether the network's outputs were, which the selection requires. None: there are none
    )


AnyDetections = TypeVar("AnyDetections", bound="Detections")


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, by descending score. No detection is a valid value: all are empty.

    `masks` are plain data of the CPU, whatever device the other fields are on.
    """

    boxes: Tensor  # (D, 4) float32 xyxy, in the given image's pixels
    scores: Tensor  # (D,) float32 in [0, 1]
    labels: Tensor  # (D,) int64
    masks: Masks | None = field(default=None, kw_only=True)  # D, of the image's size; None where masks are not predicted

    def __len__(self) -> int:
        return len(self.scores)

    def to(self: AnyDetections, device: torch.device | str) -> AnyDetections:
        """The same detections on another device."""
        return replace(self, boxes=self.boxes.to(device), scores=self.scores.to(device), labels=self.labels.to(device))

    def __getitem__(self: AnyDetections, index: Tensor | slice) -> AnyDetections:
        """A selection: `detections[detections.scores > 0.5]`."""
        masks = None if self.masks is None else self.masks[index]
        return replace(self, boxes=self.boxes[index], scores=self.scores[index], labels=self.labels[index], masks=masks)

    @staticmethod
    def empty() -> Detections:
        """No detection."""
        boxes, scores = (torch.zeros(shape, dtype=torch.float32, device="cpu") for shape in ((0, 4), 0))
        return Detections(boxes, scores, torch.zeros(0, dtype=torch.long, device="cpu"))


DetectionsByImage = Mapping[Any, Detections]
"""The detections of each image by its ImageId. Any, since a Mapping's key type is invariant: a dict[str, Detections] is one."""


def pad_images(images: Sequence[Tensor]) -> Tensor:
    """Stack (3, H, W) images of different sizes and one type: zeros at the right and bottom -> (N, 3, maxH, maxW)."""
    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    batch = images[0].new_zeros((len(images), 3, height, width))
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return batch
