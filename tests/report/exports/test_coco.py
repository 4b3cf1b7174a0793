"""The COCO files of a report: read back, they give the same numbers to the last digit."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detection.data.catalog import Dataset
from detection.evaluation.coco import evaluate_coco, evaluate_coco_results
from detection.evaluation.coco_files import read_annotations, read_results
from detection.report.exports.coco import ANNOTATIONS_FILE, DETECTIONS_FILE, write_coco
from detection.report.exports.errors_csv import ERRORS_FILE, write_errors
from detection.report.exports.fiftyone import write_fiftyone
from detection.report.reported import analyse
from detection.structures import Detections
from detection.tiles import Window
from tests.report.scenes import HOSTILE_NAMES, reported, scene


def read_back(folder: Path):
    dataset = read_annotations(folder / ANNOTATIONS_FILE)
    return dataset, read_results(folder / DETECTIONS_FILE, dataset)


@pytest.mark.parametrize("class_names", [("cat", "dog", "bird"), HOSTILE_NAMES, ("one",)])
def test_the_files_give_the_numbers_of_the_report(tmp_path, class_names):
    mine = reported(*scene(class_names=class_names))
    write_coco(analyse(mine), tmp_path)
    dataset, results = read_back(tmp_path)
    expected = evaluate_coco(mine.dataset.records, mine.detections, class_names)
    found = evaluate_coco_results(dataset, results)
    assert found.numbers == expected and found.class_ap == mine.class_ap["AP"]
    assert [category["name"] for category in dataset["categories"]] == list(class_names)
    record = mine.dataset.records[0]
    assert dataset["images"][0] == {
        **{"id": record.image_id, "file_name": record.file.absolute().as_posix()},
        **{"width": 320, "height": 240},
    }


def test_names_that_are_no_text_are_written(tmp_path):
    dataset, found = scene(num_images=2)
    records = [
        replace(record, image_id=f"\udcff {record.image_id}\n", file=Path(f"/a/\udcff\n{record.image_id}.png"))
        for record in dataset.records
    ]
    detections = {record.image_id: found[number] for number, record in enumerate(records)}
    write_coco(analyse(reported(Dataset(dataset.class_names, records), detections)), tmp_path)
    read, results = read_back(tmp_path)
    assert read["images"][0]["file_name"] == "/a/\\udcff\n0.png"
    assert evaluate_coco_results(read, results).numbers == evaluate_coco(records, detections, dataset.class_names)


@pytest.mark.parametrize("num_images", [0, 3])
def test_without_detections_the_files_are_whole(tmp_path, num_images):
    dataset, _ = scene(num_images=num_images)
    detections = {record.image_id: Detections.empty() for record in dataset.records}
    write_coco(analyse(reported(dataset, detections)), tmp_path)
    assert json.loads((tmp_path / DETECTIONS_FILE).read_text()) == []
    assert len(json.loads((tmp_path / ANNOTATIONS_FILE).read_text())["images"]) == num_images


def test_boxes_of_tiles_are_in_the_pixels_of_their_file(tmp_path):
    """In every file beside the page; and the numbers stay what they are."""
    dataset, found = scene()
    records = [replace(record, size_hw=(1000, 2000), window=Window(700, 500, 320, 240)) for record in dataset.records]
    mine = reported(Dataset(dataset.class_names, records), found)
    for write in (write_coco, write_errors, write_fiftyone):
        write(analyse(mine), tmp_path)
    read, results = read_back(tmp_path)
    shift = np.array([700, 500, 0, 0])
    boxes = np.concatenate([record.boxes for record in records]).astype(np.float64)
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    np.testing.assert_allclose([each["bbox"] for each in read["annotations"]], xywh + shift, atol=1e-9)
    first = found[0].boxes[0].double().numpy()
    np.testing.assert_allclose(results[0]["bbox"], [*first[:2] + shift[:2], *first[2:] - first[:2]], atol=1e-9)
    assert evaluate_coco_results(read, results).numbers == pytest.approx(evaluate_coco(records, found, dataset.class_names))
    with (tmp_path / ERRORS_FILE).open(encoding="utf-8", newline="") as file:
        missed = next(line for line in csv.DictReader(file) if line["error"] == "missed")
    assert min(float(missed["true_x1"]), float(missed["true_x2"])) >= 700 and float(missed["true_y1"]) >= 500
    sample = json.loads((tmp_path / "fiftyone/samples.json").read_text())["samples"][0]
    for shown, box in zip(sample["ground_truth"]["detections"], boxes, strict=False):
        np.testing.assert_allclose(shown["bounding_box"][:2], (box[:2] + [700, 500]) / [2000, 1000], atol=1e-6)
