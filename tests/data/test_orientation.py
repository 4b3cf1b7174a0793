"""Boxes of photographs that EXIF turns: geometry against turned pixels, which frame is recognised, and what is said."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from detection.config import DataConfig
from detection.data import orientation as orientation_module
from detection.data.catalog import Dataset, load_dataset, load_split
from detection.data.classes import ClassMap
from detection.data.faults import Faults
from detection.data.images import ImageHeader, apply_orientation, read_header
from detection.data.labelled import LabelledImage, LabelledObject, to_records
from detection.data.loader import read_checked
from detection.data.orientation import turn_box
from detection.errors import DatasetError
from tests.data.pictures import Picture, Thing, coco_source, voc_source, write_coco, write_devkit

STORED = Picture(1, (40, 60), (Thing("cat", (10, 5, 30, 25)), Thing("cat", (40, 30, 60, 40))))
TURNED_BY_6 = [[15, 10, 35, 30], [0, 40, 10, 60]]  # a quarter to the right: x1 = 40 - y2, y1 = x1


def give_orientation(file: Path, orientation: int) -> None:
    """Write EXIF's tag into an image file, whose pixels stay."""
    with Image.open(file) as image:
        exif = image.getexif()
        exif[ExifTags.Base.Orientation] = orientation
        image.save(file, exif=exif, quality=95)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 12), st.integers(1, 12), st.integers(1, 8))
def test_a_turned_box_holds_the_turned_pixels(data, height, width, orientation):
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x2, y2 = data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height))
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y1:y2, x1:x2] = 1
    rows, columns = np.nonzero(apply_orientation(pixels, orientation)[..., 0])
    expected = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert turn_box((x1, y1, x2, y2), (height, width), orientation) == expected


def load_voc(root: Path, orientation: int, boxes_in: str = "auto", picture: Picture = STORED) -> Dataset:
    folder = write_devkit(root, [picture])
    give_orientation(folder / "JPEGImages/000001.jpg", orientation)
    return load_dataset([voc_source(root).model_copy(update={"boxes_in": boxes_in})], ["cat"])


def load_coco(root: Path, orientation: int, boxes_in: str = "auto", picture: Picture = STORED) -> Dataset:
    write_coco(root, [picture])
    give_orientation(root / "images/000001.jpg", orientation)
    return load_dataset([coco_source(root).model_copy(update={"boxes_in": boxes_in})], ["cat"])


def load_folder(root: Path, orientation: int, boxes_in: str = "auto", picture: Picture = STORED) -> Dataset:
    file = write_devkit(root, [picture]) / "JPEGImages/000001.jpg"
    give_orientation(file, orientation)
    objects = [LabelledObject(thing.name, thing.box, "a.json") for thing in picture.things]
    images, faults = [LabelledImage("a", file, "a.json", picture.size_hw, objects)], Faults()
    records = to_records(images, ClassMap.to(["cat"]), boxes_in, faults)  # type: ignore[arg-type]
    faults.warn()
    return Dataset(("cat",), records)


Load = Callable[..., Dataset]
READERS = pytest.mark.parametrize("load", [load_voc, load_coco, load_folder])


@READERS
@pytest.mark.parametrize("orientation", range(1, 9))
def test_told_boxes_are_where_their_pixels_are(tmp_path, load: Load, orientation):
    (record,) = load(tmp_path, orientation, "stored").records
    pixels = read_checked(str(record.file), record.size_hw).pixels
    for x1, y1, x2, y2 in record.boxes.int().tolist():
        inside = pixels[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].mean(axis=(0, 1))
        assert inside[0] > 200 and inside[1] < 100  # the patch that was drawn there
    assert record.areas.tolist() == load(tmp_path, 1).records[0].areas.tolist()


@READERS
def test_the_stored_frame_is_recognised_by_the_size_of_the_annotation(tmp_path, caplog, load: Load):
    with caplog.at_level(logging.WARNING):
        (record,) = load(tmp_path, 6).records
    assert record.size_hw == (60, 40) and record.boxes.tolist() == TURNED_BY_6
    assert "the boxes of 1 images are turned as EXIF turns their pixels, e.g. in" in caplog.text


@READERS
@pytest.mark.parametrize(("orientation", "size_hw"), [(3, (40, 60)), (5, (60, 60))])
def test_where_the_size_does_not_tell_boxes_are_displayed_which_is_said(tmp_path, caplog, load: Load, orientation, size_hw):
    with caplog.at_level(logging.WARNING):
        (record,) = load(tmp_path, orientation, picture=Picture(1, size_hw, STORED.things)).records
    assert record.boxes[0].tolist() == [10, 5, 30, 25] and record.size_hw == size_hw
    assert "1 images are turned by EXIF, and their labels give no size that tells" in caplog.text


