"""Small pictures of a data set's images, as files beside a page: read, made smaller and written one after the other."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from backbones.errors import printable
from detection.data.images import image_size, read_reduced, require_annotated_size
from detection.errors import DatasetError
from detection.files import write_whole
from detection.structures import Record
from detection.tiles import Window

FOLDER = "pictures"
LONGEST = 640  # px, of a thumbnail's sides
QUALITY = 70

_NAME = re.compile(r"\d{6,}\.webp|\.\d{6,}\.webp\.[0-9a-f]{8}\.tmp")


def thumbnail_name(number: int) -> str:
    """The file of an image's thumbnail, by the image's number, relative to the page."""
    return f"{FOLDER}/{number:06}.webp"


def write_thumbnails(images: Iterable[tuple[int, Record]], folder: Path, max_pixels: int) -> list[str]:
    """Write the thumbnails of images, given with their numbers, into a report's folder; those of an earlier report go.

    Returns for each image why it has none: "" where it has one. Never more than one image is in memory. Raises OSError.
    """
    _remove_thumbnails(folder / FOLDER)
    return [_write_thumbnail(record, folder / thumbnail_name(number), max_pixels) for number, record in images]


def thumbnail(record: Record, max_pixels: int) -> np.ndarray:
    """An image, or the window of it that is meant, (H, W, 3) uint8 RGB, no side longer than LONGEST px.

    Raises DatasetError: unreadable, too large, or not of the size that its annotation says.
    """
    require_annotated_size(str(record.file), image_size(record.file), record.size_hw)
    # A window's pixels are needed as they are: it may be a small part of the image.
    longest = LONGEST if record.window is None else max(record.size_hw)
    window = Window.whole(record.size_hw) if record.window is None else record.window
    pixels = read_reduced(record.file, longest, max_pixels)
    pixels = pixels if record.window is None else window.crop(pixels)
    scale = min(LONGEST / max(window.size_hw), 1)
    size = (max(round(window.width * scale), 1), max(round(window.height * scale), 1))
    return pixels if size == pixels.shape[1::-1] else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _write_thumbnail(record: Record, file: Path, max_pixels: int) -> str:
    try:
        pixels = thumbnail(record, max_pixels)
    except DatasetError as error:
        return printable(str(error))
    stream = io.BytesIO()
    # Method 2 takes half the time of the default 4, for files 3 % larger.
    Image.fromarray(pixels).save(stream, "WEBP", quality=QUALITY, method=2)
    write_whole(file, stream.getvalue())
    return ""


def _remove_thumbnails(folder: Path) -> None:
    """Only files that are named as ours: the folder may hold others."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for file in folder.iterdir():
            if _NAME.fullmatch(file.name):
                file.unlink()
