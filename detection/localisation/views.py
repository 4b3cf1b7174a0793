"""What the RPN sees of an image: its centre, as classifiers do, or all of it at several scales; mirrored too, if asked.

Boxes: xyxy pixels, of a view or of the image's own size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detection.config.localiser import LocTestConfig
from detection.modeling.boxes import clip_boxes, mirror_boxes, scale_boxes
from detection.resize import resize_image, resized_size

Size = tuple[int, int]
"""(height, width)."""


@dataclass(frozen=True)
class LocView:
    """An image resized to `resized_hw`, of that the part of `size_hw` whose upper left corner is `corner`, and its mirror
    image if `mirrored`."""

    image_hw: Size
    resized_hw: Size
    corner: tuple[int, int]  # (x, y) in pixels of the resized image
    size_hw: Size
    mirrored: bool = False

    def of_image(self, image: Tensor) -> Tensor:
        """The view's pixels (3, h, w) of the image (3, H, W), both uint8 on the CPU."""
        (x, y), (height, width) = self.corner, self.size_hw
        array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        seen = resize_image(array, self.resized_hw)[y : y + height, x : x + width]
        return torch.from_numpy(np.ascontiguousarray(seen[:, ::-1] if self.mirrored else seen)).permute(2, 0, 1)

    def to_image(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) of the view in pixels of the image, clipped to the image, of which the view may be a part."""
        if self.mirrored:
            boxes = mirror_boxes(boxes, self.size_hw[1])
        boxes = boxes + boxes.new_tensor([*self.corner, *self.corner])
        # By the true ratio of each axis, as both sides of the resized image were rounded.
        return clip_boxes(scale_boxes(boxes, self.resized_hw, self.image_hw), self.image_hw)


def views_of(image_hw: Size, test: LocTestConfig, image_size: int) -> list[LocView]:
    """The views of an image of that size that `test` asks for; with `test.flip` each is followed by its mirror image.

    `image_size` is the network's in training: the side of the centre view, which is cut out of the image at a shorter side of
    256/224 of it.
    """
    if test.views == "center":
        views = [_centre(image_hw, image_size)]
    else:
        views = [_whole(image_hw, side, test.longer_side) for side in test.scales]
    mirrored = (False, True) if test.flip else (False,)
    return [LocView(view.image_hw, view.resized_hw, view.corner, view.size_hw, flip) for view in views for flip in mirrored]


def _centre(image_hw: Size, side: int) -> LocView:
    resized = resized_size(image_hw, round(side * 256 / 224), math.inf)
    # An odd rest is cut off at the right and bottom, as in the classifier's centre view.
    y, x = (max(0, (length - side) // 2) for length in resized)
    return LocView(image_hw, resized, (x, y), (side, side))


def _whole(image_hw: Size, shorter_side: int, longer_side: int) -> LocView:
    resized = resized_size(image_hw, shorter_side, longer_side)
    return LocView(image_hw, resized, (0, 0), resized)
