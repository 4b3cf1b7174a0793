"""Detections drawn on images, videos and cameras, and written as plain data.

`draw_media` writes a drawing for each image (NAME.jpg; of a TIFF's pages NAME_page1.jpg, ...) and one detections.json, and for
each video, camera or animation NAME.mp4 and NAME.jsonl with a line for each frame. Images are (H, W, 3) uint8 RGB, boxes xyxy
pixels.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from detection.data.ahead import read_ahead
from detection.data.frames import open_film
from detection.data.images import each_frame, read_image
from detection.data.media import MOST_PAGES, MediaInput, drawing_paths, look_into, page_path
from detection.data.video_writer import FrameWriter, has_h264
from detection.errors import DatasetError
from detection.files import write_json
from detection.inference.painting import FoundObject, FramePainter, Tracking, TrackPainter, draw_detections
from detection.inference.predictor import Predictor
from detection.inference.tracking import predict_frame, predict_frames
from detection.out_of_memory import is_out_of_memory
from detection.visualize import save_image

logger = logging.getLogger(__name__)

FrameProgress = Callable[[Iterator[Any], int | None, str], Iterable[Any]]
"""Takes what comes of a video's frames, their number if known, and the video's name; gives it back, and shows the progress."""


@dataclass(frozen=True)
class DrawnImage:
    """The drawing of an image, or of one page, and what was found in it, best first."""

    source: MediaInput
    drawing: Path
    size_hw: tuple[int, int]
    objects: list[FoundObject]
    page: int | None = None  # of several, from 1

    def as_json(self) -> dict[str, Any]:
        """The image's entry of detections.json."""
        height, width = self.size_hw
        found = [each.as_json() for each in self.objects]
        page = {} if self.page is None else {"page": self.page}
        return {"file": _as_utf8(self.source), **page, "width": width, "height": height, "detections": found}

    def __str__(self) -> str:
        counts = Counter(each.class_name for each in self.objects)
        page = "" if self.page is None else f", page {self.page}"
        return f"{self.source}{page}: {describe_counts(counts)} -> {self.drawing}"


@dataclass(frozen=True)
class DrawnVideo:
    """A film's drawing, and how often each class was found in its frames."""

    source: MediaInput
    drawing: Path
    num_frames: int
    counts: Counter[str]
    problem: str | None  # where the video breaks off before the end that its header promises
    note: str | None = None  # where the header does not tell the frames per second
    num_tracks: int | None = None  # objects that were followed

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        followed = "" if self.num_tracks is None else f", {self.num_tracks} objects followed"
        found = f"{self.num_frames} frames, {describe_counts(self.counts)}{followed}"
        return f"{self.source}: {found} -> {self.drawing}{note}"


def draw_media(
    model: Predictor,
    inputs: Sequence[MediaInput],
    folder: Path,
    *,
    max_frames: int | None = None,
    tracking: Tracking | None = None,
    on_drawn: Callable[[DrawnImage | DrawnVideo], None] | None = None,
    on_error: Callable[[DatasetError], None] | None = None,
    progress: FrameProgress | None = None,
) -> list[DrawnImage | DrawnVideo]:
    """Draw what the model finds in each input (see `find_all_inputs`) into a folder, which is made.

    Films and pages stop after `max_frames`. With `tracking`, objects of films get numbers and the colours of these. `on_drawn`
    is called after each input and page. Where one cannot be read, breaks off or its drawing cannot be written, `on_error` is
    called and the others are drawn; without `on_error` DatasetError is raised. detections.json is written even then. Raises
    OSError where the folder or detections.json cannot be written, DatasetError where an input is that file.
    """
    summary = folder / "detections.json"
    if any(source.kind != "camera" and os.path.realpath(source.path) == os.path.realpath(summary) for source in inputs):
        raise DatasetError(f"{summary} is an input and would be overwritten: choose another folder for the output")
    folder.mkdir(parents=True, exist_ok=True)
    inputs = [look_into(source) for source in inputs]
    results: list[DrawnImage | DrawnVideo] = []
    try:
        # Pictures are decoded while the model looks at those before, and these are drawn.
        with closing(read_ahead(_decode(source, model.config.data.max_pixels) for source in inputs)) as pictures:
            for source, picture, drawing in zip(inputs, pictures, drawing_paths(inputs, folder), strict=True):
                try:
                    for result in _draw(model, source, picture, drawing, max_frames, tracking, progress):
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
        images = [result.as_json() for result in results if isinstance(result, DrawnImage)]
        if images or tracking is None:
            write_json(summary, images)
    if not has_h264() and any(isinstance(result, DrawnVideo) for result in results):
        logger.warning("videos are MPEG-4 Part 2, which browsers do not play: pip install 'resdet[video]' makes them H.264")
    return results


