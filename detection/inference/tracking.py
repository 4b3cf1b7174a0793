"""Objects followed through a film: each keeps its number from frame to frame, by norfair (`pip install 'resdet[track]'`).

An object of a frame continues the object of the same class whose box, moved on by a Kalman filter, it overlaps most.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detection.data.ahead import read_ahead
from detection.data.frames import TimedFrame, open_film
from detection.data.media import MediaInput
from detection.engine.precision import autocast, resolve_precision
from detection.errors import ConfigError, DatasetError
from detection.inference.predictor import Predictor
from detection.inference.results import ImageDetections
from detection.structures import Detections

if TYPE_CHECKING:
    import norfair

_LEAST_IOU = 0.2  # of a box and where its object is expected
_FRAMES_TO_BEGIN = 1  # after the first, before an object gets a number: a detection of one frame only is seldom an object


@dataclass(frozen=True)
class TrackedFrame:
    """A frame of a film, what was found in it, and the objects' numbers."""

    index: int  # from 0
    seconds: float  # since the first frame
    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    detections: ImageDetections  # on the CPU
    tracks: list[int | None]  # for each detection the number of its object, from 1; None for one seen for the first time


class ObjectTracker:
    """Gives the objects of a film numbers. Frames go into `update` in their order; the same detections get the same numbers.

    An object that is not seen for `keep_seconds` is forgotten; one that was seen more briefly, sooner. Raises ConfigError where
    norfair is not installed.
    """

    def __init__(self, frames_per_second: float, keep_seconds: float = 1.0) -> None:
        try:
            import norfair
        except ImportError:
            raise ConfigError("tracking needs the package norfair: pip install 'resdet[track]'") from None
        self._new_detection = norfair.Detection
        self._tracker: norfair.Tracker = norfair.Tracker(
            distance_function="iou",
            distance_threshold=1 - _LEAST_IOU,
            hit_counter_max=max(round(frames_per_second * keep_seconds), _FRAMES_TO_BEGIN + 1),
            initialization_delay=_FRAMES_TO_BEGIN,
        )
        self._frame = 0

    def update(self, detections: Detections) -> list[int | None]:
        """The numbers of the next frame's detections, in their order."""
        rows = zip(detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True)
        self._frame += 1
        seen = [
            self._new_detection(np.array(box).reshape(2, 2), np.full(2, score), data=(self._frame, row), label=label)
            for row, (box, score, label) in enumerate(rows)
        ]
        numbers: list[int | None] = [None] * len(seen)
        for each in self._tracker.update(seen):
            frame, row = each.last_detection.data
            if frame == self._frame:
                numbers[row] = each.id
        return numbers


def track(model: Predictor, source: MediaInput, *, keep_seconds: float = 1.0) -> Iterator[TrackedFrame]:
    """The frames of a video, camera, animation or folder (see `find_films`) with the objects that a model finds, numbered.

    The model's config decides the precision. Raises DatasetError where the film cannot be opened, ConfigError without norfair.
    """
    with closing(open_film(source, model.config.data.max_pixels)) as film:
        tracker = ObjectTracker(film.frames_per_second, keep_seconds)
        with closing(predict_frames(model, film.timed_frames(), source)) as found:
            for index, (frame, detections) in enumerate(found):
                yield TrackedFrame(index, frame.seconds, frame.pixels, detections, tracker.update(detections))


def predict_frames(
    model: Predictor, frames: Iterable[TimedFrame], source: MediaInput
) -> Generator[tuple[TimedFrame, ImageDetections], None, None]:
    """Each frame of a film with what the model finds in it, on the CPU, at the precision that its config asks for.

    Frames are decoded ahead, while the model computes, and `test.batch_size` of them run together; those of a camera come one
    by one. After `close()` nothing more is read of the film.
    """
    live, config = source.kind == "camera", model.config
    precision, batch_size = resolve_precision(config.train.precision, model.device), 1 if live else config.test.batch_size
    with closing(_one_by_one(frames) if live else read_ahead(frames)) as waiting:
        for some in _in_batches(waiting, batch_size):
            with autocast(model.device, precision):
                found = model.predict([frame.pixels for frame in some])
            for frame, detections in zip(some, found, strict=True):
                yield frame, detections.to("cpu")


def _in_batches(frames: Iterable[TimedFrame], size: int) -> Iterator[list[TimedFrame]]:
    """So many frames at a time, and at the end, or before an error, those that are left."""
    some: list[TimedFrame] = []
    try:
        for frame in frames:
            some.append(frame)
            if len(some) == size:
                yield some
                some = []
    except DatasetError:
        if some:
            yield some
        raise
    if some:
        yield some


def _one_by_one(frames: Iterable[TimedFrame]) -> Generator[TimedFrame, None, None]:
    yield from frames


def predict_frame(model: Predictor, pixels: np.ndarray) -> ImageDetections:
    """What the model finds in one frame (H, W, 3), on the CPU, at the precision that its config asks for."""
    precision = resolve_precision(model.config.train.precision, model.device)
    with autocast(model.device, precision):
        return model.predict([pixels])[0].to("cpu")
