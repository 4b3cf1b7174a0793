"""What a model finds, drawn into single images and into the frames of films, and as plain values.

Images are (H, W, 3) uint8 RGB, boxes xyxy pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detection.inference.tracking import ObjectTracker
from detection.structures import Detections
from detection.visualize import draw_boxes, draw_masks, draw_trails


@dataclass(frozen=True)
class Tracking:
    """How objects are followed through films."""

    keep_seconds: float = 1.0  # an object that is not seen for so long gets a new number
    trail_seconds: float = 0.0  # of the way that is drawn behind it
    folder_rate: float = 25.0  # frames per second of a folder of images


@dataclass(frozen=True)
class FoundObject:
    """One detection as plain values: its box is xyxy in pixels of the image."""

    class_name: str
    score: float
    box: tuple[float, ...]
    track: int | None = None  # the object's number in a film where objects are followed
    mask: dict[str, Any] | None = None  # COCO's run lengths; None where masks are not predicted

    def as_json(self) -> dict[str, Any]:
        """Class, score to four decimals, box [x1, y1, x2, y2] to two; the number and the mask, `segmentation`, if there are."""
        box = [round(edge, 2) for edge in self.box]
        number = {} if self.track is None else {"track": self.track}
        mask = {} if self.mask is None else {"segmentation": self.mask}
        return {"class": self.class_name, "score": round(self.score, 4), "box": box, **number, **mask}


class FramePainter:
    """Draws what a model finds in a film's frames, each by itself."""

    num_tracks: int | None = None

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = class_names

    def draw(self, image: np.ndarray, found: Detections) -> tuple[np.ndarray, list[FoundObject]]:
        """A drawn copy of the next frame, and what was found in it, best first."""
        return draw_detections(image, found, self._class_names)


class TrackPainter:
    """Draws the objects that a model finds in a film's frames, each in the colour of its number, and the ways they came.

    Raises ConfigError where norfair is not installed.
    """

    def __init__(self, class_names: Sequence[str], frames_per_second: float, tracking: Tracking) -> None:
        self._class_names, self._tracker = class_names, ObjectTracker(frames_per_second, tracking.keep_seconds)
        self._trail_frames = round(tracking.trail_seconds * frames_per_second)
        self._frame = 0
        self._trails: dict[int, list[tuple[int, float, float]]] = defaultdict(list)  # number -> (frame, x, y) of the last ones
        self._seen: set[int] = set()

    @property
    def num_tracks(self) -> int:
        """How many objects have got a number so far."""
        return len(self._seen)

    def draw(self, image: np.ndarray, found: Detections) -> tuple[np.ndarray, list[FoundObject]]:
        """A drawn copy of the next frame, and what was found in it, best first."""
        tracks = self._tracker.update(found)
        self._seen |= {number for number in tracks if number is not None}
        self._extend_trails(found, tracks)
        trails = {number: [(x, y) for _, x, y in points] for number, points in self._trails.items()}
        names = self._class_names
        image = image if found.masks is None else draw_masks(image, found.masks, found.labels, tracks)
        drawn = draw_boxes(draw_trails(image, trails), found.boxes, found.labels, names, found.scores, tracks)
        return drawn, found_objects(found, names, tracks)

    def _extend_trails(self, found: Detections, tracks: Sequence[int | None]) -> None:
        self._frame += 1
        for number, (x1, y1, x2, y2) in zip(tracks, found.boxes.tolist(), strict=True):
            if number is not None and self._trail_frames:
                self._trails[number].append((self._frame, (x1 + x2) / 2, (y1 + y2) / 2))
        first = self._frame - self._trail_frames
        recent = {number: [point for point in points if point[0] >= first] for number, points in self._trails.items()}
        self._trails = defaultdict(list, {number: points for number, points in recent.items() if points})


def draw_detections(image: np.ndarray, found: Detections, class_names: Sequence[str]) -> tuple[np.ndarray, list[FoundObject]]:
    """A drawn copy of the image, and what was found in it as plain values, best first."""
    image = image if found.masks is None else draw_masks(image, found.masks, found.labels)
    drawn = draw_boxes(image, found.boxes, found.labels, class_names, found.scores)
    return drawn, found_objects(found, class_names)


def found_objects(
    detections: Detections, class_names: Sequence[str], tracks: Sequence[int | None] | None = None
) -> list[FoundObject]:
    """Detections of one image as plain values, in their order."""
    numbers = [None] * len(detections) if tracks is None else tracks
    masks = [None] * len(detections) if detections.masks is None else detections.masks.as_json()
    rows = zip(detections.labels.tolist(), detections.scores.tolist(), detections.boxes.tolist(), numbers, masks, strict=True)
    return [FoundObject(class_names[label], score, tuple(box), number, mask) for label, score, box, number, mask in rows]
