"""COCO's files by one set of rules: training, `check-dataset` and evaluation say the same of each hostile value."""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backbones.errors import shorten
from detection.config import Config
from detection.data.catalog import load_split
from detection.data.check import check_data
from detection.data.classes import ClassMap
from detection.data.coco import read_coco
from detection.data.coco_format import CocoAnnotation, other_kind, read_id, read_object
from detection.data.faults import Faults
from detection.errors import DatasetError
from detection.evaluation.coco import evaluate_coco_results
from detection.evaluation.coco_files import read_annotations
from detection.evaluation.split import coco_ground_truth, load_evaluation_split
from tests.data.pictures import CLASSES, coco_content, coco_source, write_coco

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 1.0, -0.0, 1.5, 2.0**53, 1e300, 2**63, -(2**63) - 1),
    *(math.nan, math.inf, 10**400, -(10**4999)),
    *("", " ", "0", "1", "1e0", "1_0", "\u0661", "true", "x", "a\0b", "a\nb", "x" * 5000),
    *([], [1], {}, {"a": 1}),
]
KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd"),
    "categories": ("id", "name"),
}


@contextmanager
def long_numbers() -> Iterator[None]:
    """Whole numbers of more than 4300 digits can be written inside."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(limit)


def write(folder: Path, content: object) -> None:
    with long_numbers():
        (folder / "instances.json").write_text(json.dumps(content))


def config_of(folder: Path) -> Config:
    source = {"format": "coco", "root": str(folder), "annotations": "instances.json", "images": "images"}
    return Config.model_validate({"data": {"classes": list(CLASSES), "workers": 0, "val": [source]}})


def train(folder: Path) -> None:
    config = config_of(folder)
    load_split(config.data, "val")


def check(folder: Path) -> None:
    (split,) = check_data(config_of(folder).data)
    if split.faults.errors:
        raise DatasetError(split.faults.errors[0])


def evaluate_split(folder: Path) -> None:
    split = load_evaluation_split(config_of(folder))
    evaluate_coco_results(coco_ground_truth(split), [], split.class_names)


def evaluate_file(folder: Path) -> None:
    evaluate_coco_results(read_annotations(folder / "instances.json"), [])


def refusal(step: Any, folder: Path) -> str | None:
    """The one line with which a step refuses the file; None where it takes it. Anything else than DatasetError is a bug."""
    try:
        step(folder)
    except DatasetError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("listed", "key"), [(listed, key) for listed, keys in KEYS.items() for key in keys])
def test_all_steps_say_the_same_of_each_value(tmp_path: Path, listed: str, key: str):
    write_coco(tmp_path)
    values = [*VALUES, *([value, 2, 3, 4] for value in VALUES)] if key == "bbox" else VALUES
    for value in values:
        content = coco_content()
        content[listed][0][key] = value
        write(tmp_path, content)
        said = {step.__name__: refusal(step, tmp_path) for step in (train, check, evaluate_split, evaluate_file)}
        assert (said["train"] is None) == (said["evaluate_split"] is None), (shorten(value), said)
        # The check also decodes the images, and sees a size that is none of theirs.
        assert said["check"] is not None or not any(said.values()), (shorten(value), said)
        assert said["train"] is not None or said["evaluate_file"] is None, (shorten(value), said)
        assert all("\n" not in line and len(line) < 600 for line in said.values() if line), said


@pytest.mark.parametrize(
    ("value", "read"),
    [(7, 7), (-3, -3), (2**70, 2**70), (1.0, 1), (-0.0, 0), ("1", "1"), ("", ""), (True, None), (None, None), (1.5, None)]
    + [(math.nan, None), (math.inf, None), (2.0**60, None), ([1], None), ({}, None)],
)
def test_ids_are_whole_numbers_or_texts(value: Any, read: int | str | None):
    assert read_id(value) == read and type(read_id(value)) is type(read)


def test_an_id_of_the_other_kind_is_pointed_at():
    assert other_kind("1", {1}) == "; it is the number 1 there: write both alike"
    assert other_kind(1, {"1"}) == "; it is the text '1' there: write both alike"
    assert other_kind("2", {1}) == other_kind(2, {"1"}) == other_kind("x", {1}) == other_kind("\u00b2", {2}) == ""


def read_one(**fields: Any) -> tuple[Any, list[str]]:
    faults = Faults()
    entry = {"bbox": [1, 2, 3, 4], **fields}
    found = read_object(CocoAnnotation(0, 1, 1, 1, entry), "b.jpg", Path("a.json"), faults)
    return found, [note.message for note in faults.notes]


@pytest.mark.parametrize(("value", "crowd"), [(0, False), (1, True), (True, True), (False, False), (1.0, True), (None, False)])
def test_iscrowd(value: Any, crowd: bool):
    found, notes = read_one(iscrowd=value)
    assert found.crowd is crowd and notes == []


def test_iscrowd_as_text_is_its_number_and_never_simply_true():
    for text, crowd in (("0", False), ("1", True)):
        found, notes = read_one(iscrowd=text)
        assert found.crowd is crowd
        assert notes == [f"a.json: annotation 1 of b.jpg: iscrowd '{text}': text for a number, taken as that number"]
    others: list[Any] = ["true", "", 2, -1, math.nan, 10**400, [], {}]
    for value in others:
        with pytest.raises(DatasetError, match="a.json: annotation 1 of b.jpg: 'iscrowd' must be 0 or 1, found"):
            read_one(iscrowd=value)


@pytest.mark.parametrize("value", ["12", math.nan, math.inf, -1, 10**400, 1e19, True, [5]])
def test_an_area_that_is_none_is_the_boxs_own_and_said(value: Any):
    found, notes = read_one(area=value)
    assert found.area == 12 and len(notes) == 1 and "area that is no number from 0 on, taken from the box" in notes[0]


@pytest.mark.parametrize("value", [None, 0, 7, 2.5])
def test_other_areas_are_taken(value: float | None):
    found, notes = read_one(area=value)
    assert found.area == (12 if value is None else value) and notes == []


def test_a_box_beyond_all_images_is_dropped():
    found, notes = read_one(bbox=[0, 0, 1e10, 5])
    assert found is None and notes == [
        "a.json: annotation 1 of b.jpg: bbox [0, 0, 10000000000.0, 5]: bbox beyond 1e+09 px, dropped"
    ]


def read(folder: Path, content: object) -> tuple[list[Any], Faults]:
    write_coco(folder)
    write(folder, content)
    faults = Faults()
    return read_coco(coco_source(folder), folder, ClassMap.to(CLASSES), faults), faults


def test_ids_may_be_uuids_or_whole_floats(tmp_path: Path):
    content = coco_content()
    names = {1: "3f2c-a", 2: 2.0, 3: -3, 4: 2**80}
    for image in content["images"]:
        image["id"] = names[image["id"]]
    for number, annotation in enumerate(content["annotations"]):
        annotation["image_id"] = names[annotation["image_id"]]
        annotation["id"] = f"uuid-{number}"
    records, faults = read(tmp_path, content)
    assert [record.image_id for record in records] == ["3f2c-a", 2, -3, 2**80]
    assert [len(record.labels) for record in records] == [2, 1, 0, 2] and not faults.notes and not faults.information


def test_a_text_beside_a_number_is_another_id_and_the_message_says_so(tmp_path: Path):
    content = coco_content()
    content["annotations"][0]["image_id"] = "1"
    with pytest.raises(DatasetError, match=r"annotation 1 has image_id '1'; it is the number 1 there: write both alike"):
        read(tmp_path, content)


def test_a_category_id_that_is_used_twice_is_refused(tmp_path: Path):
    content = coco_content()
    content["categories"].append({"id": 3, "name": "emu"})
    with pytest.raises(DatasetError, match=r"categories: id 3 is used twice, for 'dog' and 'emu'"):
        read(tmp_path, content)


def test_categories_of_one_name_are_one_class(tmp_path: Path):
    content = coco_content()
    content["categories"].append({"id": "second", "name": "cat"})
    content["annotations"][0]["category_id"] = "second"
    records, faults = read(tmp_path, content)
    assert records[0].labels.tolist() == [0, 1]
    assert "the categories 90, 'second' have one name, 'cat': they count as one class" in faults.information[0]


def test_annotations_without_an_id_of_their_own_count(tmp_path: Path):
    content = coco_content()
    content["annotations"][0]["id"] = content["annotations"][1]["id"] = 7
    content["annotations"][2]["id"] = None
    records, faults = read(tmp_path, content)
    assert [len(record.labels) for record in records] == [2, 1, 0, 2]
    assert "1 annotations have no usable id; each counts" in faults.information[0]
    assert "1 annotation ids are used more than once, e.g. 7; each counts" in faults.information[1]


def test_one_file_under_two_ids_is_said(tmp_path: Path):
    content = coco_content()
    content["images"].append({**content["images"][0], "id": 9})
    _, faults = read(tmp_path, content)
    assert "1 image files are listed under several ids, e.g. " in faults.information[0]


@pytest.mark.parametrize("value", ["40", True, 40.5, -1, 10**400, math.nan])
def test_a_height_that_is_no_number_is_taken_from_the_image(tmp_path: Path, value: Any):
    content = coco_content()
    content["images"][0]["height"] = value
    records, faults = read(tmp_path, content)
    assert records[0].size_hw == (40, 60)
    assert [note.kind for note in faults.notes] == ["size that is not two whole numbers, taken from the image"]


def test_a_byte_order_mark_is_no_fault_anywhere(tmp_path: Path):
    write_coco(tmp_path)
    file = tmp_path / "instances.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    for step in (train, check, evaluate_split, evaluate_file):
        assert refusal(step, tmp_path) is None


def test_a_list_that_is_given_twice_is_refused(tmp_path: Path):
    write_coco(tmp_path)
    text = (tmp_path / "instances.json").read_text()
    (tmp_path / "instances.json").write_text(text[:-1] + ', "annotations": []}')
    for step in (train, check, evaluate_split, evaluate_file):
        assert "has 'annotations' twice in one object" in (refusal(step, tmp_path) or "")
    (tmp_path / "instances.json").write_text('{"info": {"images": [], "categories": {"images": 1}}, ' + text[1:])
    assert refusal(train, tmp_path) is None


def test_very_many_categories_are_read_and_compared_in_seconds(tmp_path: Path):
    content = coco_content()
    content["categories"] += [{"id": number, "name": f"class {number}"} for number in range(100, 100_100)]
    write_coco(tmp_path)
    write(tmp_path, content)
    for step in (train, evaluate_split, evaluate_file):
        assert refusal(step, tmp_path) is None
