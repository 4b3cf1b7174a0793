"""What a training step and an inference cost, against the image's size, the number of RoIs and the batch.

Three curves through one point, COMMON: along each, one of the three grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from tools.benchmarks.benchmark import Benchmark
from tools.benchmarks.detector import DetectorCase, our_work, suitable_precision
from tools.benchmarks.parts import Options

SIZES_HW = ((300, 400), (450, 600), (600, 800), (750, 1000))
ROIS = (64, 128, 256, 512)
BATCHES = (1, 2, 4)


@dataclass(frozen=True)
class Point:
    """The size of the images, the RoIs per image (in training and in inference alike), and the images per step."""

    height: int
    width: int
    rois: int
    batch: int


COMMON = Point(600, 800, 128, 1)


def benchmarks(options: Options, folder: Path) -> Iterator[Benchmark]:
    """One per point: training and inference of ours alone."""
    precision = options.precision or suitable_precision(options.device)
    for point in points():
        size_hw = (point.height, point.width)
        rest = (precision, size_hw, point.rois, point.rois, point.batch, options.device, "resnet18")
        yield Benchmark(
            f"ResNet-18 C4, {precision}, batch {point.batch}, {point.height}x{point.width}, {point.rois} RoIs per image",
            {
                "ours training": partial(our_work, DetectorCase("train", *rest)),
                "ours inference": partial(our_work, DetectorCase("infer", *rest)),
            },
            images=point.batch,
            count_flops=False,
            repeats=options.repeats,
            settings=asdict(point),
        )


def points() -> list[Point]:
    """The points of the three curves, each once."""
    sizes = [replace(COMMON, height=height, width=width) for height, width in SIZES_HW]
    rois = [replace(COMMON, rois=count) for count in ROIS]
    batches = [replace(COMMON, batch=count) for count in BATCHES]
    return list(dict.fromkeys([*sizes, *rois, *batches]))
