"""COCO's numbers must be pycocotools' own."""

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.errors import DatasetError
from detection.evaluation.coco import (
    COCO_METRICS,
    evaluate_coco,
    evaluate_coco_files,
    evaluate_coco_records,
    evaluate_coco_results,
    records_as_coco,
)
from detection.evaluation.detection_files import coco_results
from detection.structures import Detections
from tests.evaluation.scenes import jittered, make_detections, make_record, random_scene

NAMES = ["cat", "dog", "cow"]
A, B = (0, 0, 10, 10), (50, 50, 70, 70)


def reference(dataset: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    """The twelve numbers by pycocotools itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(dataset)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(COCO_METRICS, evaluation.stats.tolist(), strict=True))


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_records_equal_pycocotools(seed):
    records, detections = random_scene(seed)
    dataset, results = records_as_coco(records, NAMES), coco_results(detections, NAMES, {n: i for i, n in enumerate(NAMES)})
    if results:
        assert evaluate_coco(records, detections, NAMES) == pytest.approx(reference(dataset, results), abs=1e-12)


def random_files(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Content of an annotation and a result file: sizes of all kinds, crowds, gaps in the ids, an annotation 0."""
    random = np.random.default_rng(seed)
    images = [{"id": int(each)} for each in random.permutation(40)[:6]]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in images:
        for _ in range(int(random.integers(0, 6))):
            box = (random.random(4) * [100, 100, 150, 150]).tolist()
            category, crowd = int(random.choice([1, 7, 90])), int(random.random() < 0.2)
            area = box[2] * box[3] * float(random.choice([1, 0.6]))
            row = {"id": len(annotations), "image_id": image["id"], "category_id": category, "bbox": box}
            annotations.append({**row, "area": area, "iscrowd": crowd})
            for _ in range(int(random.integers(0, 3))):
                moved = np.abs(np.array(box) + random.normal(0, 5, 4)).tolist()
                score = float(random.integers(1, 9)) / 8
                results.append({"image_id": image["id"], "category_id": category, "bbox": moved, "score": score})
    names = [{"id": 90, "name": "cow"}, {"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}]
    order = random.permutation(len(results))
    return {"images": images, "annotations": annotations, "categories": names}, [results[index] for index in order]


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_files_equal_pycocotools(seed):
    dataset, results = random_files(seed)
    if results:
        assert evaluate_coco_results(dataset, results).numbers == pytest.approx(reference(dataset, results), abs=1e-12)


def test_more_than_a_hundred_detections_equal_pycocotools():
    random = np.random.default_rng(0)
    boxes = random.random((300, 4)) * 50
    results = [{"image_id": 1, "category_id": 1, "bbox": box.tolist(), "score": float(random.random())} for box in boxes]
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": box.tolist(), "area": box[2] * box[3], "iscrowd": 0}
        for n, box in enumerate(boxes[:30], 1)
    ]
    dataset = {"images": [{"id": 1}], "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    assert evaluate_coco_results(dataset, results).numbers == pytest.approx(reference(dataset, results), abs=1e-12)


def test_coco_mini_equals_pycocotools(real_data: Path, tmp_path: Path):
    annotations = real_data / "coco_mini/annotations/instances_val2017.json"
    dataset = json.loads(annotations.read_text())
    random = np.random.default_rng(0)
    results = []
    for row in dataset["annotations"]:
        for _ in range(int(random.integers(0, 3))):
            box = np.abs(np.array(row["bbox"]) * (1 + random.normal(0, 0.1, 4))).tolist()
            score = round(float(random.random()), 2)
            results.append({"image_id": row["image_id"], "category_id": row["category_id"], "bbox": box, "score": score})
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    assert evaluate_coco_files(annotations, file) == pytest.approx(reference(dataset, results), abs=1e-12)


def test_perfect_detections_score_one():
    records = [make_record(1, [A, B])]
    numbers = evaluate_coco(records, {1: make_detections([A, B], [0.9, 0.8])}, ["cat"])
    assert tuple(numbers) == COCO_METRICS
    assert numbers["AP"] == numbers["AP50"] == numbers["APs"] == numbers["AR100"] == pytest.approx(1)
    assert numbers["AR1"] == pytest.approx(0.5)
    assert numbers["APm"] == numbers["APl"] == -1


def test_no_detections_score_zero_without_a_crash():
    for detections in ({}, {1: Detections.empty()}):
        numbers = evaluate_coco([make_record(1, [A])], detections, ["cat"])
        assert numbers["AP"] == numbers["AP50"] == numbers["AR100"] == numbers["APs"] == 0
        assert numbers["APl"] == -1


def test_no_objects_are_minus_one_as_in_pycocotools():
    assert set(evaluate_coco([make_record(1)], {1: make_detections([A], [0.5])}, ["cat"]).values()) == {-1.0}


@pytest.mark.parametrize("flag", ["difficult", "crowd"])
def test_difficult_and_crowd_are_ignored(flag):
    records = [make_record("a", [A, B], **{flag: [False, True]})]
    assert evaluate_coco(records, {"a": make_detections([B, B, A], [0.9, 0.8, 0.7])}, ["cat"])["AP"] == pytest.approx(1)


def test_ap_by_class_leaves_out_classes_without_objects():
    records = [make_record("a", [A, B], labels=[0, 1])]
    result = evaluate_coco_records(records, {"a": make_detections([A], [0.9])}, NAMES)
    assert result.class_ap == {"cat": pytest.approx(1), "dog": 0}
    assert result.numbers["AP"] == pytest.approx(0.5)


def test_only_the_asked_categories_count():
    dataset, results = random_files(3)
    without = {**dataset, "categories": dataset["categories"][1:]}
    without["annotations"] = [row for row in dataset["annotations"] if row["category_id"] != 90]
    kept = [row for row in results if row["category_id"] != 90]
    assert evaluate_coco_results(dataset, results, ["cat", "dog"]).numbers == pytest.approx(reference(without, kept), abs=1e-12)


def test_an_unknown_image_is_refused():
    with pytest.raises(DatasetError, match="'b'"):
        evaluate_coco([make_record("a", [A])], {"b": make_detections([A], [0.9])}, ["cat"])


def test_the_libraries_print_nothing(capfd):
    evaluate_coco(*random_scene(0), NAMES)
    assert capfd.readouterr() == ("", "")


def test_image_ids_may_be_names_of_any_order():
    records, detections = random_scene(5)
    renamed = [make_record(str(999 - int(str(r.image_id))), r.boxes.tolist(), r.labels.tolist()) for r in records]
    found = {str(999 - int(str(key))): value for key, value in detections.items()}
    assert evaluate_coco(renamed, found, NAMES)["AP"] >= 0


def test_jittered_truth_scores_between_none_and_all():
    records, _ = random_scene(1)
    assert 0 < evaluate_coco(records, jittered(records, 0, 3), NAMES)["AP"] < 1
