"""Class folders small enough for tests: noise that is reddish in one class and bluish in the next."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detection.config import ClassifierConfig, parse_config

BGR = {"apple": (40, 40, 200), "berry": (200, 40, 40), "clover": (40, 200, 40)}


def write_image(path: Path, bgr: tuple[int, int, int], seed: int, size_hw: tuple[int, int] = (32, 32)) -> None:
    """A PNG of one colour under noise."""
    noise = np.random.default_rng(seed).integers(-40, 40, (*size_hw, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.clip(np.array(bgr) + noise, 0, 255).astype(np.uint8))


def write_split(root: Path, split: str, classes: tuple[str, ...] = ("apple", "berry"), count: int = 4) -> Path:
    """`count` images for each class; returns root."""
    for number, name in enumerate(classes):
        for index in range(count):
            write_image(root / split / name / f"{index:02d}.png", BGR[name], 100 * number + index + len(split))
    return root


def write_data(root: Path, count: int = 4) -> Path:
    """The splits train and val of two classes."""
    write_split(root, "train", count=count)
    return write_split(root, "val", count=count)


def pack(folder: Path, archive: Path, mode: str, prefix: str = "") -> Path:
    """A tar archive of a folder's content."""
    with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
        for path in sorted(folder.rglob("*")):
            tar.add(path, prefix + path.relative_to(folder).as_posix(), recursive=False)
    return archive


def make_config(root: str | Path, output_dir: Path | None = None, **sections: dict[str, Any]) -> ClassifierConfig:
    """ResNet-18 at 32 px, a few steps on eight images; sections override its keys."""
    values: dict[str, dict[str, Any]] = {
        "model": {"backbone": "resnet18"},
        "data": {"root": str(root), "image_size": 32, "augmentations": [], "test_transforms": [{"Resize": {}}], "workers": 0},
        "train": {
            "batch_size": 8,
            "images_per_device": 8,
            "steps": 4,
            "learning_rate": 0.02,
            "precision": "fp32",
            "log_every": 2,
            "checkpoint_every": 100,
        },
    }
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section
    return parse_config(ClassifierConfig, values | {"bn_images": 16, "output_dir": str(output_dir or "unused")}, "test")
