"""The one way an image is brought to the network's size, in training and in test."""

from __future__ import annotations

import cv2
import numpy as np


def resized_size(size_hw: tuple[int, int], shorter_side: float, longer_side: float) -> tuple[int, int]:
    """(height, width) whose shorter side is `shorter_side`, or less where the longer would pass `longer_side`."""
    scale = min(shorter_side / min(size_hw), longer_side / max(size_hw))
    # Halves go up, as in detectron2: round() would take them to the even neighbour.
    return max(int(size_hw[0] * scale + 0.5), 1), max(int(size_hw[1] * scale + 0.5), 1)


def resize_image(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (h, w, 3) uint8, bilinear."""
    if image.shape[:2] == size_hw:
        return image
    return cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR)
