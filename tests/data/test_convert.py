"""A data set of one format written in another: the same objects, and a word for whatever gets lost."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from detection.config import CocoSource, Config, DataConfig, HeldOut, Source, VocSource
from detection.data.catalog import Dataset, load_split
from detection.data.convert import convert_dataset, describe_losses, require_outside, require_splits
from detection.data.folder import config_of_folder
from detection.data.records import AnnotatedObject, make_record
from detection.errors import ConfigError, DatasetError
from tests.data.pictures import CLASSES, PICTURES, write_coco, write_devkit

TURNED = 6  # EXIF: stored on its side


def config_of(**splits: tuple[Source, ...]) -> Config:
    return Config(data=DataConfig(classes=CLASSES, **{"train": (), "val": (), "test": (), **splits}))


@pytest.fixture
def voc(tmp_path: Path) -> Config:
    write_devkit(tmp_path / "devkit")
    sources = (VocSource(format="voc", root=tmp_path / "devkit", year="2007", split="trainval"),)
    return config_of(train=sources, val=sources)


def test_there_and_back(voc, tmp_path):
    convert_dataset(voc, tmp_path / "coco", "coco")
    annotations, images = Path("annotations/instances_train.json"), Path("images/train")
    coco = (CocoSource(format="coco", root=tmp_path / "coco", annotations=annotations, images=images),)
    convert_dataset(config_of(train=coco), tmp_path / "voc", "voc", splits=["train"])
    back = (VocSource(format="voc", root=tmp_path / "voc", split="train"),)
    found, expected = load_split(config_of(train=back).data, "train"), load_split(voc.data, "train")
    for one, other in zip(found.records, expected.records, strict=True):
        assert one.image_id == other.image_id and one.labels.tolist() == other.labels.tolist()
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.difficult, other.difficult)
        assert one.file.read_bytes() == other.file.read_bytes()


def test_what_is_told(voc, tmp_path):
    done: list[tuple[int, int]] = []
    converted = convert_dataset(voc, tmp_path / "out", "yolo", report=lambda *counts: done.append(counts))
    assert done == [(number, 8) for number in range(1, 9)]
    assert converted.class_names == CLASSES and converted.num_images == {"train": 4, "val": 4}
    assert converted.num_objects["val"] == {"cat": 3, "dog": 2}
    assert converted.notes == ("2 difficult objects are written as ordinary ones: YOLO has no such flag",)


def test_classes_are_renamed_and_dropped_as_in_training(voc, tmp_path):
    data = voc.data.model_copy(update={"classes": ("tiger",), "rename": {"cat": "tiger"}, "drop": ("dog",)})
    converted = convert_dataset(Config(data=data), tmp_path / "out", "voc", splits=["train"])
    assert converted.num_objects == {"train": {"tiger": 3}} and converted.num_images == {"train": 4}
    assert "<name>tiger</name>" in (tmp_path / "out/Annotations/000001.xml").read_text()


def test_coco_keeps_its_image_ids(tmp_path):
    write_coco(tmp_path)
    source = CocoSource(format="coco", root=tmp_path, annotations=Path("instances.json"), images=Path("images"))
    convert_dataset(config_of(train=(source,)), tmp_path.with_name(tmp_path.name + "_out"), "coco")
    out = tmp_path.with_name(tmp_path.name + "_out")
    written = source.model_copy(
        update={"root": out, "annotations": Path("annotations/instances_train.json"), "images": Path("images/train")}
    )
    ids = [record.image_id for record in load_split(config_of(train=(written,)).data, "train").records]
    assert ids == [record.image_id for record in load_split(config_of(train=(source,)).data, "train").records]


def losses(format, tmp_path, *objects, orientation=1, splits=("train", "val")):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    size_hw = (40, 30) if orientation == TURNED else (30, 40)
    dataset = Dataset(("cat",), [make_record(1, tmp_path / "a.jpg", size_hw, objects)])
    empty = Dataset(("cat",), [])
    return describe_losses({splits[0]: dataset, **dict.fromkeys(splits[1:], empty)}, format)


BOX = (0.0, 0.0, 10.0, 10.0)


@pytest.mark.parametrize(
    ("format", "annotated", "words"),
    [
        ("coco", AnnotatedObject(BOX, 0, difficult=True), ["1 difficult objects have iscrowd 1"]),
        ("coco", AnnotatedObject(BOX, 0, crowd=True, area=7), []),
        ("voc", AnnotatedObject(BOX, 0, crowd=True), ["1 crowd regions are written as difficult"]),
        ("voc", AnnotatedObject(BOX, 0, area=7), ["1 objects lose the areas"]),
        ("voc", AnnotatedObject((3, 3, 4, 9), 0), ["1 boxes no wider"]),
        ("voc", AnnotatedObject(BOX, 0, difficult=True), []),
        ("yolo", AnnotatedObject(BOX, 0, crowd=True), ["1 crowd regions are left out"]),
        ("yolo", AnnotatedObject(BOX, 0, difficult=True), ["1 difficult objects are written as ordinary"]),
        ("yolo", AnnotatedObject((3, 3, 4, 9), 0), []),
    ],
)
def test_what_a_format_cannot_hold_is_said(format, annotated, words, tmp_path):
    found = losses(format, tmp_path, annotated)
    assert len(found) == len(words) and all(map(str.startswith, found, words))


def test_turned_images_and_a_missing_val_are_said(tmp_path):
    (turned,) = losses("coco", tmp_path, orientation=TURNED)
    assert turned.startswith("1 images are turned by EXIF")
    (missing,) = losses("yolo", tmp_path, splits=("train",))
    assert "no val" in missing


def test_boxes_of_a_turned_image_stay_in_the_picture_as_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = TURNED
    Image.new("L", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    write_devkit(tmp_path / "devkit", pictures=())
    folder = tmp_path / "devkit/VOC2007"
    (tmp_path / "a.jpg").rename(folder / "JPEGImages/a.jpg")
    xml = "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>15</xmax><ymax>40</ymax></bndbox>"
    (folder / "Annotations/a.xml").write_text(f"{xml}</object></annotation>")
    (folder / "ImageSets/Main/train.txt").write_text("a\n")
    source = VocSource(format="voc", root=folder, split="train")
    convert_dataset(config_of(train=(source,)), tmp_path / "out", "yolo")
    assert (tmp_path / "out/labels/train/a.txt").read_text() == "0 0.250000 0.500000 0.500000 1.000000\n"


def test_splits_that_are_there(voc):
    data = voc.data
    assert require_splits(data, None) == ["train", "val"] and require_splits(data, ["val"]) == ["val"]
    assert require_splits(data.model_copy(update={"val": HeldOut()}), None) == ["train", "val"]
    with pytest.raises(ConfigError, match="no split 'test'; there are: train, val"):
        require_splits(data, ["train", "test"])
    with pytest.raises(ConfigError, match="no split; nothing"):
        require_splits(DataConfig(), None)


def test_the_folder_may_not_lie_in_what_is_read(voc, tmp_path):
    for place in ("devkit/out", "devkit", "elsewhere/../devkit/VOC2007/out"):
        with pytest.raises(DatasetError, match="which is read"):
            convert_dataset(voc, tmp_path / place, "yolo")
    (tmp_path / "link").symlink_to(tmp_path / "devkit")
    with pytest.raises(DatasetError, match="which is read"):
        require_outside(tmp_path / "link/out", [tmp_path / "devkit"])
    assert not (tmp_path / "devkit/out").exists()
    require_outside(tmp_path, [tmp_path / "devkit"])


def test_bad_images_are_refused_or_left_out(voc, tmp_path):
    bad = tmp_path / "devkit/VOC2007/JPEGImages/000003.jpg"
    bad.write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"000003\.jpg"):
        convert_dataset(voc, tmp_path / "out", "yolo")
    lenient = Config(data=voc.data.model_copy(update={"on_bad_image": "skip"}))
    told: list[str] = []
    converted = convert_dataset(lenient, tmp_path / "out", "yolo", splits=["train"], tell=told.append)
    assert converted.num_images == {"train": 3} and told == [f"1 images that cannot be read are left out; the first: {bad}"]


def test_a_folder_is_recognised_with_its_splits(voc, tmp_path):
    convert_dataset(voc, tmp_path / "coco", "coco")
    told: list[str] = []
    config = config_of_folder(tmp_path / "coco", tell=told.append)
    converted = convert_dataset(config, tmp_path / "voc", "voc", tell=told.append)
    assert converted.class_names == CLASSES and converted.num_images == {"train": 4, "val": 4}
    assert "is read as COCO" in told[0] and "2 classes in the data: cat, dog" in told[1]


def test_classes_of_all_splits_are_taken(tmp_path):
    write_devkit(tmp_path / "devkit", pictures=PICTURES[1:2], split="train")  # a dog
    write_devkit(tmp_path / "devkit", pictures=PICTURES[3:], split="val")  # cats
    converted = convert_dataset(config_of_folder(tmp_path / "devkit"), tmp_path / "out", "coco")
    assert converted.num_objects == {"train": {"cat": 0, "dog": 1}, "val": {"cat": 2, "dog": 0}}
