"""Image files -> pixels, the same for every kind of file: (H, W, 3) uint8 RGB, rotated as EXIF says.

Greyscale is repeated in the three channels, alpha is dropped (not blended), 16 bits become 8 by division by 257, palettes
are looked up, CMYK is converted. Of several frames or pages `read_image` takes the first, `each_frame` all. OpenCV decodes JPEG
and PNG because it is faster; Pillow decodes all others, and JPEGs in CMYK, whose inverted values OpenCV does not undo. HEIC
is read where pillow-heif is installed, and shown as that turns it.
"""

from __future__ import annotations

import io
import itertools
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import IO, BinaryIO, Literal, NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageFile

from backbones.errors import printable
from backbones.files import open_regular
from detection.config import MAX_PIXELS
from detection.errors import DatasetError

_HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
_HAS_HEIF = find_spec("pillow_heif") is not None

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k"}
    | (_HEIF_SUFFIXES if _HAS_HEIF else frozenset())
)
"""Of the files of a folder that are images."""

UNREAD_SUFFIXES = frozenset(
    (frozenset() if _HAS_HEIF else _HEIF_SUFFIXES)
    | {".jxl", ".jxr", ".svg", ".eps", ".psd", ".exr", ".hdr", ".ico", ".tga", ".dds"}
    | {".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}
)
"""Of images that are left out of a folder, with a word: what their kinds hold cannot be decoded here, or not for sure."""

# What Pillow decodes by itself, in the order in which it is tried. Others of its readers start programs (EPS: Ghostscript).
_FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "GIF",
    "WEBP",
    "TIFF",
    "PPM",
    "AVIF",
    "JPEG2000",
    "DIB",
    "PCX",
    "QOI",
    "SGI",
    "TGA",
    "ICO",
    "PSD",
)
_ONE_PICTURE = ("MPO", "HEIF")  # a photograph with its preview or its depth
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_EXIF_IN_HEADER = ("JPEG", "MPO", "PNG")

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"
_END = {_JPEG: b"\xff\xd9", _PNG: b"IEND"}
_JPEG_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_END_WITHIN = 64  # bytes at the end of a whole file; a marker further from the end may be a thumbnail's
_MAX_BYTES_PER_PIXEL = 8  # of an image that is not compressed: four channels of 16 bits
_MAX_OTHER_BYTES = 1 << 26  # of a file: what it may hold beside its pixels
_ROWS_AT_A_TIME = 256
_UNTOLD_SECONDS = 0.1  # of a frame that is to be shown for no time at all, as browsers take it
_LONGEST_SECONDS = 60.0  # of a frame: damaged files say weeks
# Pillow's readers raise all of these for damaged files.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
    RuntimeError,
)
_DECODE_ERRORS = (*_PILLOW_ERRORS, cv2.error)


def is_image_name(name: str) -> bool:
    """Whether a file of this name is an image that can be read, by its suffix."""
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


def looks_like_image(name: str) -> bool:
    """Whether a file of this name is an image, of a kind that is read or of one that is not."""
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES | UNREAD_SUFFIXES


def require_kind_that_is_read(file: Path) -> None:
    """Raise DatasetError for an image of a kind that is not read, by its suffix."""
    if file.suffix.lower() in UNREAD_SUFFIXES:
        raise DatasetError(f"image {printable(str(file))} is of a kind that is not read: convert it, e.g. to .jpg")


class Frame(NamedTuple):
    """One of a file's frames or pages."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    seconds: float  # for which it is shown


class LoadedImage(NamedTuple):
    """A file's pixels, and whether it has more frames or pages than the one that they are of."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    more_frames: bool


