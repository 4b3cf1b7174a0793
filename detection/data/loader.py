"""Batches of images: an endless, resumable stream for training; each image once, at its own size, for tests.

Workers may be spawned: everything they get is a module-level class and pickles. Errors of images travel back from them as
values and are raised here, so that the user sees one line instead of a worker's traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from detection.config import LOADER_TIMEOUT, MAX_PIXELS, Config, DataConfig, OnBadImage
from detection.data.augmentations import build_augmentation
from detection.data.catalog import Dataset
from detection.data.fingerprints import Fingerprint, fingerprint
from detection.data.images import LoadedImage, describe_more_frames, load_image, require_annotated_size
from detection.data.packing import PackedRecords
from detection.data.repeats import image_factors
from detection.data.sampler import GroupedBatchSampler, SampleIndex
from detection.data.tiles import tile_dataset, tile_factors
from detection.data.transforms import prepare
from detection.data.workers import load
from detection.device import uses_cuda
from detection.errors import ConfigError, DatasetError
from detection.structures import Batch, Record, Target, pad_images

logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """One training image."""

    image: Tensor  # (3, h, w) RGB, as `Batch.images`
    target: Target
    file: str
    skipped: tuple[str, ...]  # why the images that this one replaces could not be used, one message each
    more_frames: bool = False  # the file has more frames or pages than the one that is used


class TestImage(NamedTuple):
    """One image for a test."""

    pixels: Tensor  # (3, H, W) uint8 RGB
    more_frames: bool  # the file has more frames or pages than the one that is used


class ImageCheck(NamedTuple):
    """What is to be said of an image file."""

    problem: str | None  # why it cannot be used
    more_frames: bool = False
    fingerprint: Fingerprint | None = None  # of an image that can be used


class LoadedBatch(NamedTuple):
    """A batch on its way from a worker to the main process."""

    batch: Any  # a Batch here, an ImageBatch in the classification stage
    skipped: tuple[str, ...]  # why images were left out or replaced, one message each
    more_frames: tuple[str, ...] = ()  # files that have more frames or pages than the one that is used


class TrainDataset(TorchDataset[Sample | ConfigError | DatasetError]):
    """Decodes, augments and resizes: `SampleIndex` (image, seed) -> Sample, or the error as a value."""

    def __init__(self, records: Sequence[Record], config: DataConfig) -> None:
        self.records = PackedRecords.pack(records, config.partial_labels)
        self.config = config
        self.augmentation = build_augmentation(config.augmentations, masks=bool(self.records.has_masks.any()))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, item: SampleIndex) -> Sample | ConfigError | DatasetError:
        skipped: list[str] = []
        for index in self._candidates(item.image):
            try:
                sample = self._load(index, item.seed)
            except ConfigError as error:
                return error
            except DatasetError as error:
                if self.config.on_bad_image == "error":
                    return error
                skipped.append(str(error))
                continue
            return sample._replace(skipped=tuple(skipped))
        return DatasetError(f"none of the images can be used; the first: {skipped[0]}")

    def _candidates(self, index: int) -> Iterator[int]:
        """The image, then those that may replace it where it cannot be used: the next ones of its group."""
        is_wide = self.records.is_wide
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            if is_wide[candidate] == is_wide[index] or not self.config.aspect_grouping:
                yield candidate

    def _load(self, index: int, seed: int) -> Sample:
        file, config = self.records.file(index), self.config
        loaded, more_frames = read_checked(file, self.records.size_hw(index), config.max_pixels)
        # A copy of a tile's pixels, so that the rest of a large image is given back before they are augmented.
        pixels = np.ascontiguousarray(self.records.window(index).crop(loaded))
        del loaded
        image, target = prepare(
            pixels,
            self.records.target(index),
            self.augmentation,
            config.shorter_sides,
            config.longer_side,
            seed=seed,
            resizing=config.resizing,
            file=file,
        )
        return Sample(image, target, file, (), more_frames)


class TestDataset(TorchDataset[TestImage | DatasetError]):
    """Decodes: index -> (3, H, W) uint8 RGB at its own size, or the error as a value."""

    def __init__(self, records: Sequence[Record], max_pixels: int = MAX_PIXELS) -> None:
        self.files = [(str(record.file), record.size_hw) for record in records]
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> TestImage | DatasetError:
        try:
            file, size_hw = self.files[index]
            loaded = read_checked(file, size_hw, self.max_pixels)
            return TestImage(torch.from_numpy(loaded.pixels).permute(2, 0, 1), loaded.more_frames)
        except DatasetError as error:
            return error


class ImageCheckDataset(TorchDataset[ImageCheck]):
    """Decodes each image, and keeps what is to be said of it."""

    def __init__(self, records: Sequence[Record], max_pixels: int = MAX_PIXELS) -> None:
        self.images = TestDataset(records, max_pixels)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ImageCheck:
        loaded = self.images[index]
        if isinstance(loaded, DatasetError):
            return ImageCheck(str(loaded))
        return ImageCheck(None, loaded.more_frames, fingerprint(loaded.pixels.permute(1, 2, 0).numpy()))


def read_checked(file: str, size_hw: tuple[int, int], max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """An image file, decoded. Raises DatasetError, also where its (H, W) is not `size_hw`, the annotation's."""
    image = load_image(file, max_pixels)
    height, width = image.pixels.shape[:2]
    require_annotated_size(file, (height, width), size_hw)
    return image


