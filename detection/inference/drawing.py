"""Detections drawn on images, videos and cameras, and written as plain data.

`draw_media` writes a drawing for each image (NAME.jpg) and one detections.json, and for each video or camera NAME.mp4 and
NAME.jsonl with a line for each frame. Images are (H, W, 3) uint8 RGB, boxes xyxy pixels.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detection.data.images import load_image
from detection.data.media import FrameReader, FrameWriter, MediaInput, drawing_paths
from detection.engine.precision import autocast, resolve_precision
from detection.errors import DatasetError
from detection.files import write_json
from detection.inference.predictor import Predictor
from detection.structures import Detections
from detection.visualize import draw_boxes, save_image

TimedFrame = tuple[float, np.ndarray]
"""A frame, and its seconds since the first one."""
FrameProgress = Callable[[Iterator[TimedFrame], int | None, str], Iterable[TimedFrame]]
"""Takes a video's frames, their number if known, and the video's name; gives the frames back while it shows the progress."""

CAMERA_FRAMES_PER_SECOND = 10.0  # of a camera's .mp4: a detector seldom keeps up with the camera


@dataclass(frozen=True)
class FoundObject:
    """One detection as plain values: its box is xyxy in pixels of the image."""

    class_name: str
    score: float
    box: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """Class, score to four decimals, box [x1, y1, x2, y2] to two."""
        return {"class": self.class_name, "score": round(self.score, 4), "box": [round(edge, 2) for edge in self.box]}


@dataclass(frozen=True)
class DrawnImage:
    """An image's drawing, and what was found in it, best first."""

    source: MediaInput
    drawing: Path
    size_hw: tuple[int, int]
    objects: list[FoundObject]
    more_frames: bool = False  # the file has more frames or pages than the first, which is drawn

    def as_json(self) -> dict[str, Any]:
        """The image's entry of detections.json."""
        height, width = self.size_hw
        found = [each.as_json() for each in self.objects]
        return {"file": _as_utf8(self.source), "width": width, "height": height, "detections": found}

    def __str__(self) -> str:
        counts = Counter(each.class_name for each in self.objects)
        first = " (the first of its frames or pages)" if self.more_frames else ""
        return f"{self.source}{first}: {describe_counts(counts)} -> {self.drawing}"


@dataclass(frozen=True)
class DrawnVideo:
    """A video's drawing, and how often each class was found in its frames."""

    source: MediaInput
    drawing: Path
    num_frames: int
    counts: Counter[str]
    problem: str | None  # where the video breaks off before the end that its header promises
    note: str | None = None  # where the header does not tell the frames per second

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.source}: {self.num_frames} frames, {describe_counts(self.counts)} -> {self.drawing}{note}"


def draw_media(
    model: Predictor,
    inputs: Sequence[MediaInput],
    folder: Path,
    *,
    max_frames: int | None = None,
    on_drawn: Callable[[DrawnImage | DrawnVideo], None] | None = None,
    on_error: Callable[[DatasetError], None] | None = None,
    progress: FrameProgress | None = None,
) -> list[DrawnImage | DrawnVideo]:
    """Draw what the model finds in each input (see `find_all_inputs`) into a folder, which is made.

    Videos and cameras stop after `max_frames`. `on_drawn` is called after each input. Where one cannot be read, breaks off or
    its drawing cannot be written, `on_error` is called and the others are drawn; without `on_error` DatasetError is raised.
    detections.json is written even then. Raises OSError where the folder or detections.json cannot be written, DatasetError
    where an input is that file.
    """
    summary = folder / "detections.json"
    if any(source.kind != "camera" and os.path.realpath(source.path) == os.path.realpath(summary) for source in inputs):
        raise DatasetError(f"{summary} is an input and would be overwritten: choose another folder for the output")
    folder.mkdir(parents=True, exist_ok=True)
    results: list[DrawnImage | DrawnVideo] = []
    try:
        for source, drawing in zip(inputs, drawing_paths(inputs, folder), strict=True):
            try:
                with _naming(source):
                    result = draw_input(model, source, drawing, max_frames, progress)
                results.append(result)
                if on_drawn is not None:
                    on_drawn(result)
                if isinstance(result, DrawnVideo) and result.problem is not None:
                    raise DatasetError(result.problem)
            except DatasetError as error:
                if on_error is None:
                    raise
                on_error(error)
    finally:
        write_json(summary, [result.as_json() for result in results if isinstance(result, DrawnImage)])
    return results


