"""Tiles: windows of one size that cover a large image, each sharing a strip with its neighbours. Pixels are the image's own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """A part of an image, in whole pixels of it."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def whole(cls, size_hw: tuple[int, int]) -> Window:
        """All of an image of this height and width."""
        return cls(0, 0, size_hw[1], size_hw[0])

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        """The window's pixels (h, w, ...) of an image's (H, W, ...): a view of the same memory."""
        return pixels[self.y : self.y + self.height, self.x : self.x + self.width]


def tile_windows(size_hw: tuple[int, int], tile: int, overlap: float) -> list[Window]:
    """The tiles of an image, row by row: with sides of `tile` pixels, or the image's where those are shorter.

    `overlap`, a share of `tile`, is what neighbours have in common at least: an object that is no larger than this lies in one
    of them as a whole. An image that fits into a tile is one window, and so is any image if `tile` is 0.
    """
    whole = Window.whole(size_hw)
    if not tile:
        return [whole]
    width, height = min(tile, whole.width), min(tile, whole.height)
    shared = round(tile * overlap)
    columns, rows = tile_starts(whole.width, tile, shared), tile_starts(whole.height, tile, shared)
    return [Window(x, y, width, height) for y in rows for x in columns]


def tile_starts(length: int, tile: int, shared: int) -> list[int]:
    """Where tiles begin along a side of an image: `tile - shared` apart, the last so that it ends where the image does."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - shared), length - tile]
