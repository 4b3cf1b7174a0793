"""Images, folders, globs, videos and cameras as inputs of a detector, and file names for what is drawn of them.

Frames and images are (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

import glob
import itertools
import logging
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backbones.errors import printable, shorten
from detection.errors import DatasetError
from detection.files import open_regular

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    import cv2
    import numpy as np

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})

_CAMERA = re.compile(r"camera(?::(\d+))?")
_RATES = (0.01, 1000.0)  # frames per second that a video may have; others, such as 0, NaN or 90000, are no rates but mistakes
_ASSUMED_RATE = 25.0
_NAME_BYTES = 200  # of the name of a drawing, without its suffix; file systems take 255
_MIN_SHARE = 0.9  # of the frames that a video's header promises; some containers only estimate the number


@dataclass(frozen=True)
class MediaInput:
    """One image, video or camera. `path` is the file; a camera has its number instead."""

    kind: Literal["image", "video", "camera"]
    path: Path
    camera: int = 0

    def __str__(self) -> str:
        return f"camera:{self.camera}" if self.kind == "camera" else str(self.path)

    @property
    def stem(self) -> str:
        """A name for files about it."""
        return f"camera{self.camera}" if self.kind == "camera" else self.path.stem


def find_all_inputs(texts: Sequence[str]) -> tuple[list[MediaInput], list[str]]:
    """`find_inputs` of each text, every input once, and a sentence for each text that stands for nothing."""
    inputs: dict[MediaInput, None] = {}
    problems = []
    for text in texts:
        try:
            inputs |= dict.fromkeys(find_inputs(text))
        except DatasetError as error:
            problems.append(str(error))
        except OSError as error:  # a name too long, or a folder that may not be read
            problems.append(f"cannot read '{text}': {error.strerror}")
    return list(inputs), problems


def find_inputs(text: str) -> list[MediaInput]:
    """What a command-line argument stands for, in the order of the names: at least one. Raises DatasetError.

    `camera` or `camera:1`, a file, a folder (the images and videos in it, not those in its sub-folders), or a glob.
    """
    if not text.strip():
        raise DatasetError(f"an input must be a file, folder or camera, got {shorten(text)}")
    if match := _CAMERA.fullmatch(text):
        return [MediaInput("camera", Path(text), int(match[1] or 0))]
    path = Path(text)
    if path.is_dir():
        sub_folders = f"for its sub-folders, give '{path}/**/*.jpg'"
        return _require_any(path.iterdir(), f"folder {text} holds no images or videos; {sub_folders}")
    if path.exists():
        return [_input_of(path)]
    if glob.has_magic(text):
        return _require_any(_matches(path), f"no image or video matches '{text}'")
    raise DatasetError(f"there is no file, folder or camera '{text}'")


def _matches(pattern: Path) -> Iterator[Path]:
    try:
        # Only relative patterns can be globbed; the anchor of those is the empty path.
        yield from Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
    except ValueError as error:
        raise DatasetError(f"'{pattern}' is no glob: {error}") from None


def _require_any(paths: Iterator[Path], problem: str) -> list[MediaInput]:
    """The images and videos among the paths, by their suffixes. Raises DatasetError(problem) if there is none."""
    from detection.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES

    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    # macOS writes files like '._photo.jpg' that are no images.
    visible = [path for path in paths if not path.name.startswith(".")]
    # What only has the name of an image, such as a pipe, is reported when its turn comes.
    kept = [path for path in visible if path.suffix.lower() in suffixes and not path.is_dir()]
    unread = sorted(str(path) for path in visible if path.suffix.lower() in UNREAD_SUFFIXES)
    left_out = f"{len(unread)} files are left out, images of kinds that are not read" if unread else ""
    if not kept:
        raise DatasetError(f"{problem}; {left_out}" if unread else problem)
    if unread:
        logger.warning("%s; convert them, e.g. to .jpg; the first: %s", left_out, printable(unread[0]))
    return [_input_of(path) for path in sorted(kept)]


def _input_of(path: Path) -> MediaInput:
    return MediaInput("video" if path.suffix.lower() in VIDEO_SUFFIXES else "image", path)


def drawing_paths(inputs: Sequence[MediaInput], folder: Path) -> list[Path]:
    """A different file of `folder` for the drawing of each input, never one of the inputs themselves.

    The input's stem; if it is taken, its folder's name and its stem; then its stem and a number. Beside a video's .mp4 the
    .jsonl of that name is free too. Names are valid and of a length that every file system takes.
    """
    taken = {_comparable(each.path) for each in inputs if each.kind != "camera"}
    drawings = []
    for each in inputs:
        suffix = ".jpg" if each.kind == "image" else ".mp4"
        for name in _possible_names(each):
            drawing = folder / f"{name}{suffix}"
            written = {_comparable(drawing), _comparable(drawing.with_suffix(".jsonl" if suffix == ".mp4" else suffix))}
            if not written & taken:
                break
        taken |= written
        drawings.append(drawing)
    return drawings


def _possible_names(source: MediaInput) -> Iterator[str]:
    stem = _file_name(source.stem, _NAME_BYTES)
    yield stem
    if parent := source.path.absolute().parent.name:
        yield _file_name(f"{parent}_{source.stem}", _NAME_BYTES)
    stem = _file_name(stem, _NAME_BYTES - 10)
    yield from (f"{stem}_{number}" for number in itertools.count(2))


def _file_name(name: str, max_bytes: int) -> str:
    """The name with "_" for control and half characters, cut to a number of bytes. Decoders cannot open names with them."""
    kept = "".join("_" if unicodedata.category(character) in ("Cc", "Cs") else character for character in name)
    return kept.encode()[:max_bytes].decode(errors="ignore")


def _comparable(path: Path) -> str:
    # Some file systems do not distinguish capitals from small letters, or the ways to write one accented letter.
    return unicodedata.normalize("NFC", os.path.realpath(path)).lower()


def _decoder_path(path: Path) -> str:
    """The path as OpenCV takes it. Raises DatasetError for one that is not UTF-8, with which it crashes."""
    try:
        # Absolute: "http:a.mp4" would be taken for an address.
        return path.absolute().as_posix().encode().decode()
    except UnicodeEncodeError:
        raise DatasetError(f"{path}: OpenCV opens no video whose path is not UTF-8; rename it") from None


class FrameReader:
    """The frames of a video or camera, one by one. Raises DatasetError where not even the first one can be read.

    `frames_per_second` is what the video's header says, or 25 where it says nothing sensible; `note` tells that in words.
    """

    def __init__(self, source: MediaInput) -> None:
        import cv2

        _silence_decoders()
        self.source = source
        self.num_frames = 0  # read so far
        self._capture = self._open()
        self._first = self._read()
        if self._first is None:
            what = "is it there, and free?" if source.kind == "camera" else "it is damaged, or no video"
            raise DatasetError(f"cannot read {source}: {what}")
        self.size_hw = self._first.shape[:2]
        rate, promised = (self._capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        known = math.isfinite(rate) and _RATES[0] <= rate <= _RATES[1]
        self.frames_per_second = rate if known else _ASSUMED_RATE
        self.note = None
        if not known and source.kind == "video":
            self.note = f"its header says {rate:g} frames per second; {_ASSUMED_RATE:g} are assumed, times are a guess"
        self.promised_frames = int(promised) if source.kind == "video" and 0 < promised < math.inf else None

    def _open(self) -> cv2.VideoCapture:
        import cv2

        if self.source.kind == "camera":
            return cv2.VideoCapture(self.source.camera)
        path = _decoder_path(self.source.path)
        try:
            with open_regular(self.source.path):  # OpenCV would wait for ever for a pipe's writer
                return cv2.VideoCapture(path)
        except OSError as error:
            raise DatasetError(f"cannot read {self.source}: {error.strerror}") from None

    def __iter__(self) -> Iterator[np.ndarray]:
        frame, self._first = self._first, None
        while frame is not None:
            self.num_frames += 1
            yield frame
            frame = self._read()

    def _read(self) -> np.ndarray | None:
        import cv2

        try:
            found, frame = self._capture.read()
        except (cv2.error, MemoryError) as error:
            raise DatasetError(f"{self.source} is damaged: frame {self.num_frames + 1} cannot be decoded: {error}") from None
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype("uint8", copy=False) if found else None

    def missing_frames(self) -> str | None:
        """After the last frame: a sentence if the video's header promised more of them, else None."""
        if self.promised_frames is None or self.num_frames >= _MIN_SHARE * self.promised_frames:
            return None
        frames = f"{self.num_frames} of {self.promised_frames} frames can be decoded"
        return f"{self.source} is damaged or cut short: {frames}"

    def close(self) -> None:
        """Let go of the file or camera."""
        self._capture.release()


