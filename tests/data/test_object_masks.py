"""Masks as the readers find them: COCO's forms, VOC's pictures, every fault by name, and masks of real images."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detection.config import CocoSource, Config, DataConfig, VocSource
from detection.data.catalog import Dataset, load_dataset, load_split
from detection.data.check import check_data, draw_ground_truth, overview
from detection.data.classes import ClassMap
from detection.data.coco import read_coco
from detection.data.faults import Faults
from detection.data.findings import examine_data
from detection.data.object_masks import describe_masks
from detection.data.orientation import turn_box, turn_masks
from detection.data.transforms import make_target
from detection.data.voc import read_voc
from detection.data.writers.dataset import write_dataset
from detection.errors import DatasetError
from detection.masks import Masks, rasterise
from detection.structures import Record
from tests.data.pictures import CLASSES, coco_content, coco_source, voc_source, write_coco, write_devkit
from tests.there import there

BOX = [10, 5, 30, 5, 30, 25, 10, 25]  # the outline of the first object, in an image of 60 x 40 pixels


def read(
    root: Path, *segmentations: Any, masks: bool = True, strict: bool = False, thorough: bool = True, **first: Any
) -> tuple[list[Record], Faults]:
    """The four pictures, with segmentations of the first objects; `first`: what else the first object says.

    As `check-dataset` reads them, or, not `thorough`, as training does."""
    content = coco_content()
    for annotation, value in zip(content["annotations"], segmentations, strict=False):
        annotation["segmentation"] = value
    content["annotations"][0] |= first
    write_coco(root, content=content)
    faults = Faults(strict=strict, thorough=thorough)
    return read_coco(coco_source(root), root, ClassMap.to(CLASSES), faults, masks=masks), faults


def test_all_forms_of_a_segmentation_are_one_mask(tmp_path):
    text = Masks.of([rasterise([BOX], (40, 60))], (40, 60)).as_json()[0]
    runs = [*([10 * 40 + 5]), *([20, 20] * 20)]
    counts = {"size": [40, 60], "counts": [*runs[:-1], 2400 - sum(runs[:-1])]}
    for value in ([BOX], [BOX[:6], [10, 5, 30, 25, 10, 25]], text, counts):
        (first, *others), faults = read(tmp_path, value)
        assert not faults.notes and first.masks is not None and all(other.masks is None for other in others)
        assert first.masks.boxes().tolist() == [[10, 5, 30, 25], [0, 0, 0, 0]] and first.masks.areas.tolist() == [400, 0]


def test_masks_are_read_only_where_they_are_wanted(tmp_path):
    records, faults = read(tmp_path, [[1, 2, 3]], masks=False)
    assert all(record.masks is None for record in records) and not faults.notes
    records, _ = read(tmp_path, None, [])
    assert all(record.masks is None for record in records), "no segmentation is no fault"


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        ([[10, 5, 30, 5]], "mask that cannot be read, left out", "found 4 numbers"),
        ([[10, 5, 30, 5, 30, 25, 10]], "mask that cannot be read, left out", "found 7 numbers"),
        ([[]], "mask that cannot be read, left out", "found 0 numbers"),
        ("x", "mask that cannot be read, left out", "must be a list of polygons"),
        (
            {"size": [60, 40], "counts": [2400]},
            "mask that cannot be read, left out",
            "[40, 60] (height, width), found [60, 40]",
        ),
        ({"size": [40, 60], "counts": [2399]}, "mask that cannot be read, left out", "2399 pixels"),
        ([[100, 100, 120, 100, 120, 120]], "mask outside the image, left out", "60x40 image"),
        ([[10, 5, 10, 5, 10, 5]], "mask without a pixel, left out", "60x40 image"),
        ({"size": [40, 60], "counts": [2400]}, "mask without a pixel, left out", "60x40 image"),
    ],
)
def test_an_object_with_a_faulty_mask_keeps_its_box(tmp_path, value, kind, told):
    (first, *_), faults = read(tmp_path, value)
    (note,) = faults.notes
    assert note.kind == kind and told in note.message and "annotation 1 of" in note.message and "\n" not in note.message
    assert len(first.boxes) == 2 and first.masks is None
    with pytest.raises(DatasetError, match="data.strict"):
        read(tmp_path, value, strict=True)


@pytest.mark.parametrize(
    ("value", "told", "has_mask"),
    [
        ([[10, 5, 30, 5]], ["mask that cannot be read, left out"], False),
        ([[10, 5, 30, 5, 30, 25, 10]], ["mask that cannot be read, left out"], False),
        ([[100, 100, 120, 100, 120, 120]], ["mask outside the image, left out"], False),
        ([[10, -7, 30, 5, 30, 25, 10, 25]], ["mask reaching out of the image, clipped"], True),
        ({"size": [40, 60], "counts": [2400]}, ["mask without a pixel, left out"], False),
        ([[10, 5, 10, 5, 10, 5]], [], True),  # it has no pixel
        ([BOX], [], True),
    ],
)
def test_training_is_told_at_its_start_of_all_that_needs_no_pixels(tmp_path, monkeypatch, value, told, has_mask):
    with monkeypatch.context() as patched:
        patched.setattr("detection.polygons.mask_api", None)  # it would rasterise
        (first, *_), faults = read(tmp_path, value, thorough=False)
        assert (describe_masks("train", [first], needed=False) or "") == (
            "train: 0 of 1 images have no masks, and 1 objects of the others: of these only boxes count"
            if has_mask
            else "train: no object has a mask: masks are not measured, boxes are"
        )
    assert [note.kind for note in faults.notes] == told and (first.masks is not None) == has_mask
    (same, *_), _ = read(tmp_path, value)
    if same.masks is not None:
        assert there(first.masks).rasterised() == same.masks and first.masks != same.masks
        assert there(make_target(first).masks).equal(there(make_target(same).masks))


def test_strict_training_looks_for_all_faults():
    data = Config.model_validate({"data": {"classes": ["cat"], "strict": True}}).data
    assert Faults.of(data).thorough and not Faults.of(data.model_copy(update={"strict": False})).thorough
    assert Faults.of(data.model_copy(update={"strict": False}), collect=True).thorough


def test_a_mask_that_reaches_out_of_the_image_is_clipped_and_told_how_far(tmp_path):
    (first, *_), faults = read(tmp_path, [[10, -7, 30, 5, 30, 25, 10, 25]])
    assert [note.kind for note in faults.notes] == ["mask reaching out of the image, clipped"] and "by 7 px" in faults.notes[
        0
    ].message
    assert there(first.masks).boxes()[0].tolist() == [10, 0, 30, 25]
    _, faults = read(tmp_path, [[10, -0.5, 30, 5, 30, 25, 10, 25]])
    assert not faults.notes, "people click beside the border"


def test_a_box_that_does_not_fit_its_mask_is_told_with_the_distance(tmp_path):
    (first, *_), faults = read(tmp_path, [BOX], bbox=[22, 5, 20, 20])
    (note,) = faults.notes
    assert note.kind == "box that does not fit its mask, both kept" and note.box == (22, 5, 42, 25)
    assert "box 22 5 42 25, that of its mask is 10 5 30 25: up to 12 px apart" in note.message
    assert first.boxes[0].tolist() == [22, 5, 42, 25] and there(first.masks).areas[0] == 400
    assert not read(tmp_path, [BOX], bbox=[12, 5, 20, 20])[1].notes
    assert not read(tmp_path, [BOX], bbox=[22, 5, 20, 20], iscrowd=1)[1].notes, "crowds are coarse"


def test_objects_of_other_classes_take_no_mask_along(tmp_path):
    content = coco_content()
    content["annotations"][0]["segmentation"], content["annotations"][1]["segmentation"] = (
        [BOX],
        [[36, 10, 55, 10, 55, 39, 36, 39]],
    )
    write_coco(tmp_path, content=content)
    dogs = read_coco(coco_source(tmp_path), tmp_path, ClassMap.to(["dog"]), Faults(), masks=True)
    assert there(dogs[0].masks).boxes().tolist() == [[36, 10, 55, 39]]


def write_numbers(root: Path, numbers: np.ndarray, stem: str = "000001") -> Path:
    """The picture of an image's objects, as VOC has it: a palette of which the numbers matter."""
    picture = root / "VOC2007" / "SegmentationObject" / f"{stem}.png"
    picture.parent.mkdir(exist_ok=True)
    image = Image.fromarray(numbers.astype(np.uint8), mode="P")
    image.putpalette(list(range(256)) * 3)
    image.save(picture)
    return picture