def describe_more_frames(files: Sequence[str]) -> str:
    """A sentence about images that are used in part."""
    return (
        f"{len(files)} images have several frames or pages, of which only the first is used; the first: {printable(files[0])}"
    )


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of a file, (H, W, 3) uint8 RGB. Raises DatasetError: missing, cut short, no image, or too large."""
    return load_image(path, max_pixels).pixels


def load_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """The same pixels as `read_image`'s, and whether they are all that the file shows. Raises DatasetError."""
    return load_encoded(_read_bytes(path, max_pixels), str(path), max_pixels)


def read_reduced(path: str | Path, longest: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of a file, (H, W, 3) uint8 RGB, to be made smaller than `read_image`'s. Raises DatasetError.

    A JPEG is decoded at a half, a quarter or an eighth of its size, many times as fast, where its longer side stays at least
    `longest` px.
    """
    data = _read_bytes(path, max_pixels)
    header = _open(io.BytesIO(data), str(path))
    _require_size(header.size, str(path), max_pixels)
    reduction = next((each for each in (8, 4, 2) if max(header.size) >= each * longest), 1)
    with _decoding(header.size, str(path)):
        return _pixels(header, data, reduction)


def read_indices(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """What a picture of labels holds: the numbers of its palette's colours, (H, W) uint8, or its grey levels.

    Raises DatasetError: missing, cut short, no image, too large, or neither of these."""
    header = _open(io.BytesIO(_read_bytes(path, max_pixels)), str(path))
    _require_size(header.size, str(path), max_pixels)
    if header.mode not in ("P", "L"):
        raise DatasetError(f"image {path} has no palette (its mode is {header.mode}): a picture of labels has a number a pixel")
    with _decoding(header.size, str(path)):
        return np.array(header)


def _read_bytes(path: str | Path, max_pixels: int) -> bytes:
    try:
        with open_regular(path) as file:
            _check_bytes(file, str(path), max_pixels)
            return file.read()
    except OSError as error:
        raise DatasetError(f"cannot read image {path}: {error.strerror}") from None


def frame_kind(path: str | Path) -> Literal["image", "animation", "pages"]:
    """Whether a file holds one picture, the frames of an animation, or the pages of a TIFF; "image" for what cannot be read."""
    try:
        with open_regular(path) as file:
            _check_bytes(file, str(path), MAX_PIXELS)
            header = _open(file, str(path))
            if not _has_more_frames(header):
                return "image"
            return "pages" if header.format == "TIFF" else "animation"
    except (DatasetError, *_PILLOW_ERRORS):
        return "image"  # the error is for those who read it


def each_frame(path: str | Path, max_pixels: int = MAX_PIXELS) -> Iterator[Frame]:
    """The frames of an animation or the pages of a TIFF, one after the other. Raises DatasetError at one that is damaged."""
    try:
        with open_regular(path) as file:
            _check_bytes(file, str(path), max_pixels)
            header = _open(io.BytesIO(file.read()), str(path))
    except OSError as error:
        raise DatasetError(f"cannot read image {path}: {error.strerror}") from None
    for number in itertools.count():
        with _decoding(header.size, f"{path}, frame {number + 1},"):
            try:
                header.seek(number)
            except EOFError:
                return
            _require_size(header.size, f"{path}, frame {number + 1},", max_pixels)
            pixels = apply_orientation(_decode_pillow(header), _orientation(header))
            milliseconds = header.info.get("duration", 0)
        yield Frame(pixels, min(milliseconds / 1000, _LONGEST_SECONDS) if milliseconds > 0 else _UNTOLD_SECONDS)


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of an encoded image, (H, W, 3) uint8 RGB. Raises DatasetError with `name`: cut short, no image, too large."""
    return load_encoded(data, name, max_pixels).pixels


def pillow_pixels(image: Image.Image, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of Pillow's image of any mode, (H, W, 3) uint8 RGB, by the rules for files; the image stays as it is.

    Raises DatasetError for one whose file is damaged, cut short, closed or too large.
    """
    file = getattr(image, "filename", "")
    name = printable(str(file)) if file else "of Pillow's"
    _require_size(image.size, name, max_pixels)
    with _decoding(image.size, name):
        return apply_orientation(_decode_pillow(image), _orientation(image))


class ImageHeader(NamedTuple):
    """What an image file says before its pixels."""

    size_hw: tuple[int, int]  # as displayed, that is after EXIF rotation
    orientation: int  # EXIF's, 1..8; 1: the pixels are displayed as they are stored

    @property
    def stored_hw(self) -> tuple[int, int]:
        """(height, width) of the pixels in the file."""
        return self.size_hw[::-1] if self.orientation >= 5 else self.size_hw


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as displayed (after EXIF rotation), from the header alone. Raises DatasetError: missing, or no image."""
    return read_header(path).size_hw


def read_header(path: str | Path) -> ImageHeader:
    """The size and the orientation of an image, without its pixels. Raises DatasetError: missing, or no image."""
    try:
        with open_regular(path) as file:
            _check_bytes(file, str(path), MAX_PIXELS)
            header = _open(file, str(path))
            (width, height), orientation = header.size, _orientation(header)
            # Pillow has applied the orientation of a TIFF to its size already.
            swapped = header.format != "TIFF" and orientation >= 5
            return ImageHeader((width, height) if swapped else (height, width), orientation)
    except OSError as error:
        raise DatasetError(f"cannot read image {path}: {error.strerror or error}") from None


def require_annotated_size(file: str, size_hw: tuple[int, int], annotated_hw: tuple[int, int]) -> None:
    """Raise DatasetError where an image's (height, width), as displayed, is not its annotation's."""
    if size_hw == annotated_hw:
        return
    found, annotated = (f"{width}x{height}" for height, width in (size_hw, annotated_hw))
    turned = _describe_turned(file) if size_hw == annotated_hw[::-1] else ""
    raise DatasetError(
        f"image {file} is {found} as displayed, but its annotation says {annotated}: its boxes cannot fit{turned}"
    )


def _describe_turned(file: str) -> str:
    """Why an image may have height for width, for a message."""
    if read_header(file).orientation == 1:
        return "; are width and height swapped?"
    return "; it was annotated as it is stored, and EXIF turns it: set 'boxes_in: stored' in its source"


def apply_orientation(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels -> displayed pixels, by EXIF's orientation 1..8; any other value means 1."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def load_encoded(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """What `load_image` gives, of a file's bytes. Raises DatasetError with `name`: cut short, no image, or too large."""
    header = _open(io.BytesIO(data), name)
    _require_size(header.size, name, max_pixels)
    with _decoding(header.size, name):
        return LoadedImage(_pixels(header, data), _has_more_frames(header))


def _has_more_frames(header: ImageFile.ImageFile) -> bool:
    return header.format not in _ONE_PICTURE and getattr(header, "is_animated", False)


def _require_size(size_wh: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size_wh
    if width * height > max_pixels:
        raise DatasetError(
            f"image {name} is too large: {width}x{height}, more than {max_pixels} pixels (data.max_pixels): "
            f"make it smaller or raise that"
        )


@contextmanager
def _decoding(size_wh: tuple[int, int], name: str) -> Iterator[None]:
    """Raise DatasetError with the image's name for whatever the decoders raise."""
    try:
        yield
    except (Image.DecompressionBombError, MemoryError) as error:
        reason = "for this machine's memory" if isinstance(error, MemoryError) else f"for Pillow ({error})"
        raise DatasetError(f"image {name} is too large {reason}: {size_wh[0]}x{size_wh[1]}") from None
    except _DECODE_ERRORS as error:
        raise DatasetError(f"image {name} is damaged or cut short: {printable(str(error))}") from None


def _pixels(header: ImageFile.ImageFile, data: bytes, reduction: int = 1) -> np.ndarray:
    """(H, W, 3) uint8 RGB as displayed; of most JPEGs with sides of a half, a quarter or an eighth, rounded up."""
    kind = next((kind for kind in _END if data.startswith(kind)), None)
    if kind is not None and _END[kind] not in data[-_END_WITHIN:]:
        # OpenCV silently fills the missing rest of an image with grey; Pillow refuses it, and accepts data after the end.
        _open(io.BytesIO(data), "").load()
    quick = kind == _PNG or (kind == _JPEG and header.mode in ("RGB", "L"))
    pixels = _decode_opencv(data, kind, reduction) if quick else None
    if pixels is None:
        pixels = _decode_pillow(header)
    return apply_orientation(pixels, _orientation(header))


def _check_bytes(file: BinaryIO, name: str, max_pixels: int) -> None:
    """Raise DatasetError for a file that is larger than any image of `max_pixels`, before anything of it is read."""
    found, most = os.fstat(file.fileno()).st_size, max_pixels * _MAX_BYTES_PER_PIXEL + _MAX_OTHER_BYTES
    if found > most:
        raise DatasetError(
            f"image {name} is too large: {found >> 20} MiB, more than the {most >> 20} MiB that an image of {max_pixels} "
            f"pixels (data.max_pixels) may take"
        )


def _open(stream: IO[bytes], name: str) -> ImageFile.ImageFile:
    """Read the header only. Unlike Image.open, without bounds and warnings of its own: `max_pixels` is the bound."""
    Image.preinit()
    try:
        prefix = stream.read(16)
        for kind in _FORMATS:
            if kind not in Image.OPEN:
                Image.init()
            factory, accept = Image.OPEN.get(kind, (None, None))
            try:
                if factory is not None and (accept is None or accept(prefix) is True):
                    stream.seek(0)
                    return factory(stream, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # it began like an image of this kind only
        if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS:
            return _open_heif(stream, name)
    except MemoryError:
        raise DatasetError(f"image {name} is too large for this machine's memory") from None
    except Image.DecompressionBombError as error:
        raise DatasetError(f"image {name} is too large for Pillow ({error})") from None
    except _PILLOW_ERRORS as error:
        raise DatasetError(f"image {name} is damaged or cut short: {printable(str(error))}") from None
    raise DatasetError(f"{name} is not an image in a known format")


def _open_heif(stream: IO[bytes], name: str) -> ImageFile.ImageFile:
    """Raises DatasetError where the package that reads HEIC is not installed."""
    if not _HAS_HEIF:
        raise DatasetError(f"image {name} is HEIC, which is not read without a package: pip install 'resdet[heif]'")
    from pillow_heif import HeifImageFile

    stream.seek(0)
    opened: ImageFile.ImageFile = HeifImageFile(stream, "")
    return opened


def _orientation(header: Image.Image) -> int:
    """EXIF's orientation, 1..8. Anything else that stands in its place, and EXIF that cannot be read, means none: 1."""
    # PNG's getexif() would decode the whole image in search of one after the pixels.
    if header.format in _EXIF_IN_HEADER and "exif" not in header.info:
        return 1
    try:
        found = header.getexif().get(ExifTags.Base.Orientation)
    except _PILLOW_ERRORS:
        return 1
    return next((orientation for orientation in range(2, 9) if found == orientation), 1)


def _decode_opencv(data: bytes, kind: bytes | None, reduction: int) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB as stored, or None where OpenCV cannot."""
    flags = cv2.IMREAD_UNCHANGED if kind == _PNG else _JPEG_FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        return None
    pixels = _to_8_bits(pixels)
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _decode_pillow(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB as stored; a TIFF, which Pillow turns by itself, as displayed."""
    image.load()
    if image.mode.startswith("I;16"):
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    shallow = np.empty(pixels.shape, np.uint8)
    # A few rows at a time: the sums need four times the memory.
    for start in range(0, len(pixels), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        shallow[rows] = (pixels[rows].astype(np.uint32) + 128) // 257
    return shallow
