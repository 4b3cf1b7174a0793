import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.config import LocDataConfig, LocSplit
from detection.errors import DatasetError
from detection.localisation.images import LocImages, read_loc_images, read_loc_list
from tests.localisation.loc_kit import make_config, write_example, write_image, write_kit, write_list, write_loc, write_xml

VAL, TRAIN = LocSplit(list="val", folder="val"), LocSplit(list="train_loc", folder="train")
ID = "ILSVRC2012_val_00000001"


def data_of(root) -> LocDataConfig:
    return make_config(root).data


def read_one(root, objects, image_id=ID, split=VAL, size_hw=(40, 60)) -> LocImages:
    """A split of one annotation."""
    write_kit(root)
    write_xml(root, split.folder, image_id, objects, size_hw)
    write_list(root, split.list, [image_id])
    return read_loc_images(data_of(root), split)


def test_both_splits(tmp_path):
    data = data_of(write_loc(tmp_path))
    train, val = read_loc_images(data, data.train), read_loc_images(data, data.val)
    assert train.class_names == ("n01", "n02", "n03") and train.titles == ("dog", "owl", "big cat")
    assert len(train) == len(val) == 6
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2] and val.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert train.id_of(3) == "n02/n02_1" and val.id_of(1) == "ILSVRC2012_val_00000002"
    assert train.file_of(3) == str(tmp_path / "Data/CLS-LOC/train/n02/n02_1.JPEG")
    assert val.unevaluated.tolist() == [False, True, False, False, False, False] and not train.unevaluated.any()
    assert train.num_boxes.tolist() == [1, 2, 1, 2, 1, 2] and train.size_hw(0) == (40, 60)


def test_boxes_count_from_0_and_include_the_last_pixel(tmp_path):
    images = read_one(tmp_path, [("n01", (0, 0, 59, 39)), ("n01", (3, 5, 4, 7))])
    boxes = images.boxes_of(0)
    assert boxes.dtype == torch.float32 and boxes.tolist() == [[0, 0, 60, 40], [3, 5, 5, 8]]


def test_boxes_of_an_image_are_a_copy(tmp_path):
    images = read_one(tmp_path, [("n01", (0, 0, 9, 9))])
    images.boxes_of(0).zero_()
    assert images.boxes_of(0).tolist() == [[0, 0, 10, 10]]


def test_a_subset_has_its_own_boxes(tmp_path):
    data = data_of(write_loc(tmp_path))
    images = read_loc_images(data, data.train)
    for chosen in ([], [4], [5, 0, 3], range(6), [1, 1]):
        part = images.subset(chosen)
        assert len(part) == len(chosen) and part.class_names == images.class_names
        for place, index in enumerate(chosen):
            assert part.id_of(place) == images.id_of(index) and part.labels[place] == images.labels[index]
            assert torch.equal(part.boxes_of(place), images.boxes_of(index))
    again = pickle.loads(pickle.dumps(images.subset([5, 0]))).subset([1])
    assert again.id_of(0) == images.id_of(0) and torch.equal(again.boxes_of(0), images.boxes_of(0))


def test_images_without_boxes_are_left_out(tmp_path, caplog):
    """No XML file, no folder of them, and one without objects."""
    write_kit(tmp_path)
    write_example(tmp_path, "train", "n01/a", "n01", [(1, 1, 9, 9)])
    write_xml(tmp_path, "train", "n01/empty", [])
    write_list(tmp_path, "train_loc", ["n02/x", "n01/b", "n01/empty", "n01/a"])
    with caplog.at_level("INFO"):
        images = read_loc_images(data_of(tmp_path), TRAIN)
    assert [images.id_of(index) for index in range(len(images))] == ["n01/a"]
    assert "3 of 4 images have no box, and are left out" in caplog.text
    assert "1 x annotation without a box, its image left out; the first: " in caplog.text


def test_the_class_of_a_train_image_is_its_folder(tmp_path, caplog):
    """Many of its objects have a name for people, and some are of another class."""
    objects = [("Scottish_deerhound", (1, 1, 9, 9)), ("n02", (2, 2, 9, 9)), ("n01", (3, 3, 9, 9))]
    images = read_one(tmp_path, objects, "n01/a", TRAIN)
    assert images.labels.tolist() == [0] and images.boxes_of(0)[:, 0].tolist() == [1, 3]
    assert "1 x object of another class than its image, dropped" in caplog.text


def test_an_id_below_another_folder_has_the_class_of_its_objects(tmp_path):
    assert read_one(tmp_path, [("n03", (1, 1, 9, 9))], "extra/a", TRAIN).labels.tolist() == [2]


def test_faulty_boxes_are_clipped_or_dropped(tmp_path, caplog):
    objects = [("n01", box) for box in ((-3, 2, 70, 9), (9, 9, 4, 12), (80, 5, 90, 9), (5, 5, 9, 9))]
    assert read_one(tmp_path, objects).boxes_of(0).tolist() == [[0, 2, 60, 10], [5, 5, 10, 10]]
    assert "object 1, box -3 2 70 9 in a 60x40 image: box reaching out of the image, clipped" in caplog.text
    assert "1 x inverted box, dropped" in caplog.text and "1 x box outside the image, dropped" in caplog.text


