"""Transforms of the paper that albumentations does not have; a config names them like those of albumentations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import albumentations as A
import numpy as np
from pydantic import Field

# Principal components (the columns) of the RGB colours, in 0..1, of ImageNet's training images (Krizhevsky et al. 2012, 4.1).
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


class AlexNetColor(A.ImageOnlyTransform):
    """AlexNet's colour augmentation (section 3.4): one random shift of all pixels along ImageNet's principal colours.

    Each component is multiplied by its eigenvalue and a normal number of standard deviation `std`.
    """

    class InitSchema(A.BasicTransform.InitSchema):
        std: float = Field(ge=0)

    def __init__(self, std: float = 0.1, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.std = std

    def apply(self, img: np.ndarray, shift: np.ndarray, **params: Any) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> the same, shifted and clipped."""
        return np.clip(np.rint(img + shift), 0, 255).astype(np.uint8)

    def get_params(self) -> dict[str, np.ndarray]:
        """The shift of each channel, in 0..255."""
        strengths = self.random_generator.normal(0, self.std, 3)
        return {"shift": (EIGENVECTORS @ (strengths * EIGENVALUES) * 255).astype(np.float32)}


class RandomShorterSide(A.SmallestMaxSize):
    """Scale augmentation (section 3.4): the shorter side becomes any whole number of pixels in [low, high]."""

    class InitSchema(A.BasicTransform.InitSchema):
        low: int = Field(ge=1, le=2**14)
        high: int = Field(ge=1, le=2**14)

    def __init__(self, low: int = 256, high: int = 480, p: float = 1.0) -> None:
        if not 0 < low <= high:
            raise ValueError(f"needs 0 < low <= high, got {low} and {high}")
        super().__init__(max_size=list(range(low, high + 1)), p=p)
        self.low, self.high = low, high


PAPER_TRANSFORMS: Mapping[str, type[A.BasicTransform]] = {
    "AlexNetColor": AlexNetColor,
    "RandomShorterSide": RandomShorterSide,
}
