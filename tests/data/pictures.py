"""Tiny data sets, written for a test: the same four pictures as a VOC devkit and as COCO JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from detection.config import CocoSource, VocSource

CLASSES = ("cat", "dog")


@dataclass(frozen=True)
class Thing:
    """An object with a continuous, 0-based box."""

    name: str
    box: tuple[float, float, float, float]  # xyxy
    ignored: bool = False  # `difficult` in VOC, `iscrowd` in COCO


@dataclass(frozen=True)
class Picture:
    """An image of noise with a flat patch for each object."""

    number: int  # COCO's id; VOC's stem is 000007
    size_hw: tuple[int, int]
    things: tuple[Thing, ...] = ()

    @property
    def stem(self) -> str:
        return f"{self.number:06d}"


PICTURES = (
    Picture(1, (40, 60), (Thing("cat", (10, 5, 30, 25)), Thing("dog", (35.5, 10, 55, 39.25)))),
    Picture(2, (60, 40), (Thing("dog", (0, 0, 40, 60)),)),
    Picture(3, (48, 64)),
    Picture(4, (50, 50), (Thing("cat", (5, 5, 20, 20), ignored=True), Thing("cat", (25, 25, 49, 45)))),
)


def write_picture(path: Path, picture: Picture) -> None:
    """The pixels, as a JPEG."""
    rng = np.random.default_rng(picture.number)
    pixels = rng.integers(90, 130, (*picture.size_hw, 3), dtype=np.uint8)
    for thing in picture.things:
        x1, y1, x2, y2 = (round(value) for value in thing.box)
        pixels[y1:y2, x1:x2] = (250, 60, 40) if thing.name == "cat" else (40, 60, 250)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def voc_xml(picture: Picture) -> str:
    """The annotation as VOC writes it: 1-based, the last pixel inside."""
    objects = "".join(
        f"<object><name>{thing.name}</name><difficult>{int(thing.ignored)}</difficult><bndbox>"
        f"<xmin>{thing.box[0] + 1:g}</xmin><ymin>{thing.box[1] + 1:g}</ymin>"
        f"<xmax>{thing.box[2]:g}</xmax><ymax>{thing.box[3]:g}</ymax></bndbox></object>\n"
        for thing in picture.things
    )
    height, width = picture.size_hw
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{picture.stem}.jpg</filename>{size}\n{objects}</annotation>\n"


def write_devkit(root: Path, pictures: Sequence[Picture] = PICTURES, year: str = "2007", split: str = "trainval") -> Path:
    """ROOT/VOC<year> with one split; gives back that folder."""
    folder = root / f"VOC{year}"
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        write_picture(folder / "JPEGImages" / f"{picture.stem}.jpg", picture)
        (folder / "Annotations" / f"{picture.stem}.xml").write_text(voc_xml(picture))
    stems = "".join(f"{picture.stem}\n" for picture in pictures)
    (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(stems)
    return folder


def voc_source(root: Path, year: str | None = "2007", split: str = "trainval") -> VocSource:
    """The source that `write_devkit` wrote."""
    return VocSource(format="voc", root=root, year=year, split=split)


def coco_content(pictures: Sequence[Picture] = PICTURES) -> dict:
    """The annotation file, with category ids that are neither labels nor in their order."""
    ids = {"dog": 3, "cat": 90}
    annotations = [
        {
            "image_id": picture.number,
            "category_id": ids[thing.name],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1) / 2,
            "iscrowd": int(thing.ignored),
        }
        for picture in pictures
        for thing in picture.things
        for x1, y1, x2, y2 in [thing.box]
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    images = [
        {"id": picture.number, "file_name": f"{picture.stem}.jpg", "height": picture.size_hw[0], "width": picture.size_hw[1]}
        for picture in pictures
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": ids[name], "name": name} for name in ids]}


def write_coco(root: Path, pictures: Sequence[Picture] = PICTURES, content: dict | None = None) -> Path:
    """ROOT/instances.json and ROOT/images/; gives back the file. `content` replaces the annotations."""
    for picture in pictures:
        write_picture(root / "images" / f"{picture.stem}.jpg", picture)
    file = root / "instances.json"
    file.write_text(json.dumps(coco_content(pictures) if content is None else content))
    return file


def coco_source(root: Path) -> CocoSource:
    """The source that `write_coco` wrote."""
    return CocoSource(format="coco", root=root, annotations=Path("instances.json"), images=Path("images"))
