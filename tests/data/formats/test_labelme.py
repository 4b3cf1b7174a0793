"""labelme: every shape's box by hand, where the files may lie, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from detection.config import FolderSource
from detection.data.catalog import load_dataset
from detection.data.formats.labelme import find
from detection.data.formats.listing import list_folder
from detection.errors import DatasetError
from tests.data.formats.folders import TRAIN, VAL, expect_pictures, labelme, read, write_images, write_labelme, write_text
from tests.data.pictures import PICTURES

EMPTY = PICTURES[2]  # 64 x 48


@pytest.mark.parametrize(
    ("images", "labels", "prefix"),
    [("", "", ""), ("images", "json", "../images/"), ("images", "json", "..\\images\\"), ("a/b", "c", "D:\\pets\\a\\b\\")],
)
def test_every_layout_means_the_same(tmp_path: Path, images: str, labels: str, prefix: str) -> None:
    write_labelme(tmp_path / images, tmp_path / labels, prefix=prefix)
    records, faults = read(tmp_path, "labelme")
    expect_pictures(records)
    assert not faults.notes
    assert find(list_folder(tmp_path)) == [FolderSource(format="labelme", root=tmp_path)]


def test_a_folder_for_each_split(tmp_path: Path) -> None:
    write_labelme(tmp_path / "train", tmp_path / "train", TRAIN)
    write_labelme(tmp_path / "test", tmp_path / "test", VAL)
    expect_pictures(read(tmp_path, "labelme", split="train")[0], TRAIN)
    assert [source.split for source in find(list_folder(tmp_path))] == ["test", "train"]
    with pytest.raises(DatasetError, match="split 'val' of .* holds no JSON files of labelme"):
        read(tmp_path, "labelme", split="val")


def test_folders_with_images_of_the_same_names_are_joined(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_labelme(tmp_path / folder, tmp_path / folder)
    sources = [FolderSource(format="labelme", root=tmp_path / folder) for folder in ("a", "b")]
    records = load_dataset(sources, ["cat", "dog"]).records
    assert [record.image_id for record in records[3:5]] == ["000004.jpg", f"{tmp_path.as_posix()}/b/000001.jpg"]
    with pytest.raises(DatasetError, match="image id '000001.jpg' occurs twice"):
        load_dataset(sources[:1] * 2, ["cat", "dog"])


def one(root: Path, shapes: list[Any], **keys: Any) -> tuple[list[list[float]], list[str], list[str]]:
    """The boxes of a 64 x 48 image with these shapes, the kinds of its faults, and what is told."""
    write_images(root, [EMPTY])
    write_text(root / "000003.json", json.dumps(labelme(EMPTY, shapes=shapes, **keys)))
    records, faults = read(root, "labelme")
    return records[0].boxes.tolist(), [note.kind for note in faults.notes], faults.information


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ({"shape_type": "rectangle", "points": [[30, 20], [10, 5]]}, [10, 5, 30, 20]),
        ({"shape_type": "rectangle", "points": [[10, 5], [30, 5], [30, 20], [10, 20]]}, [10, 5, 30, 20]),
        ({"shape_type": "polygon", "points": [[10, 12], [20, 5], [30, 20]]}, [10, 5, 30, 20]),
        ({"points": [[10, 12], [20, 5], [30, 20]]}, [10, 5, 30, 20]),
        ({"shape_type": "circle", "points": [[20, 20], [23, 24]]}, [15, 15, 25, 25]),
        ({"shape_type": "mask", "points": [[10, 5], [29, 19]], "mask": "iVBOR"}, [10, 5, 30, 20]),
        ({"shape_type": "rotation", "points": [[20, 5], [30, 12], [20, 20], [10, 12]]}, [10, 5, 30, 20]),
    ],
)
def test_the_box_of_each_shape(tmp_path: Path, shape: dict[str, Any], box: list[float]) -> None:
    assert one(tmp_path, [{"label": "cat"} | shape]) == ([box], [], [])


@pytest.mark.parametrize("kind", ["point", "points", "line", "linestrip"])
def test_shapes_without_an_extent_are_left_out_with_a_count(tmp_path: Path, kind: str) -> None:
    boxes, kinds, told = one(tmp_path, [{"label": "cat", "shape_type": kind, "points": [[1, 1], [9, 9]]}] * 2)
    assert not boxes and not kinds and any(f"2 shapes without an extent are left out: {kind} (2)" in each for each in told)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ({"shape_type": "polygon", "points": [[1, 1], [9, 9]]}, "shape without its numbers, dropped"),
        ({"shape_type": "rectangle", "points": [[1, 1], [9, "x"]]}, "shape without its numbers, dropped"),
        ({"shape_type": "rectangle", "points": [[1, 1], 9]}, "shape without its numbers, dropped"),
        ({"shape_type": "rectangle", "points": None}, "shape without its numbers, dropped"),
        ({"shape_type": "star", "points": [[1, 1], [9, 9], [5, 5]]}, "shape without its numbers, dropped"),
        ({"shape_type": ["x"], "points": [[1, 1], [9, 9], [5, 5]]}, "shape without its numbers, dropped"),
        ({"shape_type": "rectangle", "points": [[1, 1], [9, 9]], "label": None}, "object without a class, dropped"),
        ({"shape_type": "rectangle", "points": [[1, 1], [1, 9]]}, "box without area, dropped"),
        ({"shape_type": "rectangle", "points": [[-5, 1], [9, 9]]}, "box reaching out of the image, clipped"),
    ],
)
def test_faulty_shapes(tmp_path: Path, shape: dict[str, Any], kind: str) -> None:
    assert one(tmp_path, [{"label": "cat"} | shape])[1] == [kind]


def test_shapes_of_one_group_are_one_object(tmp_path: Path) -> None:
    parts = [
        ("cat", 1, [[1, 2], [9, 9]]),
        ("cat", 1, [[20, 5], [30, 8]]),
        ("dog", 1, [[1, 1], [5, 5]]),
        ("cat", None, [[3, 3], [6, 6]]),
    ]
    shapes = [{"label": name, "group_id": group, "shape_type": "rectangle", "points": points} for name, group, points in parts]
    found, _, told = one(tmp_path, shapes)
    assert found == [[1, 2, 30, 9], [1, 1, 5, 5], [3, 3, 6, 6]]
    assert any("1 shapes are parts of others of the same label and group" in each for each in told)


def test_the_image_in_the_file_is_passed_over(tmp_path: Path) -> None:
    shape = {"label": "cat", "shape_type": "rectangle", "points": [[10, 5], [30, 20]]}
    assert one(tmp_path, [shape], imageData="iVBORw0KGgo" * 10**5)[0] == [[10, 5, 30, 20]]
    (tmp_path / "000003.jpg").unlink()
    with pytest.raises(DatasetError, match=r"'000003.jpg' in .*, where no image is; its pixels are in the file.*skip would"):
        read(tmp_path, "labelme")


def test_a_size_is_not_needed_but_must_fit(tmp_path: Path) -> None:
    shape = {"label": "cat", "shape_type": "rectangle", "points": [[10, 5], [30, 20]]}
    assert one(tmp_path, [shape], imageHeight=None)[0] == [[10, 5, 30, 20]]
    with pytest.raises(DatasetError, match=r"000003.jpg is 64x48, but .*000003.json says 32x24: its boxes cannot fit"):
        one(tmp_path, [shape], imageHeight=24, imageWidth=32)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_every_encoding_of_json(tmp_path: Path, encoding: str) -> None:
    write_images(tmp_path, [PICTURES[1]])
    content = labelme(PICTURES[1])
    content["shapes"][0]["label"] = "犬"
    (tmp_path / "000002.json").write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    assert read(tmp_path, "labelme", classes=["犬"])[0][0].labels.tolist() == [0]


def test_other_files_are_told_or_refused(tmp_path: Path) -> None:
    write_labelme(tmp_path, tmp_path)
    write_text(tmp_path / "settings.json", '{"colour": "red"}')
    assert any("1 JSON files are not labelme's, e.g. " in each for each in read(tmp_path, "labelme")[1].information)
    write_text(tmp_path / "000002.json", json.dumps(labelme(PICTURES[1], shapes=[7])))
    with pytest.raises(DatasetError, match=r"000002.json, shape 1 must be an object, found 7"):
        read(tmp_path, "labelme")
    write_text(tmp_path / "000002.json", '{"shapes": [')
    with pytest.raises(DatasetError, match=r"000002.json is not valid JSON"):
        read(tmp_path, "labelme")
    for file in tmp_path.glob("0*.json"):
        file.unlink()
    with pytest.raises(DatasetError, match="holds no JSON files of labelme"):
        read(tmp_path, "labelme")
