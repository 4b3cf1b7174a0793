"""A folder in which every command works: data in both formats, class folders, configs, runs, detections, a picture.

All paths in it are relative: a case is a copy of it, and the working folder of its commands.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import yaml

from detection.cli.main import main
from tests.data.pictures import CLASSES, PICTURES, write_coco, write_devkit, write_picture
from tests.pretraining.class_folders import write_data
from tests.weights import narrow  # the network of a few hundred weights is registered by the import

BACKBONE = narrow.narrow.__name__

VOC = {"format": "voc", "root": ".", "year": "2007"}
COCO = {"format": "coco", "root": ".", "annotations": "instances.json", "images": "images"}
DETECTOR = {
    "model": {"backbone": BACKBONE, "freeze_stages": 0},
    "rpn": {
        "channels": 8,
        "anchor_sizes": [16, 32],
        "min_size": 4,
        "post_nms_train": 20,
        "post_nms_test": 10,
        "sample_size": 16,
    },
    "roi": {"pool_size": 4, "sample_size": 8},
    "data": {
        "classes": list(CLASSES),
        "train": [{**VOC, "split": "train"}],
        "val": [{**VOC, "split": "val"}],
        "test": [{**VOC, "split": "val"}],
        "shorter_sides": [48],
        "longer_side": 80,
        "workers": 0,
    },
    "train": {
        "batch_size": 1,
        "steps": 2,
        "learning_rate": 0.01,
        "precision": "fp32",
        "log_every": 1,
        "checkpoint_every": 1,
    },
    "test": {"shorter_side": 48, "longer_side": 80, "score_threshold": 0.0},
    "output_dir": "run",
}
CLASSIFIER = {
    "model": {"backbone": BACKBONE},
    "data": {"root": "crops", "image_size": 32, "augmentations": [], "test_transforms": [{"Resize": {}}], "workers": 0},
    "train": {
        "batch_size": 4,
        "images_per_device": 4,
        "steps": 2,
        "learning_rate": 0.01,
        "precision": "fp32",
        "log_every": 1,
        "checkpoint_every": 1,
    },
    "bn_images": 4,
    "output_dir": "classifier",
}
COMMANDS = (
    "train --config detector.yaml",
    "pretrain --config classifier.yaml",
    "eval-voc --weights run/last.pt --write-detections detections",
    "eval-coco --config coco.yaml --weights run/last.pt --write-detections detections.json",
)
"""What makes the runs and the detections."""


def write_sandbox(folder: Path) -> None:
    """Fill an empty folder."""
    for split in ("train", "val"):
        write_devkit(folder, split=split)
    write_coco(folder)
    write_data(folder / "crops")
    write_picture(folder / "photo.jpg", PICTURES[0])
    coco = {**DETECTOR, "data": {**DETECTOR["data"], "train": [COCO], "val": [COCO], "test": [COCO]}}  # type: ignore[dict-item]
    for name, values in {"detector": DETECTOR, "coco": coco, "classifier": CLASSIFIER}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for command in COMMANDS:
                assert main(command.split()) == 0, command
    finally:
        os.chdir(before)


def replace(path: Path, content: bytes | str) -> None:
    """Another file in the place of one, or a new one."""
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
