"""Draw what a detector finds in images, folders, videos or a camera.

Writes a picture for each image (DIR/NAME.jpg) and one DIR/detections.json; for each video or camera DIR/NAME.mp4 and
DIR/NAME.jsonl, a line a frame. Boxes are [x1, y1, x2, y2] in pixels.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

from detection.cli.options import QUICKSTART_WEIGHTS, find_trained_weights, is_override, load_model
from detection.data.media import FrameReader, FrameWriter, Medium, drawing_paths, find_media
from detection.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    import numpy as np

    from detection.inference.detector import Detector, Ensemble
    from detection.structures import Detections

    Timed = tuple[float, np.ndarray]

CAMERA_RATE = 10.0  # frames a second of a camera's .mp4: a detector seldom keeps up with the camera


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image, folder, 'glob', video, or camera (camera:1 is the second); dotted.key=value, e.g. test.flip=true",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="a detector's checkpoint or a name of the zoo (docs/weights.md); default: the quickstart's or, if that has "
        "not run, detectron2/COCO-Detection/faster_rcnn_R_101_C4_3x, which is downloaded",
    )
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--score-threshold", type=float, default=0.5, metavar="T", help="0 to 1; default: %(default)s")
    parser.add_argument("--max-frames", type=int, metavar="N", help="of each video or camera; default: to the end, or Ctrl-C")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Draw everything that can be read. What cannot is named at once, the rest is done, and the exit code is 2."""
    options = build_parser().parse_intermixed_args(argv)
    overrides = [text for text in options.inputs if is_override(text)]
    options.inputs = [text for text in options.inputs if text not in overrides]
    check(options)
    media, problems = find_all(options.inputs)
    if not media:
        raise DatasetError("; ".join(problems))
    model = load(options.weights, [*overrides, f"test.score_threshold={options.score_threshold}"])
    options.output.mkdir(parents=True, exist_ok=True)
    for problem in problems:
        complain(problem)
    num_bad = len(problems) + draw_all(model, media, options)
    if num_bad:
        complain(f"{num_bad} of {len(media) + len(problems)} inputs could not be used; the others are drawn")
    return 2 if num_bad else 0


def check(options: argparse.Namespace) -> None:
    """Raise ConfigError for a number out of its range, or nothing to look at."""
    if not options.inputs:
        raise ConfigError("give at least one image, folder, video or camera to look at")
    if not 0 <= options.score_threshold <= 1:
        raise ConfigError(f"--score-threshold must be 0 to 1, got {options.score_threshold:g}")
    if options.max_frames is not None and options.max_frames < 1:
        raise ConfigError(f"--max-frames must be at least 1, got {options.max_frames}")


def find_all(inputs: Sequence[str]) -> tuple[list[Medium], list[str]]:
    """Everything to look at, each once, and a sentence for each input that stands for nothing."""
    media: dict[Medium, None] = {}
    problems = []
    for text in inputs:
        try:
            media |= dict.fromkeys(find_media(text))
        except DatasetError as error:
            problems.append(str(error))
    return list(media), problems


def load(weights: Path | None, overrides: Sequence[str]) -> Detector | Ensemble:
    """The detector to draw with. Raises ConfigError or CheckpointError."""
    if weights is not None:
        return _load(weights, overrides, "")
    trained = find_trained_weights(QUICKSTART_WEIGHTS)
    if trained is not None:
        return _load(trained, overrides, ", the quickstart's (--weights names others)")
    # Only now: torch is slow to load.
    from detection.errors import CheckpointError
    from detection.weights.zoo import STANDARD_DETECTOR

    try:
        return _load(Path(STANDARD_DETECTOR), overrides, " (--weights names others)")
    except CheckpointError as error:
        raise CheckpointError(f"{error}; or train the quickstart's detector with `make run`") from None


def _load(weights: Path, overrides: Sequence[str], remark: str) -> Detector | Ensemble:
    model, used = load_model(argparse.Namespace(config=None, weights=[weights], overrides=overrides))
    print(f"weights: {used}{remark}")
    return model


