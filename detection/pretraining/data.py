"""Batches of labelled square images for the classification stage, in an order that a resumed run can continue anywhere.

N images, S = image_size. Batch n of a rank is a function of (train.seed, n, rank, world_size) alone,
whatever the number of workers.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from detection.config import Augmentation, ClassifierConfig, ClassifierDataConfig
from detection.data.augmentations import apply_augmentation, build_augmentation, find_transform, reseed
from detection.data.catalog import resolve_root
from detection.data.loader import LoadedBatch, unwrap
from detection.data.sampler import GroupedBatchSampler, SampleIndex
from detection.data.workers import load
from detection.device import to_device, uses_cuda
from detection.errors import ConfigError, DatasetError
from detection.pretraining.folders import ImageFolder, LabelFile, decode_ahead, load_folders

if TYPE_CHECKING:
    from albumentations import Compose


@dataclass
class ImageBatch:
    """N images with one label each."""

    images: Tensor  # (N, 3, S, S) uint8 RGB
    labels: Tensor  # (N,) int64
    files: list[str]  # N, to name the culprit of a bad loss

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> ImageBatch:
        """The same batch on another device; the images stay uint8 until the model normalises them."""
        return ImageBatch(to_device(self.images, device), to_device(self.labels, device), self.files)

    def pin_memory(self) -> ImageBatch:
        """The same batch in page-locked memory, for an asynchronous copy to a GPU (called by the DataLoader)."""
        return ImageBatch(self.images.pin_memory(), self.labels.pin_memory(), self.files)


def load_splits(data: ClassifierDataConfig, *splits: str) -> list[ImageFolder]:
    """These splits of `data.root`, decoded ahead where they are small. Raises DatasetError."""
    labels = {}
    if data.val_labels is not None and data.val in splits:
        order = None if data.class_order is None else resolve_root(data.class_order)
        labels[data.val] = LabelFile(resolve_root(data.val_labels), data.train, order)
    folders = load_folders(resolve_root(data.root), splits, labels, data.max_pixels)
    return [decode_ahead(folder, data.on_bad_image) for folder in folders]


def training_splits(config: ClassifierConfig) -> tuple[ImageFolder, ImageFolder]:
    """The images to learn from, and those to validate on. Raises DatasetError."""
    data = config.data
    if data.hold_out == 0:
        train, val = load_splits(data, data.train, data.val)
        return train, val
    (whole,) = load_splits(data, data.train)
    if data.hold_out >= len(whole):
        raise DatasetError(f"data.hold_out is {data.hold_out}, and split '{data.train}' has just {len(whole)} images")
    order = np.random.default_rng(config.train.seed).permutation(len(whole))
    return whole.subset(sorted(order[data.hold_out :])), whole.subset(sorted(order[: data.hold_out]))


def validation_split(config: ClassifierConfig) -> ImageFolder:
    """The second of `training_splits`, without the cost of the first. Raises DatasetError."""
    if config.data.hold_out > 0:
        return training_splits(config)[1]
    return load_splits(config.data, config.data.val)[0]


def mean_image(folder: ImageFolder, config: ClassifierConfig, max_images: int = 50_000) -> Tensor:
    """The mean of the images in their test view, minus the mean of each of its channels: (3, S, S) float32, RGB, 0..255.

    Of more than `max_images` images an even selection is taken.
    """
    selected = np.linspace(0, len(folder) - 1, min(max_images, len(folder))).round().astype(int)
    total, count = torch.zeros(3, config.data.image_size, config.data.image_size, dtype=torch.float64, device="cpu"), 0
    for batch in test_loader(folder.subset(selected.tolist()), config):
        total += batch.images.double().sum(dim=0)
        count += len(batch)
    mean = total / count
    return (mean - mean.mean(dim=(1, 2), keepdim=True)).float()


def train_transform(data: ClassifierDataConfig) -> Compose:
    """`data.augmentations`. Raises ConfigError."""
    return build_augmentation(fill_sizes(data.augmentations, data.image_size), boxes=False)


def test_transform(data: ClassifierDataConfig) -> Compose:
    """`data.test_transforms`; by default the shorter side becomes 256/224 of image_size and the centre is cropped.

    Raises ConfigError."""
    default: tuple[Augmentation, ...] = (
        {"SmallestMaxSize": {"max_size": round(data.image_size * 256 / 224)}},
        {"CenterCrop": {}},
    )
    return build_augmentation(
        fill_sizes(data.test_transforms or default, data.image_size), boxes=False, key="data.test_transforms"
    )


def check_transforms(data: ClassifierDataConfig) -> None:
    """Raise ConfigError for transforms of either split that cannot be used: before any image is read."""
    train_transform(data)
    test_transform(data)


def fill_sizes(augmentations: Sequence[Augmentation], image_size: int) -> list[Augmentation]:
    """The transforms, with `size`, `height` and `width` set to image_size where one needs them and has none."""
    sizes = {"size": (image_size, image_size), "height": image_size, "width": image_size}
    return [
        {name: {key: sizes[key] for key in _required(name) & set(sizes) if key not in (options or {})} | (options or {})}
        for augmentation in augmentations
        for name, options in augmentation.items()
    ]


def _required(name: str) -> set[str]:
    """The parameters without a default of an albumentations class; none of an unknown one."""
    kind = find_transform(name)
    if kind is None:
        return set()
    return {key for key, value in inspect.signature(kind).parameters.items() if value.default is inspect.Parameter.empty}


def require_view(image: np.ndarray, image_size: int, key: str, file: str) -> None:
    """Raise ConfigError, naming the config's key of the transforms, where they made no square of `image_size`."""
    size = (image_size, image_size, 3)
    if image.shape != size:
        raise ConfigError(
            f"{key} give {tuple(image.shape)} {image.dtype} for {file}, not {size} uint8: let them end with a crop or "
            "Resize to data.image_size"
        )


