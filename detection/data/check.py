"""A data set as a whole: all of its faults at once, what is in it, what to know about it, and its ground truth drawn.

Training stops at the first fault that it refuses; here they are collected. Sizes are in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from detection.config import MAX_PIXELS, DataConfig, Source, SplitName
from detection.data.catalog import read_parts, read_sources
from detection.data.classes import ClassMap
from detection.data.duplicate_objects import describe_duplicate_objects
from detection.data.faults import Faults
from detection.data.fingerprints import Fingerprint
from detection.data.images import describe_more_frames, read_image
from detection.data.known import describe_known
from detection.data.loader import find_bad_images
from detection.data.records import count_classes, describe_crowded
from detection.errors import DatasetError
from detection.structures import Record
from detection.visualize import contact_sheet, draw_boxes, draw_masks, save_image

PERCENTILES = (1, 10, 50, 90, 99)
"""Of the sizes of boxes."""


@dataclass(frozen=True)
class CheckedSplit:
    """One of a config's splits: the images that can be used, and what is wrong. Training refuses it for `faults.errors`."""

    name: SplitName
    records: list[Record]
    faults: Faults
    prints: list[Fingerprint | None]  # of each record's image; None where it cannot be used


@dataclass(frozen=True)
class SplitStatistics:
    """What is in a split. Counts of objects include difficult and crowd ones."""

    num_images: int
    num_landscape: int  # images that are at least as wide as high
    num_without_objects: int  # images
    num_objects: int
    num_difficult: int  # objects
    num_crowd: int  # objects
    num_with_masks: int  # objects whose masks have a pixel
    objects_by_class: dict[str, int]
    box_sizes: dict[int, int]  # percentile -> square root of the box's area; empty without boxes


def check_data(
    data: DataConfig, report: Callable[[SplitName, int, int], None] | None = None, *, masks: bool = False
) -> list[CheckedSplit]:
    """Check each split that a config names, in the order train, val, test; with `masks` those of its objects too.

    `report` is called with the split, the number of images decoded, and how many there are.
    """
    return [check_images(name, records, faults, data, report) for name, records, faults in read_all(data, masks=masks)]


def read_all(data: DataConfig, *, masks: bool = False) -> Iterator[tuple[SplitName, list[Record], Faults]]:
    """The annotations of each split in the order train, val, test, and what is wrong with them, which is not raised.

    What is wrong with the annotations of images that are held out is with those of train.
    """
    faults = Faults.of(data, collect=True)
    parts = read_parts(data, faults, masks=masks) if data.train else {}
    for name, records in parts.items():
        yield name, records, faults if name == "train" else Faults.of(data, collect=True)
    named: dict[SplitName, Sequence[Source]] = {"val": data.val_sources, "test": data.test}
    for name, sources in named.items():
        if sources and name not in parts:
            faults = Faults.of(data, collect=True)
            yield name, read_sources(sources, ClassMap.of(data), faults, masks=masks), faults


def check_images(
    name: SplitName,
    records: list[Record],
    faults: Faults,
    data: DataConfig,
    report: Callable[[SplitName, int, int], None] | None = None,
) -> CheckedSplit:
    """Decode all images of a split, and add what is wrong with them to the faults of their annotations."""
    more_frames: list[str] = []
    prints: list[Fingerprint | None] = []
    checks = find_bad_images(records, data.workers, data.max_pixels, data.loader_timeout)
    for done, (problem, has_more_frames, its_print) in enumerate(checks, start=1):
        prints.append(its_print)
        if has_more_frames:
            more_frames.append(str(records[done - 1].file))
        if problem is not None and data.on_bad_image == "skip" and not data.strict:
            faults.note(problem, "image that cannot be used", "skipped")
        elif problem is not None:
            faults.errors.append(problem)
        if report is not None:
            report(name, done, len(records))
    if more_frames:
        faults.inform(describe_more_frames(more_frames))
    return CheckedSplit(name, records, faults, prints)


def split_statistics(split: CheckedSplit, class_names: Sequence[str]) -> SplitStatistics:
    """Counts of images and objects, and percentiles of the boxes' sizes, to choose anchors by."""
    records = split.records
    return SplitStatistics(
        num_images=len(records),
        num_landscape=sum(record.size_hw[1] >= record.size_hw[0] for record in records),
        num_without_objects=sum(len(record.labels) == 0 for record in records),
        num_objects=sum(len(record.labels) for record in records),
        num_difficult=sum(int(record.difficult.sum()) for record in records),
        num_crowd=sum(int(record.crowd.sum()) for record in records),
        num_with_masks=sum(int(record.masks.known.sum()) for record in records if record.masks is not None),
        objects_by_class=count_classes(records, class_names),
        box_sizes=box_size_percentiles(records),
    )


