"""From the images that people hand to a detector, pixels or files, to the network's batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detection.config import MAX_PIXELS, Resizing, TestConfig
from detection.data.images import describe_more_frames, load_image
from detection.resize import resize_image, resized_size
from detection.structures import Batch

logger = logging.getLogger(__name__)

ImageInput = str | Path | np.ndarray | Tensor
"""An image file's path, or uint8 RGB pixels of any size: an array (H, W, 3) or a tensor (3, H, W)."""


def to_arrays(images: Sequence[ImageInput], max_pixels: int = MAX_PIXELS) -> list[np.ndarray]:
    """The pixels of images given in any of the forms, each (H, W, 3) uint8 RGB. Of a file with several frames it is the first,
    which is logged.

    Raises DatasetError, naming the file, for a path that leads to no image or to one of more than `max_pixels`, and
    ValueError for pixels of another form.
    """
    arrays, more_frames = [], []
    for image in images:
        if isinstance(image, str | Path):
            loaded = load_image(image, max_pixels)
            arrays.append(loaded.pixels)
            more_frames += [str(image)] if loaded.more_frames else []
        else:
            arrays.append(to_array(image))
    if more_frames:
        logger.warning("%s", describe_more_frames(more_frames))
    return arrays


def to_array(image: np.ndarray | Tensor) -> np.ndarray:
    """Pixels as (H, W, 3) uint8 RGB. Raises ValueError for those of another form."""
    array = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) else image
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(
            f"predict takes paths of image files and uint8 RGB images (H, W, 3) or (3, H, W), got {array.dtype} "
            f"{tuple(array.shape)}"
        )
    return array


def network_sizes(image_hw: tuple[int, int], test: TestConfig) -> dict[int, tuple[int, int]]:
    """The size (h, w) of an image at each shorter side that the settings name, that of the proposals first.

    `longer_side` grows and shrinks with the scale: an image it cuts down is cut down in the same proportion everywhere.
    """
    return {
        side: resized_size(image_hw, side, test.longer_side * side / test.shorter_side)
        for side in (test.shorter_side, *test.scales)
    }


def batch_of_size(arrays: Sequence[np.ndarray], size_hw: tuple[int, int], resizing: Resizing) -> Batch:
    """Images (H, W, 3) uint8 RGB, all resized to one size: a batch without padding, on the CPU."""
    resized = np.stack([resize_image(array, size_hw, resizing) for array in arrays])
    return Batch(torch.from_numpy(resized).permute(0, 3, 1, 2), [size_hw] * len(arrays))
