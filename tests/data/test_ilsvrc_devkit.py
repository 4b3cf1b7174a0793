"""The kit's lists: classes, images of the splits, blacklists; R-CNN's division of the real val."""

from __future__ import annotations

import re

import pytest

from detection.data.ilsvrc_devkit import (
    DET_BLACKLIST,
    data_folder,
    only_file,
    read_classes,
    read_det_blacklist,
    read_det_images,
    read_image_list,
    read_loc_blacklist,
)
from detection.errors import DatasetError


def test_lists_and_maps_by_themselves(tmp_path):
    (tmp_path / "list").write_text("a\nb\n")
    assert read_image_list(tmp_path / "list").positions == {"a": 0, "b": 1}
    (tmp_path / "map").write_text("n2 2 b c\nn1 1 a_d\n")
    assert read_classes(tmp_path / "map").names == ("a d", "b c")


def write_lists(folder, **lists):
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def test_a_list_is_taken_from_the_first_folder_that_has_one(tmp_path):
    kit, own = tmp_path / "kit", tmp_path / "own"
    for folder in (kit, kit / "det_lists", own):
        folder.mkdir()
    write_lists(own, val=["b 1", "a 2"], test=["t 1"])
    assert read_det_images([kit, own], "val").ids == ("b", "a") and read_det_images([kit, own], "test").ids == ("t",)
    write_lists(kit / "det_lists", val=["a 1", "b 2"])
    assert read_det_images([kit, own], "val").ids == ("a", "b")
    write_lists(kit, det_val=["c 1"])
    assert read_det_images([kit, own], "val").ids == ("c",)


def test_val1_is_val_without_val2_and_the_images_of_the_blacklist(tmp_path):
    write_lists(tmp_path, map_det=["n1 1 a"], val=["a 1", "b 2", "c 3", "d 4"], val2=["d 1"])
    write_lists(tmp_path, ILSVRC2014_det_validation_blacklist=["2 n1", "2 n1"])
    assert read_det_images([tmp_path], "val1").ids == ("a", "c")
    write_lists(tmp_path, val1=["c 1"])
    assert read_det_images([tmp_path], "val1").ids == ("c",)
    write_lists(tmp_path, val1=["e 1"])
    with pytest.raises(DatasetError, match=re.escape("val1.txt: image 'e' is not in the list of val: of another year?")):
        read_det_images([tmp_path], "val1")


def test_numbers_of_another_year_are_refused(tmp_path):
    write_lists(tmp_path, map_det=["n1 1 a"], val=["a 1"], val2=["a 1"], ILSVRC2014_det_validation_blacklist=["2 n1"])
    with pytest.raises(DatasetError, match="expected an image's number up to 1"):
        read_det_images([tmp_path], "val1")
    with pytest.raises(DatasetError, match="expected an image's number up to 1, found '2'"):
        read_loc_blacklist(tmp_path / "ILSVRC2014_det_validation_blacklist.txt", 1)


def test_the_real_val_in_two_halves(real_data):
    """R-CNN's numbers: 9,887 + 9,917 images, which with 317 on the blacklist make 20,121."""
    folder = data_folder(real_data / "ilsvrc_mini/devkit")
    val, val1, val2 = (set(read_det_images([folder], split).ids) for split in ("val", "val1", "val2"))
    pairs = read_det_blacklist(only_file(folder, DET_BLACKLIST), read_classes(folder / "map_det.txt"), len(val))
    assert (len(val), len(val1), len(val2), len(pairs)) == (20121, 9887, 9917, 409)
    assert not val1 & val2 and len(val - val1 - val2) == 317
