"""COCO's numbers must be pycocotools' own."""

import contextlib
import copy
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.errors import DatasetError
from detection.evaluation import coco
from detection.evaluation.coco import (
    CAPPED_METRICS,
    COCO_METRICS,
    evaluate_coco,
    evaluate_coco_files,
    evaluate_coco_records,
    evaluate_coco_results,
    records_as_coco,
)
from detection.evaluation.coco_files import category_ids
from detection.evaluation.detection_files import coco_results
from detection.structures import Detections
from tests.evaluation.scenes import jittered, make_detections, make_record, random_scene

NAMES = ["cat", "dog", "cow"]
A, B = (0, 0, 10, 10), (50, 50, 70, 70)


def reference_evaluation(
    dataset: dict[str, Any], results: list[dict[str, Any]], cap: int = 100, iou_type: str = "bbox"
) -> COCOeval:
    """pycocotools itself, after its work."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(dataset)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), iou_type)
        evaluation.params.maxDets = [1, 10, cap]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def reference(dataset: dict[str, Any], results: list[dict[str, Any]], iou_type: str = "bbox") -> dict[str, float]:
    """The twelve numbers by pycocotools."""
    evaluation = reference_evaluation(dataset, results, iou_type=iou_type)
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


def with_ids(content: Any, ids: dict[str, Callable[[int], Any]]) -> Any:
    """A copy of a file's content with other ids: by the key, for images "image_id", for categories "category_id"."""
    content = copy.deepcopy(content)
    if isinstance(content, list):
        return [{**row, **{key: ids[key](row[key]) for key in ids if key in row}} for row in content]
    lists = {"images": {"id": "image_id"}, "categories": {"id": "category_id"}, "annotations": {"id": "id"}}
    for name, keys in lists.items():
        for row in content[name]:
            row.update({key: ids[of](row[key]) for key, of in keys.items() if of in ids})
    content["annotations"] = [
        {**row, **{key: ids[key](row[key]) for key in ("image_id", "category_id") if key in ids}}
        for row in content["annotations"]
    ]
    return content


@pytest.mark.parametrize(
    "shift", [-1000, -(2**63) - 1000, 2**31, 2**53, 2**63 - 3, 2**63, 2**64, 10**30, "text", "float"], ids=str
)
@pytest.mark.parametrize("key", ["id", "image_id", "category_id"])
def test_ids_of_any_size_or_kind_give_what_ordinary_ids_give(tmp_path, key: str, shift: Any):
    """The order of the ids stays, on which ties depend; ordinary ids give what pycocotools gives."""

    def moved(number: int) -> Any:
        return f"{number:05}" if shift == "text" else float(number) if shift == "float" else number + int(shift)

    dataset, results = random_files(11)
    dataset["annotations"] = [{**row, "id": row["id"] + 1} for row in dataset["annotations"]]  # without annotation 0
    ids: dict[str, Callable[[int], Any]] = {key: moved}
    (tmp_path / "a.json").write_text(json.dumps(with_ids(dataset, ids)))
    (tmp_path / "r.json").write_text(json.dumps(with_ids(results, ids) if key != "id" else results))
    numbers = evaluate_coco_files(tmp_path / "a.json", tmp_path / "r.json")
    assert numbers == evaluate_coco_results(dataset, results).numbers
    assert numbers == pytest.approx(reference(dataset, results), abs=1e-12)


def test_repeated_and_missing_annotation_ids_all_count(tmp_path):
    dataset, results = random_files(11)
    ordinary = {**dataset, "annotations": [{**row, "id": row["id"] + 1} for row in dataset["annotations"]]}
    expected = reference(ordinary, results)
    for ids in ([None] * 99, [5] * 99, [0, 0, *range(97)], [True, float("nan"), [1], *range(2, 99)]):
        rows = [{**row, "id": each} for row, each in zip(dataset["annotations"], ids, strict=False)]
        (tmp_path / "a.json").write_text(json.dumps({**dataset, "annotations": rows}))
        (tmp_path / "r.json").write_text(json.dumps(results))
        assert evaluate_coco_files(tmp_path / "a.json", tmp_path / "r.json") == pytest.approx(expected, abs=1e-12)


