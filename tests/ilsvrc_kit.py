"""A development kit of ImageNet with three images and two classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


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
