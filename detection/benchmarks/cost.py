"""What a training step and an inference cost, against the image's size, the number of RoIs and the batch.

Three curves through one point, COMMON: along each, one of the three grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from detection.benchmarks.contest import Contest
from detection.benchmarks.detector import Task, ours, suitable_precision
from detection.benchmarks.parts import Options

SIZES_HW = ((300, 400), (450, 600), (600, 800), (750, 1000))
ROIS = (64, 128, 256, 512)
BATCHES = (1, 2, 4)


@dataclass(frozen=True)
class Point:
    """A step's images and the RoIs of each, the same number in training and in inference."""

    height: int
    width: int
    rois: int
    batch: int


COMMON = Point(600, 800, 128, 1)


def contests(options: Options, folder: Path) -> Iterator[Contest]:
    """One a point: both jobs of ours, nobody else's."""
    precision = options.precision or suitable_precision(options.device)
    for point in points():
        size_hw = (point.height, point.width)
        rest = (precision, size_hw, point.rois, point.rois, point.batch, options.device, "resnet18")
        yield Contest(
            f"ResNet-18 C4, {precision}, batch {point.batch}, {point.height}x{point.width}, {point.rois} RoIs an image",
            {"ours training": partial(ours, Task("train", *rest)), "ours inference": partial(ours, Task("infer", *rest))},
            images=point.batch,
            count_flops=False,
            repeats=options.repeats,
            settings=asdict(point),
        )


def points() -> list[Point]:
    """Those of the three curves, each once."""
    sizes = [replace(COMMON, height=height, width=width) for height, width in SIZES_HW]
    rois = [replace(COMMON, rois=count) for count in ROIS]
    batches = [replace(COMMON, batch=count) for count in BATCHES]
    return list(dict.fromkeys([*sizes, *rois, *batches]))
