"""The images that cost the most average precision, with their objects and detections: for each what it is.

S images are shown, of N; their detections are the best of those that score at least LEAST_SCORE.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from backbones.errors import printable
from detection.evaluation.breakdown import detection_sizes, sizes_of
from detection.evaluation.confusion import reach, score_levels
from detection.evaluation.errors import FOREGROUND, objects_at
from detection.evaluation.lost_ap import lost_ap_of_images
from detection.evaluation.matches import NONE, values_at
from detection.evaluation.voc import Floats, Ints, aligned_iou
from detection.masks import Masks
from detection.report.outlines import pack_outlines
from detection.report.packed import NOTHING, packed, packed_shares
from detection.report.reported import Analysis
from detection.report.sections.confusion import NUM_LEVELS
from detection.report.thumbnails import write_thumbnails
from detection.structures import Record

MAX_PICTURES = 500
MAX_DETECTIONS = 100  # of an image
LEAST_SCORE = 0.05
SCORE_STEPS = 10_000  # scores are whole numbers of this part, or of a larger one where scores are far above 1

FOUND, BESIDE, MISSED, IGNORED = range(4)
"""What became of an object: found; touched only by a detection that would find it if it were put right; missed; not counted."""


@dataclass(frozen=True)
class ShownObjects:
    """Objects, image by image; columns are packed, boxes are x1, y1, x2, y2 as shares of the image's sides."""

    counts: list[int]  # (S,)
    labels: str
    boxes: str
    sizes: str  # numbers in SIZES
    states: str  # FOUND, BESIDE, MISSED or IGNORED
    found_by: str  # the detection, by its place in the image
    scores: str  # of the detection of any class that took it in the confusion matrix
    masks: str  # as `pack_outlines` gives them


@dataclass(frozen=True)
class ShownDetections:
    """Detections, image by image, best first; columns as those of objects."""

    counts: list[int]  # (S,)
    labels: str
    scores: str
    boxes: str
    sizes: str  # of the boxes
    kinds: str  # ErrorKind
    objects: str  # the object that it found or is taken for an error at, by its place in the image
    ious: str  # with that, in hundredths
    true_labels: str  # of the confusion matrix: K for background
    masks: str  # as `pack_outlines` gives them


@dataclass(frozen=True)
class PicturesData:
    """What `report/pictures.html` and the scripts beside it show."""

    class_names: list[str]
    num_images: int  # N
    max_detections: int
    least_score: float
    score_steps: float
    numbers: list[int]  # (S,) by descending lost AP
    files: list[str]  # (S,) from the folder that all have in common
    widths: list[int]
    heights: list[int]
    lost_ap: list[float]
    faults: list[str]  # (S,) why there is no thumbnail; "" where there is one
    objects: ShownObjects = field(repr=False)
    detections: ShownDetections = field(repr=False)


def build(analysis: Analysis, folder: Path) -> PicturesData:
    """Choose the images, write their thumbnails into the report's folder, and gather what is drawn over them.

    Raises OSError where the thumbnails cannot be written.
    """
    lost = image_lost_ap(analysis)
    numbers = choose_images(lost)
    records = [analysis.reported.dataset.records[number] for number in numbers]
    faults = write_thumbnails(zip(numbers.tolist(), records, strict=True), folder, analysis.reported.max_pixels)
    sizes_hw = [record.size_hw if record.window is None else record.window.size_hw for record in records]
    objects, detections = _rows_shown(analysis, numbers)
    sides = np.array([(width, height) for height, width in sizes_hw], dtype=np.float64).reshape(-1, 2)
    return PicturesData(
        [printable(name) for name in analysis.reported.class_names],
        len(lost),
        MAX_DETECTIONS,
        LEAST_SCORE,
        score_steps(analysis.matches.detections.scores),
        numbers.tolist(),
        names_of(records),
        [width for _, width in sizes_hw],
        [height for height, _ in sizes_hw],
        lost[numbers].round(6).tolist(),
        faults,
        _pack_objects(analysis, objects, detections, sides, [_shown_masks(record, record.masks) for record in records]),
        _pack_detections(analysis, objects, detections, sides, [_found_masks(analysis, record) for record in records]),
    )


def _found_masks(analysis: Analysis, record: Record) -> Masks | None:
    found = analysis.reported.detections.get(record.image_id)
    return None if found is None else _shown_masks(record, found.masks)


def _shown_masks(record: Record, masks: Masks | None) -> Masks | None:
    """The masks where they are those of the picture: of a tile they are of its image."""
    return masks if masks is not None and record.window is None and masks.size_hw == tuple(record.size_hw) else None


def image_lost_ap(analysis: Analysis) -> Floats:
    """(N,) the mean AP at IoU 0.5 that the errors in each image cost: together 1 - AP."""
    return lost_ap_of_images(analysis.divided_lost_ap, analysis.matches)


def choose_images(lost: Floats) -> Ints:
    """(N,) lost AP -> the numbers of at most MAX_PICTURES images, by descending lost AP, equal ones in their order."""
    numbers: Ints = np.argsort(-lost, kind="stable")[:MAX_PICTURES]
    return numbers