def read_devkit_masks(root: Path, numbers: np.ndarray, classes: tuple[str, ...] = CLASSES) -> tuple[list[Record], Faults]:
    write_numbers(root, numbers)
    faults = Faults()
    others = "refuse" if classes == CLASSES else "drop"
    return read_voc(voc_source(root), root, ClassMap(classes, others=others), faults, masks=True), faults  # type: ignore[arg-type]


def numbers_of(*values: tuple[int, tuple[int, int, int, int]], size_hw: tuple[int, int] = (40, 60)) -> np.ndarray:
    numbers = np.zeros(size_hw, np.uint8)
    for value, (x1, y1, x2, y2) in values:
        numbers[y1:y2, x1:x2] = value
    return numbers


def test_numbers_of_a_picture_are_the_objects_of_the_xml(tmp_path):
    write_devkit(tmp_path)
    numbers = numbers_of((255, (10, 5, 30, 25)), (1, (12, 7, 28, 23)), (2, (36, 10, 55, 39)))
    (first, *others), faults = read_devkit_masks(tmp_path, numbers)
    assert not faults.notes and all(other.masks is None for other in others)
    assert there(first.masks).boxes().tolist() == [[12, 7, 28, 23], [36, 10, 55, 39]] and first.labels.tolist() == [0, 1]
    (first, *_), _ = read_devkit_masks(tmp_path, numbers, ("dog",))
    assert there(first.masks).boxes().tolist() == [[36, 10, 55, 39]], "the second object's, though it is the first one kept"
    assert all(record.masks is None for record in load_dataset([voc_source(tmp_path)], CLASSES).records)
    assert load_dataset([voc_source(tmp_path)], CLASSES, masks=True).records[0].masks is not None


