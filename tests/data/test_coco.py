"""COCO JSON: names instead of ids, every fault, and pycocotools' reading of real files."""

import json
import re

import pytest
import torch
from pycocotools.coco import COCO

from detection.config import CocoSource
from detection.data.catalog import load_dataset
from detection.data.classes import ClassMap
from detection.data.coco import read_coco
from detection.data.faults import Faults
from detection.errors import DatasetError
from tests.data.pictures import CLASSES, PICTURES, coco_content, coco_source, write_coco


def read(root, content=None, strict=False, classes=CLASSES):
    write_coco(root, content=content)
    faults = Faults(strict=strict)
    return read_coco(coco_source(root), root, ClassMap.to(classes), faults), faults


def test_written_file_is_read_back(tmp_path):
    records, faults = read(tmp_path)
    assert not faults.notes and not faults.information
    assert [record.image_id for record in records] == [1, 2, 3, 4]
    for record, picture in zip(records, PICTURES, strict=True):
        assert record.size_hw == picture.size_hw and record.file.is_file()
        boxes = torch.tensor([thing.box for thing in picture.things], dtype=torch.float32).reshape(-1, 4)
        torch.testing.assert_close(record.boxes, boxes, rtol=0, atol=0)
        assert record.labels.tolist() == [CLASSES.index(thing.name) for thing in picture.things]
        assert record.crowd.tolist() == [thing.ignored for thing in picture.things]
        assert not record.difficult.any()
        torch.testing.assert_close(record.areas, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 2)


def test_optional_keys(tmp_path):
    content = coco_content()
    for image in content["images"]:
        del image["height"], image["width"]
    for annotation in content["annotations"]:
        del annotation["area"], annotation["iscrowd"], annotation["id"]
    records, faults = read(tmp_path, content)
    assert records[0].size_hw == (40, 60) and not faults.notes
    assert records[0].areas.tolist() == [400, pytest.approx(19.5 * 29.25)]


@pytest.mark.parametrize(
    ("bbox", "kind"),
    [
        ([10, 5, -3, 20], "inverted box, dropped"),
        ([10, 5, 0, 20], "box without area, dropped"),
        ([-4, 5, 20, 20], "box reaching out of the image, clipped"),
        ([70, 5, 20, 20], "box outside the image, dropped"),
        ([10, 5, 20], "bbox that is not four numbers, dropped"),
        ([10, 5, "20", 20], "bbox that is not four numbers, dropped"),
        ([10, 5, float("nan"), 20], "bbox that is not four numbers, dropped"),
        ([10, 5, float("inf"), 20], "bbox that is not four numbers, dropped"),
        (None, "bbox that is not four numbers, dropped"),
    ],
)
def test_faulty_boxes(tmp_path, bbox, kind):
    content = coco_content()
    content["annotations"][0]["bbox"] = bbox
    records, faults = read(tmp_path, content)
    assert [note.kind for note in faults.notes] == [kind]
    assert "annotation 1 of 000001.jpg" in faults.notes[0].message
    assert len(records[0].labels) == (2 if "clipped" in kind else 1)
    with pytest.raises(DatasetError, match=r"annotation 1 .*data\.strict"):
        read(tmp_path, content, strict=True)


def test_rounding_is_no_fault(tmp_path):
    content = coco_content()
    content["annotations"][0]["bbox"] = [10.5, 5, 49.51, 20]
    records, faults = read(tmp_path, content, strict=True)
    assert records[0].boxes[0].tolist() == [10.5, 5, 60, 25] and not faults.notes


def test_subset_of_the_categories(tmp_path):
    records, faults = read(tmp_path, classes=("dog",), strict=True)
    assert [record.labels.tolist() for record in records] == [[0], [0], [], []]
    assert faults.left_out == {"cat": 3} and faults.names == {"cat", "dog"}


def test_class_that_is_no_category(tmp_path):
    _, faults = read(tmp_path, classes=("cat", "dogg"))
    assert "did you mean 'dog'" in faults.notes[0].message
    with pytest.raises(DatasetError, match="none of data.classes"):
        read(tmp_path, classes=("zebra",))


def change(key, index, name, value):
    def apply(content):
        content[key][index][name] = value

    return apply


