"""The split that a config names for evaluation, and its ground truth in the form of either standard."""

from pathlib import Path

import pytest

from detection.config import Config
from detection.errors import ConfigError, DatasetError
from detection.evaluation.split import (
    EvaluationSplit,
    as_coco_results,
    as_voc_evaluation,
    coco_ground_truth,
    load_evaluation_split,
    require_objects,
    voc_ground_truth,
)
from tests.data.pictures import CLASSES, write_coco, write_devkit
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
    assert kit[0].size_hw == (0, 0)  # no image is opened
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