def names_of(records: Sequence[Record]) -> list[str]:
    """The images' files as text, from the folder that all have in common; of a tile also where it lies."""
    parts = [record.file.absolute().parts for record in records]
    common = len(os.path.commonprefix([each[:-1] for each in parts]))
    names = ["/".join(each[common:]) for each in parts]
    windows = [record.window for record in records]
    tiles = ["" if each is None else f" ({each.width} x {each.height} at {each.x}, {each.y})" for each in windows]
    return [printable(name) + tile for name, tile in zip(names, tiles, strict=True)]


@dataclass(frozen=True)
class _Shown:
    """Rows of a table that are shown, image by image in the order of the S images."""

    rows: Ints
    images: Ints  # 0..S-1 of each row
    places: Ints  # of every row of the table in its image; NONE where it is not shown
    counts: Ints  # (S,)

    @classmethod
    def of(cls, rows: Ints, images: Ints, num_rows: int, num_shown: int, most: int | None = None) -> _Shown:
        """`images`: of each row; in an image rows stay in order, and only the first `most` stay."""
        order = np.argsort(images, kind="stable")
        rows, images = rows[order], images[order]
        place = np.arange(len(rows)) - np.searchsorted(images, images)
        kept = slice(None) if most is None else place < most
        rows, images, place = rows[kept], images[kept], place[kept]
        places = np.full(num_rows, NONE, dtype=np.int64)
        places[rows] = place
        return cls(rows, images, places, np.bincount(images, minlength=num_shown))


def _rows_shown(analysis: Analysis, numbers: Ints) -> tuple[_Shown, _Shown]:
    """The objects and the detections of the images with these numbers."""
    matches = analysis.matches
    position = np.full(matches.num_images, NONE, dtype=np.int64)
    position[numbers] = np.arange(len(numbers))
    there, found = position[matches.objects.images], position[matches.detections.images]
    objects = np.flatnonzero(there != NONE)
    detections = np.flatnonzero((found != NONE) & reach(matches.detections.scores, LEAST_SCORE))
    return (
        _Shown.of(objects, there[objects], len(there), len(numbers)),
        _Shown.of(detections, found[detections], len(found), len(numbers), MAX_DETECTIONS),
    )


def _pack_objects(
    analysis: Analysis, shown: _Shown, detections: _Shown, sides: Floats, masks: Sequence[Masks | None]
) -> ShownObjects:
    matches, rows = analysis.matches, shown.rows
    found_by = matches.detection_of(matches.at(FOREGROUND))
    states = np.select(
        [matches.objects.ignored, found_by != NONE, analysis.errors.missed], [IGNORED, FOUND, MISSED], default=BESIDE
    )
    return ShownObjects(
        shown.counts.tolist(),
        packed(matches.objects.labels[rows], "u2"),
        _pack_boxes(matches.objects.boxes[rows], sides[shown.images]),
        packed(sizes_of(matches.objects.areas[rows]), "u1"),
        packed(states[rows], "u1"),
        packed(values_at(detections.places, found_by[rows]), "u2"),
        packed(values_at(_scores_in_steps(analysis), analysis.confusion.found_by[rows]), "u2"),
        pack_outlines(masks, shown.images, shown.places[rows]),
    )


def _pack_detections(
    analysis: Analysis, objects: _Shown, shown: _Shown, sides: Floats, masks: Sequence[Masks | None]
) -> ShownDetections:
    matches, rows = analysis.matches, shown.rows
    boxes, at = matches.detections.boxes[rows], objects_at(matches, analysis.errors)[rows]
    ious = np.where(at == NONE, 0.0, aligned_iou(boxes, values_at(matches.objects.boxes, at)).clip(min=0))
    return ShownDetections(
        shown.counts.tolist(),
        packed(matches.detections.labels[rows], "u2"),
        packed(_scores_in_steps(analysis)[rows], "u2"),
        _pack_boxes(boxes, sides[shown.images]),
        packed(detection_sizes(matches)[rows], "u1"),
        packed(analysis.errors.kinds[rows], "u1"),
        packed(values_at(objects.places, at), "u2"),
        packed(np.rint(100 * ious), "u1"),
        packed(analysis.confusion.true_labels[rows], "u2"),
        pack_outlines(masks, shown.images, matches.detections.places[rows]),
    )


def _pack_boxes(boxes: Floats, sides: Floats) -> str:
    """(R, 4) px, and (R, 2) width and height of their images."""
    return packed_shares(boxes / np.tile(sides, 2))


def score_steps(scores: Floats) -> float:
    """Of a score of 1: other programs' scores may be per cents, or anything."""
    return min(float(SCORE_STEPS), (NOTHING - 1) / max(float(scores.max(initial=1.0)), 1.0))


def scores_in_steps(scores: Floats, steps: float) -> Ints:
    """(D,) as the page compares them: rounded, but on the side of each hundredth where the confusion matrix has them.

    NONE below 0, where no threshold of the page reaches.
    """
    levels = score_levels(scores, NUM_LEVELS)
    limits = np.append(np.floor(np.arange(NUM_LEVELS) / (NUM_LEVELS - 1) * steps + 0.5), NOTHING)  # as JavaScript rounds
    rounded = np.maximum(np.minimum(np.rint(scores * steps), limits[levels + 1] - 1), limits[levels])
    return np.where(levels < 0, NONE, rounded).astype(np.int64)


def _scores_in_steps(analysis: Analysis) -> Ints:
    scores = analysis.matches.detections.scores
    return scores_in_steps(scores, score_steps(scores))
