"""The kit's files: a kit of three images and two classes, what is refused, and the real kit."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from detection.errors import DatasetError
from detection.evaluation.ilsvrc import DetDetections, evaluate_det
from detection.evaluation.ilsvrc_devkit import read_det_truth, read_loc_truth
from tests.ilsvrc_kit import cells, write_kit


@pytest.fixture
def devkit(tmp_path) -> Path:
    """See `write_kit`."""
    return write_kit(tmp_path)


def test_boxes_are_continuous_and_do_not_overflow(devkit):
    truth, images = read_det_truth(devkit)
    assert images.ids == ("a", "b", "c") and truth.class_names == ("big cat", "dog")
    assert truth.boxes.tolist() == [[0, 1, 201, 5], [9, 9, 20, 20], [5, 5, 301, 9]]
    assert truth.images.tolist() == [0, 0, 2] and truth.labels.tolist() == [0, 1, 1]
    assert truth.unevaluated.tolist() == [[2, 1]]


def test_another_split_numbers_the_images_anew(devkit):
    truth, images = read_det_truth(devkit / "data", "val2")
    assert images.ids == ("c", "a") and truth.images.tolist() == [0, 1, 1] and truth.labels.tolist() == [1, 0, 1]
    assert truth.unevaluated.tolist() == [[0, 1]]


def test_val1_is_what_val2_and_the_blacklist_leave(devkit):
    truth, images = read_det_truth(devkit, "val1")
    assert images.ids == ("b",) and truth.images.tolist() == [] and truth.unevaluated.tolist() == []
    (devkit / "data/val1.txt").write_text("b 1\na 2\n")
    truth, images = read_det_truth(devkit, "val1")
    assert images.ids == ("b", "a") and truth.images.tolist() == [1, 1]


def test_xml_files_give_the_same_as_the_mat_file(devkit):
    folder = devkit / "xml"
    folder.mkdir()
    for image, rows in {"a": [("n02", 0, 1, 200, 4), ("n01", 9, 9, 19, 19)], "c": [("n01", 5, 5, 300, 8)]}.items():
        objects = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><xmax>{x2}</xmax>"
            f"<ymin>{y1}</ymin><ymax>{y2}</ymax></bndbox></object>"
            for name, x1, y1, x2, y2 in rows
        )
        (folder / f"{image}.xml").write_text(f"<annotation>{objects}</annotation>")
    (truth, _), (same, _) = read_det_truth(devkit, "val2"), read_det_truth(devkit, "val2", folder)
    assert truth.boxes.tolist() == same.boxes.tolist() and truth.labels.tolist() == same.labels.tolist()


def test_loc_has_a_class_and_boxes_per_image(devkit):
    truth, classes = read_loc_truth(devkit)
    assert truth.labels.tolist() == [1, 0] and truth.boxes.tolist() == [[0, 0, 10, 10], [1, 1, 3, 3]]
    assert truth.unevaluated.tolist() == [False, True] and classes.names == ("big cat", "dog")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("map_det.txt", "n02 one cat\n", "line 1: expected 'WNID ID NAME', found 'n02 one cat'"),
        ("map_det.txt", "n02 1 cat\nn01 1 dog\n", "line 2: class 1 is there already"),
        ("map_det.txt", "n02 1 cat\nn01 3 dog\n", "the ids must be 1 to 2, each once"),
        ("map_det.txt", "n02 1 cat\nn02 2 dog\n", "the WNID 'n02' is there twice"),
        ("map_det.txt", "\n", "map_det.txt lists no class"),
        ("map_det.txt", "n02 1 dog \nn01 2 dog\n", "two classes are called 'dog'"),
        ("det_val.txt", "\n", "det_val.txt lists no image"),
        ("det_val.txt", "a 1 -1\n", "line 1: expected 'IMAGE_ID 1', found 'a 1 -1'"),
        ("det_val.txt", "a 1\nb 3\nc 2\n", "line 2: expected 'IMAGE_ID 2', found 'b 3'"),
        ("det_val.txt", "a 1\nb 2\na 3\n", "image 'a' is there twice"),
        ("det_val.txt", "a 1\nb 2\nc 3\nd 4\n", "is of 3 images, and the list of val has 4: of another year?"),
        ("det_val2.txt", "d 1\n", "image 'd' is not in the list of val: of another year?"),
        ("ILSVRC2015_det_validation_blacklist.txt", "4 n01\n", "expected an image's number up to 3 and a WNID"),
        ("ILSVRC2015_det_validation_blacklist.txt", "1 n09\n", "expected an image's number up to 3 and a WNID"),
        ("ILSVRC2015_det_validation_ground_truth.mat", "nonsense", "is not the kit's ground truth of DET"),
        ("map_det.txt", "n02 1 cat\n", "expected an image's number up to 3 and a WNID"),
    ],
)
def test_what_does_not_fit_is_named(devkit, name, text, message):
    (devkit / "data" / name).write_text(text)
    with pytest.raises(DatasetError, match=re.escape(message)):
        read_det_truth(devkit, "val2" if "val2" in name else "val")


BOX: list[list[float]] = [[0, 9], [1, 9], [200, 19], [4, 19]]


@pytest.mark.parametrize(
    ("labels", "boxes", "message"),
    [
        ([1, 2], [*BOX, [0, 0]], "image 1 has not one box per object"),
        ([1, 2], BOX[:3], "image 1 has not one box per object"),
        ([1, 2], np.transpose(BOX), "image 1 has not one box per object"),
        ([1], BOX, "image 1 has not one box per object"),
        ([1.5, 2], BOX, "image 1 has a class outside of 1..2"),
        ([0, 2], BOX, "image 1 has a class outside of 1..2"),
        ([float("nan"), 2], BOX, "image 1 has a class outside of 1..2"),
        ([1, 2], [BOX[2], *BOX[1:]], None),
        ([1, 2], [BOX[2], BOX[1], BOX[0], BOX[3]], "image 'a' has the box 200 1 0 4: expected numbers with xmin <= xmax"),
        ([1, 2], [[float("nan"), 9], *BOX[1:]], "image 'a' has the box nan 1 200 4: expected numbers"),
        ([1, 2], [["0", "x"], *([f"{x}" for x in row] for row in BOX[1:])], "image 1 has not one box per object"),
    ],
)
def test_the_mat_file_must_hold_boxes(devkit, labels, boxes, message):
    savemat = pytest.importorskip("scipy.io").savemat
    rest = [np.zeros((0, 0)), np.zeros((0, 0))]
    content = {"gt_obj_labels": cells([np.array([labels]), *rest]), "gt_obj_bboxes": cells([np.array(boxes), *rest])}
    savemat(devkit / "data/ILSVRC2015_det_validation_ground_truth.mat", content)
    if message is None:
        assert read_det_truth(devkit)[0].boxes[0].tolist() == [200, 1, 201, 5]  # one pixel wide
        return
    with pytest.raises(DatasetError, match=re.escape(message)):
        read_det_truth(devkit)


def test_images_without_an_xml_file_are_told(devkit, caplog):
    folder = devkit / "xml"
    folder.mkdir()
    with pytest.raises(DatasetError, match=f"none of the 3 images has an XML file in {folder}"):
        read_det_truth(devkit, annotations=folder)
    for image in ("a", "b", "c"):
        (folder / f"{image}.xml").write_text("<annotation></annotation>")
    assert len(read_det_truth(devkit, annotations=folder)[0].labels) == 0 and not caplog.messages
    (folder / "b.xml").unlink()
    read_det_truth(devkit, annotations=folder)
    assert caplog.messages == ["images without an XML file, which count as images without objects: 1 of 3"]


def test_a_missing_file_is_named(devkit, tmp_path):
    (devkit / "data/det_val2.txt").unlink()
    for split in ("val1", "val2"):
        with pytest.raises(DatasetError, match=f"has no list of the images of '{split}'"):
            read_det_truth(devkit, split)
    with pytest.raises(DatasetError, match="is no development kit of ImageNet"):
        read_det_truth(tmp_path / "absent")
    with pytest.raises(DatasetError, match="no such folder of annotations"):
        read_det_truth(devkit, annotations=tmp_path / "absent")
    (devkit / "data/ILSVRC2015_det_validation_ground_truth.mat").unlink()
    with pytest.raises(DatasetError, match="has no files"):
        read_det_truth(devkit)


def test_the_published_numbers_of_the_sample_submission():
    """The kit's sample file has its five APs printed beside it, with three digits."""
    root = os.environ.get("RESDET_TEST_DATA")
    if root is None:
        pytest.skip("RESDET_TEST_DATA is not set")
    kit = Path(root) / "ilsvrc_mini/devkit"
    truth, _ = read_det_truth(kit)
    rows = np.loadtxt(kit / "demo_det_first_five_classes.txt")
    found = DetDetections(
        rows[:, 0].astype(int) - 1, rows[:, 1].astype(int) - 1, rows[:, 2], rows[:, 3:] + np.array([0.0, 0.0, 1.0, 1.0])
    )
    ap = list(evaluate_det(truth, found).ap.values())[:5]
    assert ap == pytest.approx([0.564, 0.528, 0.548, 0.626, 0.506], abs=5e-4)
