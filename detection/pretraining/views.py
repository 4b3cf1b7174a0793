"""The views of a test image whose class probabilities are averaged: ten crops, or the whole image at several scales.

N images, V views of one size, S = data.image_size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from detection.config import ClassifierConfig, ClassifierTestConfig
from detection.data.loader import LoadedBatch, unwrap
from detection.data.workers import load
from detection.errors import DatasetError
from detection.pretraining.folders import ImageFolder
from detection.resize import resize_image

Image = np.ndarray


@dataclass
class ViewGroup:
    """Views that have one size and are computed together, of several images."""

    images: Tensor  # (V, 3, h, w) uint8 RGB
    image_indices: Tensor  # (V,) int64: the place in the batch of the image that each view shows


@dataclass
class ViewBatch:
    """N images as groups of views; every image has as many views in each group, and all groups have equal weight."""

    groups: list[ViewGroup]
    labels: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.labels)


def ten_crops(image: Image, size: int) -> Image:
    """(H, W, 3) -> (10, S, S, 3): four corners and the centre of the image at 256/224 of S, and their mirror images."""
    image = resize_shorter_side(image, round(size * 256 / 224))
    bottom, right = image.shape[0] - size, image.shape[1] - size
    # The middle is where the centre crop is cut, rounded down.
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = np.stack([image[y : y + size, x : x + size] for y, x in corners])
    return np.concatenate([crops, crops[:, :, ::-1]])


def full_image_views(image: Image, scale: int, flip: bool) -> Image:
    """(H, W, 3) -> (1 or 2, h, w, 3): the image with that shorter side, and with `flip` its mirror image."""
    image = resize_shorter_side(image, scale)
    return np.stack([image, image[:, ::-1]] if flip else [image])


def resize_shorter_side(image: Image, side: int) -> Image:
    """(H, W, 3) resized to that shorter side at the same aspect ratio; the longer side is rounded."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    size_hw = (side, max(side, round(width * scale))) if height <= width else (max(side, round(height * scale)), side)
    return image if size_hw == (height, width) else resize_image(image, size_hw)


def make_views(image: Image, test: ClassifierTestConfig, image_size: int) -> list[Image]:
    """One array (V, h, w, 3) for each group of views."""
    if test.views == "ten_crop":
        return [ten_crops(image, image_size)]
    return [full_image_views(image, scale, test.flip) for scale in test.scales or (image_size,)]


class _ViewDataset(TorchDataset[LoadedBatch | DatasetError]):
    """Indices of images -> the batch of their views, or the error as a value."""

    def __init__(self, folder: ImageFolder, config: ClassifierConfig) -> None:
        self.folder = folder
        self.config = config

    def __getitem__(self, indices: Sequence[int]) -> LoadedBatch | DatasetError:
        skip = self.config.data.on_bad_image == "skip"
        kept, views, skipped = [], [], list[str]()
        for index in indices:
            try:
                views.append(make_views(self.folder.image(index), self.config.test, self.config.data.image_size))
            except DatasetError as error:
                if not skip:
                    return error
                skipped.append(str(error))
                continue
            kept.append(index)
        return LoadedBatch(ViewBatch(_group(views), self.folder.labels[kept]), tuple(skipped))


def _group(images: list[list[Image]]) -> list[ViewGroup]:
    """Views of one group and size are computed together."""
    found: dict[tuple[int, tuple[int, ...]], list[tuple[int, Image]]] = {}
    for owner, groups in enumerate(images):
        for number, views in enumerate(groups):
            found.setdefault((number, views.shape[1:]), []).append((owner, views))
    return [
        ViewGroup(
            torch.from_numpy(np.concatenate([views for _, views in members])).permute(0, 3, 1, 2),
            torch.tensor([owner for owner, views in members for _ in views], device="cpu"),
        )
        for members in found.values()
    ]


def view_loader(folder: ImageFolder, config: ClassifierConfig) -> Iterator[ViewBatch]:
    """All images once, in order, in the views of `config.test`. Raises DatasetError."""
    size = config.train.micro_batch
    if config.test.views == "ten_crop":
        size = max(1, size // 10)
    indices = [list(range(start, min(start + size, len(folder)))) for start in range(0, len(folder), size)]
    loaded = load(
        _ViewDataset(folder, config),
        indices,
        config.data.workers,
        config.data.loader_timeout,
        name_files=lambda wanted: [folder.files[index] for index in wanted],
    )
    return (batch for batch in unwrap(loaded) if len(batch))
