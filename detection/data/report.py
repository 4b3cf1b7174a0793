"""What was found out about a data set as one HTML page: numbers, faults, and the pictures that show them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detection.config import Config
from detection.data.check import PERCENTILES, CheckedSplit, draw_ground_truth, draw_true_masks, examples, overview
from detection.data.duplicate_images import DuplicateImages
from detection.data.duplicate_objects import DuplicateObject, find_duplicate_objects
from detection.data.faults import RepairedFault
from detection.data.findings import Findings
from detection.data.images import read_image
from detection.data.report_charts import ClassBar, SizeChart, class_bars, size_chart
from detection.errors import DatasetError
from detection.html import PageFigure, inline_picture, render_page
from detection.structures import Record
from detection.visualize import draw_boxes

MAX_PICTURES = 24
"""Of a kind on the page."""
MAX_MESSAGES = 50
"""Of a kind of fault on the page."""
BARS_SHOWN = 40
"""Classes that are seen at once; the others are folded."""
_PICTURE_SIDE = 640  # px, of the longer side of a picture of ground truth
_FARTHEST = 1e6  # px from the image's corner, where a box is drawn that lies beyond
_BEYOND = 128  # the grey around an image
_MARGIN = 0.5  # of a box's side that is shown around it
_LEAST_MARGIN = 120  # px: around a tiny box, or one without area, its surroundings tell where it is


@dataclass(frozen=True)
class PageTable:
    """Cells of any kind, shown as text."""

    head: Sequence[object]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Messages:
    """Faults of one kind."""

    title: str
    lines: Sequence[str]  # the first ones
    count: int  # of all
    kind: str  # "bad": training refuses them; "note": it repairs them


@dataclass(frozen=True)
class SplitFigures:
    """Pictures of one split, out of how many."""

    split: str
    num_images: int
    figures: Sequence[PageFigure]


@dataclass(frozen=True)
class DatasetPage:
    """All that the template `dataset.html` shows."""

    title: str
    num_refused: int
    overview: PageTable
    faults: Sequence[Messages]
    faulty: Sequence[PageFigure]
    warnings: Sequence[str]
    splits: Sequence[str]
    class_bars: Sequence[ClassBar]
    bars_shown: int
    duplicate_objects: Sequence[PageFigure]
    sizes: PageTable
    size_chart: SizeChart | None
    anchors: Sequence[str]
    duplicate_image_lines: Sequence[str]
    duplicate_images: Sequence[PageFigure]
    ground_truth: Sequence[SplitFigures]


def dataset_report(title: str, findings: Findings, config: Config) -> str:
    """The page: self-contained HTML."""
    splits, statistics = findings.splits, list(findings.statistics.values())
    names, heads, max_pixels = config.data.class_names, [split.name for split in splits], config.data.max_pixels
    return render_page(
        "dataset.html",
        DatasetPage(
            title=title,
            num_refused=sum(len(split.faults.errors) for split in splits),
            overview=PageTable(["", *heads], [[name, *counts] for name, counts in overview(splits, statistics).items()]),
            faults=list(_messages(splits)),
            faulty=list(_faulty_figures(splits, max_pixels)),
            warnings=findings.warnings,
            splits=heads,
            class_bars=class_bars(statistics, names),
            bars_shown=BARS_SHOWN,
            duplicate_objects=list(_duplicate_object_figures(splits, names, max_pixels)),
            sizes=PageTable(
                ["√ of a box's area, px", *(f"{percent}\N{NO-BREAK SPACE}%" for percent in PERCENTILES)],
                [[name, *each.box_sizes.values()] for name, each in zip(heads, statistics, strict=True) if each.box_sizes],
            ),
            size_chart=size_chart(splits, config, findings.anchors),
            anchors=findings.anchors.lines(),
            duplicate_image_lines=findings.duplicate_image_lines,
            duplicate_images=list(_duplicate_image_figures(findings.duplicate_images, max_pixels)),
            ground_truth=[_ground_truth_figures(split, names, max_pixels) for split in splits if split.records],
        ),
    )


def _messages(splits: Sequence[CheckedSplit]) -> Iterator[Messages]:
    for split in splits:
        if split.faults.errors:
            errors = split.faults.errors
            yield Messages(f"{split.name}: refused by training", errors[:MAX_MESSAGES], len(errors), "bad")
        for kind, lines in split.faults.by_kind().items():
            yield Messages(f"{split.name}: {kind}", lines[:MAX_MESSAGES], len(lines), "note")


def _ground_truth_figures(split: CheckedSplit, names: Sequence[str], max_pixels: int) -> SplitFigures:
    figures = []
    for record in examples(split.records):
        image = _read(record.file, max_pixels)
        if image is not None:
            source = inline_picture(_draw_shrunk(image, record, names), _PICTURE_SIDE)
            objects = "1 object" if len(record.labels) == 1 else f"{len(record.labels)} objects"
            figures.append(PageFigure([source], f"{record.file}: {objects}"))
    return SplitFigures(split.name, len(split.records), figures)


def _draw_shrunk(image: np.ndarray, record: Record, names: Sequence[str]) -> np.ndarray:
    """Shrunk before boxes are drawn, so that lines and words are sharp; masks are of the whole image's size."""
    shrunk = Image.fromarray(draw_true_masks(image, record))
    shrunk.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    (height, width), (new_width, new_height) = image.shape[:2], shrunk.size
    scale = torch.tensor([new_width / width, new_height / height] * 2, device="cpu")
    return draw_ground_truth(np.array(shrunk), replace(record, boxes=record.boxes * scale, masks=None), names)