@READERS
def test_boxes_told_to_be_displayed_stay(tmp_path, caplog, load: Load):
    displayed = load(tmp_path, 3, "displayed")
    assert displayed.records[0].boxes[0].tolist() == [10, 5, 30, 25] and not caplog.text


def test_fractions_are_of_the_frame_that_they_were_drawn_in(tmp_path):
    file = write_devkit(tmp_path, [STORED]) / "JPEGImages/000001.jpg"
    give_orientation(file, 6)
    image = LabelledImage("a", file, "a", None, [LabelledObject("cat", (1 / 6, 1 / 8, 1 / 2, 5 / 8), "a")], relative=True)
    boxes = [to_records([image], ClassMap.to(["cat"]), told, Faults())[0].boxes for told in ("stored", "auto")]
    torch.testing.assert_close(boxes[0], torch.tensor([TURNED_BY_6[0]], dtype=torch.float32))
    torch.testing.assert_close(boxes[1], torch.tensor([[40 / 6, 60 / 8, 20, 60 * 5 / 8]]))


def test_a_size_that_fits_neither_frame_is_refused(tmp_path):
    file = write_devkit(tmp_path, [STORED]) / "JPEGImages/000001.jpg"
    object_ = LabelledObject("cat", (1, 1, 9, 9), "a.json")
    for size_hw, message in [((50, 60), "is 60x40, but a.json says 60x50: its boxes cannot fit$"), ((60, 40), "swapped")]:
        with pytest.raises(DatasetError, match=message):
            to_records([LabelledImage("a", file, "a.json", size_hw, [object_])], ClassMap.to(["cat"]), "auto", Faults())


@pytest.mark.parametrize("load", [load_voc, load_coco])
def test_large_sets_are_looked_at_in_part(tmp_path, monkeypatch, load: Load):
    """Where the one that is turned is not among those that were looked at, the error names the key."""
    pictures = [Picture(number, (40, 60), STORED.things) for number in range(1, 10)]
    layout, source = (write_devkit, voc_source) if load is load_voc else (write_coco, coco_source)
    layout(tmp_path, pictures)
    give_orientation(next(tmp_path.rglob("000002.jpg")), 8)
    read: list[Path] = []

    def counted(file: Path) -> ImageHeader:
        read.append(file)
        return read_header(file)

    monkeypatch.setattr(orientation_module, "read_header", counted)
    records = {}
    for limit in (3, 5, 9):
        monkeypatch.setattr(orientation_module, "MAX_SAMPLED", limit)
        records[limit] = load_dataset([source(tmp_path)], ["cat"]).records
    assert len(read) == 3 + 5 + 9
    assert records[3][1].size_hw == (40, 60) and records[9][1].size_hw == (60, 40)
    with pytest.raises(DatasetError, match="annotated as it is stored, and EXIF turns it: set 'boxes_in: stored'"):
        read_checked(str(records[3][1].file), records[3][1].size_hw)


def test_the_stored_frame_is_refused_where_the_size_says_otherwise(tmp_path):
    folder = write_devkit(tmp_path, [Picture(1, (40, 60), STORED.things)])
    image = folder / "JPEGImages/000001.jpg"
    Image.new("RGB", (40, 60)).save(image)
    give_orientation(image, 6)
    with pytest.raises(DatasetError, match="000001.jpg: its annotation gives the size of the displayed picture, 60x40, but"):
        load_dataset([voc_source(tmp_path).model_copy(update={"boxes_in": "stored"})], ["cat"])


def test_damaged_images_are_left_to_those_who_read_them(tmp_path):
    folder = write_devkit(tmp_path)
    (folder / "JPEGImages/000001.jpg").write_bytes(b"no image")
    config = DataConfig(classes=("cat", "dog"), train=(voc_source(tmp_path),))
    assert len(load_split(config, "train")) == 4


def test_images_of_folders_that_cannot_be_read_are_left_out_where_that_is_asked_for(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    image = LabelledImage("a", tmp_path / "a.jpg", "a.json")
    with pytest.raises(DatasetError, match="not an image"):
        to_records([image], ClassMap.to(["cat"]), "auto", Faults())
    faults = Faults.of(DataConfig(on_bad_image="skip"))
    assert to_records([image], ClassMap.to(["cat"]), "auto", faults) == []
    assert [note.kind for note in faults.notes] == ["image that cannot be used, skipped"]