def test_an_annotation_without_a_size_has_that_of_its_image(tmp_path):
    write_image(tmp_path, "val", ID, "n01", size_hw=(31, 47))
    assert read_one(tmp_path, [("n01", (1, 1, 9, 9))], size_hw=None).size_hw(0) == (31, 47)


def test_the_lists_second_field_is_not_read(tmp_path):
    file = write_list(tmp_path, "val", [])
    file.write_text("b 7\n\n a\nc x y\n")
    assert read_loc_list(file) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (
            [("n01", (1, 1, 5, 5)), ("n02", (1, 1, 5, 5))],
            "has objects of 'n01' and 'n02': an image of CLS-LOC has one class",
        ),
        ([("n99", (1, 1, 5, 5))], "<name> is 'n99', which is no WNID of the kit's map_clsloc.txt"),
        ([], r"none of the 1 images of .*val\.txt has a box in .*val$"),
    ],
)
def test_annotations_that_cannot_be_used(tmp_path, objects, message):
    with pytest.raises(DatasetError, match=message) as caught:
        read_one(tmp_path, objects)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("devkit/data/map_clsloc.txt", "devkit is no development kit of ImageNet"),
        (
            "devkit/data/ILSVRC2015_clsloc_validation_blacklist.txt",
            "no files .*clsloc_validation_blacklist.txt: it must have one",
        ),
        ("ImageSets/CLS-LOC/val.txt", r"val\.txt"),
        ("Annotations/CLS-LOC/val", "cannot list the folder .*Annotations/CLS-LOC/val"),
    ],
)
def test_files_that_are_missing(tmp_path, missing, message):
    write_loc(tmp_path)
    (tmp_path / missing).rename(tmp_path / "gone")
    with pytest.raises(DatasetError, match=message) as caught:
        read_loc_images(data_of(tmp_path), VAL)
    assert "\n" not in str(caught.value)


def test_the_kit_may_lie_elsewhere(tmp_path, monkeypatch):
    """Below the root, or from here, or where data sets are: as DET's."""
    write_loc(tmp_path / "loc")
    expected = len(read_loc_images(data_of(tmp_path / "loc"), VAL))
    (tmp_path / "loc/devkit").rename(tmp_path / "kit")
    monkeypatch.setenv("RESDET_DATASETS", str(tmp_path))
    monkeypatch.chdir(tmp_path / "loc")
    for place in ("kit", "kit/data", "../kit"):
        found = read_loc_images(data_of(tmp_path / "loc").model_copy(update={"devkit": Path(place)}), VAL)
        assert len(found) == expected > 0
    with pytest.raises(DatasetError, match=r"there is no development kit at .*loc/devkit, and there is no data set at devkit"):
        read_loc_images(data_of(tmp_path / "loc"), VAL)


def test_no_data_set(tmp_path):
    with pytest.raises(DatasetError, match="there is no data set at .*nowhere"):
        read_loc_images(data_of(tmp_path / "nowhere"), VAL)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a 1\nb 2\na 3\n", "line 3: image 'a' is in line 1 already"),
        ("\n \n", "has no image"),
        ("a\x00b 1\n", "line 1: the image's id holds characters that cannot be shown"),
        ("a" * 300, "line 1: the image's id has 300 characters"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, lines, message):
    file = write_list(tmp_path, "val", [])
    file.write_text(lines)
    with pytest.raises(DatasetError, match=message):
        read_loc_list(file)


def test_the_blacklist_is_of_validation_images(tmp_path):
    write_loc(tmp_path)
    (tmp_path / "devkit/data/ILSVRC2015_clsloc_validation_blacklist.txt").write_text("50001\n")
    assert len(read_loc_images(data_of(tmp_path), TRAIN)) == 6
    with pytest.raises(DatasetError, match="line 1: expected an image's number up to 50000, found '50001'"):
        read_loc_images(data_of(tmp_path), VAL)


def test_real_annotations_are_of_the_kits_classes(real_data):
    root = real_data / "ilsvrc_mini"
    images, kit = read_loc_images(data_of(root), VAL), root / "devkit/data"
    wnid_of = {int(number): wnid for wnid, number, _ in map(str.split, (kit / "map_clsloc.txt").read_text().splitlines())}
    truth = [wnid_of[int(line)] for line in (kit / "ILSVRC2015_clsloc_validation_ground_truth.txt").read_text().split()]
    blacklist = set(map(int, (kit / "ILSVRC2015_clsloc_validation_blacklist.txt").read_text().split()))
    assert len(images) == 180 and len(images.class_names) == 1000 and images.titles[0] == "tench"
    for index in range(len(images)):
        number = int(images.id_of(index).rpartition("_")[2])
        assert images.class_names[images.labels[index]] == truth[number - 1]
        assert images.unevaluated[index] == (number in blacklist)
    assert np.all(images.boxes[:, 2:] <= 227) and np.all(images.boxes[:, :2] < images.boxes[:, 2:])