def train_loader(
    dataset: Dataset, config: Config, first_batch: int = 0, *, rank: int = 0, world_size: int = 1
) -> Generator[Batch, None, None]:
    """Endless batches of `train.images_per_device` images, beginning with this rank's batch number `first_batch`. Where
    `data.tile` is set, the tiles of large images count as images. Records with masks give targets with masks, a byte for each
    pixel of each object: of 20 objects in 800 x 1333 pixels 21 MB, seven times the image.

    Batch n of a rank is a function of (train.seed, n, rank, world_size) alone, whatever the number of workers. Raises
    DatasetError or ConfigError at the batch that holds the image concerned, and DatasetError where none comes for
    `data.loader_timeout` seconds. `close()` ends the workers.
    """
    train, data = config.train, config.data
    tiles = tile_dataset(dataset, data)
    images = TrainDataset(tiles.records, data)
    groups = images.records.is_wide if data.aspect_grouping else None
    factors = image_factors(tiles, data.repeat_threshold)
    if data.tile:
        factors = tile_factors(tiles.records, data) * (1 if factors is None else factors)
    size, seed = train.micro_batch, train.seed
    batches = GroupedBatchSampler(len(images), groups, size, seed, rank, world_size, first_batch, factors)
    return unwrap(
        load(
            images,
            batches,
            data.workers,
            data.loader_timeout,
            name_files=lambda samples: [images.records.file(sample.image) for sample in samples],
            collate=collate,
            pin_memory=uses_cuda(),
        )
    )


def collate(samples: Sequence[Sample | ConfigError | DatasetError]) -> LoadedBatch | ConfigError | DatasetError:
    """Samples -> a padded batch, or the first error among them as a value."""
    good = []
    for sample in samples:
        if not isinstance(sample, Sample):
            return sample
        good.append(sample)
    batch = Batch(
        pad_images([sample.image for sample in good]),
        [(sample.image.shape[1], sample.image.shape[2]) for sample in good],
        [sample.target for sample in good],
        [sample.file for sample in good],
    )
    skipped = tuple(reason for sample in good for reason in sample.skipped)
    return LoadedBatch(batch, skipped, tuple(sample.file for sample in good if sample.more_frames))


def unwrap(loader: Iterable[LoadedBatch | ConfigError | DatasetError]) -> Generator[Any, None, None]:
    """The batches; an error that came as a value is raised, and each skipped image is logged once, with the count.

    So is the first image of several frames. `resdet check-dataset` counts them; here the pass may have no end.
    """
    skipped: set[str] = set()
    told_of_frames = False
    for loaded in loader:
        if not isinstance(loaded, LoadedBatch):
            raise loaded
        for reason in loaded.skipped:
            if reason not in skipped:
                skipped.add(reason)
                logger.warning("skipped image number %d: %s", len(skipped), reason)
        if loaded.more_frames and not told_of_frames:
            told_of_frames = True
            logger.warning("%s has several frames or pages: of each such image only the first is used", loaded.more_frames[0])
        yield loaded.batch


def test_loader(
    records: Sequence[Record],
    batch_size: int = 1,
    workers: int = 0,
    on_bad_image: OnBadImage = "error",
    max_pixels: int = MAX_PIXELS,
    timeout: float = LOADER_TIMEOUT,
) -> Iterator[tuple[list[Record], list[Tensor]]]:
    """The records in their order, in groups of `batch_size`, with their images (3, H, W) uint8 RGB at their own size.

    Raises DatasetError for an image that cannot be read, has more than `max_pixels`, or does not come for `timeout` seconds;
    with "skip" one that cannot be read or is too large is left out of its group, and logged.
    """
    # Image by image, not by group: fewer large images wait in shared memory.
    num_skipped, with_more_frames = 0, list[Record]()
    with closing(_load_each(TestDataset(records, max_pixels), records, workers, timeout)) as loaded:
        for start in range(0, len(records), batch_size):
            good: list[tuple[Record, Tensor]] = []
            for record, image in zip(records[start : start + batch_size], loaded, strict=False):
                if isinstance(image, TestImage):
                    good.append((record, image.pixels))
                    with_more_frames += [record] if image.more_frames else []
                elif on_bad_image == "error":
                    raise image
                else:
                    num_skipped += 1
                    logger.warning("skipped image number %d: %s", num_skipped, image)
            if good:
                yield [record for record, _ in good], [image for _, image in good]
    if with_more_frames:
        logger.warning("%s", describe_more_frames([str(record.file) for record in with_more_frames]))


def find_bad_images(
    records: Sequence[Record], workers: int = 0, max_pixels: int = MAX_PIXELS, timeout: float = LOADER_TIMEOUT
) -> Iterator[ImageCheck]:
    """Decode every image: for each in its order what is wrong with it, and whether it has more frames than are used.

    Raises DatasetError where none is decoded for `timeout` seconds, or a worker dies.
    """
    return _load_each(ImageCheckDataset(records, max_pixels), records, workers, timeout)


def _load_each(
    dataset: TorchDataset[Any], records: Sequence[Record], workers: int, timeout: float
) -> Generator[Any, None, None]:
    """The items of a data set of single images, in their order."""
    order = range(len(records))
    return load(dataset, order, workers, timeout, name_files=lambda index: [str(records[index].file)])
