"""The pictures of tests/data/pictures.py in folders with a label file for each image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detection.config import FolderSource
from detection.data.catalog import read_sources
from detection.data.classes import ClassMap
from detection.data.faults import Faults
from detection.structures import Record
from tests.data.pictures import CLASSES, PICTURES, Picture, write_picture

TRAIN, VAL = PICTURES[:2], PICTURES[2:]


def write_images(folder: Path, pictures: Sequence[Picture] = PICTURES) -> None:
    """FOLDER/000001.jpg and so on."""
    for picture in pictures:
        write_picture(folder / f"{picture.stem}.jpg", picture)


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8 in a folder that may have to be made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def yolo_lines(picture: Picture) -> str:
    """The label file of a picture, in which cat is 0 and dog is 1."""
    height, width = picture.size_hw
    return "".join(
        f"{CLASSES.index(thing.name)} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} "
        f"{(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"
        for thing in picture.things
        for x1, y1, x2, y2 in [thing.box]
    )


def write_yolo(images: Path, labels: Path, pictures: Sequence[Picture] = PICTURES) -> None:
    """Images in one folder and their label files in another, which may be the same."""
    write_images(images, pictures)
    for picture in pictures:
        write_text(labels / f"{picture.stem}.txt", yolo_lines(picture))


def labelme(picture: Picture, **keys: Any) -> dict[str, Any]:
    """What labelme writes for a picture, with other keys where they are given."""
    shapes: list[dict[str, Any]] = [
        {
            "label": thing.name,
            "points": [[thing.box[2], thing.box[1]], [thing.box[0], thing.box[3]]],
            "group_id": None,
            "description": "",
            "shape_type": "rectangle",
            "flags": {},
        }
        for thing in picture.things
    ]
    content: dict[str, Any] = {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{picture.stem}.jpg",
        "imageData": None,
        "imageHeight": picture.size_hw[0],
        "imageWidth": picture.size_hw[1],
    }
    return content | keys


def write_labelme(images: Path, labels: Path, pictures: Sequence[Picture] = PICTURES, prefix: str = "") -> None:
    """Images in one folder and their JSON files, which name them behind `prefix`, in another."""
    write_images(images, pictures)
    for picture in pictures:
        content = labelme(picture, imagePath=f"{prefix}{picture.stem}.jpg")
        write_text(labels / f"{picture.stem}.json", json.dumps(content, indent=2))


def read(root: Path, key: str, classes: Sequence[str] = CLASSES, **keys: Any) -> tuple[list[Record], Faults]:
    """The records of a folder in a format, as training reads them."""
    faults = Faults()
    return read_sources([FolderSource(format=key, root=root, **keys)], ClassMap.to(classes), faults), faults


def expect_pictures(records: Sequence[Record], pictures: Sequence[Picture] = PICTURES, tolerance: float = 0) -> None:
    """Assert that the records are these pictures, in any order, box for box."""
    assert sorted(record.file.stem for record in records) == sorted(picture.stem for picture in pictures)
    for record in records:
        picture = next(each for each in pictures if each.stem == record.file.stem)
        assert record.size_hw == picture.size_hw
        assert [CLASSES[label] for label in record.labels] == [thing.name for thing in picture.things]
        found = [coordinate for box in record.boxes.tolist() for coordinate in box]
        wanted = [coordinate for thing in picture.things for coordinate in thing.box]
        assert all(abs(a - b) <= tolerance for a, b in zip(found, wanted, strict=True))
