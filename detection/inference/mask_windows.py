"""Masks that lie in a part of their image: run lengths of the whole image made of the part alone.

A part of h x w pixels lies with its corner at (x, y), in whole pixels, in an image of H x W.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pycocotools import mask as mask_api

from detection.masks import Masks
from detection.tiles import Window

_Ints = npt.NDArray[np.int64]


def runs_of_columns(columns: npt.NDArray[np.bool_], x: int, y: int, height: int) -> _Ints:
    """Where the object begins and ends, in turn, in an image of that height whose pixels are counted column by column.

    `columns` (w, h) are those of the part, one a row. A run ends with its column; the next may begin where it ends.
    """
    width, rows = columns.shape
    padded = np.zeros((width, rows + 2), dtype=np.int8)
    padded[:, 1:-1] = columns
    column, row = np.nonzero(np.diff(padded, axis=1))
    edges: _Ints = (column + x) * height + row + y
    return edges


def encode_edges(edges: _Ints, size_hw: tuple[int, int]) -> bytes:
    """Beginnings and ends of the runs of an image, in turn and ascending -> COCO's text, as `Rle` has it."""
    height, width = size_hw
    starts, ends = edges[0::2], edges[1::2]
    apart = np.ones(len(starts) + 1, dtype=np.bool_)
    if len(starts):
        apart[1:-1] = starts[1:] != ends[:-1]  # else the run goes on in the next column
    bounds = np.stack([starts[apart[:-1]], ends[apart[1:]]], axis=1).reshape(-1)
    runs = np.diff(bounds, prepend=0, append=height * width).tolist()
    if len(runs) > 1 and not runs[-1]:
        runs.pop()  # no run of no length but the first: others mislead pycocotools
    counts: bytes = mask_api.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"]
    return counts


def masks_in_image(masks: Masks, window: Window, size_hw: tuple[int, int]) -> Masks:
    """The masks of a window of an image as masks of the image, which has (height, width) pixels."""
    if window == Window.whole(size_hw):
        return masks
    one_by_one = (Masks(masks.size_hw, (counts,)).decode()[0] for counts in masks.counts)
    edges = (runs_of_columns(bitmap.numpy().T, window.x, window.y, size_hw[0]) for bitmap in one_by_one)
    return Masks(size_hw, tuple(encode_edges(each, size_hw) for each in edges))
