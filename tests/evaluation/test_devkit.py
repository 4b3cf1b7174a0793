"""Annotations are taken as the kit takes them, and faults are named."""

from pathlib import Path

import pytest

from detection.errors import DatasetError
from detection.evaluation.devkit import find_year, read_devkit
from tests.evaluation.scenes import make_record, write_devkit

OBJECT = (
    "<object><name>{name}</name>{extra}<bndbox><xmin>{x1}</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
)


def one_image(folder: Path, *objects: str) -> Path:
    write_devkit(folder, [make_record("a")], [])
    (folder / "Annotations/a.xml").write_text(f"<annotation>{''.join(objects)}</annotation>")
    return folder


def test_boxes_stay_as_they_are(tmp_path):
    # Out of the image, of one pixel, fractional: the kit clips and drops nothing.
    objects = [OBJECT.format(name="cat", extra="", x1=x1) for x1 in (0, 9, "2.5", -4)]
    devkit = read_devkit(one_image(tmp_path, *objects), "test")
    assert devkit.records[0].boxes[:, 0].tolist() == [-1, 8, 1.5, -5]
    assert devkit.records[0].boxes[0].tolist() == [-1, 0, 9, 9]


def test_classes_are_those_found_vocs_own_first_and_in_its_order(tmp_path):
    names = ["zebra", "train", "bird", "ant"]
    devkit = read_devkit(one_image(tmp_path, *(OBJECT.format(name=name, extra="", x1=1) for name in names)), "test")
    assert devkit.class_names == ("bird", "train", "ant", "zebra")
    assert devkit.records[0].labels.tolist() == [3, 1, 0, 2]


def test_difficult(tmp_path):
    flags = ["", "<difficult>0</difficult>", "<difficult>1</difficult>"]
    devkit = read_devkit(one_image(tmp_path, *(OBJECT.format(name="cat", extra=flag, x1=1) for flag in flags)), "test")
    assert devkit.records[0].difficult.tolist() == [False, False, True]


def test_parts_of_an_object_are_not_objects(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></part>"
    devkit = read_devkit(one_image(tmp_path, OBJECT.format(name="cat", extra=part, x1=1)), "test")
    assert devkit.records[0].boxes.tolist() == [[0, 0, 9, 9]]


def test_an_image_without_objects(tmp_path):
    record = read_devkit(one_image(tmp_path), "test").records[0]
    assert record.boxes.shape == (0, 4) and record.labels.shape == (0,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OBJECT.format(name="cat", extra="", x1="ten"), r"a\.xml, object 1: <xmin> must be a number, found 'ten'"),
        (OBJECT.format(name="cat", extra="", x1="nan"), r"<xmin> must be a number"),
        ("<object><name>cat</name></object>", r"<xmin> must be a number, found nothing"),
        (OBJECT.format(name="", extra="", x1=1), r"object 1 has no <name>"),
    ],
)
def test_faults_are_named_or_left_out_where_the_loader_has_told_them(tmp_path, text, message):
    folder = one_image(tmp_path, text, OBJECT.format(name="cat", extra="", x1=1))
    with pytest.raises(DatasetError, match=message):
        read_devkit(folder, "test")
    assert len(read_devkit(folder, "test", ["cat"]).records[0].labels) == 1


def test_an_image_listed_twice(tmp_path):
    folder = one_image(tmp_path)
    (folder / "ImageSets/Main/test.txt").write_text("a\na\n")
    with pytest.raises(DatasetError, match="lists image 'a' twice"):
        read_devkit(folder, "test")


def test_missing_annotation_and_split(tmp_path):
    folder = one_image(tmp_path)
    (folder / "ImageSets/Main/test.txt").write_text("a\nb\n")
    with pytest.raises(DatasetError, match=r"b\.xml"):
        read_devkit(folder, "test")
    with pytest.raises(DatasetError, match=r"val\.txt"):
        read_devkit(folder, "val")


def test_find_year(tmp_path):
    one_image(tmp_path / "VOC2007")
    assert find_year(tmp_path, "2007") == tmp_path / "VOC2007"
    assert find_year(tmp_path / "VOC2007", None) == find_year(tmp_path / "VOC2007", "2007") == tmp_path / "VOC2007"
    with pytest.raises(DatasetError, match=r"it holds VOC2007: name the year \(--year\)"):
        find_year(tmp_path, None)