def test_categories_of_one_name_are_one_class_in_evaluation_too(tmp_path):
    dataset, results = random_files(4)
    merged_ids: dict[str, Callable[[int], Any]] = {"category_id": lambda number: 7 if number == 90 else number}
    merged = with_ids(dataset, merged_ids)
    merged["categories"] = [row for row in dataset["categories"] if row["id"] != 90]
    twice = {
        **dataset,
        "categories": [{**row, "name": "dog" if row["id"] in (7, 90) else "cat"} for row in dataset["categories"]],
    }
    expected = evaluate_coco_results(merged, with_ids(results, merged_ids))
    assert evaluate_coco_results(twice, results) == expected
    (tmp_path / "a.json").write_text(json.dumps(twice))
    (tmp_path / "r.json").write_text(json.dumps(results))
    assert evaluate_coco_files(tmp_path / "a.json", tmp_path / "r.json") == expected.numbers
    counts = Counter(row["category_id"] for row in dataset["annotations"])
    assert category_ids(twice) == {"dog": max((7, 90), key=counts.__getitem__), "cat": 1}


def test_categories_without_objects_cost_nothing():
    dataset, results = random_files(2)
    many = {**dataset, "categories": [*dataset["categories"], *({"id": n, "name": f"c{n}"} for n in range(1000, 101_000))]}
    assert evaluate_coco_results(many, results) == evaluate_coco_results(dataset, results)


def test_very_many_categories_are_measured_some_at_a_time(monkeypatch):
    dataset, results = random_files(8)
    whole = evaluate_coco_results(dataset, results)
    monkeypatch.setattr(coco, "_MAX_PAIRS", 1)
    assert evaluate_coco_results(dataset, results) == whole
    monkeypatch.setattr(coco, "MAX_CATEGORIES", 2)
    with pytest.raises(DatasetError, match="3 categories have objects; at most 2 can be evaluated together"):
        evaluate_coco_results(dataset, results)


def crowded_scene(seed: int, per_image: int = 150) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Two images with so many objects in a grid, and as many detections near them, in random order of their scores."""
    rng = np.random.default_rng(seed)
    places = [(12 * column, 12 * row) for column in range(15) for row in range(per_image // 15)]
    records = [make_record(image, [(x, y, x + 10, y + 10) for x, y in places]) for image in (1, 2)]
    shifts = rng.uniform(-2, 2, size=(2, per_image, 2))
    detections = {
        image: make_detections(
            [(x + dx, y + dy, x + dx + 10, y + dy + 10) for (x, y), (dx, dy) in zip(places, image_shifts, strict=True)],
            rng.uniform(size=per_image).tolist(),
        )
        for image, image_shifts in zip((1, 2), shifts, strict=True)
    }
    return records_as_coco(records, NAMES), coco_results(detections, NAMES, {name: i for i, name in enumerate(NAMES)})


@pytest.mark.parametrize("cap", [101, 130, 1000])
def test_a_higher_cap_gives_what_pycocotools_gives_with_it(cap, monkeypatch):
    dataset, results = crowded_scene(cap)
    found = evaluate_coco_results(dataset, results, max_detections=cap)
    assert tuple(found.numbers) == COCO_METRICS + CAPPED_METRICS
    expected = reference_evaluation(dataset, results, cap)
    precision, recall = expected.eval["precision"][:, :, :, 0, 2], expected.eval["recall"][:, :, 0, 2]
    assert found.numbers["APcap"] == pytest.approx(precision[precision > -1].mean(), abs=1e-12)
    assert found.numbers["ARcap"] == pytest.approx(recall[recall > -1].mean(), abs=1e-12)
    assert found.numbers["APcap"] > found.numbers["AP"] and found.numbers["ARcap"] > found.numbers["AR100"]
    twelve = {key: found.numbers[key] for key in COCO_METRICS}
    assert twelve == pytest.approx(reference(dataset, results), abs=1e-12)
    monkeypatch.setattr(coco, "_MAX_PAIRS", 1)
    assert evaluate_coco_results(dataset, results, max_detections=cap) == found


def test_coco_s_cap_and_lower_ones_add_nothing():
    dataset, results = crowded_scene(0)
    for cap in (20, 100):
        assert evaluate_coco_results(dataset, results, max_detections=cap) == evaluate_coco_results(dataset, results)
    assert evaluate_coco_results({**dataset, "annotations": []}, [], max_detections=200).numbers["ARcap"] == -1


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
