"""The split that a config names for evaluation, and its ground truth in the form of either standard."""

from pathlib import Path

import pytest

from detection.config import Config
from detection.errors import ConfigError, DatasetError
from detection.evaluation.coco import evaluate_coco_results
from detection.evaluation.split import (
    EvaluationSplit,
    as_coco_results,
    as_voc_evaluation,
    coco_ground_truth,
    load_evaluation_split,
    require_objects,
    voc_ground_truth,
)
from tests.data.pictures import CLASSES, Picture, Thing, write_coco, write_devkit
from tests.evaluation.scenes import make_detections


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_devkit(tmp_path)
    write_coco(tmp_path)
    return tmp_path


def split_of(folder: Path, *formats: str, **data: object) -> EvaluationSplit:
    sources = {
        "voc": {"format": "voc", "root": str(folder), "year": 2007, "split": "trainval"},
        "coco": {"format": "coco", "root": str(folder), "annotations": "instances.json", "images": "images"},
    }
    values = {"classes": list(CLASSES), "test": [sources[name] for name in formats], **data}
    return load_evaluation_split(Config.model_validate({"data": values}))


def test_voc_data_are_counted_as_the_development_kit_does(folder):
    split = split_of(folder, "voc")
    assert split.voc_name == "trainval" and split.unannotated == []
    kit = voc_ground_truth(split)
    assert [record.image_id for record in kit] == [record.image_id for record in split.records]
    assert kit[0].size_hw == (40, 60)  # as the annotation says; no image is opened
    detections = {split.records[0].image_id: make_detections([(1, 1, 9, 9)], [0.5])}
    evaluation = as_voc_evaluation(split, detections)
    assert evaluation.default_metric == "voc07" and evaluation.classes_without_file == []
    assert evaluation.evaluate(metric="area").metric == "area"


def test_one_coco_file_is_its_own_ground_truth(folder):
    split = split_of(folder, "coco")
    own = coco_ground_truth(split)
    assert {"file_name", "width"} <= set(own["images"][0]) and split.voc_name == "test"
    assert voc_ground_truth(split) is split.records
    ids = {category["name"]: category["id"] for category in own["categories"]}
    (result,) = as_coco_results(own, {split.records[0].image_id: make_detections([(1, 1, 9, 9)], [0.5])}, CLASSES)
    assert result["category_id"] == ids[CLASSES[0]] and result["bbox"] == [1, 1, 8, 8]


def test_other_data_are_made_from_the_records(folder):
    made = coco_ground_truth(split_of(folder, "voc"))
    assert [category["name"] for category in made["categories"]] == list(CLASSES)
    assert set(made["images"][0]) == {"id"}


def test_what_cannot_be_evaluated_is_refused(folder):
    with pytest.raises(ConfigError, match=r"set data\.test or data\.val"):
        split_of(folder)
    require_objects(split_of(folder, "voc"))
    with pytest.raises(DatasetError, match="none of the classes has an object"):
        require_objects(EvaluationSplit((), type(split_of(folder, "voc").dataset)(CLASSES, [])))
    unannotated = {"format": "voc", "root": str(folder), "year": 2007, "split": "trainval", "annotated": False}
    split = split_of(folder, test=[unannotated])
    assert split.unannotated == ["trainval"]
    with pytest.raises(ConfigError, match="'trainval' has no annotations"):
        require_objects(split)


CARS = (
    Picture(1, (40, 60), (Thing("car", (0, 0, 10, 10)), Thing("van", (20, 0, 30, 10)))),
    Picture(2, (40, 60), (Thing("bus", (0, 0, 20, 20)), Thing("van", (30, 30, 40, 40)))),
)


@pytest.mark.parametrize("form", ["voc", "coco"])
def test_renamed_and_dropped_names_count_as_they_were_learnt(tmp_path, form):
    """Three cars, of which two are vans in the data: the first and the third are found, and one box is wrong.

    By falling scores: right, wrong, right. Precision 1 up to recall 1/3, then 2/3 up to 2/3: the area is 1/3 + 2/9.
    """
    write_devkit(tmp_path, CARS)
    content = {
        "images": [{"id": each.number, "file_name": f"{each.stem}.jpg", "height": 40, "width": 60} for each in CARS],
        "categories": [{"id": 5, "name": "van"}, {"id": 6, "name": "car"}, {"id": 7, "name": "bus"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 6, "bbox": [0, 0, 10, 10], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 5, "bbox": [20, 0, 10, 10], "iscrowd": 0},
            {"id": 3, "image_id": 2, "category_id": 7, "bbox": [0, 0, 20, 20], "iscrowd": 0},
            {"id": 4, "image_id": 2, "category_id": 5, "bbox": [30, 30, 10, 10], "iscrowd": 0},
        ],
    }
    write_coco(tmp_path, CARS, content)
    split = split_of(tmp_path, form, classes=["car"], rename={"van": "car"}, drop=["bus"])
    first, second = (record.image_id for record in split.records)
    detections = {
        first: make_detections([(0, 0, 10, 10)], [0.9]),
        second: make_detections([(30, 30, 40, 40), (0, 0, 20, 20)], [0.5, 0.7]),
    }
    assert as_voc_evaluation(split, detections).evaluate(metric="area").ap == {"car": pytest.approx(1 / 3 + 2 / 9)}
    truth = coco_ground_truth(split)
    numbers = evaluate_coco_results(truth, as_coco_results(truth, detections, split.class_names), split.class_names).numbers
    # 101 levels of recall: 34 (0 to 0.33) at precision 1, 33 (to 0.66) at 2/3, the others at 0.
    assert numbers["AP50"] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert numbers["AR100"] == pytest.approx(2 / 3)
