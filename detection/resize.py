"""Images resized to the network's input size, the same way in training and in test."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from detection.config import Resizing


def resized_size(
    size_hw: tuple[int, int], shorter_side: float, longer_side: float, resizing: Resizing = "opencv"
) -> tuple[int, int]:
    """(height, width) whose shorter side is `shorter_side`, or less where the longer would pass `longer_side`."""
    if resizing == "torchvision":
        # With its order of operations in float64: where a product is just below a whole number, a pixel is lost there, too.
        scale = min(shorter_side / min(size_hw), longer_side / max(size_hw))
        return max(math.floor(size_hw[0] * scale), 1), max(math.floor(size_hw[1] * scale), 1)
    # In two steps, halves rounded up, as in detectron2: one scale, or round(), would make some sizes a pixel larger or smaller.
    scale = shorter_side / min(size_hw)
    height, width = (shorter_side if side == min(size_hw) else scale * side for side in size_hw)
    if max(height, width) > longer_side:
        scale = longer_side / max(height, width)
        height, width = height * scale, width * scale
    return max(int(height + 0.5), 1), max(int(width + 0.5), 1)


def resize_image(image: np.ndarray, size_hw: tuple[int, int], resizing: Resizing = "opencv") -> np.ndarray:
    """(H, W, 3) uint8 -> (h, w, 3) uint8, bilinear; torchvision's way float32 in 0..255, as nothing is rounded there.

    When shrinking, Pillow averages all pixels, the others skip some.
    """
    if resizing == "torchvision":
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        return F.interpolate(pixels, size_hw, mode="bilinear")[0].permute(1, 2, 0).numpy()
    if image.shape[:2] == size_hw:
        return image
    if resizing == "pillow":
        return np.array(Image.fromarray(image).resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR))
    return cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR)
