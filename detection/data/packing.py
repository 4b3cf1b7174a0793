"""All records of a data set in a few arrays.

A worker process gets a copy of what it reads from. A hundred thousand records of tensors would cost a spawned worker one
file handle per tensor, and a forked one a copy of each page that it touches; flat arrays cost neither.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from detection.data.transforms import make_target, with_masks
from detection.masks import Masks
from detection.structures import Record, Target
from detection.tiles import Window


@dataclass(frozen=True)
class PackedRecords:
    """N images, or parts of them, with B boxes together: each image's objects, then its ignored regions."""

    files: np.ndarray  # (N,) bytes
    sizes_hw: np.ndarray  # (N, 2) int, of the whole files
    windows: np.ndarray  # (N, 4) int: x, y, width, height of the part that is meant
    ends: np.ndarray  # (N, 2) int: the end in `boxes` of the image's objects, and of its ignored regions
    boxes: np.ndarray  # (B, 4) float32 xyxy
    labels: np.ndarray  # (B,) int64, -1 for ignored regions
    is_wide: np.ndarray  # (N,) bool: its part is at least as wide as high
    known: np.ndarray  # (M, K) bool: the different sets of known classes
    known_of: np.ndarray  # (N,) int: the image's row in `known`, -1 where it knows all classes
    has_masks: np.ndarray  # (N,) bool
    rles: np.ndarray  # (bytes,) uint8: all objects' masks as `Masks` keeps them, one after the other
    rle_ends: np.ndarray  # (B + 1,) int: the end in `rles` of what stands before each box; (0,) where no image has masks

    @classmethod
    def pack(cls, records: Sequence[Record], partial_labels: bool = True) -> PackedRecords:
        """Copy what training needs from the records; `partial_labels` as in `make_target`."""
        targets = [make_target(replace(record, masks=None), partial_labels) for record in records]
        counts = np.array([[len(target.boxes), len(target.ignored)] for target in targets], np.int64).reshape(-1, 2)
        labels = [torch.cat([target.labels, target.labels.new_full((len(target.ignored),), -1)]) for target in targets]
        boxes = [torch.cat([target.boxes, target.ignored]) for target in targets]
        sizes_hw = np.array([record.size_hw for record in records], np.int64).reshape(-1, 2)
        windows = [record.window or Window.whole(record.size_hw) for record in records]
        return cls(
            np.array([os.fsencode(record.file) for record in records]),
            sizes_hw,
            np.array(windows, np.int64).reshape(-1, 4),
            counts.cumsum().reshape(-1, 2),
            torch.cat([torch.zeros((0, 4), dtype=torch.float32, device="cpu"), *boxes]).numpy(),
            torch.cat([torch.zeros(0, dtype=torch.long, device="cpu"), *labels]).numpy(),
            np.array([window.width >= window.height for window in windows], bool),
            *_pack_known([target.known for target in targets]),
            *_pack_masks(records, counts),
        )

    def __len__(self) -> int:
        return len(self.files)

    def file(self, index: int) -> str:
        """The path of an image."""
        return os.fsdecode(self.files[index])

    def size_hw(self, index: int) -> tuple[int, int]:
        """(height, width) of an image's file."""
        height, width = self.sizes_hw[index].tolist()
        return height, width

    def window(self, index: int) -> Window:
        """The part of the file that is meant."""
        return Window(*self.windows[index].tolist())

    def target(self, index: int) -> Target:
        """The target of an image, in the pixels of its part of the file."""
        start = int(self.ends[index - 1, 1]) if index else 0
        middle, end = self.ends[index].tolist()
        # Copies: a tensor must not share the memory of all workers.
        boxes = torch.from_numpy(self.boxes[start:end].copy())
        labels = torch.from_numpy(self.labels[start:middle].copy())
        row = int(self.known_of[index])
        known = None if row < 0 else torch.from_numpy(self.known[row].copy())
        target = Target(boxes[: middle - start], labels, boxes[middle - start :], known)
        if not self.has_masks[index]:
            return target
        window = self.window(index)
        is_whole = window == Window.whole(self.size_hw(index))
        return with_masks(target, self._masks(index, start, middle), None if is_whole else window)

    def _masks(self, index: int, start: int, end: int) -> Masks:
        edges = itertools.pairwise(self.rle_ends[start : end + 1].tolist())
        return Masks(self.size_hw(index), tuple(self.rles[first:last].tobytes() for first, last in edges))


def _pack_masks(records: Sequence[Record], counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`has_masks`, `rles` and `rle_ends` of N records, whose numbers of objects and ignored regions are `counts` (N, 2)."""
    has_masks = np.array([record.masks is not None for record in records], bool)
    if not has_masks.any():
        return has_masks, np.zeros(0, np.uint8), np.zeros(0, np.int64)
    texts: list[bytes] = []
    for record, (objects, ignored) in zip(records, counts.tolist(), strict=True):
        texts += [b""] * objects if record.masks is None else record.masks[record.trainable].counts
        texts += [b""] * ignored  # nothing is learnt of what they look like
    ends = np.array([0, *map(len, texts)], np.int64).cumsum()
    return has_masks, np.frombuffer(b"".join(texts), np.uint8), ends


def _pack_known(known: Sequence[Tensor | None]) -> tuple[np.ndarray, np.ndarray]:
    """Each different set (K,) once, as rows (M, K), and the row of each of N images (N,), -1 for None; (0,) without any."""
    rows: dict[bytes, int] = {}
    row_of = [-1 if mask is None else rows.setdefault(mask.numpy().tobytes(), len(rows)) for mask in known]
    return np.array([np.frombuffer(each, bool) for each in rows], bool), np.array(row_of, np.int64)
