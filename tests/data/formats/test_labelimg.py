"""labelImg's XML and CreateML's JSON: where the files may lie, which image each belongs to, and VOC's rules for boxes."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from detection.config import DataConfig, FolderSource
from detection.data.catalog import load_split
from detection.data.faults import Faults
from detection.data.formats.labelimg import find
from detection.data.formats.listing import list_folder
from detection.data.formats.readers import read_folder
from detection.data.formats.recognise import recognise
from detection.errors import DatasetError
from tests.data.formats.folders import TRAIN, VAL, expect_pictures, read, write_images, write_text
from tests.data.pictures import CLASSES, PICTURES, Picture, voc_xml, write_devkit


def write_xml(labels: Path, pictures: Sequence[Picture] = PICTURES, filename: str = "{}.jpg", path: str = "") -> None:
    """The annotation of each picture, as labelImg writes them."""
    for picture in pictures:
        tags = (
            f"<folder>pets</folder><filename>{filename.format(picture.stem)}</filename><path>{path.format(picture.stem)}</path>"
        )
        text = voc_xml(picture).replace(f"<filename>{picture.stem}.jpg</filename>", tags)
        write_text(labels / f"{picture.stem}.xml", text)


def flat(root: Path) -> None:
    write_images(root)
    write_xml(root)


def neighbours(root: Path) -> None:
    """Two folders side by side, and paths of another machine."""
    write_images(root / "images")
    write_xml(root / "annotations", path="C:\\Users\\x\\images\\{}.jpg")


def voc_without_lists(root: Path) -> None:
    devkit = write_devkit(root)
    for name in ("Annotations", "JPEGImages"):
        (devkit / name).rename(root / name)
    (devkit / "ImageSets/Main/trainval.txt").unlink()


def nested(root: Path) -> None:
    write_images(root / "a/b", TRAIN)
    write_xml(root / "a/b/xml", TRAIN)
    write_images(root / "c", VAL)
    write_xml(root / "c", VAL)


def other_case(root: Path) -> None:
    write_images(root)
    write_xml(root, filename="{}.JPG")


def stem_alone(root: Path) -> None:
    write_images(root / "images")
    write_xml(root / "xml", filename="{}")


def no_name(root: Path) -> None:
    write_images(root / "images")
    write_xml(root / "xml", filename="", path="/home/bob/images/{}.jpg")


@pytest.mark.parametrize("write", [flat, neighbours, voc_without_lists, nested, other_case, stem_alone, no_name])
def test_every_layout_means_the_same(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    records, faults = read(tmp_path, "labelimg")
    expect_pictures(records)
    assert [record.difficult.tolist() for record in records] == [[False] * 2, [False], [], [True, False]]
    assert not faults.notes and len(faults.information) == (write in (other_case, stem_alone, no_name))
    assert find(list_folder(tmp_path)) == [FolderSource(format="labelimg", root=tmp_path)]


def test_a_folder_for_each_split_as_roboflow_exports_them(tmp_path: Path) -> None:
    for folder, pictures in (("train", TRAIN), ("valid", VAL)):
        write_images(tmp_path / folder, pictures)
        write_xml(tmp_path / folder, pictures, path="{}.jpg")
    expect_pictures(read(tmp_path, "labelimg", split="train")[0], TRAIN)
    expect_pictures(read(tmp_path, "labelimg", split="val")[0], VAL)
    expect_pictures(read(tmp_path, "labelimg")[0])
    assert [source.split for source in find(list_folder(tmp_path))] == ["train", "val"]
    with pytest.raises(DatasetError, match=r"split 'test' of .* holds no XML files of annotations \(labelImg, Pascal VOC\)"):
        read(tmp_path, "labelimg", split="test")


def test_splits_with_images_of_the_same_names(tmp_path: Path) -> None:
    for folder in ("train", "val"):
        write_images(tmp_path / folder / "images")
        write_xml(tmp_path / folder / "xml")
    records, _ = read(tmp_path, "labelimg")
    assert len({record.image_id for record in records}) == 8
    assert {record.file.parts[-3] for record in read(tmp_path, "labelimg", split="val")[0]} == {"val"}


def test_a_faulty_box_is_of_its_image(tmp_path: Path) -> None:
    flat(tmp_path)
    for picture in PICTURES[:2]:
        file = tmp_path / f"{picture.stem}.xml"
        write_text(file, re.sub("<xmin>.*?</xmin>", "<xmin>5000</xmin>", file.read_text(encoding="utf-8"), count=1))
    _, faults = read(tmp_path, "labelimg")
    assert [note.kind for note in faults.notes] == ["inverted box, dropped"] * 2
    assert [note.image for note in faults.notes] == [tmp_path / f"{picture.stem}.jpg" for picture in PICTURES[:2]]
    assert all(note.box is not None and note.box[0] == 4999 for note in faults.notes)


def test_folders_may_be_told(tmp_path: Path) -> None:
    write_images(tmp_path / "one")
    write_images(tmp_path / "two")
    write_xml(tmp_path / "xml")
    records, _ = read(tmp_path, "labelimg", images="two", annotations="xml")
    assert {record.file.parent for record in records} == {tmp_path / "two"}
    with pytest.raises(DatasetError, match="'000001.jpg' may be any of 2 images"):
        read(tmp_path, "labelimg")


def test_voc_with_lists_is_vocs(tmp_path: Path) -> None:
    write_devkit(tmp_path)
    assert find(list_folder(tmp_path)) == []


def test_files_that_were_renamed_keep_their_labels(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_xml(tmp_path, filename="IMG_{}.jpg", path="/old/IMG_{}.jpg")
    records, faults = read(tmp_path, "labelimg")
    expect_pictures(records)
    assert "4 label files name another image than the one that is called as they are" in faults.information[0]


def test_label_files_of_other_names_are_those_of_the_images_that_they_name(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_xml(tmp_path)
    for number, picture in enumerate(PICTURES):
        (tmp_path / f"{picture.stem}.xml").rename(tmp_path / f"label{number}.xml")
    expect_pictures(read(tmp_path, "labelimg")[0])


def test_boxes_are_vocs(tmp_path: Path) -> None:
    write_images(tmp_path, PICTURES[:1])
    boxes = [("cat", 1, 1, 60, 40), ("dog", 5, 5, 70, 9), ("cat", 9, 9, 3, 20), ("", 1, 1, 9, 9), ("cat", "x", 1, 2, 3)]
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax>"
        f"</bndbox></object>"
        for name, *box in boxes
    )
    write_text(tmp_path / "000001.xml", f"<annotation><filename>000001.jpg</filename>{objects}</annotation>")
    records, faults = read(tmp_path, "labelimg")
    assert records[0].boxes.tolist() == [[0, 0, 60, 40], [4, 4, 60, 9]]
    assert [note.kind for note in faults.notes] == [
        "inverted box, dropped",
        "object without <name>, dropped",
        "text for a number, dropped",
        "box reaching out of the image, clipped",
    ]


def test_what_is_missing_or_left_over(tmp_path: Path) -> None:
    flat(tmp_path)
    (tmp_path / "000001.xml").unlink()
    write_text(tmp_path / "other.xml", "<settings/>")
    records, faults = read(tmp_path, "labelimg")
    assert len(records) == 3
    assert any("1 XML files are no annotations of an image" in each for each in faults.information)
    assert any("1 images have no label file, and are left out" in each for each in faults.information)
    (tmp_path / "000002.jpg").unlink()
    with pytest.raises(DatasetError, match=r"2.xml lists an image that does not exist: '000002.jpg' in .*; 3 images are"):
        read(tmp_path, "labelimg")
    config = DataConfig(classes=CLASSES, train=(FolderSource(format="labelimg", root=tmp_path),), on_missing_image="skip")
    assert len(load_split(config, "train").records) == 2
    write_text(tmp_path / "000002.xml", "<annotation>")
    with pytest.raises(DatasetError, match=r"000002.xml is not well-formed XML"):
        read(tmp_path, "labelimg")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_declared_encodings(tmp_path: Path, encoding: str) -> None:
    write_images(tmp_path, PICTURES[1:2])
    text = voc_xml(PICTURES[1]).replace(">dog<", ">épagneul<")
    (tmp_path / "000002.xml").write_bytes(
        f'<?xml version="1.0" encoding="{encoding}"?>{text}'.replace("-sig", "").encode(encoding)
    )
    assert read(tmp_path, "labelimg", classes=["épagneul"])[0][0].labels.tolist() == [0]


def createml(pictures: Sequence[Picture]) -> list[dict[str, object]]:
    return [
        {
            "image": f"{picture.stem}.jpg",
            "annotations": [
                {
                    "label": thing.name,
                    "coordinates": {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1},
                }
                for thing in picture.things
                for x1, y1, x2, y2 in [thing.box]
            ],
        }
        for picture in pictures
    ]


def test_createml(tmp_path: Path) -> None:
    for folder, pictures in (("train", TRAIN), ("valid", VAL)):
        write_images(tmp_path / folder, pictures)
        write_text(tmp_path / folder / "_annotations.createml.json", json.dumps(createml(pictures)))
    expect_pictures(read(tmp_path, "labelimg")[0])
    expect_pictures(read(tmp_path, "labelimg", split="val")[0], VAL)
    assert [source.split for source in find(list_folder(tmp_path))] == ["train", "val"]


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        ({"coordinates": {"x": 9, "y": 9, "width": 4, "height": 4}}, "object without a class, dropped"),
        ({"label": "cat", "coordinates": {"x": 9, "y": 9, "width": 4}}, "object without the four numbers of a box, dropped"),
        ({"label": "cat", "coordinates": [1, 2, 3, 4]}, "object without the four numbers of a box, dropped"),
    ],
)
def test_faulty_objects_of_createml(tmp_path: Path, annotation: dict[str, object], kind: str) -> None:
    write_images(tmp_path, PICTURES[:1])
    content = createml(PICTURES[:1])
    content[0]["annotations"] = [*content[0]["annotations"], annotation]  # type: ignore[misc]
    write_text(tmp_path / "a.json", json.dumps(content))
    records, faults = read(tmp_path, "labelimg")
    assert len(records[0].boxes) == 2 and [note.kind for note in faults.notes] == [kind]


def test_whose_labels_they_are_is_said(tmp_path: Path) -> None:
    for folder in ("a", "b", "json"):
        write_images(tmp_path / folder)
    write_text(tmp_path / "json/_annotations.createml.json", json.dumps(createml(PICTURES)))
    assert "is read as CreateML's JSON" in recognise(tmp_path / "json").sentence
    name = PICTURES[0].stem
    write_text(tmp_path / "labels" / f"{name}.xml", voc_xml(PICTURES[0]))
    with pytest.raises(DatasetError, match=rf"labels/{name}\.xml: .* may be any of 3 images"):
        read_folder(FolderSource(format="labelimg", root=tmp_path), tmp_path, Faults())


def test_boxes_that_are_dropped_know_their_image(tmp_path: Path) -> None:
    """So that check-dataset can draw them."""
    write_images(tmp_path)
    for picture in PICTURES[:2]:
        write_text(tmp_path / f"{picture.stem}.xml", voc_xml(picture))
    file = tmp_path / f"{PICTURES[0].stem}.xml"
    slipped = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>5</xmax><ymax>9</ymax></bndbox>"
    added = f"<object><name>cat</name>{slipped}</object></annotation>"
    write_text(file, file.read_text().replace("</annotation>", added))
    faults = Faults()
    images = read_folder(FolderSource(format="labelimg", root=tmp_path), tmp_path, faults)
    (note,) = faults.notes
    assert note.kind == "box without area, dropped" and note.box == (4, 4, 5, 9) and note.image == images[0].file