class ImageFolderDataset(TorchDataset[LoadedBatch | ConfigError | DatasetError]):
    """The samples of one batch -> the batch, or the error as a value, so that users see no traceback of a worker."""

    def __init__(self, folder: ImageFolder, transform: Compose, data: ClassifierDataConfig, *, training: bool) -> None:
        self.folder = folder
        self.transform = transform
        self.image_size = data.image_size
        self.skip = data.on_bad_image == "skip"
        self.training = training

    def __getitem__(self, items: Sequence[SampleIndex]) -> LoadedBatch | ConfigError | DatasetError:
        indices, images, skipped = [], [], list[str]()
        for item in items:
            try:
                found = self._first_good(item, skipped)
            except (ConfigError, DatasetError) as error:
                return error
            if found is not None:
                indices.append(found[0])
                images.append(found[1])
        if self.training and len(images) < len(items):
            return DatasetError(f"none of the images can be used; the first: {skipped[0]}")
        size = self.image_size
        # Channels stay the fastest dimension in memory: the convolutions' layout, and no copy.
        pixels = torch.from_numpy(np.stack(images) if images else np.empty((0, size, size, 3), np.uint8)).permute(0, 3, 1, 2)
        batch = ImageBatch(pixels, self.folder.labels[indices], [self.folder.files[index] for index in indices])
        return LoadedBatch(batch, tuple(skipped))

    def _first_good(self, item: SampleIndex, skipped: list[str]) -> tuple[int, np.ndarray] | None:
        """The number and the view of the image; in training the next image stands in for one that is skipped."""
        for step in range(len(self.folder) if self.training else 1):
            index = (item.image + step) % len(self.folder)
            try:
                return index, self._view(index, item.seed)
            except DatasetError as error:
                if not self.skip:
                    raise
                skipped.append(str(error))
        return None

    def _view(self, index: int, seed: int) -> np.ndarray:
        """(S, S, 3) uint8 RGB. Raises ConfigError where the transforms make anything else."""
        reseed(self.transform, seed)
        key, file = f"data.{'augmentations' if self.training else 'test_transforms'}", str(self.folder.files[index])
        image: np.ndarray = apply_augmentation(self.transform, self.folder.image(index), None, key, file)["image"]
        require_view(image, self.image_size, key, file)
        return image


def train_loader(
    folder: ImageFolder, config: ClassifierConfig, first_batch: int = 0, *, rank: int = 0, world_size: int = 1
) -> Iterator[ImageBatch]:
    """Endless batches of `train.images_per_device` images, beginning with this rank's batch number `first_batch`.

    Raises DatasetError or ConfigError when it comes to the image concerned.
    """
    dataset = ImageFolderDataset(folder, train_transform(config.data), config.data, training=True)
    train = config.train
    batches = GroupedBatchSampler(len(folder), None, train.micro_batch, train.seed, rank, world_size, first_batch)
    return _batches(dataset, batches, config.data)


def test_loader(folder: ImageFolder, config: ClassifierConfig) -> Iterator[ImageBatch]:
    """All images once, in order, in the one view that `data.test_transforms` give."""
    dataset = ImageFolderDataset(folder, test_transform(config.data), config.data, training=False)
    size = config.train.micro_batch
    starts = range(0, len(folder), size)
    batches = [[SampleIndex(index, 0) for index in range(start, min(start + size, len(folder)))] for start in starts]
    return (batch for batch in _batches(dataset, batches, config.data) if len(batch))


def _batches(
    dataset: ImageFolderDataset, batches: Iterable[list[SampleIndex]], data: ClassifierDataConfig
) -> Generator[ImageBatch, None, None]:
    # A worker is asked for a whole batch at a time.
    return unwrap(
        load(
            dataset,
            batches,
            data.workers,
            data.loader_timeout,
            name_files=lambda items: [dataset.folder.files[item.image] for item in items],
            pin_memory=uses_cuda(),
        )
    )
