"""Frames become an .mp4: H.264, which browsers play, where PyAV is installed, else MPEG-4 Part 2 by OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from detection.data.frames import decoder_path, silence_decoders
from detection.errors import DatasetError

_LARGEST_DENOMINATOR = 1001  # of a rate: 29.97 frames per second are 30000 / 1001


@cache
def has_h264() -> bool:
    """Whether videos are written as H.264, which browsers play: PyAV is installed, with that encoder as its wheels have."""
    if find_spec("av") is None:
        return False
    from av.codec import codecs_available

    return "libx264" in codecs_available


class _Encoder(Protocol):
    def write(self, frame: np.ndarray) -> None: ...

    def close(self) -> None: ...


class FrameWriter:
    """An .mp4 of frames of one size, which may be odd. Raises DatasetError where it cannot be written."""

    def __init__(self, path: Path, size_hw: Sequence[int], frames_per_second: float) -> None:
        self._rate, self._count, self._size_wh = frames_per_second, 0, (size_hw[1], size_hw[0])
        encoder = _H264 if has_h264() else _Mpeg4
        self._encoder: _Encoder = encoder(path, self._size_wh, frames_per_second)

    def write(self, frame: np.ndarray, seconds: float) -> None:
        """Add a frame (H, W, 3) to be seen `seconds` after the start: several times, or not at all, to keep the rate."""
        import cv2

        if (frame.shape[1], frame.shape[0]) != self._size_wh:  # OpenCV would leave it out without a word
            frame = cv2.resize(frame, self._size_wh)
        while self._count <= round(seconds * self._rate):
            self._encoder.write(frame)
            self._count += 1

    def close(self) -> None:
        """Write the index: without it the file cannot be played."""
        self._encoder.close()


class _Mpeg4:
    def __init__(self, path: Path, size_wh: tuple[int, int], frames_per_second: float) -> None:
        import cv2

        silence_decoders()
        self._writer = cv2.VideoWriter(decoder_path(path), cv2.VideoWriter.fourcc(*"mp4v"), frames_per_second, size_wh)
        if not self._writer.isOpened():
            raise DatasetError(f"cannot write {path}: the folder is not writable, or this OpenCV has no MPEG-4 encoder")

    def write(self, frame: np.ndarray) -> None:
        import cv2

        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        self._writer.release()


class _H264:
    """A size that is odd grows by a row or column, the last one repeated: the format counts colours for 2 x 2 pixels."""

    def __init__(self, path: Path, size_wh: tuple[int, int], frames_per_second: float) -> None:
        import av

        width, height = size_wh
        self._grown = ((0, height % 2), (0, width % 2), (0, 0))
        rate = Fraction(frames_per_second).limit_denominator(_LARGEST_DENOMINATOR)
        try:
            self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
            self._stream: Any = self._container.add_stream("libx264", rate=rate, options={"crf": "20"})
            self._stream.width, self._stream.height = width + width % 2, height + height % 2
            self._stream.pix_fmt = "yuv420p"
            self._container.start_encoding()
        except (OSError, av.FFmpegError) as error:
            raise DatasetError(f"cannot write {path}: {error.strerror or error}") from None

    def write(self, frame: np.ndarray) -> None:
        import av

        grown = np.ascontiguousarray(np.pad(frame, self._grown, "edge"))
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(grown, format="rgb24")))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()
