"""A development kit of ImageNet with three images and two classes, and a small ImageNet DET."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def cells(values) -> np.ndarray:
    """A MATLAB cell array of one row."""
    made = np.empty((1, len(values)), dtype=object)
    for index, value in enumerate(values):
        made[0, index] = value
    return made


def write_kit(folder: Path) -> Path:
    """Image a has two objects, b none, c one; class "dog" is not evaluated in c."""
    data = folder / "data"
    data.mkdir(parents=True)
    (data / "map_det.txt").write_text("n02 1 big_cat\nn01 2 dog\n")
    (data / "map_clsloc.txt").write_text("n02 1 big_cat\nn01 2 dog\n")
    (data / "det_val.txt").write_text("a 1\nb 2\nc 3\n")
    (data / "det_val2.txt").write_text("c 1\na 2\n")
    (data / "ILSVRC2015_det_validation_blacklist.txt").write_text("3 n01\n")
    (data / "ILSVRC2015_clsloc_validation_blacklist.txt").write_text("2\n")
    boxes = [
        np.array([[0, 9], [1, 9], [200, 19], [4, 19]], dtype=np.uint8),
        np.zeros((0, 0), np.uint8),
        np.array([[5], [5], [300], [8]]),
    ]
    labels = [np.array([[1, 2]], dtype=np.uint8), np.zeros((0, 0), np.uint8), np.array([[2]], dtype=np.uint8)]
    savemat = pytest.importorskip("scipy.io").savemat
    content = {"gt_obj_labels": cells(labels), "gt_obj_bboxes": cells(boxes)}
    savemat(data / "ILSVRC2015_det_validation_ground_truth.mat", content)
    box = np.dtype([("label", object), ("bbox", object)])
    objects = [
        np.array([[(2, np.array([[0, 0, 9, 9]], np.uint8))]], box),
        np.array([[(1, np.array([[1, 1, 2, 2]], np.uint8))]], box),
    ]
    record = np.array([(each,) for each in objects], dtype=[("objects", object)])[:, None]
    savemat(data / "ILSVRC2015_clsloc_validation_ground_truth.mat", {"rec": record})
    return folder


TRAIN_LISTS = {
    1: "ILSVRC2013_train/n02/n02_1 1\nILSVRC2013_train_extra0/ILSVRC2013_train_00000001 -1\n"
    "ILSVRC2014_train_0000/ILSVRC2014_train_00000001 -1\n",
    2: "ILSVRC2014_train_0000/ILSVRC2014_train_00000001 1\nILSVRC2013_train_extra0/ILSVRC2013_train_00000001 -1\n",
    3: "ILSVRC2013_train/n02/n02_1 0\nILSVRC2014_train_0000/ILSVRC2014_train_00000001 -1\n",
}
"""By the classes' ids, as in the layout of 2015. The first image knows class 1 alone, the second 1 and 2, the third all."""


def write_det(root: Path) -> Path:
    """ImageNet DET with three classes, five images of val, three of train and one of test, all 40 x 30 pixels.

    val2 is v4 and v2, v3 is on the blacklist, v4 has no XML file.
    """
    kit, lists = root / "devkit/data", root / "ImageSets/DET"
    kit.mkdir(parents=True)
    lists.mkdir(parents=True)
    (kit / "map_det.txt").write_text("n02 1 big_cat\nn01 2 dog\nn03 3 bow_tie\n")
    (kit / "det_val2.txt").write_text("v4 1\nv2 2\n")
    (kit / "ILSVRC2015_det_validation_blacklist.txt").write_text("3 n01\n3 n02\n")
    (lists / "val.txt").write_text("v1 1\nv2 2\nv3 3\nv4 4\nv5 5\n")
    (lists / "test.txt").write_text("t1 1\n")
    for number, text in TRAIN_LISTS.items():
        (lists / f"train_{number}.txt").write_text(text)
    objects = {
        "v1": [("n01", (0, 1, 9, 4)), ("n03", (39, 29, 39.5, 29.5))],
        "v2": [("n02", (5, 6, 39, 29))],
        "v3": [],
        "v5": [("n03", (1, 1, 2, 2))],
    }
    for image in ("v1", "v2", "v3", "v4", "v5"):
        write_picture(root / f"Data/DET/val/{image}.JPEG")
        if image in objects:
            write_xml(root / f"Annotations/DET/val/{image}.xml", objects[image])
    write_picture(root / "Data/DET/test/t1.JPEG")
    cat, extra = "ILSVRC2013_train/n02/n02_1", "ILSVRC2013_train_extra0/ILSVRC2013_train_00000001"
    dog = "ILSVRC2014_train_0000/ILSVRC2014_train_00000001"
    for image in (cat, extra, dog):
        write_picture(root / f"Data/DET/train/{image}.JPEG")
    write_xml(root / f"Annotations/DET/train/{cat}.xml", [("n02", (0, 0, 9, 9)), ("n77", (0, 0, 4, 4))])
    write_xml(root / f"Annotations/DET/train/{dog}.xml", [("n01", (2, 3, 4, 5))])
    return root


def write_picture(file: Path) -> None:
    """A grey JPEG of 40 x 30 pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), "grey").save(file, "JPEG")


def write_xml(file: Path, objects, size: str = "<size><width>40</width><height>30</height></size>") -> None:
    """An annotation as ImageNet writes it, xmax before ymin: objects are WNIDs with (xmin, ymin, xmax, ymax) as in the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><xmax>{x2}</xmax><ymin>{y1}</ymin><ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in objects
    )
    file.write_text(f"<annotation><folder>a</folder><filename>{file.stem}</filename>{size}{text}</annotation>")