def draw_all(model: Detector | Ensemble, media: Sequence[Medium], options: argparse.Namespace) -> int:
    """Draw each medium, and write detections.json of the images, even when interrupted. Returns how many failed."""
    from detection.files import write_json

    images: list[dict[str, Any]] = []
    num_bad = 0
    try:
        for medium, drawing in zip(media, drawing_paths(media, options.output), strict=True):
            try:
                if medium.kind == "image":
                    images.append(draw_image(model, medium, drawing))
                else:
                    draw_video(model, medium, drawing, options.max_frames)
            except DatasetError as error:
                complain(str(error))
                num_bad += 1
    finally:
        write_json(options.output / "detections.json", images)
    return num_bad


def draw_image(model: Detector | Ensemble, medium: Medium, drawing: Path) -> dict[str, Any]:
    """Draw one image; its entry of detections.json. Raises DatasetError where it cannot be read."""
    from detection.data.images import read_image
    from detection.visualize import save_image

    image = read_image(medium.path)
    drawn, found = detect(model, image)
    save_image(drawing, drawn)
    print(f"{medium}: {summary(Counter(entry['class'] for entry in found))} -> {drawing}")
    return {"file": str(medium), "width": image.shape[1], "height": image.shape[0], "detections": found}


def draw_video(model: Detector | Ensemble, medium: Medium, drawing: Path, max_frames: int | None) -> None:
    """Draw a video or camera frame by frame. Raises DatasetError where it cannot be opened or breaks off."""
    reader = FrameReader(medium)
    rate = CAMERA_RATE if medium.kind == "camera" else reader.frames_per_second
    counts: Counter[str] = Counter()
    with (
        closing(reader),
        closing(FrameWriter(drawing, reader.size_hw, rate)) as writer,
        drawing.with_suffix(".jsonl").open("w", encoding="utf-8") as lines,
        suppress(*[KeyboardInterrupt] if medium.kind == "camera" else []),  # Ctrl-C is how one stops a camera
    ):
        for seconds, frame in progress(timed(islice(reader, max_frames), reader), reader.promised, str(medium)):
            drawn, found = detect(model, frame)
            counts.update(entry["class"] for entry in found)
            line = {"frame": reader.count - 1, "seconds": round(seconds, 3), "detections": found}
            lines.write(json.dumps(line) + "\n")
            writer.show(drawn, seconds)
    print(f"{medium}: {reader.count} frames, {summary(counts)} -> {drawing}")
    if reader.count != max_frames:
        reader.check_whole()


def timed(frames: Iterable[np.ndarray], reader: FrameReader) -> Iterator[Timed]:
    """Frames with their seconds since the first: a camera's by the clock, a video's by its rate."""
    start = time.monotonic()
    for index, frame in enumerate(frames):
        by_clock = reader.medium.kind == "camera"
        yield (time.monotonic() - start if by_clock else index / reader.frames_per_second), frame


def progress(frames: Iterator[Timed], total: int | None, name: str) -> Iterator[Timed]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    yield from track(frames, name, total, console=console, transient=True, disable=not console.is_terminal)


def detect(model: Detector | Ensemble, image: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The drawn image, and what is in it as plain data, best first."""
    from detection.engine.precision import autocast, resolve_precision
    from detection.visualize import draw_boxes

    with autocast(model.device, resolve_precision(model.config.train.precision, model.device)):  # as in evaluation
        detections = model.predict([image])[0].to("cpu")
    drawn = draw_boxes(image, detections.boxes, detections.labels, model.class_names, detections.scores)
    return drawn, as_plain(detections, model.class_names)


def as_plain(detections: Detections, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Detections as JSON takes them: class, score, box [x1, y1, x2, y2] in pixels to two decimals."""
    rows = zip(detections.labels.tolist(), detections.scores.tolist(), detections.boxes.tolist(), strict=True)
    return [
        {"class": class_names[label], "score": round(score, 4), "box": [round(edge, 2) for edge in box]}
        for label, score, box in rows
    ]


def summary(counts: Counter[str]) -> str:
    """'2 cat, 1 dog'."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing found"


def complain(problem: str) -> None:
    """One line on stderr."""
    print(f"error: {problem}", file=sys.stderr)
