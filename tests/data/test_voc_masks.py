"""VOC's pictures of instances as masks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detection.data.voc_masks import read_mask_truth, read_voc_masks
from detection.errors import DatasetError
from detection.evaluation.devkit import read_devkit
from tests.evaluation.scenes import make_record
from tests.there import there

PIXELS = [[0, 1, 1, 255, 0], [0, 1, 255, 255, 3], [0, 255, 0, 3, 3]]


def write_picture(file: Path, pixels: list[list[int]] | np.ndarray = PIXELS, mode: str = "P") -> Path:
    image = Image.fromarray(np.array(pixels, dtype=np.uint8))
    if mode == "P":
        # All colours alike but one: whoever reads colours reads wrong numbers.
        image.putpalette([7, 7, 7] * 255 + [224, 224, 192])
        assert image.mode == "P"
    else:
        image = image.convert(mode)
    file.parent.mkdir(exist_ok=True)
    image.save(file)
    return file


@pytest.mark.parametrize("mode", ["P", "L"])
def test_the_numbers_of_the_palette_are_objects(tmp_path, mode):
    truth = read_voc_masks(write_picture(tmp_path / "a.png", mode=mode), 3)
    pixels = torch.tensor(PIXELS)
    assert truth.masks.decode().tolist() == [(pixels == number).tolist() for number in (1, 2, 3)]
    assert truth.void.decode().tolist() == [(pixels == 255).tolist()]
    assert truth.masks.areas.tolist() == [3, 0, 3]


def test_an_image_without_objects(tmp_path):
    truth = read_voc_masks(write_picture(tmp_path / "a.png", np.zeros((4, 5))), 0)
    assert len(truth.masks) == 0 and truth.masks.size_hw == (4, 5) and truth.void.areas.tolist() == [0]


def test_an_object_that_the_annotation_lacks(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.png has object 3; its XML file has 2"):
        read_voc_masks(write_picture(tmp_path / "a.png"), 2)


def test_pictures_that_hold_no_numbers(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.png has no palette \(its mode is RGB\)"):
        read_voc_masks(write_picture(tmp_path / "a.png", mode="RGB"), 3)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(DatasetError, match=r"b\.png"):
        read_voc_masks(tmp_path / "b.png", 3)
    with pytest.raises(DatasetError, match=r"cannot read image .*c\.png: No such file"):
        read_voc_masks(tmp_path / "c.png", 3)


def test_only_images_with_a_picture_have_masks(tmp_path):
    records = [make_record(stem, [(0, 0, 5, 3)] * 3) for stem in ("a", "b")]
    records = [type(record)(**(vars(record) | {"size_hw": (3, 5)})) for record in records]
    write_picture(tmp_path / "SegmentationObject/b.png")
    truth = read_mask_truth(tmp_path, records)
    assert [each.image_id for each in truth] == ["b"] and there(truth[0].masks).areas.tolist() == [3, 0, 3]
    assert there(truth[0].void).areas.tolist() == [4]
    with pytest.raises(DatasetError, match=r"SegmentationObject has no picture of the 1 images, as of 'a\.png'"):
        read_mask_truth(tmp_path, records[:1])
    with pytest.raises(DatasetError, match="cannot list the folder"):
        read_mask_truth(tmp_path / "none", records)


def test_the_picture_must_be_as_large_as_the_image(tmp_path):
    write_picture(tmp_path / "SegmentationObject/b.png")
    with pytest.raises(DatasetError, match=r"b\.png is 5x3, its image 200x200"):
        read_mask_truth(tmp_path, [make_record("b", [(0, 0, 5, 3)] * 3)])


def test_voc_s_own_pictures_fit_their_boxes(real_data: Path):
    folder = real_data / "voc_mini/VOCdevkit/VOC2012"
    devkit = read_devkit(folder, "val")
    records = read_mask_truth(folder, devkit.records)
    assert 30 < len(records) < len(devkit.records)
    masks = [there(record.masks) for record in records]
    assert all(bool((each.areas > 0).all()) for each in masks)  # also of difficult objects
    boxes, annotated = torch.cat([each.boxes() for each in masks]), torch.cat([record.boxes for record in records]).float()
    # The mask has no border: its box is a little smaller. A few objects are in parts, of which others hide some.
    assert float((boxes - annotated).abs().median()) <= 3
