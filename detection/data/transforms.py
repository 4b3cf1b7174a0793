"""An image and its boxes on the way to the network: albumentations as the config lists them, then the resize.

G objects and I ignored regions of one image. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import albumentations as A
import numpy as np
import torch
from torch import Tensor

from detection.config import Resizing
from detection.data.augmentations import apply_augmentation, reseed
from detection.data.records import MIN_SIDE
from detection.resize import resize_image, resized_size
from detection.structures import Record, Target


def make_target(record: Record, partial_labels: bool = True) -> Target:
    """The target of a record, in the pixels of its file: difficult and crowd objects become ignored regions.

    `partial_labels`: as `data.partial_labels`; without it what is not annotated is background, whatever the image knows.
    """
    keep = record.trainable
    known = record.known if partial_labels else None
    return Target(record.boxes[keep], record.labels[keep], record.boxes[~keep], known)


def prepare(
    image: np.ndarray,
    target: Target,
    augmentation: A.Compose,
    shorter_sides: Sequence[int],
    longer_side: int,
    seed: int,
    resizing: Resizing = "opencv",
    file: str = "",
) -> tuple[Tensor, Target]:
    """(H, W, 3) uint8 and its target -> (3, h, w) uint8 and the target in its pixels: augmented, then resized.

    A function of its arguments: the seed decides the augmentation and which of the shorter sides is taken; `file` names the
    image in a ConfigError, see `augment`.
    """
    reseed(augmentation, seed)
    image, target = augment(image, target, augmentation, file)
    shorter_side = int(np.random.default_rng(seed).choice(shorter_sides))
    image, target = resize(image, target, resized_size(image.shape[:2], shorter_side, longer_side), resizing)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), target


def augment(image: np.ndarray, target: Target, augmentation: A.Compose, file: str = "") -> tuple[np.ndarray, Target]:
    """Image and boxes after the augmentation; boxes of which nothing is left in the image are dropped.

    Raises ConfigError, naming the transform and `file`, if one cannot be applied (a crop larger than the image), or if the
    result is no uint8 RGB image.
    """
    if not augmentation.transforms:
        return image, target
    # The label rides along as a fifth column, -1 for ignored regions: label fields keep a state between calls.
    labels = torch.cat([target.labels, target.labels.new_full((len(target.ignored),), -1)])
    rows = torch.cat([torch.cat([target.boxes, target.ignored]), labels[:, None].float()], dim=1)
    result = apply_augmentation(augmentation, image, rows.numpy(), "data.augmentations", file)
    image = result["image"]
    rows = torch.from_numpy(np.array(result["bboxes"], dtype=np.float32)).reshape(-1, 5)
    boxes, labels = clip(rows[:, :4], image.shape[:2]), rows[:, 4].round().long()
    keep = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(dim=1)
    is_object = keep & (labels >= 0)
    return image, replace(target, boxes=boxes[is_object], labels=labels[is_object], ignored=boxes[keep & (labels < 0)])


def resize(
    image: np.ndarray, target: Target, size_hw: tuple[int, int], resizing: Resizing = "opencv"
) -> tuple[np.ndarray, Target]:
    """Image and boxes at another size; boxes by the true ratios, as rounding makes them differ between the axes."""
    ratio_y, ratio_x = size_hw[0] / image.shape[0], size_hw[1] / image.shape[1]
    scale = target.boxes.new_tensor([ratio_x, ratio_y, ratio_x, ratio_y])
    boxes, ignored = (clip(part * scale, size_hw) for part in (target.boxes, target.ignored))
    return resize_image(image, size_hw, resizing), replace(target, boxes=boxes, ignored=ignored)


def clip(boxes: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Cut (N, 4) boxes off at the border of an image of (height, width); one that lies outside becomes empty."""
    height, width = size_hw[:2]
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)