def overview(splits: Sequence[CheckedSplit], statistics: Sequence[SplitStatistics]) -> dict[str, list[int]]:
    """The numbers of images, objects and faults by what they are of, one of each for each split."""
    with_masks = [each.num_with_masks for each in statistics]
    return {
        "images": [each.num_images for each in statistics],
        "landscape or square": [each.num_landscape for each in statistics],
        "without objects": [each.num_without_objects for each in statistics],
        "objects": [each.num_objects for each in statistics],
        "difficult": [each.num_difficult for each in statistics],
        "crowd": [each.num_crowd for each in statistics],
        **({"with masks": with_masks} if any(with_masks) else {}),
        "faults refused": [len(split.faults.errors) for split in splits],
        "faults repaired": [len(split.faults.notes) for split in splits],
    }


def box_size_percentiles(records: Sequence[Record]) -> dict[int, int]:
    """PERCENTILES of the square root of the boxes' areas, rounded; empty without boxes."""
    boxes = torch.cat([torch.zeros((0, 4), dtype=torch.float32, device="cpu"), *(record.boxes for record in records)])
    if len(boxes) == 0:
        return {}
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt().numpy()
    return dict(zip(PERCENTILES, np.percentile(sizes, PERCENTILES).round().astype(int).tolist(), strict=True))


def fault_lines(splits: Sequence[CheckedSplit]) -> list[str]:
    """Every fault, one line each: first those that training refuses, then those that it repairs."""
    refused = [f"error: {split.name}: {message}" for split in splits for message in split.faults.errors]
    repaired = [f"repaired: {split.name}: {note.message}" for split in splits for note in split.faults.notes]
    return refused + repaired


def data_warnings(splits: Sequence[CheckedSplit], class_names: Sequence[str], max_detections: int | None = None) -> list[str]:
    """What training accepts but people should know: classes without objects, images in two splits, categories left out,
    duplicates, and, with `max_detections` of an image, objects beyond it in the splits that are evaluated."""
    lines = [f"{split.name}: {message}" for split in splits for message in split.faults.information]
    for split in splits:
        crowded = describe_crowded(split.records, max_detections) if max_detections and split.name != "train" else None
        lines += [] if crowded is None else [f"{split.name}: {crowded}"]
        partial = describe_known(split.records)
        lines += [] if partial is None else [f"{split.name}: {partial}"]
        lines += [f"{split.name}: {line}" for line in describe_duplicate_objects(split.records)]
        empty = [name for name, count in count_classes(split.records, class_names).items() if count == 0]
        if empty and split.records:
            lines.append(f"{split.name}: no object of {', '.join(empty)}")
    for first, second in combinations(splits, 2):
        shared = {os.path.realpath(one.file) for one in first.records} & {os.path.realpath(one.file) for one in second.records}
        if shared:
            lines.append(f"{len(shared)} images are in {first.name} and in {second.name}, e.g. {min(shared)}")
    return lines


def save_ground_truth_sheet(
    records: Sequence[Record], class_names: Sequence[str], file: Path, count: int = 12, max_pixels: int = MAX_PIXELS
) -> None:
    """Draw the objects of `count` images, spread evenly over the records, on one contact sheet. Unreadable images are left out.

    Raises DatasetError for a suffix of no image format.
    """
    save_image(file, contact_sheet(_drawn(examples(records, count), class_names, max_pixels)))


def examples(records: Sequence[Record], count: int = 12) -> Sequence[Record]:
    """At most `count` of the records, spread evenly over them."""
    return records[:: max(len(records) // count, 1)][:count]


def _drawn(records: Sequence[Record], class_names: Sequence[str], max_pixels: int) -> Iterator[np.ndarray]:
    for record in records:
        with suppress(DatasetError):  # it is among the faults
            yield draw_ground_truth(read_image(record.file, max_pixels), record, class_names)


def draw_ground_truth(image: np.ndarray, record: Record, class_names: Sequence[str]) -> np.ndarray:
    """A copy of the record's image, (H, W, 3) uint8 RGB, with its objects; difficult and crowd ones are called so."""
    num_classes = len(class_names)
    titles = [*class_names, *(f"{name} (difficult)" for name in class_names), *(f"{name} (crowd)" for name in class_names)]
    labels = record.labels + num_classes * (record.difficult + 2 * (record.crowd & ~record.difficult))
    return draw_boxes(draw_true_masks(image, record), record.boxes, labels, titles)


def draw_true_masks(image: np.ndarray, record: Record) -> np.ndarray:
    """A copy of the record's whole image with the masks of its objects, or the image itself where it has none."""
    return image if record.masks is None else draw_masks(image, record.masks, record.labels)
