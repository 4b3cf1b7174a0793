"""From the small masks in boxes to masks of the image (Mask R-CNN, section 3.1).

D detections of one image of H x W pixels, M x M cells of a mask. A pixel is the object's where its probability, interpolated
between the cells, is 0.5 or more. Interpolation is linear along each axis, so an object's pixels are the product of three small
matrices: rows (h, M) . probabilities (M, M) . columns (M, w); only the pixels of its box are computed, some columns at a time.
Boxes: xyxy pixels of the image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from detection.config import Pasting
from detection.inference.mask_windows import encode_edges, runs_of_columns
from detection.masks import Masks

THRESHOLD = 0.5
_PIXELS_AT_A_TIME = 2**20

Axis = Callable[[float, float, int, int], tuple[int, Tensor]]
"""Along one axis: a box's start and end in pixels, M, and the image's extent -> its first pixel, and what each of n pixels
takes of each cell, (n, M) float32."""


def paste_masks(probabilities: Tensor, boxes: Tensor, size_hw: tuple[int, int], pasting: Pasting = "grid") -> Masks:
    """D masks of an image of (height, width) pixels, from those in their boxes, (D, M, M) in [0, 1].

    "grid": the probability at the centre of each pixel; what is outside of the box is not the object's. As in detectron2.
    "whole_pixels": the mask, with an empty cell around it, is resized to the box rounded to whole pixels. As in torchvision.
    """
    axis = AXES[pasting]
    with torch.autocast("cpu", enabled=False):
        counts = [
            _paste(mask, box, size_hw, axis) for mask, box in zip(probabilities.float().cpu(), boxes.tolist(), strict=True)
        ]
    return Masks((size_hw[0], size_hw[1]), tuple(counts))


def _paste(mask: Tensor, box: list[float], size_hw: tuple[int, int], axis: Axis) -> bytes:
    height, width = size_hw
    x, columns = axis(box[0], box[2], len(mask), width)
    y, rows = axis(box[1], box[3], len(mask), height)
    by_row = mask.T @ rows.T  # (M, h)
    step = max(1, _PIXELS_AT_A_TIME // max(1, len(rows)))
    parts = [
        runs_of_columns((some @ by_row >= THRESHOLD).numpy(), x + number * step, y, height)
        for number, some in enumerate(columns.split(step))
        if len(some)
    ]
    return encode_edges(np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64), size_hw)


def _at_centres(start: float, end: float, cells: int, extent: int) -> tuple[int, Tensor]:
    """Pixels are sampled at their centres in a box that the cells divide evenly; zero beyond the outermost cells' centres."""
    first, last = _clamped(int(np.floor(start)), extent), _clamped(int(np.ceil(end)), extent)
    centres = torch.arange(first, last, dtype=torch.float64, device="cpu") + 0.5
    # An empty box has no pixel whose probability would be defined.
    places = (centres - start) * (cells / max(end - start, 1e-12)) - 0.5
    return first, _hats(places, cells)


def _whole_pixels(start: float, end: float, cells: int, extent: int) -> tuple[int, Tensor]:
    """The cells, with one more on each side that is empty, resized to the box that they take, rounded down to whole pixels."""
    padded = cells + 2
    # In float32, as torchvision: another rounding could move a side by a whole pixel.
    sides = torch.tensor([start, end], dtype=torch.float32, device="cpu")
    half, centre = (sides[1] - sides[0]) * 0.5 * (padded / cells), (sides[1] + sides[0]) * 0.5
    low, high = int(centre - half), int(centre + half)
    length = max(high - low + 1, 1)
    first, last = _clamped(low, extent), _clamped(low + length, extent)
    pixels = torch.arange(first - low, last - low, dtype=torch.float64, device="cpu")
    places = ((pixels + 0.5) * (padded / length) - 0.5).clamp(0, padded - 1)
    return first, _hats(places, padded)[:, 1:-1]  # the empty cells add nothing


def _clamped(pixel: int, extent: int) -> int:
    return min(max(pixel, 0), extent)


def _hats(places: Tensor, cells: int) -> Tensor:
    """What a place between cells takes of each: (n,) -> (n, cells) float32."""
    return (1 - (places[:, None] - torch.arange(cells, device="cpu")).abs()).clamp(min=0).float()


AXES: dict[Pasting, Axis] = {"grid": _at_centres, "whole_pixels": _whole_pixels}