@pytest.mark.parametrize(
    ("numbers", "kind", "told"),
    [
        (numbers_of((3, (1, 1, 5, 5))), "picture of masks that cannot be read, left out", "has object 3; its XML file has 2"),
        (numbers_of(size_hw=(60, 40)), "picture of masks of another size, left out", "is 40x60, its image 60x40"),
        (numbers_of((1, (40, 30, 60, 40))), "box that does not fit its mask, both kept", "up to 30 px apart"),
    ],
)
def test_faulty_pictures_are_told(tmp_path, numbers, kind, told):
    write_devkit(tmp_path)
    (first, *_), faults = read_devkit_masks(tmp_path, numbers)
    (note,) = faults.notes
    assert note.kind == kind and told in note.message and "000001" in note.message and len(first.boxes) == 2
    assert (first.masks is None) == ("picture" in kind)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_as_boxes_are(orientation):
    bitmap = torch.zeros(1, 30, 50, dtype=torch.bool)
    bitmap[0, 4:9, 20:45] = True
    turned = turn_masks(Masks.from_bitmaps(bitmap), orientation)
    assert turned.size_hw == ((50, 30) if orientation > 4 else (30, 50))
    assert tuple(turned.boxes()[0].tolist()) == turn_box((20, 4, 45, 9), (30, 50), orientation)


def test_a_split_without_any_mask_is_refused_to_learn_from(tmp_path):
    records, _ = read(tmp_path)
    with pytest.raises(DatasetError, match=r"train: model\.mask is true, and no object of its 4 images has a mask: name data"):
        describe_masks("train", records, needed=True)
    told = describe_masks("val", records, needed=False)
    assert told is not None and "boxes are" in told
    records, _ = read(tmp_path, [BOX])
    assert describe_masks("train", records, needed=True) == (
        "train: 3 of 4 images have no masks, and 1 objects of the others: of these only boxes count"
    )
    records, _ = read(tmp_path, [BOX], [[36, 10, 55, 10, 55, 39]])
    assert describe_masks("train", records[:1], needed=True) is None


