"""Images as one detector sees them: at the sizes of its scales, mirrored or not, each feature map computed once.

N images that have the same size for the network, P regions each, C feature channels. Boxes: xyxy pixels of the size at
which the detector proposes, `test.shorter_side`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from detection.config import TestConfig
from detection.modeling import FasterRCNN
from detection.modeling.boxes import mirror_boxes
from detection.resize import resize_image, resized_size
from detection.structures import Batch


def network_sizes(image_hw: tuple[int, int], test: TestConfig) -> dict[int, tuple[int, int]]:
    """The size (h, w) of an image at each shorter side that the settings name, that of the proposals first.

    `longer_side` grows and shrinks with the scale: an image it cuts down is cut down in the same proportion everywhere.
    """
    return {
        side: resized_size(image_hw, side, test.longer_side * side / test.shorter_side)
        for side in (test.shorter_side, *test.scales)
    }


class View:
    """N images (H, W, 3) uint8 RGB, all of one size for the network. What was computed once is kept.

    `test` says which sizes and how to use them: the detector's own settings, or others through `under`.
    """

    def __init__(self, detector: FasterRCNN, arrays: Sequence[np.ndarray], *, mirrored: bool = False) -> None:
        self.detector = detector
        self.arrays = [np.ascontiguousarray(array[:, ::-1]) for array in arrays] if mirrored else list(arrays)
        self.mirrored = mirrored
        self._features: dict[tuple[tuple[int, int], int], Tensor] = {}
        self._proposals: dict[tuple[int, int], list[Tensor]] = {}
        self._set(detector.config.test)

    def _set(self, test: TestConfig) -> None:
        self.test = test
        self.sizes_hw = network_sizes(self.arrays[0].shape[:2], test)
        self.size_hw = self.sizes_hw[test.shorter_side]
        self.context: Tensor | None = None  # (N, D), once somebody has computed it

    def under(self, test: TestConfig) -> View:
        """The same images under other settings. Both views keep feature maps and proposals in one place, by size."""
        other = copy.copy(self)
        other._set(test)
        return other

    def features(self, shorter_side: int, rows: Sequence[int]) -> Tensor:
        """The feature maps (len(rows), C, H/16, W/16) of some of the images at one scale."""
        size_hw = self.sizes_hw[shorter_side]
        missing = [row for row in rows if (size_hw, row) not in self._features]
        if missing:
            resizing = self.detector.config.data.resizing
            resized = np.stack([resize_image(self.arrays[row], size_hw, resizing) for row in missing])
            batch = Batch(torch.from_numpy(resized).permute(0, 3, 1, 2), [size_hw] * len(missing))
            maps = self.detector.extract(batch.to(self.detector.device))
            self._features |= {(size_hw, row): image for row, image in zip(missing, maps, strict=True)}
        return torch.stack([self._features[size_hw, row] for row in rows])

    def propose(self) -> list[Tensor]:
        """The detector's proposals on the images as they are given, at the single scale: N x (P, 4)."""
        if self.size_hw not in self._proposals:
            rows = range(len(self.arrays))
            features = self.features(self.test.shorter_side, rows)
            self._proposals[self.size_hw] = self.detector.propose(features, [self.size_hw] * len(rows))
        return self.mirror(self._proposals[self.size_hw])

    def mirror(self, boxes: Sequence[Tensor]) -> list[Tensor]:
        """N x (..., 4) boxes from the images as given to the images as seen, or back; the same unless mirrored."""
        return [mirror_boxes(image_boxes, self.size_hw[1]) if self.mirrored else image_boxes for image_boxes in boxes]
