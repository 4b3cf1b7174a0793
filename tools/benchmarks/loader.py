"""The training loader's images per second: there is no reference implementation to compare it with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from detection.config import Config
from tools.benchmarks.benchmark import Benchmark, Work
from tools.benchmarks.parts import Options

NUM_FILES = 48
ANNOTATION = """<annotation><filename>{index:03d}.jpg</filename>
<size><width>640</width><height>480</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>101</xmin><ymin>101</ymin><xmax>300</xmax><ymax>250</ymax></bndbox></object></annotation>
"""


def benchmarks(options: Options, folder: Path) -> Iterator[Benchmark]:
    """One process of one thread."""
    write_photographs(folder / "photographs")
    yield Benchmark(
        f"loading {NUM_FILES} JPEGs at 600 px with flips, one thread",
        {"ours": partial(loader_work, str(folder / "photographs"))},
        images=NUM_FILES,
        threads=1,
        count_flops=False,
    )


def write_photographs(folder: Path) -> None:
    """A devkit of JPEGs of 640 x 480, as heavy to decode as photographs: coarse noise over fine."""
    numbers = np.random.default_rng(0)
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(NUM_FILES):
        coarse = cv2.resize(numbers.integers(0, 256, (30, 40, 3)).astype(np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
        image = np.clip(coarse + numbers.normal(0, 6, (480, 640, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"JPEGImages/{index:03d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        (folder / f"Annotations/{index:03d}.xml").write_text(ANNOTATION.format(index=index), encoding="utf-8")
    (folder / "ImageSets/Main/train.txt").write_text("".join(f"{index:03d}\n" for index in range(NUM_FILES)), encoding="utf-8")


def loader_work(folder: str, num_images: int = NUM_FILES) -> Work:
    """The training loader at 600 px with flips, in this process on one thread: a worker's share of the work."""
    import torch

    from detection.data import load_dataset, train_loader

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    config = Config.model_validate(
        {"data": {"classes": ["cat"], "train": [{"format": "voc", "root": folder, "split": "train"}], "workers": 0}}
    )
    dataset = load_dataset(config.data.train, config.data.classes)
    batches = iter(train_loader(dataset, config, rank=0, world_size=1, first_batch=0))

    def load() -> None:
        for _ in itertools.islice(batches, num_images // config.train.micro_batch):
            pass

    return load
