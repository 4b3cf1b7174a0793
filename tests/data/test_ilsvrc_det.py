"""ImageNet DET: splits, boxes, what train's lists know, what is refused; and 180 real images of val."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from detection.config import Config, DataConfig, IlsvrcDetSource
from detection.config.class_lists import ILSVRC_DET_CLASSES
from detection.data.catalog import load_dataset, read_sources
from detection.data.check import check_data
from detection.data.classes import ClassMap
from detection.data.faults import Faults
from detection.data.formats.recognise import recognise
from detection.data.ilsvrc_devkit import data_folder, read_classes, read_image_list
from detection.data.ilsvrc_lists import list_det_images
from detection.data.names import names_in
from detection.data.settle import settle_config
from detection.errors import DatasetError
from tests.ilsvrc_kit import TRAIN_LISTS, write_det, write_picture, write_xml

NAMES = ("big cat", "dog", "bow tie")
CAT, EXTRA = "ILSVRC2013_train/n02/n02_1", "ILSVRC2013_train_extra0/ILSVRC2013_train_00000001"
DOG = "ILSVRC2014_train_0000/ILSVRC2014_train_00000001"


@pytest.fixture
def root(tmp_path) -> Path:
    """See `write_det`."""
    return write_det(tmp_path / "ILSVRC")


def source(root, split, **keys):
    return IlsvrcDetSource(format="ilsvrc_det", root=root, split=split, **keys)


def read(root, *splits, classes=NAMES, **keys):
    """The records of splits by their ids, and the faults."""
    faults = Faults(**keys)
    class_map = classes if isinstance(classes, ClassMap) else ClassMap.to(classes)
    records = read_sources([source(root, split) for split in splits], class_map, faults)
    return {record.image_id: record for record in records}, faults


def ids(root, split, **keys):
    return list(read(root, split, **keys)[0])


def test_boxes_count_from_0_and_include_the_last_pixel(root):
    found, faults = read(root, "val")
    assert found["v1"].boxes.tolist() == [[0, 1, 10, 5], [39, 29, 40, 30]] and found["v1"].labels.tolist() == [1, 2]
    assert found["v2"].boxes.tolist() == [[5, 6, 40, 30]] and found["v2"].size_hw == (30, 40)
    assert found["v1"].areas.tolist() == [40, 1] and not found["v1"].difficult.any() and not found["v1"].crowd.any()
    assert found["v4"].boxes.shape == (0, 4) and found["v3"].boxes.shape == (0, 4)
    assert all(record.known is None for record in found.values())
    assert found["v1"].file == root / "Data/DET/val/v1.JPEG"
    assert "images of val without an XML file, which count as images without objects: 1 of 5" in faults.information


def test_a_box_out_of_the_image_is_clipped_and_told_in_the_files_numbers(root):
    write_xml(root / "Annotations/DET/val/v1.xml", [("n01", (-3, 0, 40, 8))])
    found, faults = read(root, "val")
    assert found["v1"].boxes.tolist() == [[0, 0, 40, 9]]
    assert "(dog), box -3 0 40 8 in a 40x30 image: box reaching out of the image, clipped" in faults.notes[0].message


def test_the_splits_of_val_are_joined_by_id(root):
    assert ids(root, "val") == ["v1", "v2", "v3", "v4", "v5"]
    assert ids(root, "val2") == ["v4", "v2"] and ids(root, "val1") == ["v1", "v5"]
    (root / "devkit/data/det_val1.txt").write_text("v5 1\n")
    assert ids(root, "val1") == ["v5"]
    (root / "ImageSets/DET/val.txt").unlink()
    (root / "devkit/data/det_lists").mkdir()
    (root / "devkit/data/det_lists/val.txt").write_text("v5 1\nv4 2\nv2 3\n")
    assert ids(root, "val") == ["v5", "v4", "v2"]


def test_a_half_of_a_smaller_val_is_what_val_has_of_it(root):
    (root / "devkit/data/det_val.txt").write_text("v1 1\nv2 2\nv3 3\nv4 4\nv5 5\n")
    (root / "ImageSets/DET/val.txt").write_text("v2 1\nv1 2\n")
    found, faults = read(root, "val2")
    assert list(found) == ["v2"]
    assert any("val.txt lists 1 of the 2 images of val2" in line for line in faults.information)


def test_test_has_images_of_which_no_class_is_known(root):
    (found,) = read(root, "test")[0].values()
    assert found.image_id == "t1" and found.size_hw == (30, 40) and len(found.boxes) == 0
    assert found.known.tolist() == [False, False, False]


def test_train_knows_what_its_lists_say(root):
    found, faults = read(root, "train")
    assert list(found) == [CAT, EXTRA, DOG]
    assert found[CAT].known.tolist() == [True, False, False]
    assert found[EXTRA].known.tolist() == [True, True, False] and len(found[EXTRA].boxes) == 0
    assert found[DOG].known is None and found[DOG].boxes.tolist() == [[2, 3, 5, 6]]
    # Of another WNID's folder, which is none of the classes.
    assert found[CAT].boxes.tolist() == [[0, 0, 10, 10]] and faults.left_out == {"n77": 1}
    assert not any("XML" in line for line in faults.information)


def test_equal_masks_are_one_tensor(root):
    more = "".join(f"ILSVRC2013_train_extra0/x{number} -1\n" for number in range(3))
    for number in range(3):
        write_picture(root / f"Data/DET/train/ILSVRC2013_train_extra0/x{number}.JPEG")
    (root / "ImageSets/DET/train_3.txt").write_text(TRAIN_LISTS[3] + more)
    found = read(root, "train")[0]
    same = [found[f"ILSVRC2013_train_extra0/x{number}"].known for number in range(3)]
    assert same[0].tolist() == [False, False, True] and same[0] is same[1] is same[2]


def test_the_lists_of_2014_say_the_same(root):
    """Without labels, without the folder of 2013, and extra images without any."""
    lists = root / "devkit/data/det_lists"
    lists.mkdir()
    before = read(root, "train")[0]
    for number, text in TRAIN_LISTS.items():
        (root / f"ImageSets/DET/train_{number}.txt").unlink()
        rows = [line.split() for line in text.splitlines()]
        for kind, label in (("pos", "1"), ("part", "0"), ("neg", "-1")):
            short = [
                image.replace("ILSVRC2013_train/", "").replace("ILSVRC2013_train_extra0/", "")
                for image, is_ in rows
                if is_ == label
            ]
            (lists / f"train_{kind}_{number}.txt").write_text("".join(f"{image}\n" for image in short))
    after = read(root, "train")[0]
    assert list(after) == ["n02/n02_1", "ILSVRC2013_train_00000001", DOG]
    for one, other in zip(before.values(), after.values(), strict=True):
        assert one.file == other.file and one.boxes.equal(other.boxes)
        assert (one.known is None and other.known is None) or one.known.equal(other.known)


def test_a_class_without_a_list_is_unknown_everywhere(root):
    (root / "ImageSets/DET/train_3.txt").unlink()
    found, faults = read(root, "train")
    assert found[DOG].known.tolist() == [True, True, False] and found[CAT].known.tolist() == [True, False, False]
    assert "no list of train images for 1 of the 3 classes, which are unknown in them: bow tie" in faults.information


def test_classes_of_the_config_are_known_where_all_that_become_them_are(root):
    pets = ClassMap(("animal", "fork"), {"big cat": "animal", "dog": "animal"}, frozenset({"bow tie"}))
    found, faults = read(root, "train", classes=pets)
    assert found[CAT].known.tolist() == [False, False] and found[CAT].labels.tolist() == [0]
    assert found[EXTRA].known.tolist() == [True, False] and found[DOG].known.tolist() == [True, False]
    assert "classes that ImageNet DET has not, and that are unknown in its images: fork" in faults.information
    assert read(root, "val", classes=pets)[0]["v1"].known.tolist() == [True, False]


def test_a_class_that_the_config_lacks_is_refused_or_dropped(root):
    with pytest.raises(DatasetError, match="v1.xml, object 1: unknown class 'dog'"):
        read(root, "val", classes=("big cat", "bow tie"))
    found, faults = read(root, "val", classes=ClassMap(("bow tie",), others="drop"))
    assert found["v1"].labels.tolist() == [0] and found["v1"].known is None and faults.left_out == {"dog": 1, "big cat": 1}


def test_sources_are_joined_and_an_image_comes_once(root):
    assert len(read(root, "train", "val1", "val2")[0]) == 7
    with pytest.raises(DatasetError, match="image id 'v1' occurs twice"):
        read(root, "val", "val1")


def test_missing_images_may_be_skipped(root):
    (root / "Data/DET/val/v1.JPEG").unlink()
    with pytest.raises(DatasetError, match=re.escape(f"there is no image v1.JPEG below {root / 'Data/DET/val'}")):
        read(root, "val")
    assert ids(root, "val", skip_missing=True) == ["v2", "v3", "v4", "v5"]


def test_the_kit_may_lie_elsewhere(root, tmp_path, monkeypatch):
    (root / "devkit").rename(tmp_path / "kit")
    monkeypatch.setenv("RESDET_DATASETS", str(tmp_path))
    monkeypatch.chdir(root)
    for place in ("kit", "kit/data", "../kit"):
        assert len(load_dataset([source(Path("ILSVRC"), "val", devkit=place)], NAMES)) == 5
    with pytest.raises(DatasetError, match="there is no data set at devkit nor at"):
        load_dataset([source(root, "val")], NAMES)


def without_annotations(folder):
    for file in folder.iterdir():
        file.unlink()


NO_WNID = "<annotation><object><name>cat</name></object></annotation>"
ONE_CLASS = "ImageSets/DET/train_1.txt"
BAD = [
    ("val", "devkit/data/map_det.txt", None, "is no development kit of ImageNet"),
    ("val", "devkit/data/map_det.txt", "n02 1 big_cat\nn01 3 dog\n", "the ids must be 1 to 2, each once"),
    ("val", "ImageSets/DET/val.txt", "v1 1\nv2 3\n", "line 2: expected 'IMAGE_ID 2', found 'v2 3'"),
    ("val", "ImageSets/DET/val.txt", "w1 1\n", "there is no image w1.JPEG below"),
    ("val", "ImageSets/DET/val.txt", None, "has no list of the images of 'val': none of det_val.txt"),
    ("test", "ImageSets/DET/test.txt", None, "has no list of the images of 'test'"),
    ("val2", "devkit/data/det_val2.txt", None, "has no list of the images of 'val2'"),
    ("val1", "devkit/data/det_val2.txt", None, "has no list of the images of 'val1'"),
    ("val2", "devkit/data/det_val2.txt", "v9 1\n", "image 'v9' is not in the list of val: of another year?"),
    ("val1", "devkit/data/ILSVRC2015_det_validation_blacklist.txt", "6 n01\n", "expected an image's number up to 5"),
    ("val1", "devkit/data/ILSVRC2015_det_validation_blacklist.txt", None, "has no files *det_validation_blacklist.txt"),
    ("train", ONE_CLASS, f"{CAT} 1\n{EXTRA}\n", "train_1.txt, line 2: expected 'IMAGE_ID LABEL' with the label 1, 0 or -1"),
    ("train", ONE_CLASS, f"{CAT} 1\n{EXTRA} -1 x\n", "train_1.txt, line 2: expected 'IMAGE_ID LABEL'"),
    ("train", ONE_CLASS, f"{CAT} 2\n", "train_1.txt, line 1: expected 'IMAGE_ID LABEL' with the label 1, 0 or -1, found "),
    ("train", ONE_CLASS, f"{CAT} 1\n{CAT} -1\n", f"train_1.txt: image '{CAT}' has the labels -1 and 1 for big cat"),
    ("train", ONE_CLASS, f"{EXTRA} 1\n", "shows big cat, by label 1 of class 1 in the lists of train, but has no XML"),
    ("train", ONE_CLASS, "a/b_1 1\n", "there is no image b_1.JPEG below"),
    ("val", "Annotations/DET/val/v1.xml", "<annotations></annotations>", "its root is <annotations>, not <annotation>"),
    ("val", "Annotations/DET/val/v1.xml", "<annotation>", "v1.xml is not well-formed XML"),
    ("val", "Annotations/DET/val/v1.xml", NO_WNID, "<name> is 'cat', not a WNID"),
    (
        "val",
        "Annotations/DET/val/v1.xml",
        "<annotation><object><name>n01</name></object></annotation>",
        "v1.xml, object 1 (dog): no <xmin>: object without a whole <bndbox> (refused, as data.strict is true)",
    ),
    (
        "val",
        "Annotations/DET/val/v1.xml",
        "<annotation><size><width>forty</width></size></annotation>",
        "v1.xml: <size> without two numbers (refused, as data.strict is true)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("split", "file", "text", "message"), BAD)
def test_what_does_not_fit_is_one_line(root, split, file, text, message):
    if text is None:
        (root / file).unlink()
    else:
        (root / file).write_text(text)
    with pytest.raises(DatasetError, match=re.escape(message)) as caught:
        read(root, split, strict=True)
    assert "\n" not in str(caught.value)


def test_more_that_does_not_fit(root):
    lists = root / "ImageSets/DET"
    for number in TRAIN_LISTS:
        (lists / f"train_{number}.txt").unlink()
    with pytest.raises(DatasetError, match="there is no list of train images: neither train_1.txt in"):
        read(root, "train")
    (root / "devkit/data/det_lists").mkdir()
    (root / "devkit/data/det_lists/train_pos_2.txt").write_text("n02/n02_1\n")
    with pytest.raises(DatasetError, match=r"there is no .*train_part_2.txt: a class has three lists"):
        read(root, "train")
    (root / "devkit/data/det_lists/train_part_2.txt").write_text("n02/n02_1\n")
    (root / "devkit/data/det_lists/train_neg_2.txt").write_text("")
    with pytest.raises(DatasetError, match=r"train_pos_2.txt: image 'n02/n02_1' has the labels 0 and 1 for dog"):
        read(root, "train")
    (root / "devkit/data/det_lists/train_part_2.txt").write_text("n02/n02_1 1\n")
    with pytest.raises(DatasetError, match=r"train_part_2.txt, line 1: expected 'IMAGE_ID', found 'n02/n02_1 1'"):
        read(root, "train")


def test_the_lists_of_2014_do_not_mend_those_of_2015(root):
    """An image has another id in them, and would be there twice."""
    (root / "ImageSets/DET/train_1.txt").unlink()
    lists = root / "devkit/data/det_lists"
    lists.mkdir()
    for kind, text in (("pos", "n02/n02_1\n"), ("part", ""), ("neg", "")):
        (lists / f"train_{kind}_1.txt").write_text(text)
    found, faults = read(root, "train")
    assert len({record.file for record in found.values()}) == len(found) == 3
    assert "no list of train images for 1 of the 3 classes, which are unknown in them: big cat" in faults.information


def test_a_split_without_annotations_is_not_trained_on():
    with pytest.raises(ValueError, match="data.train.1: a split without annotations is for detection only"):
        DataConfig(classes=NAMES, train=(source(Path("x"), "train"), source(Path("x"), "test")))


def test_files_that_are_not_there_or_twice(root):
    write_picture(root / "Data/DET/train/n02/n02_1.JPEG")
    with pytest.raises(DatasetError, match="holds .*n02_1.JPEG and .*n02_1.JPEG: remove the one that is not image"):
        read(root, "train")
    without_annotations(root / "Annotations/DET/val")
    with pytest.raises(DatasetError, match="none of the 5 images of val has an XML file below"):
        read(root, "val")
    (root / "Annotations/DET/val").rmdir()
    with pytest.raises(DatasetError, match="there is no folder .*Annotations/DET/val: is the source's root right"):
        read(root, "val")


def test_names_come_from_the_objects(root):
    faults = Faults(collect=True)
    found = names_in([source(root, split) for split in ("train", "val", "test")], faults)
    assert found.objects == {"big cat": 2, "dog": 2, "bow tie": 2} and not faults.errors


def test_auto_is_recognised_and_takes_names_and_splits(root):
    found = recognise(root)
    assert found.sentence.endswith("is read as ImageNet DET (images: train 3, val 5, test 1)")
    data = {"classes": "auto", "train": [{"format": "auto", "root": str(root)}], "val": [{"format": "auto", "root": str(root)}]}
    config = settle_config(Config.model_validate({"data": data}))
    assert config.data.classes == ("big cat", "bow tie", "dog")
    assert config.data.all_sources == tuple(each for name in ("train", "val") for each in found.splits[name])
    assert [len(split.records) for split in check_data(config.data)] == [3, 5]


def test_the_class_list_is_the_kits(real_data):
    assert read_classes(real_data / "ilsvrc_mini/devkit/data/map_det.txt").names == ILSVRC_DET_CLASSES
    assert DataConfig(classes="ilsvrc_det").class_names == ILSVRC_DET_CLASSES


def test_real_boxes_are_those_of_the_files(real_data):
    folder = real_data / "ilsvrc_mini"
    found, faults = read(folder, "val", classes="ilsvrc_det")
    assert tuple(found) == read_image_list(folder / "ImageSets/DET/val.txt").ids and len(found) == 180
    kit = read_classes(folder / "devkit/data/map_det.txt")
    for image_id, record in found.items():
        tree = ElementTree.parse(folder / f"Annotations/DET/val/{image_id}.xml")
        corners = [[int(box.findtext(tag) or "") for tag in ("xmin", "ymin", "xmax", "ymax")] for box in tree.iter("bndbox")]
        assert record.boxes.tolist() == [[x1, y1, x2 + 1, y2 + 1] for x1, y1, x2, y2 in corners]
        assert [kit.wnids[label] for label in record.labels.tolist()] == [name.text for name in tree.iter("name")]
    assert not faults.notes and not faults.left_out and len(read(folder, "val2", classes="ilsvrc_det")[0]) == 180


def test_real_lists_of_three_classes(real_data, tmp_path):
    """The kit's lists of 2014, read as sets here."""
    kit, faults = data_folder(real_data / "ilsvrc_mini/devkit"), Faults()
    found = list_det_images("train", tmp_path, kit, read_classes(kit / "map_det.txt"), faults)
    everything = set()
    for label in range(3):
        pos, part, neg = (
            set((kit / f"det_lists/train_{kind}_{label + 1}.txt").read_text().split()) for kind in ("pos", "part", "neg")
        )
        is_known = found.known[found.mask_of, label]
        assert {image for image, known in zip(found.ids, is_known, strict=True) if known} == pos | neg
        assert {image for image, shown in zip(found.ids, found.shown, strict=True) if shown == label} <= pos
        everything |= pos | part | neg
    assert set(found.ids) == everything and len(found.ids) == len(everything) and not found.known[:, 3:].any()
    assert len(found.known) <= 8  # masks of three classes
    assert faults.information[0].startswith("no list of train images for 197 of the 200 classes, which are unknown in them")
