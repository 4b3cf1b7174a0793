"""YOLO's label files, and the data.yaml that ultralytics and others read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from detection.data.writers.labels import ImageLabels
from detection.files import write_whole
from detection.rows import yolo_row


def yolo_text(image: ImageLabels) -> str:
    """A line for each object, without scores, which labelling programs do not take. Crowd regions are left out."""
    rows = [yolo_row(each.label, each.box, image.size_hw) for each in image.objects if not each.crowd]
    return "".join(f"{row}\n" for row in rows)


class YoloWriter:
    """FOLDER/STEM.txt for each image; `write` writes a text file."""

    def __init__(self, folder: Path, write: Callable[[Path, str], object] = write_whole) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._write = folder, write

    def file_of(self, image_stem: str) -> Path:
        """The labels of an image."""
        return self.folder / f"{image_stem}.txt"

    def add(self, image: ImageLabels) -> None:
        """Write the labels of an image; an image without objects has an empty file."""
        file = self.file_of(image.stem)
        file.parent.mkdir(parents=True, exist_ok=True)
        self._write(file, yolo_text(image))

    def close(self) -> None:
        """Nothing is left to be done: each file is whole when it is added."""


def data_yaml(splits: Sequence[str], class_names: Sequence[str]) -> str:
    """A data.yaml for splits that lie in images/SPLIT beside it. Paths are relative, so the folder may be moved."""
    content = {split: f"images/{split}" for split in splits} | {"names": dict(enumerate(class_names))}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
