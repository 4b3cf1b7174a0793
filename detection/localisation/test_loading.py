"""Each image of localisation once, in order and at its own size, as it is tested."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from detection.config import LocConfig
from detection.data.workers import load
from detection.errors import DatasetError
from detection.localisation.images import LocImages


class LocTestDataset(TorchDataset[Tensor | DatasetError]):
    """Decodes: index -> (3, H, W) uint8 RGB, or the error as a value."""

    def __init__(self, images: LocImages, max_pixels: int) -> None:
        self.images, self.max_pixels = images, max_pixels

    def __getitem__(self, index: int) -> Tensor | DatasetError:
        try:
            return torch.from_numpy(self.images.image(index, self.max_pixels)).permute(2, 0, 1)
        except DatasetError as error:
            return error


def loc_test_loader(images: LocImages, config: LocConfig) -> Generator[tuple[int, Tensor | DatasetError], None, None]:
    """The number of each image, and its pixels (3, H, W) uint8 RGB, or why they cannot be had.

    An image may have another size than annotated: what is found in it is `scale_boxes`d to `images.size_hw(index)`. Raises
    DatasetError where nothing comes for `data.loader_timeout` seconds. `close()` ends the workers.
    """
    data, order = config.data, range(len(images))
    dataset = LocTestDataset(images, data.max_pixels)
    loaded = load(dataset, order, data.workers, data.loader_timeout, name_files=lambda index: [images.file_of(index)])
    with closing(loaded):
        yield from enumerate(loaded)
