"""Classes that the data tell, and names that are renamed or left out, from the config to the records."""

import json
from pathlib import Path

import pytest

from detection.config import Config, dump_config, load_config
from detection.config.files import parse_config
from detection.data import settle
from detection.data.catalog import load_split
from detection.data.coco_format import CocoFile, read_coco_file
from detection.data.faults import Faults
from detection.data.names import read_names
from detection.errors import ConfigError, DatasetError
from tests.data.pictures import PICTURES, Picture, Thing, coco_content, coco_source, voc_source, write_coco, write_devkit

VOC = {"format": "voc", "year": "2007", "split": "trainval"}
COCO = {"format": "coco", "annotations": "instances.json", "images": "images"}
VAN = (*PICTURES, Picture(5, (40, 60), (Thing("van", (1, 2, 30, 35)), Thing("bg", (0, 0, 50, 30)))))


def config_of(root: Path, source: dict, **data: object) -> Config:
    return parse_config(Config, {"data": {"train": [{**source, "root": str(root)}], **data}}, "mine.yaml")


def settled(root: Path, source: dict, **data: object) -> tuple[Config, list[str]]:
    said: list[str] = []
    return settle.settle_config(config_of(root, source, **data), said.append), said


@pytest.mark.parametrize("source", [VOC, COCO], ids=["voc", "coco"])
def test_classes_are_those_of_the_data_after_renaming_and_dropping(tmp_path, source):
    write_devkit(tmp_path, VAN)
    content = coco_content()
    content["categories"] += [{"id": 7, "name": "van"}, {"id": 8, "name": "bg"}, {"id": 9, "name": "boat"}]
    content["images"].append({"id": 5, "file_name": "000005.jpg", "height": 40, "width": 60})
    boxes = [(7, [1, 2, 29, 33]), (8, [0, 0, 50, 30])]
    content["annotations"] += [
        {"id": 90 + category, "image_id": 5, "category_id": category, "bbox": box, "iscrowd": 0} for category, box in boxes
    ]
    write_coco(tmp_path, VAN, content)
    config, said = settled(tmp_path, source, classes="auto")
    assert config.data.classes == ("bg", "cat", "dog", "van") and "4 classes in the data: bg, cat, dog, van" in said[0]
    assert [line for line in said if "boat" in line] == ([] if source is VOC else said[1:])
    config, _ = settled(tmp_path, source, classes="auto", rename={"van": "car"}, drop=["bg"])
    assert config.data.class_names == ("car", "cat", "dog") and settle.settle_config(config) == config
    dataset = load_split(config.data, "train")
    assert [record.labels.tolist() for record in dataset.records] == [[1, 2], [2], [], [1, 1], [0]]
    assert dataset.records[4].boxes.tolist() == [[1, 2, 30, 35]]
    few, _ = settled(tmp_path, source, classes=["cat"], drop="others")
    assert [record.labels.tolist() for record in load_split(few.data, "train").records] == [[0], [], [], [0, 0], []]


