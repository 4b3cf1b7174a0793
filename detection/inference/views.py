"""Images as one detector sees them: at the sizes of its scales, mirrored or not, each feature map computed once.

N images that have the same size for the network, P regions each, C feature channels. Boxes: xyxy pixels of the size at
which the detector proposes, `test.shorter_side`.
"""

from __future__ import annotations

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
    """N images (H, W, 3) uint8 RGB, all of one size for the network. What was computed once is kept."""

    def __init__(self, detector: FasterRCNN, arrays: Sequence[np.ndarray], *, mirrored: bool = False) -> None:
        self.detector = detector
        self.arrays = [np.ascontiguousarray(array[:, ::-1]) for array in arrays] if mirrored else list(arrays)
        self.mirrored = mirrored
        self.sizes_hw = network_sizes(arrays[0].shape[:2], detector.config.test)
        self.size_hw = self.sizes_hw[detector.config.test.shorter_side]
        self.context: Tensor | None = None  # (N, D), once somebody has computed it
        self._features: dict[tuple[int, int], Tensor] = {}

    def features(self, shorter_side: int, rows: Sequence[int]) -> Tensor:
        """The feature maps (len(rows), C, H/16, W/16) of some of the images at one scale."""
        size_hw = self.sizes_hw[shorter_side]
        missing = [row for row in rows if (shorter_side, row) not in self._features]
        if missing:
            resized = np.stack([resize_image(self.arrays[row], size_hw) for row in missing])
            batch = Batch(torch.from_numpy(resized).permute(0, 3, 1, 2), [size_hw] * len(missing))
            maps = self.detector.extract(batch.to(self.detector.device))
            self._features |= {(shorter_side, row): image for row, image in zip(missing, maps, strict=True)}
        return torch.stack([self._features[shorter_side, row] for row in rows])

    def propose(self) -> list[Tensor]:
        """The detector's proposals on the images as they are given, at the single scale: N x (P, 4)."""
        rows = range(len(self.arrays))
        features = self.features(self.detector.config.test.shorter_side, rows)
        proposals = self.detector.propose(features, [self.size_hw] * len(rows))
        return self.mirror(proposals)

    def mirror(self, boxes: Sequence[Tensor]) -> list[Tensor]:
        """N x (..., 4) boxes from the images as given to the images as seen, or back; the same unless mirrored."""
        return [mirror_boxes(image_boxes, self.size_hw[1]) if self.mirrored else image_boxes for image_boxes in boxes]
