"""Detections of classes that an image does not know are neither true nor false positives. APs by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.config import Config
from detection.data.catalog import Dataset
from detection.evaluation.coco import evaluate_coco_results
from detection.evaluation.known import ignore_unknown, without_unknown
from detection.evaluation.split import (
    as_coco_results,
    as_voc_evaluation,
    coco_ground_truth,
    load_evaluation_split,
    voc_ground_truth,
)
from detection.evaluation.voc import evaluate_voc
from detection.inference.evaluate import evaluate_detections
from detection.report.reported import analyse
from detection.structures import Detections, Record
from tests.data.pictures import CLASSES, write_coco, write_devkit
from tests.evaluation.scenes import make_detections, make_record, random_scene

CAT, DOG = 0, 1
BOX, OTHER = (10, 10, 60, 60), (100, 100, 150, 150)


def knowing(record: Record, *known: bool) -> Record:
    return replace(record, known=torch.tensor(known))


# The first image knows both classes and has a dog; the second knows cats alone and has one.
RECORDS = [make_record("a", [BOX], [DOG]), knowing(make_record("b", [BOX], [CAT]), True, False)]
FOUND = {
    "a": make_detections([BOX, OTHER], [0.8, 0.7], [DOG, DOG]),
    "b": make_detections([OTHER, BOX, OTHER], [0.9, 0.6, 0.65], [DOG, CAT, CAT]),
}


def test_by_hand():
    counted = without_unknown(RECORDS, FOUND)
    assert counted["a"] is FOUND["a"] and counted["b"].scores.tolist() == pytest.approx([0.6, 0.65])
    # Dogs by score: the unknown one at 0.9 (false), found at 0.8, false at 0.7. The precision at recall 1 is 1/2 with the
    # unknown one, and 1 without. Cats: false at 0.65, found at 0.6: 1/2 either way.
    assert evaluate_voc(RECORDS, FOUND, CLASSES).ap == {"cat": 0.5, "dog": 0.5}
    assert evaluate_voc(RECORDS, counted, CLASSES).ap == {"cat": 0.5, "dog": 1.0}


def test_every_metric_and_the_report_leave_them_out():
    result = evaluate_detections(Dataset(CLASSES, RECORDS), FOUND)
    assert result.class_ap["voc_area"] == {"cat": 0.5, "dog": 1.0} and result.metrics["voc_area"] == 0.75
    # COCO takes the precision at 101 recalls: 1/2 at each for cats at all ten IoUs, 1 for dogs.
    assert result.class_ap["AP"] == {"cat": pytest.approx(0.5), "dog": pytest.approx(1.0)}
    assert result.metrics["AP"] == pytest.approx(0.75)
    assert len(result.detections["b"]) == 2
    matches = analyse(result.reported("it")).matches
    assert sorted(matches.detections.scores.tolist()) == pytest.approx([0.6, 0.65, 0.7, 0.8])


def test_an_object_of_an_unknown_class_need_not_be_found():
    records = [RECORDS[0], knowing(make_record("b", [BOX, OTHER], [CAT, DOG]), True, False)]
    (first, second) = ignore_unknown(records)
    assert first is records[0] and second.difficult.tolist() == [False, True]
    # One dog to find, found; with the other it would be half of two.
    found = {"a": make_detections([BOX], [0.8], [DOG]), "b": make_detections([OTHER, BOX], [0.9, 0.8], [DOG, CAT])}
    result = evaluate_detections(Dataset(CLASSES, records), found)
    assert result.class_ap["voc_area"] == {"cat": 1.0, "dog": 1.0}
    assert result.class_ap["AP"] == {"cat": pytest.approx(1.0), "dog": pytest.approx(1.0)}
    assert result.dataset.records[1].difficult.tolist() == [False, True]


def test_where_all_is_known_nothing_changes():
    records, detections = random_scene(3)
    names = ["a", "b", "c"]
    dataset = Dataset(tuple(names), records)
    result = evaluate_detections(dataset, detections)
    assert result.dataset is dataset and result.detections is detections
    assert without_unknown(records, detections) is detections and ignore_unknown(records) == records
    all_known = [knowing(record, True, True, True) for record in records]
    again = evaluate_detections(Dataset(tuple(names), all_known), detections)
    assert again.metrics == result.metrics and again.class_ap == result.class_ap


def test_no_detections_and_no_classes_known():
    records = [knowing(make_record("a", [BOX], [CAT]), False, False)]
    assert without_unknown(records, {}) == {}
    assert len(without_unknown(records, {"a": make_detections([BOX], [0.5], [CAT])})["a"]) == 0
    assert len(without_unknown(records, {"a": Detections.empty()})["a"]) == 0
    assert evaluate_detections(Dataset(CLASSES, records), {"a": make_detections([BOX], [0.5], [CAT])}).class_ap["AP"] == {}


@pytest.mark.parametrize("formats", [["voc"], ["coco"], ["voc", "coco"]])
def test_the_commands_ground_truth_counts_the_same(tmp_path: Path, formats: Sequence[str]) -> None:
    """By either standard, as eval-voc and eval-coco compute it, and as `evaluate` does."""
    write_devkit(tmp_path)
    write_coco(tmp_path)
    sources: dict[str, dict[str, Any]] = {
        "voc": {"format": "voc", "year": "2007", "split": "trainval", "known_classes": ["cat"]},
        "coco": {"format": "coco", "annotations": "instances.json", "images": "images"},
    }
    sources["coco"] |= {"known_classes": ["cat"]} if formats == ["coco"] else {}
    test = [{**sources[name], "root": str(tmp_path)} for name in formats]
    split = load_evaluation_split(Config.model_validate({"data": {"classes": list(CLASSES), "test": test}}))
    assert split.is_partial
    detections = {
        record.image_id: make_detections([(10, 5, 30, 25), (5, 5, 20, 20), OTHER], [0.9, 0.8, 0.95], [CAT, CAT, DOG])
        for record in split.records
    }
    expected = evaluate_detections(split.dataset, detections)
    voc = as_voc_evaluation(split, detections, voc_ground_truth(split)).evaluate(metric="area")
    assert voc.ap == expected.class_ap["voc_area"]
    truth = coco_ground_truth(split)
    counted = as_coco_results(truth, without_unknown(split.records, detections), split.class_names)
    coco = evaluate_coco_results(truth, counted, split.class_names)
    assert coco.numbers["AP"] == pytest.approx(expected.metrics["AP"]) and coco.class_ap == pytest.approx(
        expected.class_ap["AP"]
    )
    # Of the dogs those of the COCO file alone are to be found, which knows them where it is joined.
    assert ("dog" in expected.class_ap["voc_area"]) == (len(formats) == 2)
