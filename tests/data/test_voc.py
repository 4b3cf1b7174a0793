"""VOC devkits: hand-computed coordinates, every fault, and an independent reading of real files."""

from xml.dom import minidom

import pytest
import torch

from detection.data.catalog import load_dataset
from detection.data.classes import ClassMap
from detection.data.faults import Faults
from detection.data.voc import read_voc
from detection.errors import DatasetError
from tests.data.pictures import CLASSES, PICTURES, voc_source, write_devkit

XML = "VOC2007/Annotations/000001.xml"


@pytest.fixture
def devkit(tmp_path):
    write_devkit(tmp_path)
    return tmp_path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def read(root, strict=False, **source):
    faults = Faults(strict=strict)
    return read_voc(voc_source(root, **source), root, ClassMap.to(CLASSES), faults), faults


def test_written_devkit_is_read_back(devkit):
    records, faults = read(devkit)
    assert faults.notes == []
    assert [record.image_id for record in records] == ["000001", "000002", "000003", "000004"]
    for record, picture in zip(records, PICTURES, strict=True):
        assert record.size_hw == picture.size_hw and record.file.is_file()
        boxes = torch.tensor([thing.box for thing in picture.things], dtype=torch.float32).reshape(-1, 4)
        torch.testing.assert_close(record.boxes, boxes, rtol=0, atol=0)
        assert record.labels.tolist() == [CLASSES.index(thing.name) for thing in picture.things]
        assert record.difficult.tolist() == [thing.ignored for thing in picture.things]
        assert not record.crowd.any()
        torch.testing.assert_close(record.areas, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def test_first_and_last_pixel(devkit):
    """xmin = 1 and xmax = width is the whole image."""
    xml = (devkit / "VOC2007/Annotations/000002.xml").read_text()
    assert "<xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>60</ymax>" in xml
    assert read(devkit)[0][1].boxes.tolist() == [[0, 0, 40, 60]]


def test_folder_without_year(devkit):
    records, _ = read(devkit / "VOC2007", year=None)
    assert len(records) == 4


@pytest.mark.parametrize(
    ("old", "new", "kind", "left"),
    [
        ("<xmax>30</xmax>", "<xmax>5</xmax>", "inverted box, dropped", 1),
        ("<xmax>30</xmax>", "<xmax>10.75</xmax>", "inverted box, dropped", 1),
        ("<xmax>30</xmax>", "<xmax>11</xmax>", "box without area, dropped", 1),
        ("<xmin>11</xmin>", "<xmin>100</xmin>", "inverted box, dropped", 1),
        ("<xmin>11</xmin>", "<xmin>0</xmin>", "box reaching out of the image, clipped", 2),
        ("<xmax>30</xmax>", "<xmax>900</xmax>", "box reaching out of the image, clipped", 2),
        ("11</xmin><ymin>6</ymin><xmax>30<", "70</xmin><ymin>6</ymin><xmax>90<", "box outside the image, dropped", 1),
        ("<xmax>30</xmax>", "<xmax>thirty</xmax>", "text for a number, dropped", 1),
        ("<xmax>30</xmax>", "<xmax>nan</xmax>", "text for a number, dropped", 1),
        ("<xmax>30</xmax>", "<xmax/>", "text for a number, dropped", 1),
        ("<xmax>30</xmax>", "", "object without a whole <bndbox>, dropped", 1),
        ("<name>cat</name>", "<name>cat</name><name>dog</name>", "several <name> or <bndbox>, the first is taken", 2),
        ("<name>cat</name>", "", "object without <name>, dropped", 1),
        ("<difficult>0</difficult>", "<difficult>no</difficult>", "text for a number, taken as 0", 2),
        ("<width>60</width>", "<width>wide</width>", "<size> without two numbers, taken from the image", 2),
    ],
)  # fmt: skip
def test_faults_are_repaired_and_counted_or_refused(devkit, old, new, kind, left):
    edit(devkit / XML, old, new)
    records, faults = read(devkit)
    assert [note.kind for note in faults.notes] == [kind]
    assert "000001.xml" in faults.notes[0].message
    assert len(records[0].labels) == left and records[0].size_hw == (40, 60)
    boxes = records[0].boxes
    assert ((boxes >= 0) & (boxes <= torch.tensor([60, 40, 60, 40]))).all()
    with pytest.raises(DatasetError, match=r"000001\.xml.*data\.strict"):
        read(devkit, strict=True)


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_size_from_the_image_where_the_tag_is_silent(devkit, size):
    edit(devkit / XML, "<size><width>60</width><height>40</height><depth>3</depth></size>", size)
    records, faults = read(devkit, strict=True)
    assert records[0].size_hw == (40, 60) and not faults.notes


def test_difficult_may_be_missing_and_parts_are_no_objects(devkit):
    edit(devkit / XML, "<difficult>0</difficult>", "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>")
    records, faults = read(devkit)
    assert records[0].difficult.tolist() == [False, False] and not faults.notes


def test_lists_of_one_class_and_other_suffixes(devkit):
    folder = devkit / "VOC2007"
    (folder / "ImageSets/Main/cat_trainval.txt").write_text("000001  1\n000003 -1\n000004  0\n\n")
    (folder / "JPEGImages/000001.jpg").rename(folder / "JPEGImages/000001.PNG")
    records, _ = read(devkit, split="cat_trainval")
    assert [record.file.name for record in records] == ["000001.PNG", "000003.jpg", "000004.jpg"]


def test_unknown_class(devkit):
    edit(devkit / XML, "<name>cat</name>", "<name>Catt</name>")
    with pytest.raises(DatasetError, match=r"000001\.xml, object 1: unknown class 'Catt'; did you mean 'cat'.*cat, dog"):
        read(devkit)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation><object>", r"000001\.xml is not well-formed XML: .*line 1"),
        ("", r"000001\.xml is not well-formed XML"),
        ("<html></html>", r"root is <html>"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', r"000001\.xml"),
    ],
)
def test_unreadable_xml(devkit, content, message):
    (devkit / XML).write_text(content)
    with pytest.raises(DatasetError, match=message):
        read(devkit)


