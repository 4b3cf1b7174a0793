"""The parts of the benchmark, and the options that they share. Each part's module makes its benchmarks.

Nothing here imports torch: naming the parts in a help text does not need it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tools.benchmarks.benchmark import Benchmark

Precision = Literal["fp32", "bf16"]
Architecture = Literal["c4", "c4_max", "fpn", "fpn_mask"]

ARCHITECTURES: dict[Architecture, str] = {
    "c4": "C4",
    "c4_max": "C4 with RoI max pooling",
    "fpn": "FPN",
    "fpn_mask": "FPN with masks",
}
"""The detectors that can be measured, and how they are called."""
PROPOSALS: dict[Architecture, int] = {"c4": 300, "c4_max": 300, "fpn": 1000, "fpn_mask": 1000}
"""RoIs per image in inference where no number is given: the paper's, and torchvision's."""

PARTS = {
    "detector": "a training step and inference of Faster R-CNN on ResNet-50 against torchvision's, of the same network, "
    "anchors, proposals and RoIs",
    "profile": "where the time of that training step and that inference goes",
    "cost": "training step and inference on ResNet-18 C4 against the image's size, the number of RoIs and the batch",
    "scaling": "a training step on ResNet-18 C4 in several processes of one thread each, against one such process",
    "roi-pooling": "RoIAlign and RoI max pooling alone against torchvision's operators",
    "classifier": "a training step of the classification stage against a plain loop in float32",
    "loader": "the training loader: decoding, augmentation and resizing of JPEGs",
    "evaluation": "COCO's evaluation at the size of its validation split against pycocotools",
    "start-up": "the demo command on one picture as a process of its own, and the prediction in it",
}
"""What each part measures, by name."""

MODULES = {"roi-pooling": "operators", "start-up": "start_up"}
"""Modules of the parts whose name cannot be a module's."""


@dataclass(frozen=True)
class Options:
    """What a user can choose on the command line."""

    device: str = "cpu"
    size_hw: tuple[int, int] = (600, 800)  # of the detector's image
    rois: int = 512  # per image, in training
    proposals: int = 300  # per image, in inference
    batches: tuple[int, ...] = (1,)  # images per step of the detector
    precision: Precision | None = None  # None: each part's own choice
    architecture: Architecture = "c4"  # of detector and profile
    processes: int | None = None  # of the scaling; None: as many as there are cores

    @property
    def repeats(self) -> int:
        """How often a round does the work: a GPU needs milliseconds for it."""
        return 20 if self.device.startswith("cuda") else 1


def benchmarks(part: str, options: Options, folder: Path) -> Iterator[Benchmark]:
    """The benchmarks of one of PARTS. `folder` is for the files that they need, empty before the first."""
    module = importlib.import_module(f"tools.benchmarks.{MODULES.get(part, part)}")
    found: Iterator[Benchmark] = module.benchmarks(options, folder)
    return found
