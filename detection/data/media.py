"""What a demo looks at: images, folders, globs, videos and cameras, and a name for the drawing of each.

Frames and images are (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

import glob
import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from detection.errors import DatasetError

if TYPE_CHECKING:
    import numpy as np

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})

_CAMERA = re.compile(r"camera(?::(\d+))?")
_WHOLE = 0.9  # share of the frames that its header promises; some containers only estimate the number


@dataclass(frozen=True)
class Medium:
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


def find_media(text: str) -> list[Medium]:
    """What a command-line argument stands for, in the order of the names: at least one. Raises DatasetError.

    `camera` or `camera:1`, a file, a folder (the pictures and videos in it, not those in its sub-folders), or a glob.
    """
    if match := _CAMERA.fullmatch(text):
        return [Medium("camera", Path(text), int(match[1] or 0))]
    path = Path(text)
    if path.is_dir():
        return _known(path.iterdir(), f"folder {text} holds no images or videos; for its sub-folders, give '{path}/**/*.jpg'")
    if path.exists():
        return [_medium(path)]
    if glob.has_magic(text):
        return _known(_matches(path), f"no image or video matches '{text}'")
    raise DatasetError(f"there is no file, folder or camera '{text}'")


def _matches(pattern: Path) -> Iterator[Path]:
    try:
        # Only relative patterns can be globbed; the anchor of those is the empty path.
        yield from Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
    except ValueError as error:
        raise DatasetError(f"'{pattern}' is no glob: {error}") from None


def _known(paths: Iterator[Path], otherwise: str) -> list[Medium]:
    """The images and videos among the paths, by their suffixes. Raises DatasetError with the sentence where none is."""
    from detection.data.images import IMAGE_SUFFIXES

    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    # macOS writes files like '._picture.jpg' that are none.
    kept = [path for path in paths if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith(".")]
    if not kept:
        raise DatasetError(otherwise)
    return [_medium(path) for path in sorted(kept)]


def _medium(path: Path) -> Medium:
    return Medium("video" if path.suffix.lower() in VIDEO_SUFFIXES else "image", path)


def drawing_paths(media: Sequence[Medium], folder: Path) -> list[Path]:
    """A different file of `folder` for the drawing of each medium, and never one of the media themselves.

    The medium's stem; where that is taken, its folder's name and its stem; then its stem and a number.
    """
    taken = {_key(medium.path) for medium in media if medium.kind != "camera"}
    chosen = []
    for medium in media:
        suffix = ".jpg" if medium.kind == "image" else ".mp4"
        path = next(path for name in _names(medium) if _key(path := folder / f"{name}{suffix}") not in taken)
        taken.add(_key(path))
        chosen.append(path)
    return chosen


def _names(medium: Medium) -> Iterator[str]:
    yield medium.stem
    if parent := medium.path.absolute().parent.name:
        yield f"{parent}_{medium.stem}"
    yield from (f"{medium.stem}_{number}" for number in itertools.count(2))


def _key(path: Path) -> str:
    # Some file systems do not tell capitals from small letters.
    return str(path.resolve()).lower()


class FrameReader:
    """The frames of a video or camera, one by one. Raises DatasetError where not even the first can be had."""

    def __init__(self, medium: Medium) -> None:
        import cv2

        _silence_decoders()
        self.medium = medium
        self.count = 0  # frames handed out
        self._capture = cv2.VideoCapture(medium.camera if medium.kind == "camera" else str(medium.path))
        self._first = self._read()
        if self._first is None:
            what = "is it there, and free?" if medium.kind == "camera" else "it is damaged, or no video"
            raise DatasetError(f"cannot read {medium}: {what}")
        self.size_hw = self._first.shape[:2]
        rate, promised = (self._capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.frames_per_second = rate if math.isfinite(rate) and 1 <= rate <= 240 else 25.0
        self.promised = int(promised) if medium.kind == "video" and promised > 0 else None

    def __iter__(self) -> Iterator[np.ndarray]:
        frame, self._first = self._first, None
        while frame is not None:
            self.count += 1
            yield frame
            frame = self._read()

    def _read(self) -> np.ndarray | None:
        import cv2

        found, frame = self._capture.read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype("uint8", copy=False) if found else None

    def check_whole(self) -> None:
        """After the last frame: raise DatasetError if the video promised more of them."""
        if self.promised is not None and self.count < _WHOLE * self.promised:
            raise DatasetError(f"{self.medium} is damaged or cut short: {self.count} of {self.promised} frames can be decoded")

    def close(self) -> None:
        """Let go of the file or camera."""
        self._capture.release()


class FrameWriter:
    """An .mp4 of frames of one size, which may be odd. Raises DatasetError where it cannot be written."""

    def __init__(self, path: Path, size_hw: Sequence[int], frames_per_second: float) -> None:
        import cv2

        _silence_decoders()
        self._rate, self._count = frames_per_second, 0
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), frames_per_second, (size_hw[1], size_hw[0]))
        if not self._writer.isOpened():
            raise DatasetError(f"cannot write {path}: the folder is not writable, or this OpenCV has no MPEG-4 encoder")

    def show(self, frame: np.ndarray, seconds: float) -> None:
        """A frame that is seen from `seconds` after the start on; repeated, or left out, where the rate asks for it."""
        import cv2

        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        while self._count <= round(seconds * self._rate):
            self._writer.write(bgr)
            self._count += 1

    def close(self) -> None:
        """Write the index: without it the file cannot be played."""
        self._writer.release()


def _silence_decoders() -> None:
    """Decoders write warnings of their own to stderr, where ours is one line. To be called before the first is made."""
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
