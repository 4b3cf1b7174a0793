"""Images resized to the network's input size, the same way in training and in test."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from detection.config import Resizing


def resized_size(size_hw: tuple[int, int], shorter_side: float, longer_side: float) -> tuple[int, int]:
    """(height, width) whose shorter side is `shorter_side`, or less where the longer would pass `longer_side`."""
    # In two steps, halves rounded up, as in detectron2: one scale, or round(), would make some sizes a pixel larger or smaller.
    scale = shorter_side / min(size_hw)
    height, width = (shorter_side if side == min(size_hw) else scale * side for side in size_hw)
    if max(height, width) > longer_side:
        scale = longer_side / max(height, width)
        height, width = height * scale, width * scale
    return max(int(height + 0.5), 1), max(int(width + 0.5), 1)


def resize_image(image: np.ndarray, size_hw: tuple[int, int], resizing: Resizing = "opencv") -> np.ndarray:
    """(H, W, 3) uint8 -> (h, w, 3) uint8, bilinear. When shrinking, Pillow averages all pixels, OpenCV skips some."""
    if image.shape[:2] == size_hw:
        return image
    if resizing == "pillow":
        return np.array(Image.fromarray(image).resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR))
    return cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR)