@contextmanager
def _naming(source: MediaInput) -> Iterator[None]:
    """Raise DatasetError with the input's name where its drawing cannot be written, or it does not fit into memory."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{source} is not drawn: {error.filename or 'its drawing'}: {error.strerror or error}") from None
    except (MemoryError, torch.OutOfMemoryError):
        raise DatasetError(f"{source} is not drawn: it is too large for the memory") from None


def _as_utf8(source: MediaInput) -> str:
    r"""The input's name for JSON: bytes that are not UTF-8 become `\xff`."""
    return os.fsencode(str(source)).decode(errors="backslashreplace")


def draw_input(
    model: Predictor,
    source: MediaInput,
    drawing: Path,
    max_frames: int | None = None,
    progress: FrameProgress | None = None,
) -> DrawnImage | DrawnVideo:
    """Draw one image, video or camera into the file `drawing`. Raises DatasetError where it cannot be read."""
    if source.kind == "image":
        return draw_image_file(model, source, drawing)
    return draw_video(model, source, drawing, max_frames, progress)


def draw_image_file(model: Predictor, source: MediaInput, drawing: Path) -> DrawnImage:
    """Draw one image. Raises DatasetError where it cannot be read."""
    image, more_frames = load_image(source.path, model.config.data.max_pixels)
    drawn, objects = draw_detections(model, image)
    save_image(drawing, drawn)
    return DrawnImage(source, drawing, (image.shape[0], image.shape[1]), objects, more_frames)


def draw_video(
    model: Predictor,
    source: MediaInput,
    drawing: Path,
    max_frames: int | None = None,
    progress: FrameProgress | None = None,
) -> DrawnVideo:
    """Draw a video or camera frame by frame, and write a line of JSON for each frame beside the drawing.

    Ctrl-C ends a camera, as nothing else does. Raises DatasetError where the source cannot be opened.
    """
    reader = FrameReader(source)
    rate = CAMERA_FRAMES_PER_SECOND if source.kind == "camera" else reader.frames_per_second
    frames = timed_frames(islice(reader, max_frames), reader)
    counts: Counter[str] = Counter()
    with (
        closing(reader),
        closing(FrameWriter(drawing, reader.size_hw, rate)) as writer,
        drawing.with_suffix(".jsonl").open("w", encoding="utf-8") as lines,
    ):
        try:
            for seconds, frame in frames if progress is None else progress(frames, reader.promised_frames, str(source)):
                drawn, objects = draw_detections(model, frame)
                counts.update(each.class_name for each in objects)
                found = [each.as_json() for each in objects]
                line = {"frame": reader.num_frames - 1, "seconds": round(seconds, 3), "detections": found}
                lines.write(json.dumps(line) + "\n")
                writer.write(drawn, seconds)
        except KeyboardInterrupt:
            if source.kind != "camera":
                raise
    problem = None if reader.num_frames == max_frames else reader.missing_frames()
    return DrawnVideo(source, drawing, reader.num_frames, counts, problem, reader.note)


def timed_frames(frames: Iterable[np.ndarray], reader: FrameReader) -> Iterator[TimedFrame]:
    """Frames with their seconds since the first: a camera's by the clock, a video's by its rate."""
    start = time.monotonic()
    for index, frame in enumerate(frames):
        if reader.source.kind == "camera":
            yield time.monotonic() - start, frame
        else:
            yield index / reader.frames_per_second, frame


def draw_detections(model: Predictor, image: np.ndarray) -> tuple[np.ndarray, list[FoundObject]]:
    """A drawn copy of the image, and what was found in it, best first. The model's config decides the precision."""
    precision = resolve_precision(model.config.train.precision, model.device)
    with autocast(model.device, precision):
        detections = model.predict([image])[0].to("cpu")
    drawn = draw_boxes(image, detections.boxes, detections.labels, model.class_names, detections.scores)
    return drawn, found_objects(detections, model.class_names)


def found_objects(detections: Detections, class_names: Sequence[str]) -> list[FoundObject]:
    """Detections of one image as plain values, in their order."""
    rows = zip(detections.labels.tolist(), detections.scores.tolist(), detections.boxes.tolist(), strict=True)
    return [FoundObject(class_names[label], score, tuple(box)) for label, score, box in rows]


def describe_counts(counts: Counter[str]) -> str:
    """Counts of classes in words: '2 cat, 1 dog'."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing found"
