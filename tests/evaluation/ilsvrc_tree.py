"""A small ImageNet DET: the kit of three images, with their pictures and XML files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.ilsvrc_kit import write_kit

OBJECTS = {"a": [("n02", 0, 1, 200, 4), ("n01", 9, 9, 19, 19)], "b": [], "c": [("n01", 5, 5, 300, 8)]}
SIZE_HW = (40, 310)


def write_det(root: Path) -> Path:
    """ROOT/{devkit,Data,Annotations,ImageSets}; its own list has the images in another order than the kit's."""
    write_kit(root / "devkit")
    lists, annotations, images = (root / f"{name}/DET" for name in ("ImageSets", "Annotations", "Data"))
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("c 1\na 2\nb 3\n")
    (lists / "test.txt").write_text("t1 1\nt2 2\n")
    for split, names in (("val", list(OBJECTS)), ("test", ["t1", "t2"])):
        (images / split).mkdir(parents=True)
        for number, name in enumerate(names):
            pixels = np.random.default_rng(number).integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)
            cv2.imwrite(str(images / split / f"{name}.jpg"), pixels)
            (images / split / f"{name}.jpg").rename(images / split / f"{name}.JPEG")
    (annotations / "val").mkdir(parents=True)
    for name, objects in OBJECTS.items():
        (annotations / "val" / f"{name}.xml").write_text(xml_of(objects))
    return root


def xml_of(objects) -> str:
    """An annotation file, its boxes in ImageNet's order of tags."""
    rows = [
        f"<object><name>{wnid}</name><bndbox><xmin>{x1}</xmin><xmax>{x2}</xmax><ymin>{y1}</ymin><ymax>{y2}</ymax></bndbox></object>"
        for wnid, x1, y1, x2, y2 in objects
    ]
    height, width = SIZE_HW
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{''.join(rows)}</annotation>"
