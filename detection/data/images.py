"""Image files -> pixels, the same for every kind of file: (H, W, 3) uint8 RGB, rotated as EXIF says.

Greyscale is repeated in the three channels, alpha is dropped (not blended), 16 bits become 8 by division by 257, palettes
are looked up, CMYK is converted. OpenCV decodes JPEG and PNG because it is faster; Pillow decodes all other files, and
JPEGs in CMYK, whose inverted values OpenCV does not undo.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from detection.errors import DatasetError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"})

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"
_END = {_JPEG: b"\xff\xd9", _PNG: b"IEND"}
_END_WITHIN = 64  # bytes at the end of a whole file; a marker further from the end may be a thumbnail's
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, cv2.error)


def read_image(path: str | Path) -> np.ndarray:
    """The pixels of a file, (H, W, 3) uint8 RGB. Raises DatasetError: missing, cut short, or no image."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read image {path}: {error.strerror}") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """The pixels of an encoded image, (H, W, 3) uint8 RGB. `name` is for the DatasetError: cut short, or no image."""
    header = _open(io.BytesIO(data), name)
    kind = next((kind for kind in _END if data.startswith(kind)), None)
    try:
        if kind is not None and _END[kind] not in data[-_END_WITHIN:]:
            # OpenCV silently fills the missing rest of an image with grey; Pillow refuses it, and accepts data after the end.
            Image.open(io.BytesIO(data)).load()
        quick = kind == _PNG or (kind == _JPEG and header.mode in ("RGB", "L"))
        pixels = _decode_opencv(data, kind) if quick else None
        return _decode_pillow(header) if pixels is None else apply_orientation(pixels, _orientation(header))
    except _DECODE_ERRORS as error:
        raise DatasetError(f"image {name} is damaged or cut short: {error}") from None


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as displayed (after EXIF rotation), from the header alone. Raises DatasetError: missing, or no image."""
    try:
        with _open(Path(path).open("rb"), str(path)) as header:
            width, height = header.size
            # Pillow has applied the orientation of a TIFF to its size already.
            swapped = header.format != "TIFF" and _orientation(header) >= 5
            return (width, height) if swapped else (height, width)
    except OSError as error:
        raise DatasetError(f"cannot read image {path}: {error.strerror or error}") from None


def apply_orientation(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels -> displayed pixels, by EXIF's orientation 1..8; any other value means 1."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _open(stream: IO[bytes], name: str) -> Image.Image:
    """Read the header only."""
    try:
        return Image.open(stream)
    except UnidentifiedImageError:
        raise DatasetError(f"{name} is not an image in a known format") from None
    except _DECODE_ERRORS as error:
        raise DatasetError(f"image {name} is damaged or cut short: {error}") from None


def _orientation(header: Image.Image) -> int:
    # PNG's getexif() would decode the whole image in search of one after the pixels.
    if "exif" not in header.info:
        return 1
    return int(header.getexif().get(ExifTags.Base.Orientation, 1))


def _decode_opencv(data: bytes, kind: bytes | None) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB as stored, or None where OpenCV cannot."""
    flags = cv2.IMREAD_UNCHANGED if kind == _PNG else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        return None
    pixels = _to_8_bits(pixels)
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _decode_pillow(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB as displayed."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