def test_a_settled_config_is_read_back(tmp_path):
    write_devkit(tmp_path)
    config, said = settled(tmp_path, VOC, classes="auto", rename={"dgo": "hound", "dog": "hound"})
    assert config.data.class_names == ("cat", "hound") and config.data.rename == {"dgo": "hound", "dog": "hound"}
    config, said = settled(tmp_path, VOC, classes="auto", rename={"cta": "lion"})
    assert config.data.rename == {} and "'lion' of 'cta', which no object has; did you mean 'cat'?" in said[1]
    (tmp_path / "mine.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "mine.yaml") == config


def test_what_was_left_out_and_what_no_object_has_is_said_once(tmp_path, caplog):
    write_devkit(tmp_path, VAN)
    config, _ = settled(tmp_path, VOC, classes=["cat", "dog"], rename={"vann": "dog"}, drop=["bg", "van", "boat"])
    load_split(config.data, "train")
    assert [record.message for record in caplog.records] == [
        "data.rename names 'vann', which no object has; did you mean 'van'?",
        "data.drop names 'boat', which no object has",
        "2 objects of 2 classes are left out: bg (1), van (1)",
    ]


def test_reading_names_opens_no_picture_and_a_coco_file_once(tmp_path, monkeypatch):
    write_devkit(tmp_path)
    file = write_coco(tmp_path)
    for picture in tmp_path.rglob("*.jpg"):
        picture.unlink()
    opened: list[Path] = []

    def read(path: Path, faults: Faults) -> CocoFile:
        opened.append(path)
        return read_coco_file(path, faults)

    monkeypatch.setattr("detection.data.names.read_coco_file", read)
    names = read_names([voc_source(tmp_path), coco_source(tmp_path), coco_source(tmp_path)])
    assert names.objects == {"cat": 9, "dog": 6} and opened == [file]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("cat\ndog\n", ("cat", "dog")),
        ("\ufeffdog\r\n\r\n  cat  \r\n", ("dog", "cat")),
        ("# my classes\n#1\nvan, red\n#\n猫", ("#1", "van, red", "猫")),
    ],
)
def test_a_file_of_names(tmp_path, monkeypatch, content, names):
    (tmp_path / "names.txt").write_text(content, encoding="utf-8", newline="")
    config, said = settled(tmp_path, VOC, classes_file=str(tmp_path / "names.txt"))
    assert config.data.class_names == names and config.data.classes_file is None and "names.txt" in said[0]
    monkeypatch.setenv("RESDET_DATASETS", str(tmp_path))
    assert settled(tmp_path, VOC, classes_file="names.txt")[0] == config
    with pytest.raises(ConfigError, match=r"names\.txt, which .*settle_config"):
        _ = config_of(tmp_path, VOC, classes_file="names.txt").data.class_names


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "names no class"),
        (b"cat\ncat\n", "comes twice"),
        (b"caf\xe9", "not a text file in UTF-8"),
        (None, "cannot read"),
    ],
)
def test_files_of_names_that_are_refused(tmp_path, content, fault):
    file = tmp_path / "names.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises((ConfigError, DatasetError), match=fault):
        settled(tmp_path, VOC, classes_file=str(file))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"classes": ["car"], "rename": {"van": "car"}, "drop": ["van"]}, "both name 'van'"),
        ({"classes": ["car"], "drop": ["car"]}, "names 'car', which is a class"),
        ({"classes": "auto", "rename": {"van": "car"}, "drop": ["car"]}, "names 'car', which is a class"),
        ({"classes": ["car"], "rename": {"van": "cra"}}, "'cra' of 'van', which is no class; did you mean 'car'"),
        ({"classes": ["car"], "classes_file": "names.txt"}, "leave one out"),
        ({"classes": "auto", "classes_file": "names.txt"}, "leave one out"),
        ({"classes": "auto", "drop": "others"}, "give one"),
    ],
)
def test_contradictions_are_refused(tmp_path, data, fault):
    with pytest.raises(ConfigError, match=fault):
        config_of(tmp_path, VOC, **data)


def test_classes_of_other_splits_than_train_are_classes_too(tmp_path):
    write_devkit(tmp_path, PICTURES[1:2], split="train")
    write_devkit(tmp_path, PICTURES, split="val")
    sources = [{"format": "voc", "root": str(tmp_path), "year": "2007", "split": name} for name in ("train", "val")]
    config = Config.model_validate({"data": {"classes": "auto", "train": sources[:1], "val": sources[1:]}})
    told: list[str] = []
    assert settle.settle_config(config, told.append).data.class_names == ("cat", "dog")
    assert told[1] == "1 of them have objects to evaluate with, but none to learn from: cat"


def test_auto_needs_objects(tmp_path):
    write_devkit(tmp_path, [Picture(1, (40, 60))])
    with pytest.raises(DatasetError, match="hold no object"):
        settled(tmp_path, VOC, classes="auto")
    with pytest.raises(DatasetError, match="no data set at"):
        settled(tmp_path / "elsewhere", VOC, classes="auto")
    with pytest.raises(ConfigError, match=r"set data\.train"):
        settle.settle_config(Config.model_validate({"data": {"classes": "auto"}}))
    write_devkit(tmp_path)
    with pytest.raises(ConfigError, match=r"leaves no class of the data: they have cat, dog"):
        settled(tmp_path, VOC, classes="auto", drop=["cat", "dog"])
    write_coco(tmp_path, content=json.loads(json.dumps(coco_content()).replace('"cat"', '" dog"')))
    with pytest.raises(ConfigError, match=r"comes twice; data\.rename"):
        settled(tmp_path, COCO, classes="auto")
