"""Polygons of COCO, labelme and YOLO: one mask, by one set of rules, and the box around it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from detection.config import CocoSource, FolderSource, Source
from detection.data.catalog import read_sources
from detection.data.classes import ClassMap
from detection.data.faults import Faults
from detection.masks import Masks
from detection.structures import Record
from tests.data.formats.folders import write_text
from tests.there import there

SIDE = 64  # px: fractions of it are exact
SQUARE = [10.0, 20.0, 30.0, 20.0, 30.0, 50.0, 10.0, 50.0]
TRIANGLE = [0.0, 0.0, 8.0, 0.0, 0.0, 8.0]


def shape(polygon: list[float], **keys: Any) -> dict[str, Any]:
    return {"label": "cat", "shape_type": "polygon", "points": np.reshape(polygon, (-1, 2)).tolist()} | keys


def write(root: Path, polygons: list[list[float]], shapes: list[dict[str, Any]] | None = None) -> dict[str, Source]:
    """A data set in each format: an image of SIDE x SIDE with an object for each polygon."""
    for name in ("coco", "labelme", "yolo/images"):
        (root / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIDE, SIDE)).save(root / name / "a.png")
    image = {"id": 1, "file_name": "a.png", "width": SIDE, "height": SIDE}
    boxes = [(min(each[::2]), min(each[1::2]), max(each[::2]), max(each[1::2])) for each in polygons]
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": [each], "iscrowd": 0}
        for i, (each, (x1, y1, x2, y2)) in enumerate(zip(polygons, boxes, strict=True))
    ]
    coco = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    write_text(root / "coco/all.json", json.dumps(coco))
    labelme = {"shapes": [shape(each) for each in polygons] if shapes is None else shapes, "imagePath": "a.png"}
    write_text(root / "labelme/a.json", json.dumps(labelme | {"imageHeight": SIDE, "imageWidth": SIDE}))
    lines = ["0 " + " ".join(repr(value / SIDE) for value in each) for each in polygons]
    write_text(root / "yolo/labels/a.txt", "\n".join(lines))
    write_text(root / "yolo/data.yaml", "names: [cat]")
    return {
        "coco": CocoSource(format="coco", root=root / "coco", annotations=Path("all.json"), images=Path()),
        "labelme": FolderSource(format="labelme", root=root / "labelme"),
        "yolo": FolderSource(format="yolo", root=root / "yolo"),
    }


def read(source: Source, *, masks: bool = True, thorough: bool = False) -> tuple[Record, Faults]:
    faults = Faults(thorough=thorough)
    (record,) = read_sources([source], ClassMap.to(["cat"]), faults, masks=masks)
    return record, faults


def test_a_square_by_hand(tmp_path):
    for source in write(tmp_path, [SQUARE, TRIANGLE]).values():
        record, faults = read(source)
        assert record.boxes.tolist() == [[10, 20, 30, 50], [0, 0, 8, 8]] and not faults.notes
        bitmaps = there(record.masks).decode()
        assert bitmaps[0, 20:50, 10:30].all() and bitmaps[0].sum() == 20 * 30 and 28 <= bitmaps[1].sum() <= 36
        assert read(source, masks=False)[0].masks is None


polygons = st.lists(
    st.lists(st.integers(-4, 68 * 8).map(lambda value: value / 8), min_size=6, max_size=14).filter(
        lambda numbers: len(numbers) % 2 == 0
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(polygons=polygons, thorough=st.booleans())
def test_all_formats_give_the_same_records_and_faults(tmp_path, polygons, thorough):
    (coco, noted), *others = (read(source, thorough=thorough) for source in write(tmp_path, polygons).values())
    for record, faults in others:
        assert record.boxes.equal(coco.boxes) and record.masks == coco.masks
        assert [note.kind for note in faults.notes] == [note.kind for note in noted.notes]


def test_the_parts_of_an_object_are_united_and_a_part_without_a_polygon_leaves_it_without(tmp_path):
    parts = [shape(SQUARE, group_id=1), shape(TRIANGLE, group_id=1)]
    rectangle = {"label": "cat", "shape_type": "rectangle", "points": [[40, 40], [50, 60]], "group_id": 2}
    sources = write(tmp_path, [], [*parts, rectangle, shape(SQUARE, group_id=2)])
    record, _ = read(sources["labelme"])
    assert record.boxes.tolist() == [[0, 0, 30, 50], [10, 20, 50, 60]]
    united, missing = there(record.masks).decode()
    square, triangle = there(read(write(tmp_path, [SQUARE, TRIANGLE])["labelme"])[0].masks).decode()
    assert united.equal(square | triangle) and not missing.any()


@pytest.mark.parametrize("thorough", [True, False])
def test_faults_are_those_of_coco(tmp_path, thorough):
    outside = [-7.0, 20.0, 30.0, 20.0, 30.0, 50.0]
    for source in write(tmp_path, [outside]).values():
        _, faults = read(source, thorough=thorough)
        assert [note.kind for note in faults.notes] == [
            "box reaching out of the image, clipped",
            "mask reaching out of the image, clipped",
        ]
        assert "by 7 px" in faults.notes[1].message


def test_masks_turn_with_their_boxes(tmp_path):
    source = write(tmp_path, [SQUARE])["labelme"]
    assert isinstance(source, FolderSource)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "labelme/a.png", exif=exif)
    record, _ = read(source.model_copy(update={"boxes_in": "stored"}))
    assert record.boxes.tolist() == [[14, 10, 44, 30]]
    assert there(record.masks).boxes().equal(record.boxes) and there(record.masks).areas.tolist() == [600]


def test_key_points_and_boxes_are_no_polygons(tmp_path):
    source = write(tmp_path, [SQUARE])["yolo"]
    write_text(tmp_path / "yolo/data.yaml", "names: [cat]\nkpt_shape: [2, 3]")
    write_text(tmp_path / "yolo/labels/a.txt", "0 .5 .5 .5 .5 .1 .1 2 .9 .9 1\n0 .5 .5 .5 .5\n0 .5 .5 .5 .5 .9")
    record, _ = read(source)
    assert len(record.boxes) == 3 and record.masks is None


def test_an_object_without_a_polygon_beside_one(tmp_path):
    source = write(tmp_path, [SQUARE])["yolo"]
    with (tmp_path / "yolo/labels/a.txt").open("a") as file:
        file.write("\n0 .5 .5 .5 .5")
    record, _ = read(source)
    masks = there(record.masks)
    assert masks.known.tolist() == [True, False] and masks.counts[1] == Masks.empty((SIDE, SIDE))
    assert torch.equal(masks.boxes()[0], record.boxes[0])
