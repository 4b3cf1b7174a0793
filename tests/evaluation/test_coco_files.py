"""Faults of annotation and result files are told in one line that names file and entry."""

import json
from pathlib import Path
from typing import Any

import pytest

from detection.errors import DatasetError
from detection.evaluation.coco import evaluate_coco_files

DATASET: dict[str, list[dict[str, Any]]] = {
    "images": [{"id": 1}, {"id": "two"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 10, 10]}],
    "categories": [{"id": 3, "name": "cat"}],
}
RESULT = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 10, 10], "score": 0.5}


def run(folder: Path, dataset: Any = DATASET, results: Any = (RESULT,)) -> dict[str, float]:
    annotations, detections = folder / "annotations.json", folder / "results.json"
    annotations.write_text(json.dumps(dataset))
    detections.write_text(json.dumps(results))
    return evaluate_coco_files(annotations, detections)


def changed(list_name: str, **fields: Any) -> dict[str, Any]:
    return {**DATASET, list_name: [{**DATASET[list_name][0], **fields}, *DATASET[list_name][1:]]}


def test_area_and_iscrowd_may_be_left_out(tmp_path):
    assert run(tmp_path)["AP"] == pytest.approx(1)


def test_no_result_at_all(tmp_path):
    assert run(tmp_path, results=[])["AP"] == 0


def test_annotation_zero_is_warned_of(tmp_path, caplog):
    assert run(tmp_path, changed("annotations", id=0))["AP"] == 0
    assert "annotation 0 counts as never found" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, r"results\.json: results\[0\] is of image 9"),
        ({"image_id": "1"}, r"results\[0\] is of image '1', which .* do not hold; it is the number 1 there: write both alike"),
        ({"image_id": [1]}, r"'image_id' must be a whole number or text, found \[1\]"),
        ({"category_id": 4}, "is of category 4"),
        ({"category_id": None}, "'category_id' must be a whole number or text, found None"),
        ({"bbox": [0, 0, 1]}, "'bbox' must be four finite numbers"),
        ({"bbox": [0, 0, 1, float("nan")]}, "'bbox' must be four finite numbers"),
        ({"score": "high"}, "'score' must be a finite number, found 'high'"),
        ({"score": float("inf")}, "'score' must be a finite number"),
    ],
)
def test_faulty_results(tmp_path, change, message):
    with pytest.raises(DatasetError, match=message):
        run(tmp_path, results=[{**RESULT, **change}])


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([], "is no COCO annotation file"),
        ({"images": []}, "is no COCO annotation file"),
        (changed("images", id="two"), "lists 1 image ids more than once; the first: 'two'"),
        (
            changed("annotations", image_id=5),
            "1 annotations refer to none of its images; the first: annotation 1 has image_id 5",
        ),
        (
            changed("annotations", category_id=5),
            "1 annotations refer to none of its categories; the first: annotation 1 has category_id 5",
        ),
        (changed("annotations", iscrowd="yes"), "annotation 1 of image 1: 'iscrowd' must be 0 or 1, found 'yes'"),
        (changed("annotations", iscrowd=2), "'iscrowd' must be 0 or 1, found 2"),
        (changed("categories", name=3.5), "'name' must be text, found 3.5"),
        ({**DATASET, "annotations": [{"id": 1}]}, r"annotations\[0\] has no 'image_id'"),
        ({**DATASET, "images": [7]}, r"images\[0\] must be an object, found 7"),
    ],
)
def test_faulty_annotations(tmp_path, dataset, message):
    with pytest.raises(DatasetError, match=message):
        run(tmp_path, dataset)


def test_results_must_be_a_list(tmp_path):
    with pytest.raises(DatasetError, match="must hold a list of results, found a dict"):
        run(tmp_path, results={"results": []})


def test_the_annotations_in_the_place_of_the_results_are_known(tmp_path):
    with pytest.raises(DatasetError, match="found a dict: this is an annotation file"):
        run(tmp_path, results=DATASET)


@pytest.mark.parametrize("name", ["sub/a.jpg", "a.jpg", "a"])
def test_an_image_named_by_its_file_is_told_its_id(tmp_path, name):
    with pytest.raises(DatasetError, match="which the annotations do not hold; it is the file of image 1 there: write that id"):
        run(tmp_path, changed("images", file_name="sub/a.jpg"), [{**RESULT, "image_id": name}])


def test_an_unknown_category_is_told_the_ids_that_there_are(tmp_path):
    ids, name = [each["id"] for each in DATASET["categories"]], DATASET["categories"][0]["name"]
    with pytest.raises(DatasetError, match=f"the {len(ids)} ids there are {min(ids)} to {max(ids)}, and not positions"):
        run(tmp_path, results=[{**RESULT, "category_id": 77}])
    with pytest.raises(DatasetError, match=f"it is the name of category {ids[0]} there: write that id"):
        run(tmp_path, results=[{**RESULT, "category_id": name}])


def test_a_result_must_have_a_score(tmp_path):
    with pytest.raises(DatasetError, match=r"results\[0\] has no 'score'"):
        run(tmp_path, results=[{key: RESULT[key] for key in ("image_id", "category_id", "bbox")}])


def test_a_file_cut_in_the_middle(tmp_path):
    run(tmp_path)
    file = tmp_path / "results.json"
    file.write_text(file.read_text()[:-9])
    with pytest.raises(DatasetError, match=r"results\.json is not valid JSON \(cut short\?\)"):
        evaluate_coco_files(tmp_path / "annotations.json", file)


def test_absent_and_binary_files(tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read .*absent\.json: No such file"):
        evaluate_coco_files(tmp_path / "absent.json", tmp_path / "absent.json")
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(DatasetError, match=r"binary\.json is not a text file"):
        evaluate_coco_files(binary, binary)
