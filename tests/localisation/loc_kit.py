"""CLS-LOC small enough for tests: the layout of 2015, a kit of three classes, and noisy pictures with bright boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detection.config import LocConfig, parse_config

Corners = tuple[int, int, int, int]
"""xmin, ymin, xmax, ymax as the XML has them: from 0, with both ends included."""

MAP = "n03 1 big_cat\nn01 2 dog\nn02 3 owl\n"
"""The kit's ids are not in the order of the WNIDs: labels 0, 1, 2 are dog, owl and big cat."""
BGR = {"n01": (230, 60, 60), "n02": (60, 230, 60), "n03": (60, 60, 230)}


def write_kit(root: Path, blacklist: Sequence[int] = ()) -> Path:
    """The development kit in ROOT/devkit; returns root."""
    data = root / "devkit" / "data"
    data.mkdir(parents=True)
    (data / "map_clsloc.txt").write_text(MAP)
    lines = "".join(f"{number}\n" for number in blacklist)
    (data / "ILSVRC2015_clsloc_validation_blacklist.txt").write_text(lines)
    return root


def write_xml(root: Path, folder: str, image_id: str, objects: Sequence[tuple[str, Corners]], size_hw=(40, 60)) -> Path:
    """An image's annotation; each object is its class and its box."""
    file = root / "Annotations/CLS-LOC" / folder / f"{image_id}.xml"
    file.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        f"<object><name>{name}</name><bndbox><xmin>{xmin}</xmin><xmax>{xmax}</xmax><ymin>{ymin}</ymin><ymax>{ymax}</ymax>"
        "</bndbox></object>"
        for name, (xmin, ymin, xmax, ymax) in objects
    ]
    size = f"<size><width>{size_hw[1]}</width><height>{size_hw[0]}</height></size>" if size_hw else ""
    file.write_text(f"<annotation>{size}{''.join(parts)}</annotation>")
    return file


def write_image(root: Path, folder: str, image_id: str, wnid: str, boxes: Sequence[Corners] = (), size_hw=(40, 60)) -> Path:
    """Dark noise, with the class's colour in each box."""
    file = root / "Data/CLS-LOC" / folder / f"{image_id}.JPEG"
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(image_id)).integers(0, 40, (*size_hw, 3), dtype=np.uint8)
    for xmin, ymin, xmax, ymax in boxes:
        pixels[ymin : ymax + 1, xmin : xmax + 1] = BGR[wnid]
    assert cv2.imwrite(str(file), pixels)
    return file


def write_list(root: Path, name: str, ids: Sequence[str]) -> Path:
    """ImageSets/CLS-LOC/NAME.txt."""
    file = root / "ImageSets/CLS-LOC" / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{image_id} {number}\n" for number, image_id in enumerate(ids, start=1)))
    return file


def write_example(root: Path, folder: str, image_id: str, wnid: str, boxes: Sequence[Corners], size_hw=(40, 60)) -> None:
    """An image and its annotation."""
    write_image(root, folder, image_id, wnid, boxes, size_hw)
    write_xml(root, folder, image_id, [(wnid, box) for box in boxes], size_hw)


def write_loc(root: Path, per_class: int = 2, num_val: int = 6, size_hw: tuple[int, int] = (40, 60)) -> Path:
    """A data set of three classes: `per_class` train images of each, then validation images of each class in turn, with one
    box or two. Number 2 of the validation images is blacklisted. Returns root."""
    write_kit(root, blacklist=[2])
    height, width = size_hw
    first = (width // 6, height // 8, width // 2, height * 3 // 4)
    second = (width * 3 // 5, height // 3, width - 2, height - 1)
    train = [(f"{wnid}/{wnid}_{number}", wnid) for wnid in sorted(BGR) for number in range(per_class)]
    val = [(f"ILSVRC2012_val_{number + 1:08d}", sorted(BGR)[number % 3]) for number in range(num_val)]
    for folder, name, examples in (("train", "train_loc", train), ("val", "val", val)):
        for number, (image_id, wnid) in enumerate(examples):
            write_example(root, folder, image_id, wnid, [first, second][: 1 + number % 2], size_hw)
        write_list(root, name, [image_id for image_id, _ in examples])
    return root


def make_config(root: str | Path, output_dir: Path | None = None, **sections: dict[str, Any]) -> LocConfig:
    """ResNet-18 at 64 px with a few steps of four images or RoIs; sections override its keys."""
    training = {
        "batch_size": 4,
        "images_per_device": 4,
        "steps": 2,
        "learning_rate": 0.01,
        "precision": "fp32",
        "log_every": 1,
        "checkpoint_every": 100,
    }
    values: dict[str, Any] = {
        "model": {"backbone": "resnet18"},
        "data": {"root": str(root), "image_size": 64, "workers": 0},
        "rpn": {"anchor_sizes": [24, 48]},
        "rpn_train": training,
        "rcnn_train": training,
        "test": {"scales": [64, 96], "longer_side": 160},
    }
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section
    return parse_config(LocConfig, values | {"output_dir": str(output_dir or "unused")}, "test")
