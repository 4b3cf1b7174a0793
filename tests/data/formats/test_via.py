"""VIA: shapes of all kinds, and which attribute is the class."""

import math

import pytest

from detection.errors import DatasetError
from tests.data.formats.exports import PLAIN, dump, write_images
from tests.data.formats.reading import read


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


RECT = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}


def write_regions(folder, regions, file="via_region_data.json"):
    write_images(folder, PLAIN[:1])
    image = {"filename": "000001.jpg", "size": 1234, "regions": regions, "file_attributes": {}}
    dump(folder / file, {"000001.jpg1234": image})


def test_shapes_of_all_kinds(tmp_path):
    shapes = [
        RECT,
        {"name": "circle", "cx": 10, "cy": 20, "r": 5},
        {"name": "ellipse", "cx": 10, "cy": 20, "rx": 5, "ry": 2},
        {"name": "ellipse", "cx": 10, "cy": 20, "rx": 5, "ry": 2, "theta": math.pi / 2},
        {"name": "polygon", "all_points_x": [1, 5, 3], "all_points_y": [2, 1, 9]},
        {"name": "polyline", "all_points_x": [1, 5, 3, 1], "all_points_y": [2, 1, 9, 2]},
        {"name": "point", "cx": 10, "cy": 20},
        {"name": "rect", "x": 1, "y": 2, "width": None, "height": 4},
    ]
    write_regions(tmp_path, [region(shape, kind="cat") for shape in shapes])
    objects, faults = read(tmp_path, "via")
    assert objects == {
        "000001.jpg": [
            ("cat", (1, 2, 4, 6)),
            ("cat", (5, 15, 15, 25)),
            ("cat", (5, 18, 15, 22)),
            ("cat", (8, 15, 12, 25)),
            ("cat", (1, 1, 5, 9)),
            ("cat", (1, 1, 5, 9)),
        ]
    }
    assert faults.information == [
        f"{tmp_path}: the attribute 'kind' of the regions is taken for their class",
        f"{tmp_path}: 1 shapes without an extent are left out: point (1)",
    ]
    assert list(faults.by_kind()) == ["region without its numbers, dropped"]


def test_regions_without_attributes_are_of_one_class(tmp_path):
    write_regions(tmp_path, {"0": region(RECT)})
    objects, faults = read(tmp_path, "via")
    assert objects == {"000001.jpg": [("object", (1, 2, 4, 6))]}
    assert faults.information == [f"{tmp_path}: the regions have no attributes: all are of one class, 'object'"]


def test_of_several_attributes_the_class_is_asked_for(tmp_path):
    write_regions(tmp_path, [region(RECT, name="Socrates", type="human"), region(RECT, name="Hemlock", type="cup")])
    with pytest.raises(DatasetError, match=r"set label_key .*'name': 'Socrates', 'Hemlock'; 'type': 'human', 'cup'"):
        read(tmp_path, "via")
    objects, _ = read(tmp_path, "via", label_key="type")
    assert [name for name, _ in objects["000001.jpg"]] == ["human", "cup"]
    with pytest.raises(DatasetError, match=r"no region of .* 'kind' \(label_key\); there are: 'name', 'type'"):
        read(tmp_path, "via", label_key="kind")


def test_values_that_are_no_text(tmp_path):
    values = [{"cat": True}, {"cat": True, "dog": False}, 7, {}, "", {"cat": True, "dog": True}]
    write_regions(tmp_path, [region(RECT, kind=value) for value in values] + [region(RECT)])
    objects, faults = read(tmp_path, "via")
    assert [name for name, _ in objects["000001.jpg"]] == ["cat", "cat", "7"]
    assert {kind: len(notes) for kind, notes in faults.by_kind().items()} == {
        "object without a class, dropped": 3,
        "class name that cannot be shown, dropped": 1,
    }


def test_makesense_writes_the_same(tmp_path):
    write_regions(tmp_path, {"0": region(RECT, label="cat")}, "labels_pets_vgg.json")
    assert read(tmp_path, "makesense")[0] == {"000001.jpg": [("cat", (1, 2, 4, 6))]}


def test_faulty_tables(tmp_path):
    header = "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
    for row, message in {
        "a.jpg,1\n": "line 2 has 2 columns, and its header has 7",
        ",1,{},1,0,{},{}\n": "line 2 names no image",
        "a.jpg,1,{},1,0,{x},{}\n": r"line 2: '\{x\}' is not valid JSON",
        "a.jpg,1,{},1,0,[1],{}\n": r"line 2: '\[1\]' must be an object",
    }.items():
        (tmp_path / "via.csv").write_text(header + row)
        with pytest.raises(DatasetError, match=message):
            read(tmp_path, "via")
