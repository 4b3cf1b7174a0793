"""Large images as their tiles, for training: which parts of an image are learnt from, and what of the objects at their borders.

G objects of one image. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from detection.config import DataConfig
from detection.data.catalog import Dataset
from detection.data.records import MIN_SIDE
from detection.data.transforms import clip
from detection.errors import DatasetError
from detection.structures import Record
from detection.tiles import Window, tile_windows


def tile_dataset(dataset: Dataset, data: DataConfig) -> Dataset:
    """What training draws from: images that fit into a tile as they are, of each other image a record for each window."""
    if not data.tile:
        return dataset
    return replace(dataset, records=[part for record in dataset.records for part in cut_record(record, data)])


def tile_factors(records: Sequence[Record], data: DataConfig) -> np.ndarray:
    """(N,) how often each part is drawn in an epoch, on average: once, but tiles without an object as `data.tile_empty` says.

    All of these have their turn in the course of several epochs. Raises DatasetError where nothing would ever be drawn.
    """
    full, empty = (np.array([_is_tile(record, objects) for record in records], bool) for objects in (True, False))
    share = data.tile_empty * max(full.sum(), 1) / max(empty.sum(), 1)
    factors = np.where(empty, min(share, 1.0), 1.0)
    if not factors.any():
        raise DatasetError("no tile of the training images holds an object: raise data.tile_empty, or set data.tile to 0")
    return factors


def describe_tiles(whole: Dataset, tiles: Dataset, data: DataConfig) -> list[str]:
    """Sentences about what became of the images, and of objects that are learnt nowhere; none without tiles."""
    if not data.tile:
        return []
    full = sum(_is_tile(record, objects=True) for record in tiles.records)
    empty = sum(_is_tile(record, objects=False) for record in tiles.records)
    drawn = tile_factors(tiles.records, data).sum() - (len(tiles) - empty)
    sentences = [
        f"an epoch is {full} tiles with objects, {drawn:.0f} of {empty} without (data.tile_empty), and "
        f"{len(tiles) - full - empty} whole images"
    ]
    lost = 0 if data.tile_whole or data.tile_cut == "clip" else sum(count_lost(record, data) for record in whole.records)
    if lost:
        sentences.append(
            f"{lost} objects are learnt nowhere: no tile holds the share data.tile_min_area of them ({data.tile_min_area:g}); "
            "set data.tile_whole to true, or raise data.tile or data.tile_overlap"
        )
    return sentences


def cut_record(record: Record, data: DataConfig) -> list[Record]:
    """An image's tiles, before them the whole image with `data.tile_whole`; the record alone where the image fits into one."""
    windows = tile_windows(record.size_hw, data.tile, data.tile_overlap)
    if len(windows) == 1:
        return [record]
    tiles = [tile_record(record, window, data) for window in windows]
    return [record, *tiles] if data.tile_whole else tiles


def tile_record(record: Record, window: Window, data: DataConfig) -> Record:
    """What a window shows of a record: boxes cut off at its borders, in its pixels.

    By `data.tile_cut`, objects of which it holds less than `data.tile_min_area` become ignored regions.
    """
    boxes, share = boxes_in(record.boxes, window)
    there = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(dim=1)
    ignored = (share < data.tile_min_area) & (data.tile_cut == "ignore")
    shown = replace(record, boxes=boxes, difficult=record.difficult | ignored, areas=record.areas * share, window=window)
    return shown.select(there)


def boxes_in(boxes: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """The parts of boxes (G, 4) inside a window, in its pixels, empty for those outside; and their shares of the boxes (G,)."""
    moved = boxes - boxes.new_tensor([window.x, window.y, window.x, window.y])
    parts = clip(moved, window.size_hw)
    return parts, _areas(parts) / _areas(moved)


def count_lost(record: Record, data: DataConfig) -> int:
    """How many of a record's objects are in no tile to the share that `data.tile_min_area` asks for."""
    found = ~record.trainable
    for window in tile_windows(record.size_hw, data.tile, data.tile_overlap):
        found = found | (boxes_in(record.boxes, window)[1] >= data.tile_min_area)
    return int((~found).sum())


def _areas(boxes: Tensor) -> Tensor:
    width_height = boxes[:, 2:] - boxes[:, :2]
    return width_height[:, 0] * width_height[:, 1]


def _is_tile(record: Record, objects: bool) -> bool:
    """Whether a record is a part of an image, and one with objects to learn, or without."""
    return record.window is not None and bool(record.trainable.any()) == objects
