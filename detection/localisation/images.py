"""The images of CLS-LOC with their one class and its boxes, in a few arrays: half a million images, and workers copy them.

N images with G boxes together, K classes. Boxes: xyxy pixels, continuous, of images as high and wide as annotated.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class LocImages:
    """N images of one class each, with at least one box."""

    class_names: tuple[str, ...]  # K WNIDs in alphabetical order, as an ImageNet classifier's class folders
    titles: tuple[str, ...]  # K names for people
    folder: str  # where the images lie
    ids: np.ndarray  # (N,) bytes: "n01440764/n01440764_10026"; see `id_of` and `file_of`
    sizes_hw: np.ndarray  # (N, 2) int32, as annotated
    labels: np.ndarray  # (N,) int64
    boxes: np.ndarray  # (G, 4) float32 xyxy, each image's after those of the image before it
    ends: np.ndarray  # (N,) int64: where each image's boxes end in `boxes`
    unevaluated: np.ndarray  # (N,) bool: validation images that localisation is not measured on

    def __len__(self) -> int:
        return len(self.ids)

    def id_of(self, index: int) -> str:
        """The id of an image, as the lists have it."""
        return os.fsdecode(self.ids[index])

    def file_of(self, index: int) -> str:
        """The path of an image."""
        return f"{self.folder}/{self.id_of(index)}.JPEG"

    def size_hw(self, index: int) -> tuple[int, int]:
        """(height, width) of an image, as annotated."""
        height, width = self.sizes_hw[index].tolist()
        return height, width

    def boxes_of(self, index: int) -> Tensor:
        """(G_i, 4) float32: the boxes of an image, in the pixels of its annotated size."""
        start = int(self.ends[index - 1]) if index else 0
        # A copy: a tensor must not share the memory of all workers.
        return torch.from_numpy(self.boxes[start : self.ends[index]].copy())

    @property
    def num_boxes(self) -> np.ndarray:
        """(N,) int64: the number of boxes of each image."""
        return np.diff(self.ends, prepend=0)

    def subset(self, indices: Sequence[int] | np.ndarray) -> LocImages:
        """Some of the images, in this order."""
        chosen = np.asarray(indices, np.int64).reshape(-1)
        counts = self.num_boxes[chosen]
        ends = counts.cumsum()
        # Row r of the new boxes is the (r - start)-th of its image, whose own start is in the old ones.
        rows = np.arange(counts.sum()) + np.repeat(self.ends[chosen] - ends, counts)
        return replace(
            self,
            ids=self.ids[chosen],
            sizes_hw=self.sizes_hw[chosen],
            labels=self.labels[chosen],
            boxes=self.boxes[rows],
            ends=ends,
            unevaluated=self.unevaluated[chosen],
        )