def config_of(root: Path, strict: bool = False, mask: bool = False) -> Config:
    source = coco_source(root).model_dump(mode="json")
    return Config.model_validate(
        {"model": {"mask": mask}, "data": {"classes": list(CLASSES), "train": [source], "strict": strict, "workers": 0}}
    )


def test_faults_of_masks_are_found_and_masks_are_drawn(tmp_path):
    read(tmp_path, [[1, 2, 3]], [[36, 10, 55, 10, 55, 39]])
    for mask in (False, True):
        findings = examine_data(config_of(tmp_path, mask=mask))
        assert [note.kind for note in findings.splits[0].faults.notes] == ["mask that cannot be read, left out"]
    assert findings.num_refused == 0
    assert overview(findings.splits, list(findings.statistics.values()))["with masks"] == [1]
    assert examine_data(config_of(tmp_path, strict=True, mask=True)).num_refused == 1
    assert examine_data(config_of(tmp_path, strict=True)).num_refused == 0, "training does not read them"
    record = findings.splits[0].records[0]
    grey = np.full((40, 60, 3), 128, np.uint8)
    drawn = draw_ground_truth(grey, record, CLASSES)
    assert (drawn[20, 52] != 128).any() and (drawn[33, 39] == 128).all(), "inside of the triangle, and outside"


def test_a_config_with_masks_reads_them(tmp_path):
    read(tmp_path, [BOX])
    data: DataConfig = config_of(tmp_path).data
    assert load_split(data, "train").records[0].masks is None
    assert load_split(data, "train", masks=True).records[0].masks is not None
    assert check_data(data, masks=True)[0].records[0].masks is not None


def test_coco_to_coco_keeps_masks(tmp_path):
    (first, second, *_), _ = read(tmp_path / "a", [BOX], None)
    write_dataset({"train": Dataset(CLASSES, [first, second])}, tmp_path / "b", "coco", images="none")
    content = json.loads((tmp_path / "b" / "annotations" / "instances_train.json").read_text())
    assert [bool(each["segmentation"]) for each in content["annotations"]] == [True, False, False]
    source = CocoSource(
        format="coco", root=tmp_path / "b", annotations=Path("annotations/instances_train.json"), images=Path("/")
    )
    again = load_dataset([source], CLASSES, masks=True).records
    assert again[0].masks == first.masks and again[1].masks is None


@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_of_coco_mini_are_the_files(real_data, split):
    root = real_data / "coco_mini"
    file = Path("annotations") / f"masks_{split}2017.json"
    source = CocoSource(format="coco", root=root, annotations=file, images=Path(f"{split}2017"))
    dataset = load_dataset([source], "coco", masks=True)
    records = [record for record in dataset.records if len(record.boxes)]
    assert records and all(record.masks is not None and len(record.masks) == len(record.boxes) for record in records)
    assert not [fault for fault in dataset.faults if re.search("mask (that|outside|without)", fault)]
    off = torch.cat([(record.boxes - there(record.masks).boxes()).abs().amax(dim=1)[~record.crowd] for record in records])
    assert off.median() < 1 and off.max() < 20


def test_masks_of_voc_mini(real_data):
    (root,) = {picture.parent.parent for picture in (real_data / "voc_mini").rglob("SegmentationObject/*.png")}
    split = next(path.stem for path in sorted((root / "ImageSets" / "Main").glob("*.txt")))
    source = VocSource(format="voc", root=root, split=split)
    records = load_dataset([source], "voc", masks=True).records
    with_masks = [record for record in records if record.masks is not None]
    assert with_masks and all(there(record.masks).size_hw == record.size_hw for record in with_masks)
    off = torch.cat(
        [(record.boxes - there(record.masks).boxes()).abs().amax(dim=1)[there(record.masks).areas > 0] for record in with_masks]
    )
    assert off.median() < 8, "the void border of five pixels"