def remove(key, index=None, name=None):
    def apply(content):
        if index is None:
            del content[key]
        else:
            del content[key][index][name]

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change("images", 1, "id", 1), "1 image ids more than once; the first: 1"),
        (change("annotations", 0, "image_id", 99), "1 annotations refer to none of its images; the first: annotation 1"),
        (change("annotations", 0, "category_id", 7), "1 annotations refer to none of its categories.*category_id 7"),
        (change("images", 0, "file_name", "none.jpg"), r"does not exist: .*none\.jpg"),
        (remove("annotations"), "no list 'annotations'"),
        (remove("categories"), "no list 'categories'"),
        (remove("images", 2, "id"), r"images\[2\] has no 'id'"),
        (remove("images", 0, "file_name"), r"images\[0\] has no 'file_name'"),
        (remove("annotations", 1, "image_id"), r"annotations\[1\] has no 'image_id'"),
        (remove("categories", 0, "name"), r"categories\[0\] has no 'name'"),
        (change("images", 0, "id", [1]), r"images\[0\]: 'id' must be a whole number or text, found \[1\]"),
        (change("images", 0, "file_name", 7), r"images\[0\]: 'file_name' must be text, found 7"),
    ],
)
def test_refused(tmp_path, spoil, message):
    content = coco_content()
    spoil(content)
    with pytest.raises(DatasetError, match=rf"instances\.json.*{message}"):
        read(tmp_path, content)


@pytest.mark.parametrize("text", ["", "[]", '"x"', json.dumps(coco_content())[:-40]])
def test_other_files(tmp_path, text):
    write_coco(tmp_path).write_text(text)
    with pytest.raises(DatasetError, match=r"instances\.json"):
        read_coco(coco_source(tmp_path), tmp_path, ClassMap.to(CLASSES), Faults())


def test_missing_file_or_folder(tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read .*instances\.json: No such file"):
        read_coco(coco_source(tmp_path), tmp_path, ClassMap.to(CLASSES), Faults())
    (tmp_path / "instances.json").write_text(json.dumps(coco_content()))
    with pytest.raises(DatasetError, match="cannot list the folder .*images: No such file"):
        read_coco(coco_source(tmp_path), tmp_path, ClassMap.to(CLASSES), Faults())


def test_images_in_subfolders(tmp_path):
    content = coco_content()
    write_coco(tmp_path)
    (tmp_path / "images/deep").mkdir()
    (tmp_path / "images/000001.jpg").rename(tmp_path / "images/deep/1.jpg")
    content["images"][0]["file_name"] = "deep/1.jpg"
    (tmp_path / "instances.json").write_text(json.dumps(content))
    assert read_coco(coco_source(tmp_path), tmp_path, ClassMap.to(CLASSES), Faults())[0].file.name == "1.jpg"


def test_paths_as_other_programs_write_them(tmp_path):
    content = coco_content()
    for number, name in enumerate(["C:\\x\\images\\000001.JPG", "images/000002.jpg", "000003.jpg", "000004.jpg"]):
        content["images"][number]["file_name"] = name
    records, faults = read(tmp_path, content)
    assert [record.file for record in records] == [tmp_path / f"images/00000{number}.jpg" for number in range(1, 5)]
    assert any(re.search(r"instances.json: 2 images are in another place than is named", line) for line in faults.information)


@pytest.mark.parametrize(("split", "num_empty"), [("train", 2), ("val", 0)])
def test_real_boxes_equal_pycocotools(real_data, capsys, split, num_empty):
    root = real_data / "coco_mini"
    source = CocoSource(format="coco", root=root, annotations=f"annotations/instances_{split}2017.json", images=f"{split}2017")
    dataset = load_dataset([source], "coco")
    reference = COCO(str(root / source.annotations))
    names = {category["id"]: category["name"] for category in reference.dataset["categories"]}
    assert [record.image_id for record in dataset.records] == list(reference.imgs)
    assert sum(len(record.labels) == 0 for record in dataset.records) == num_empty
    for record in dataset.records:
        found = reference.imgToAnns[record.image_id]
        xywh = torch.tensor([item["bbox"] for item in found]).reshape(-1, 4)
        torch.testing.assert_close(record.boxes, torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1))
        assert [dataset.class_names[label] for label in record.labels] == [names[item["category_id"]] for item in found]
        torch.testing.assert_close(record.areas, torch.tensor([item["area"] for item in found], dtype=torch.float32))