def _duplicate_object_figures(splits: Sequence[CheckedSplit], names: Sequence[str], max_pixels: int) -> Iterator[PageFigure]:
    found = ((record, each) for split in splits for record in split.records for each in find_duplicate_objects(record)[:3])
    pictures = (_duplicate_object_figure(record, each, names, max_pixels) for record, each in found)
    yield from _first(MAX_PICTURES, pictures)


def _duplicate_object_figure(
    record: Record, duplicate: DuplicateObject, names: Sequence[str], max_pixels: int
) -> PageFigure | None:
    places = torch.tensor([duplicate.first, duplicate.second], device="cpu")
    image = _read(record.file, max_pixels)
    if image is None:
        return None
    boxes, labels = record.boxes[places], record.labels[places]
    part, shift = view_around(image, boxes.numpy())
    drawn = draw_boxes(part, boxes - torch.from_numpy(shift), labels, names)
    return PageFigure(
        [inline_picture(drawn)], f"{duplicate.kind}: {' and '.join(names[label] for label in labels)}, {record.file}"
    )


def _faulty_figures(splits: Sequence[CheckedSplit], max_pixels: int) -> Iterator[PageFigure]:
    """Boxes that were repaired or dropped, of each kind some."""
    kinds: dict[str, list[RepairedFault]] = {}
    for split in splits:
        for note in split.faults.notes:
            if note.box is not None and len(kinds.setdefault(note.kind, [])) < MAX_PICTURES:
                kinds[note.kind].append(note)
    by_turns = (note for row in zip_longest(*kinds.values()) for note in row if note is not None)
    yield from _first(MAX_PICTURES, (_faulty_figure(note, max_pixels) for note in by_turns))


def _faulty_figure(note: RepairedFault, max_pixels: int) -> PageFigure | None:
    image = None if note.image is None else _read(note.image, max_pixels)
    if image is None or note.box is None:
        return None
    x1, y1, x2, y2 = (min(max(value, -_FARTHEST), _FARTHEST) for value in note.box)
    box = np.array([[min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]], dtype=np.float32)
    part, shift = view_around(image, box)
    drawn = draw_boxes(part, box - shift, np.zeros(1, dtype=int), [note.kind])
    return PageFigure([inline_picture(drawn)], note.message)


def view_around(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is around boxes (N, 4) xyxy, grey beyond the image, and where that begins: (4,) float32 to subtract from boxes.

    It always holds some of the image, and an eighth of its sides beyond it at most.
    """
    corners = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    sides = np.array([image.shape[1], image.shape[0]])
    margin = max(_MARGIN * float((corners[2:] - corners[:2]).max()), _LEAST_MARGIN)
    left, top = np.clip(corners[:2] - margin, -sides / 8, sides * 0.75).astype(int).tolist()
    right, bottom = np.clip(corners[2:] + margin, sides * 0.25, sides * 9 / 8).astype(int).tolist()
    view = np.full((bottom - top, right - left, 3), _BEYOND, dtype=np.uint8)
    inside = image[max(top, 0) : bottom, max(left, 0) : right]
    y, x = max(-top, 0), max(-left, 0)
    view[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return view, np.array([left, top, left, top], dtype=np.float32)


def _duplicate_image_figures(groups: Sequence[DuplicateImages], max_pixels: int) -> Iterator[PageFigure]:
    yield from _first(MAX_PICTURES, (_duplicate_image_figure(group, max_pixels) for group in groups))


def _duplicate_image_figure(group: DuplicateImages, max_pixels: int) -> PageFigure | None:
    """The first two, of two splits where there are two."""
    shown = sorted(group.members, key=lambda member: group.splits.index(member[0]))
    second = next((member for member in shown if member[0] != shown[0][0]), shown[1])
    images = [_read(record.file, max_pixels) for _, record in (shown[0], second)]
    sources = [inline_picture(image) for image in images if image is not None]
    files = " and ".join(f"{split}: {record.file}" for split, record in (shown[0], second))
    more = f", and {len(group.members) - 2} more" if len(group.members) > 2 else ""
    return PageFigure(sources, f"{'equal' if group.equal else 'alike'}: {files}{more}") if len(sources) == 2 else None


def _read(file: Path, max_pixels: int) -> np.ndarray | None:
    try:
        return read_image(file, max_pixels)
    except DatasetError:
        return None  # it is among the faults


def _first(count: int, figures: Iterable[PageFigure | None]) -> Iterator[PageFigure]:
    for figure in figures:
        if count and figure is not None:
            yield figure
            count -= 1
        if not count:
            return
