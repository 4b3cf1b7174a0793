"""What was found out about a data set as one HTML page: numbers, faults, and the pictures that show them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from detection.config import Config
from detection.data.alike import AlikeImages
from detection.data.anchor_advice import AnchorAdvice
from detection.data.check import PERCENTILES, CheckedSplit, SplitStatistics, ground_truth_sheet
from detection.data.doubled import DoubledObject, find_doubled
from detection.data.images import read_image
from detection.errors import DatasetError
from detection.fonts import plot_families, plot_text
from detection.html import data_url, inline_picture, render_page
from detection.structures import Record
from detection.visualize import draw_boxes

MAX_PICTURES = 24
"""Of a kind on the page."""
MAX_MESSAGES = 50
"""Of a kind of fault on the page."""
_MAX_BARS = 40  # classes in the plot
_MARGIN = 0.5  # of a box's side that is shown around it


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
class PageFigure:
    """One picture, or two side by side, and what they show."""

    sources: Sequence[str]
    caption: str


@dataclass(frozen=True)
class DatasetPage:
    """All that the template `dataset.html` shows."""

    title: str
    num_refused: int
    overview: PageTable
    faults: Sequence[Messages]
    warnings: Sequence[str]
    class_plot: str
    classes: PageTable
    doubled: Sequence[PageFigure]
    sizes: PageTable
    anchors: Sequence[str]
    alike_lines: Sequence[str]
    alike: Sequence[PageFigure]
    sheets: Sequence[PageFigure] = field(default_factory=tuple)


def dataset_report(
    title: str,
    splits: Sequence[CheckedSplit],
    statistics: Sequence[SplitStatistics],
    warnings: Sequence[str],
    alike: Sequence[AlikeImages],
    alike_lines: Sequence[str],
    anchors: AnchorAdvice,
    config: Config,
) -> str:
    """The page: self-contained HTML. `statistics` are those of `splits`, in their order."""
    names, heads, max_pixels = config.data.class_names, [split.name for split in splits], config.data.max_pixels
    return render_page(
        "dataset.html",
        DatasetPage(
            title=title,
            num_refused=sum(len(split.faults.errors) for split in splits),
            overview=PageTable(["", *heads], _overview_rows(splits, statistics)),
            faults=list(_messages(splits)),
            warnings=warnings,
            class_plot=plot_classes(statistics, heads, names),
            classes=PageTable(["", *heads], [[name, *(each.objects_by_class[name] for each in statistics)] for name in names]),
            doubled=list(_doubled_figures(splits, names, max_pixels)),
            sizes=PageTable(
                ["√ of a box's area, px", *(f"{percent} %" for percent in PERCENTILES)],
                [[name, *each.box_sizes.values()] for name, each in zip(heads, statistics, strict=True) if each.box_sizes],
            ),
            anchors=anchors.lines(),
            alike_lines=alike_lines,
            alike=list(_alike_figures(alike, max_pixels)),
            sheets=[
                PageFigure([inline_picture(ground_truth_sheet(split.records, names, max_pixels=max_pixels), 1600)], split.name)
                for split in splits
                if split.records
            ],
        ),
    )


def _overview_rows(splits: Sequence[CheckedSplit], statistics: Sequence[SplitStatistics]) -> list[list[object]]:
    return [
        ["images", *(each.num_images for each in statistics)],
        ["landscape or square", *(each.num_landscape for each in statistics)],
        ["without objects", *(each.num_without_objects for each in statistics)],
        ["objects", *(each.num_objects for each in statistics)],
        ["difficult", *(each.num_difficult for each in statistics)],
        ["crowd", *(each.num_crowd for each in statistics)],
        ["faults refused", *(len(split.faults.errors) for split in splits)],
        ["faults repaired", *(len(split.faults.notes) for split in splits)],
    ]


def _messages(splits: Sequence[CheckedSplit]) -> Iterator[Messages]:
    for split in splits:
        if split.faults.errors:
            errors = split.faults.errors
            yield Messages(f"{split.name}: refused by training", errors[:MAX_MESSAGES], len(errors), "bad")
        for kind, lines in split.faults.by_kind().items():
            yield Messages(f"{split.name}: {kind}", lines[:MAX_MESSAGES], len(lines), "note")


def plot_classes(statistics: Sequence[SplitStatistics], heads: Sequence[str], class_names: Sequence[str]) -> str:
    """The commonest classes as bars, a colour a split: a picture as an address, or "" without classes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    totals = {name: sum(each.objects_by_class[name] for each in statistics) for name in class_names}
    shown = sorted(class_names, key=lambda name: -totals[name])[:_MAX_BARS]
    if not shown or not statistics:
        return ""
    stream = io.BytesIO()
    families = plot_families(shown)
    with rc_context({} if families is None else {"font.family": families}):
        figure = Figure(figsize=(8, 0.8 + 0.28 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        left = np.zeros(len(shown))
        for head, each in zip(heads, statistics, strict=True):
            widths = np.array([each.objects_by_class[name] for name in shown])
            axes.barh(range(len(shown)), widths, left=left, label=head)
            left += widths
        axes.set_yticks(range(len(shown)), [plot_text(name) for name in shown])
        axes.invert_yaxis()
        axes.set_xlabel("objects" if len(shown) == len(class_names) else f"objects of the {len(shown)} commonest classes")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
        figure.savefig(stream, format="png", dpi=110)
    return data_url(stream.getvalue(), "image/png")


def _doubled_figures(splits: Sequence[CheckedSplit], names: Sequence[str], max_pixels: int) -> Iterator[PageFigure]:
    found = ((record, each) for split in splits for record in split.records for each in find_doubled(record)[:3])
    pictures = (_doubled_figure(record, each, names, max_pixels) for record, each in found)
    yield from _first(MAX_PICTURES, pictures)


def _doubled_figure(record: Record, doubled: DoubledObject, names: Sequence[str], max_pixels: int) -> PageFigure | None:
    places = torch.tensor([doubled.first, doubled.second], device="cpu")
    image = _read(record, max_pixels)
    if image is None:
        return None
    boxes, labels = record.boxes[places], record.labels[places]
    crop, shift = crop_around(image, boxes.numpy())
    drawn = draw_boxes(crop, boxes - torch.from_numpy(shift), labels, names)
    return PageFigure(
        [inline_picture(drawn)], f"{doubled.kind}: {' and '.join(names[label] for label in labels)}, {record.file}"
    )


def crop_around(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of an image around boxes (N, 4) xyxy, and its place in it: (4,) float32 to subtract from boxes."""
    height, width = image.shape[:2]
    x1, y1 = boxes[:, :2].min(axis=0)
    x2, y2 = boxes[:, 2:].max(axis=0)
    margin = max(_MARGIN * max(x2 - x1, y2 - y1), 16)
    left, top = max(int(x1 - margin), 0), max(int(y1 - margin), 0)
    right, bottom = min(int(x2 + margin) + 1, width), min(int(y2 + margin) + 1, height)
    return image[top:bottom, left:right], np.array([left, top, left, top], dtype=np.float32)


def _alike_figures(alike: Sequence[AlikeImages], max_pixels: int) -> Iterator[PageFigure]:
    yield from _first(MAX_PICTURES, (_alike_figure(group, max_pixels) for group in alike))


def _alike_figure(group: AlikeImages, max_pixels: int) -> PageFigure | None:
    """The first two, of two splits where there are two."""
    shown = sorted(group.members, key=lambda member: group.splits.index(member[0]))
    second = next((member for member in shown if member[0] != shown[0][0]), shown[1])
    images = [_read(record, max_pixels) for _, record in (shown[0], second)]
    sources = [inline_picture(image) for image in images if image is not None]
    files = " and ".join(f"{split}: {record.file}" for split, record in (shown[0], second))
    more = f", and {len(group.members) - 2} more" if len(group.members) > 2 else ""
    return PageFigure(sources, f"{'equal' if group.equal else 'alike'}: {files}{more}") if len(sources) == 2 else None


def _read(record: Record, max_pixels: int) -> np.ndarray | None:
    try:
        return read_image(record.file, max_pixels)
    except DatasetError:
        return None  # it is among the faults


def _first(count: int, figures: Iterable[PageFigure | None]) -> Iterator[PageFigure]:
    for figure in figures:
        if count and figure is not None:
            yield figure
            count -= 1
        if not count:
            return