def _decode(source: MediaInput, max_pixels: int) -> np.ndarray | Exception | None:
    """The pixels of a picture, or why there are none; None for what is no single picture."""
    if source.is_film or source.kind == "pages":
        return None
    try:
        return read_image(source.path, max_pixels)
    except Exception as error:  # it is raised when the picture's turn has come
        return error


def _draw(
    model: Predictor,
    source: MediaInput,
    picture: np.ndarray | Exception | None,
    drawing: Path,
    max_frames: int | None,
    tracking: Tracking | None,
    progress: FrameProgress | None,
) -> Iterator[DrawnImage | DrawnVideo]:
    """The drawings of one input, several of a TIFF's pages. Raises DatasetError with its name, whatever is wrong."""
    with _naming(source):
        if source.kind == "pages":
            yield from draw_pages(model, source, drawing, max_frames)
        elif source.is_film:
            yield draw_video(model, source, drawing, max_frames, tracking, progress)
        elif isinstance(picture, np.ndarray):
            yield draw_picture(model, source, picture, drawing)
        elif picture is not None:
            raise picture


@contextmanager
def _naming(source: MediaInput) -> Iterator[None]:
    """Raise DatasetError with the input's name where its drawing cannot be written, or it does not fit into memory."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{source} is not drawn: {error.filename or 'its drawing'}: {error.strerror or error}") from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DatasetError(f"{source} is not drawn: it is too large for the memory") from None


def _as_utf8(source: MediaInput) -> str:
    r"""The input's name for JSON: bytes that are not UTF-8 become `\xff`."""
    return os.fsencode(str(source)).decode(errors="backslashreplace")


def draw_pages(model: Predictor, source: MediaInput, drawing: Path, max_pages: int | None = None) -> Iterator[DrawnImage]:
    """Draw the pages of a TIFF, each into a file of its own (see `page_path`). Raises DatasetError at one that is damaged."""
    most = MOST_PAGES if max_pages is None else min(max_pages, MOST_PAGES)
    pages = each_frame(source.path, model.config.data.max_pixels)
    for number, page in enumerate(islice(pages, most), start=1):
        yield draw_picture(model, source, page.pixels, page_path(drawing, number), number)
    if most == MOST_PAGES and next(pages, None) is not None:
        raise DatasetError(f"{source} has more than {MOST_PAGES} pages, of which these are drawn: cut it up")


def draw_picture(model: Predictor, source: MediaInput, image: np.ndarray, drawing: Path, page: int | None = None) -> DrawnImage:
    """Draw what the model finds in one image, or one page of several."""
    drawn, objects = draw_detections(image, predict_frame(model, image), model.class_names)
    save_image(drawing, drawn)
    return DrawnImage(source, drawing, (image.shape[0], image.shape[1]), objects, page)


def draw_video(
    model: Predictor,
    source: MediaInput,
    drawing: Path,
    max_frames: int | None = None,
    tracking: Tracking | None = None,
    progress: FrameProgress | None = None,
) -> DrawnVideo:
    """Draw a film frame by frame, and write a line of JSON for each frame beside the drawing.

    Ctrl-C ends a camera, as nothing else does. Raises DatasetError where the source cannot be opened.
    """
    film = open_film(source, model.config.data.max_pixels, Tracking.folder_rate if tracking is None else tracking.folder_rate)
    frames = islice(film.timed_frames(), max_frames)
    counts: Counter[str] = Counter()
    with closing(film):
        names, rate = model.class_names, film.frames_per_second
        painter = FramePainter(names) if tracking is None else TrackPainter(names, rate, tracking)
        with (
            closing(predict_frames(model, frames, source)) as predicted,
            closing(FrameWriter(drawing, film.size_hw, film.frames_per_second)) as writer,
            drawing.with_suffix(".jsonl").open("w", encoding="utf-8") as lines,
        ):
            try:
                shown = predicted if progress is None else progress(predicted, film.promised_frames, str(source))
                for index, (frame, detections) in enumerate(shown):
                    drawn, objects = painter.draw(frame.pixels, detections)
                    counts.update(each.class_name for each in objects)
                    found = [each.as_json() for each in objects]
                    line = {"frame": index, "seconds": round(frame.seconds, 3), "detections": found}
                    lines.write(json.dumps(line) + "\n")
                    writer.write(drawn, frame.until)
            except KeyboardInterrupt:
                if source.kind != "camera":
                    raise
    problem = None if film.num_frames == max_frames else film.missing_frames()
    return DrawnVideo(source, drawing, film.num_frames, counts, problem, film.note, painter.num_tracks)


def describe_counts(counts: Counter[str]) -> str:
    """Counts of classes in words: '2 cat, 1 dog'."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing found"