class FrameWriter:
    """An .mp4 of frames of one size, which may be odd. Raises DatasetError where it cannot be written."""

    def __init__(self, path: Path, size_hw: Sequence[int], frames_per_second: float) -> None:
        import cv2

        _silence_decoders()
        self._rate, self._count, self._size_wh = frames_per_second, 0, (size_hw[1], size_hw[0])
        self._writer = cv2.VideoWriter(_decoder_path(path), cv2.VideoWriter.fourcc(*"mp4v"), frames_per_second, self._size_wh)
        if not self._writer.isOpened():
            raise DatasetError(f"cannot write {path}: the folder is not writable, or this OpenCV has no MPEG-4 encoder")

    def write(self, frame: np.ndarray, seconds: float) -> None:
        """Add a frame (H, W, 3) to be seen `seconds` after the start: several times, or not at all, to keep the rate."""
        import cv2

        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        if (bgr.shape[1], bgr.shape[0]) != self._size_wh:  # OpenCV would leave it out without a word
            bgr = cv2.resize(bgr, self._size_wh)
        while self._count <= round(seconds * self._rate):
            self._writer.write(bgr)
            self._count += 1

    def close(self) -> None:
        """Write the index: without it the file cannot be played."""
        self._writer.release()


def _silence_decoders() -> None:
    """Keep decoders from writing to stderr, where our errors are one line. To be called before the first one is made."""
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