def test_missing_files_are_named(devkit):
    (devkit / XML).unlink()
    with pytest.raises(DatasetError, match=r"cannot read annotation .*000001\.xml: No such file"):
        read(devkit)
    (devkit / "VOC2007/JPEGImages/000001.jpg").unlink()
    with pytest.raises(DatasetError, match=r"no image of '000001' in .*JPEGImages"):
        read(devkit)
    with pytest.raises(DatasetError, match=r"cannot read split .*test\.txt.*there are: trainval"):
        read(devkit, split="test")
    with pytest.raises(DatasetError, match="holds VOC2007"):
        read(devkit, year="2012")
    with pytest.raises(DatasetError, match="holds VOC2007"):
        read(devkit, year=None)
    with pytest.raises(DatasetError, match="leave `year` out"):
        read(devkit / "VOC2007")


def test_empty_split(devkit):
    (devkit / "VOC2007/ImageSets/Main/trainval.txt").write_text("\n\n")
    with pytest.raises(DatasetError, match=r"trainval\.txt lists no image"):
        read(devkit)


def text_of(element: minidom.Element) -> str:
    """An element's only text."""
    assert isinstance(element.firstChild, minidom.Text)
    return element.firstChild.data


@pytest.mark.parametrize(("place", "source"), [("voc_mini/VOCdevkit", {"year": "2012"}), ("BCCD", {"year": None})])
def test_real_boxes_equal_an_independent_reading(real_data, place, source):
    root = real_data / place
    classes = "voc" if "voc" in place else ("RBC", "WBC", "Platelets")
    dataset = load_dataset([voc_source(root, **source)], classes)
    num_skipped = 0
    for record in dataset.records:
        document = minidom.parse(str(record.file.parent.parent / "Annotations" / f"{record.image_id}.xml"))
        expected = []
        for item in document.getElementsByTagName("object"):
            # A person's parts have boxes of their own further down.
            children = {node.nodeName: node for node in item.childNodes if isinstance(node, minidom.Element)}
            values = [
                float(text_of(children["bndbox"].getElementsByTagName(tag)[0])) for tag in ("xmin", "ymin", "xmax", "ymax")
            ]
            name = text_of(children["name"])
            if values[0] == values[2]:
                num_skipped += 1
            else:
                expected.append((name, values[0] - 1, values[1] - 1, values[2], values[3]))
        names = [dataset.class_names[label] for label in record.labels]
        assert [(name, *box) for name, box in zip(names, record.boxes.tolist(), strict=True)] == expected
    assert num_skipped == len(dataset.faults) == (2 if place == "BCCD" else 0)
