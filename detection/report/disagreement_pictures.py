"""Pictures of the images on which two detectors disagree: what each finds, side by side, as files beside a page."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from backbones.errors import printable
from detection.errors import DatasetError
from detection.evaluation.disagreement import Disagreement, disagreements
from detection.evaluation.matches import Matches
from detection.evaluation.thresholds import NO_THRESHOLD, best_f1, overall_curve
from detection.evaluation.voc import Ints
from detection.files import write_whole
from detection.html import PageFigure
from detection.report.compared import Compared
from detection.report.thumbnails import thumbnail
from detection.structures import Record
from detection.visualize import draw_boxes

FOLDER = "pictures"
MAX_PICTURES = 12
"""Of those on which a detector is better, and of those on which it is worse."""
_MAX_NAMES = 4  # classes in a caption
_QUALITY = 75
_NAME = re.compile(r"\d+-\d+-\d\.webp")


@dataclass(frozen=True)
class DisagreementFigures:
    """Images on which a detector and the reference disagree most."""

    thresholds: tuple[float, float]  # above which the detections count, of the reference and of the other
    num_images: int  # on which they disagree
    better: list[PageFigure]  # where the other is
    worse: list[PageFigure]
    even: list[PageFigure]  # where they find different things; none where there are enough of the others


def remove_pictures(folder: Path) -> None:
    """Remove the pictures of an earlier page from its folder, and nothing else."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for file in (folder / FOLDER).iterdir():
            if _NAME.fullmatch(file.name):
                file.unlink()


def write_disagreements(compared: Compared, number: int, names: tuple[str, str], folder: Path) -> DisagreementFigures:
    """Draw where detector `number` and the reference, which the captions call by `names`, disagree most. Raises OSError."""
    pair = compared.matches[0], compared.matches[number]
    thresholds = best_threshold(pair[0]), best_threshold(pair[1])
    found = disagreements(*pair, thresholds)
    drawer = _Drawer(compared, number, names, thresholds, folder)
    better = [each for each in found if each.gain > 0][:MAX_PICTURES]
    worse = [each for each in found if each.gain < 0][:MAX_PICTURES]
    even = [each for each in found if each.gain == 0][: 2 * MAX_PICTURES - len(better) - len(worse)]
    return DisagreementFigures(thresholds, len(found), *([*map(drawer.figure, each)] for each in (better, worse, even)))


def best_threshold(matches: Matches) -> float:
    """The score threshold of the best F1 of all classes together, at IoU 0.5."""
    operation = best_f1(overall_curve(matches))
    return NO_THRESHOLD if operation is None else operation.threshold


@dataclass(frozen=True)
class _Drawer:
    """Draws one detector beside the reference."""

    compared: Compared
    number: int
    names: tuple[str, str]
    thresholds: tuple[float, float]
    folder: Path

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.compared.matches[0].class_names

    def figure(self, disagreement: Disagreement) -> PageFigure:
        record = self.compared.reported[0].dataset.records[disagreement.image]
        caption = f"{record.file.name}: {self._describe(disagreement)}"
        try:
            image = thumbnail(record, self.compared.reported[0].max_pixels)
        except DatasetError as error:
            return PageFigure([], f"{caption} (no picture: {error})")
        missed = disagreement.gained, disagreement.lost
        sources = [self._write(image, record, disagreement.image, side, missed[side]) for side in (0, 1)]
        return PageFigure(sources, caption)

    def _write(self, image: np.ndarray, record: Record, position: int, side: int, missed: Ints) -> str:
        """Draw one side and write it; returns its address. `missed`: rows of objects that only the other side finds."""
        matches = self.compared.matches[self.number if side else 0]
        scale = image.shape[1] / (record.size_hw[1] if record.window is None else record.window.width)
        objects, found = matches.objects, matches.detections
        absent = [f"missed: {name}" for name in self.class_names]
        drawn = draw_boxes(image, objects.boxes[missed] * scale, objects.labels[missed], absent)
        (rows,) = np.nonzero((found.images == position) & matches.above(self.thresholds[side]))
        drawn = draw_boxes(drawn, found.boxes[rows] * scale, found.labels[rows], self.class_names, found.scores[rows])
        source = f"{FOLDER}/{self.number}-{position}-{side}.webp"
        stream = io.BytesIO()
        Image.fromarray(drawn).save(stream, "WEBP", quality=_QUALITY)
        write_whole(self.folder / source, stream.getvalue())
        return source

    def _describe(self, each: Disagreement) -> str:
        labels = self.compared.matches[0].objects.labels
        parts = [*self._only(self.names[1], labels[each.gained]), *self._only(self.names[0], labels[each.lost])]
        first, second = each.false_positives
        if first != second:
            parts.append(f"false positives: {first} in {self.names[0]}, {second} in {self.names[1]}")
        return "; ".join(parts)

    def _only(self, name: str, labels: Ints) -> Iterator[str]:
        if len(labels):
            yield f"only {name} finds {count_names([self.class_names[label] for label in labels])}"


def count_names(names: Sequence[str]) -> str:
    """The commonest of names with their counts: "2 x cat, dog"."""
    counts = Counter(names).most_common()
    shown = [printable(name) if count == 1 else f"{count} × {printable(name)}" for name, count in counts[:_MAX_NAMES]]
    more = sum(count for _, count in counts[_MAX_NAMES:])
    return ", ".join([*shown, *([f"{more} other{'s' if more > 1 else ''}"] if more else [])])
