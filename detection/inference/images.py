"""From the images that people hand to a detector, pixels, files or addresses, to the network's batches."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from backbones.errors import printable, shorten
from detection.config import MAX_PIXELS, Resizing, TestConfig
from detection.data.ahead import read_ahead
from detection.data.images import LoadedImage, describe_more_frames, load_image, pillow_pixels
from detection.data.media import VIDEO_SUFFIXES, find_inputs
from detection.data.urls import is_url, load_url
from detection.errors import DatasetError
from detection.files import exists, is_file
from detection.resize import resize_image, resized_size
from detection.structures import Batch

logger = logging.getLogger(__name__)

ImageInput = str | Path | Image.Image | np.ndarray | Tensor
"""A file's path or web address, the images of a folder or glob, Pillow's image, or uint8 RGB pixels: (H, W, 3) or (3, H, W).

An array (N, H, W, 3) or a tensor (N, 3, H, W) is N images.
"""
ImageInputs = ImageInput | Iterable[ImageInput]
"""One of these, or any number of them."""
_ONE = (str, Path, Image.Image, np.ndarray, Tensor)
Source = str | Path | None
"""Where an image came from: a path, a web address, or None for pixels."""


@dataclass(frozen=True)
class InputImage:
    """An image's pixels and where they came from."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    source: Source
    more_frames: bool = False  # the file has more frames or pages than the one that is used


def each_image(
    images: ImageInputs, max_pixels: int = MAX_PIXELS, on_error: Callable[[DatasetError], None] | None = None
) -> Iterator[InputImage]:
    """The images one after the other. Of a file with several frames it is the first, which is logged at the end.

    Several files are read ahead, a few at a time, while the caller works; anything else when it is asked for. Raises
    DatasetError, naming the file, for a path that leads to no image or to one of more than `max_pixels`; with `on_error` that
    is called instead, and the others follow. Raises ValueError for pixels of another form.
    """
    found = _each_found(images, max_pixels)
    more_frames = []
    with closing(read_ahead(found) if _are_files(images) else found) as waiting:
        for image in waiting:
            if not isinstance(image, DatasetError):
                more_frames += [str(image.source)] if image.more_frames else []
                yield image
            elif on_error is None:
                raise image
            else:
                on_error(image)
    if more_frames:
        logger.warning("%s", describe_more_frames(more_frames))


def _each_found(images: ImageInputs, max_pixels: int) -> Generator[InputImage | DatasetError, None, None]:
    """The images, and in their places what is wrong with those that cannot be read."""
    problems: list[DatasetError] = []
    for image in each_input(images, problems.append):
        yield from problems
        problems.clear()
        try:
            loaded = read_input(image, max_pixels)
        except DatasetError as error:
            yield error
            continue
        yield InputImage(loaded.pixels, image if isinstance(image, str | Path) else None, loaded.more_frames)
    yield from problems


def _are_files(images: ImageInputs) -> bool:
    """Whether several files are given, or a folder: an iterator may be anything, and its owner's thread is to ask it."""
    if isinstance(images, list | tuple):
        return len(images) > 1 and all(isinstance(image, str | Path) for image in images)
    return isinstance(images, str | Path) and not is_url(images) and not is_file(images)


def each_input(images: ImageInputs, on_error: Callable[[DatasetError], None] | None = None) -> Iterator[ImageInput]:
    """The single images that are meant: those of a folder or glob, in the order of their names, and of an array of images."""
    several = images if isinstance(images, Iterable) and not isinstance(images, _ONE) else [images]
    for image in several:
        if isinstance(image, np.ndarray | Tensor) and image.ndim == 4:
            yield from image
        elif isinstance(image, str | Path) and not is_url(image):
            try:
                yield from _files(image)
            except DatasetError as error:
                if on_error is None:
                    raise
                on_error(error)
        else:
            yield image


def _files(path: str | Path) -> list[str | Path]:
    """The file itself, or the images of a folder or glob. Raises DatasetError where these hold none."""
    if not (Path(path).is_dir() if exists(path) else glob.has_magic(str(path))):
        return [path]
    try:
        found = find_inputs(str(path))
    except OSError as error:  # a folder that may not be read
        raise DatasetError(f"cannot read '{printable(str(path))}': {error.strerror}") from None
    films = [each for each in found if each.kind == "video"]
    if len(films) == len(found):
        raise DatasetError(f"'{printable(str(path))}' holds videos only, and `predict` takes images: `draw_media` takes films")
    if films:
        logger.warning("%d videos in '%s' are left out: `predict` takes images", len(films), printable(str(path)))
    return [each.path for each in found if each.kind == "image"]


def read_input(image: ImageInput, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """The pixels of one image, whatever stands for it. Raises DatasetError for a file, ValueError for pixels of other forms."""
    if is_url(image):
        return load_url(str(image), max_pixels)
    if isinstance(image, str | Path):
        if Path(image).suffix.lower() in VIDEO_SUFFIXES:
            raise DatasetError(f"{image} is a video, and `predict` takes images: `draw_media` and `resdet demo` take films")
        return load_image(image, max_pixels)
    if isinstance(image, Image.Image):
        return LoadedImage(pillow_pixels(image, max_pixels), more_frames=False)
    return LoadedImage(to_array(image), more_frames=False)


def to_array(image: np.ndarray | Tensor) -> np.ndarray:
    """Pixels as (H, W, 3) uint8 RGB. Raises ValueError for those of another form."""
    form = "predict takes paths and addresses of images, Pillow's, and uint8 RGB pixels (H, W, 3) or (3, H, W)"
    if not isinstance(image, np.ndarray | Tensor):
        raise ValueError(f"{form}, got {shorten(image)}")
    array = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) and image.ndim == 3 else np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"{form}, got {str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}")
    return array


def network_sizes(image_hw: tuple[int, int], test: TestConfig, resizing: Resizing) -> dict[int, tuple[int, int]]:
    """The size (h, w) of an image at each shorter side that the settings name, that of the proposals first.

    `longer_side` grows and shrinks with the scale: an image it cuts down is cut down in the same proportion everywhere.
    """
    return {
        side: resized_size(image_hw, side, test.longer_side * side / test.shorter_side, resizing)
        for side in (test.shorter_side, *test.scales)
    }


def batch_of_size(arrays: Sequence[np.ndarray], size_hw: tuple[int, int], resizing: Resizing) -> Batch:
    """Images (H, W, 3) uint8 RGB, all resized to one size: a batch without padding, on the CPU."""
    resized = np.stack([resize_image(array, size_hw, resizing) for array in arrays])
    return Batch(torch.from_numpy(resized).permute(0, 3, 1, 2), [size_hw] * len(arrays))
