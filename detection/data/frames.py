"""The frames of films, one by one: videos, cameras, animations, folders of images. Frames are (H, W, 3) uint8 RGB."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from detection.config import MAX_PIXELS
from detection.data.images import Frame, each_frame, read_image
from detection.data.media import MediaInput, find_inputs
from detection.errors import DatasetError
from detection.files import open_regular

if TYPE_CHECKING:
    import cv2

_RATES = (0.01, 1000.0)  # frames per second that a video may have; others, such as 0, NaN or 90000, are no rates but mistakes
_ASSUMED_RATE = 25.0
_MIN_SHARE = 0.9  # of the frames that a video's header promises; some containers only estimate the number
CAMERA_FRAMES_PER_SECOND = 10.0  # of a camera's .mp4: a detector seldom keeps up with the camera
_ANIMATION_RATES = (1.0, 50.0)


class TimedFrame(NamedTuple):
    """A frame, when it is first seen, and until when, in seconds since the first frame: its last moment at the film's rate."""

    seconds: float
    pixels: np.ndarray
    until: float


class Film(Protocol):
    """What is read frame by frame. Its constructor raises DatasetError where not even the first frame can be read."""

    source: MediaInput
    size_hw: tuple[int, int]
    frames_per_second: float  # of what is drawn of it
    promised_frames: int | None  # where that is known
    num_frames: int  # read so far
    note: str | None  # what people should know of its times

    def timed_frames(self) -> Iterator[TimedFrame]:
        """Its frames, once."""
        ...

    def missing_frames(self) -> str | None:
        """After the last frame: a sentence if there should be more of them, else None."""
        ...

    def close(self) -> None:
        """Let go of the file or camera."""
        ...


def open_film(source: MediaInput, max_pixels: int = MAX_PIXELS, folder_rate: float = _ASSUMED_RATE) -> Film:
    """The frames of a video, camera, animation or folder of images. Raises DatasetError where there is none.

    `max_pixels` bounds images, `folder_rate` is the frames per second of a folder.
    """
    if source.kind == "animation":
        return AnimationReader(source, max_pixels)
    if source.kind == "frames":
        return FolderReader(source, max_pixels, folder_rate)
    return FrameReader(source)


class FrameReader:
    """The frames of a video or camera, one by one. Raises DatasetError where not even the first one can be read.

    `frames_per_second` is what the video's header says, or 25 where it says nothing sensible, which `note` tells.
    """

    def __init__(self, source: MediaInput) -> None:
        import cv2

        silence_decoders()
        self.source = source
        self.num_frames = 0  # read so far
        self._capture = self._open()
        self._first = self._read()
        if self._first is None:
            what = "is it there, and free?" if source.kind == "camera" else "it is damaged, or no video"
            raise DatasetError(f"cannot read {source}: {what}")
        self.size_hw = (self._first.shape[0], self._first.shape[1])
        rate, promised = (self._capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        known = math.isfinite(rate) and _RATES[0] <= rate <= _RATES[1]
        self.frames_per_second = rate if known else _ASSUMED_RATE
        if source.kind == "camera":
            self.frames_per_second = CAMERA_FRAMES_PER_SECOND
        self.note: str | None = None
        if not known and source.kind == "video":
            self.note = f"its header says {rate:g} frames per second; {_ASSUMED_RATE:g} are assumed, times are a guess"
        self.promised_frames: int | None = int(promised) if source.kind == "video" and 0 < promised < math.inf else None

    def _open(self) -> cv2.VideoCapture:
        import cv2

        if self.source.kind == "camera":
            return cv2.VideoCapture(self.source.camera)
        path = decoder_path(self.source.path)
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

    def timed_frames(self) -> Iterator[TimedFrame]:
        """Its frames with their times: a camera's by the clock, a video's by its rate."""
        start = time.monotonic()
        for index, frame in enumerate(self):
            seconds = time.monotonic() - start if self.source.kind == "camera" else index / self.frames_per_second
            yield TimedFrame(seconds, frame, seconds)

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


class AnimationReader:
    """The frames of a GIF, APNG, WebP or AVIF, each shown as long as the file says. It is read twice: first for the times."""

    def __init__(self, source: MediaInput, max_pixels: int = MAX_PIXELS) -> None:
        self.source, self.num_frames = source, 0
        self.note: str | None = None
        self._max_pixels = max_pixels
        self._problem: str | None = None
        shown: list[float] = []
        for frame in self._frames():
            if not shown:
                self.size_hw = (frame.pixels.shape[0], frame.pixels.shape[1])
            shown.append(frame.seconds)
        if not shown:
            raise DatasetError(self._problem or f"{source} holds no frame")
        self.promised_frames: int | None = len(shown)
        self.frames_per_second = float(np.clip(1 / min(shown), *_ANIMATION_RATES))

    def _frames(self) -> Iterator[Frame]:
        """Those before the first that is damaged."""
        try:
            yield from each_frame(self.source.path, self._max_pixels)
        except DatasetError as error:
            self._problem = str(error)

    def timed_frames(self) -> Iterator[TimedFrame]:
        """Its frames with the times at which they appear."""
        seconds = 0.0
        for frame in self._frames():
            self.num_frames += 1
            end = seconds + frame.seconds
            yield TimedFrame(seconds, frame.pixels, max(end - 1 / self.frames_per_second, seconds))
            seconds = end

    def missing_frames(self) -> str | None:
        """What is wrong with the frame after the last one."""
        return self._problem

    def close(self) -> None:
        """Nothing is held."""


class FolderReader:
    """The images of a folder as the frames of a film, in the order of their names. One that cannot be read is left out."""

    def __init__(self, source: MediaInput, max_pixels: int = MAX_PIXELS, frames_per_second: float = _ASSUMED_RATE) -> None:
        files = [each.path for each in find_inputs(str(source.path)) if each.kind == "image"]
        self.source, self.num_frames = source, 0
        self.note: str | None = None
        self.promised_frames: int | None = len(files)
        self.frames_per_second = frames_per_second
        self._bad: list[DatasetError] = []
        self._images = self._read(files, max_pixels)
        first = next(self._images, None)
        if first is None:
            raise self._bad[0] if self._bad else DatasetError(f"folder {source} holds no images")
        self.size_hw = (first.shape[0], first.shape[1])
        self._images = itertools.chain([first], self._images)

    def _read(self, files: list[Path], max_pixels: int) -> Iterator[np.ndarray]:
        for file in files:
            try:
                yield read_image(file, max_pixels)
            except DatasetError as error:
                self._bad.append(error)

    def timed_frames(self) -> Iterator[TimedFrame]:
        """Its images with their times."""
        for image in self._images:
            seconds = self.num_frames / self.frames_per_second
            self.num_frames += 1
            yield TimedFrame(seconds, image, seconds)

    def missing_frames(self) -> str | None:
        """How many images were left out, and why the first of them."""
        if not self._bad:
            return None
        return f"{len(self._bad)} of {self.promised_frames} images in {self.source} cannot be read; the first: {self._bad[0]}"

    def close(self) -> None:
        """Nothing is held."""


def decoder_path(path: Path) -> str:
    """The path as OpenCV takes it. Raises DatasetError for one that is not UTF-8, with which it crashes."""
    try:
        # Absolute: "http:a.mp4" would be taken for an address.
        return path.absolute().as_posix().encode().decode()
    except UnicodeEncodeError:
        raise DatasetError(f"{path}: OpenCV opens no video whose path is not UTF-8; rename it") from None


def silence_decoders() -> None:
    """Keep decoders from writing to stderr, where our errors are one line. To be called before the first one is made."""
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
