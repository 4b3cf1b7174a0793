"""Tables, pictures and the confusion matrix."""

import json

import numpy as np
import pytest
from rich.console import Console

from detection.analysis.report import coco_table, confusion_matrix, group_by_image, voc_table, write_report
from detection.evaluation.coco import evaluate_coco_records
from detection.evaluation.voc import evaluate_voc, split_by_class
from tests.evaluation.scenes import jittered, make_detections, make_record, random_scene

NAMES = ["cat", "dog", "cow"]
A, B, FAR = (0, 0, 10, 10), (50, 50, 70, 70), (100, 100, 110, 110)


def text_of(table) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_confusion_by_hand():
    records = [make_record("a", [A, B, FAR], [0, 1, 1])]
    # The cat is taken for a cow, the first dog found and found once more, the second missed; a faint one does not count.
    found = make_detections([A, B, B, FAR], [0.9, 0.8, 0.7, 0.4], [2, 1, 1, 1])
    expected = np.zeros((4, 4), int)
    expected[0, 2] = expected[1, 1] = expected[3, 1] = expected[1, 3] = 1
    assert confusion_matrix(records, {"a": found}, NAMES).tolist() == expected.tolist()


def test_confusion_leaves_difficult_objects_out():
    records = [make_record("a", [A, B], [0, 1], difficult=[True, False])]
    matrix = confusion_matrix(records, {"a": make_detections([A], [0.9], [2])}, NAMES)
    assert matrix.sum() == 1 and matrix[1, 3] == 1


@pytest.mark.parametrize("boxes", [[], [A]])
def test_confusion_without_detections_or_objects(boxes):
    matrix = confusion_matrix([make_record("a", boxes)], {}, NAMES)
    assert matrix.sum() == len(boxes)
    matrix = confusion_matrix([make_record("a")], {"a": make_detections(boxes, [0.9] * len(boxes))}, NAMES)
    assert matrix[3, 0] == len(boxes)


@pytest.mark.parametrize("seed", range(3))
def test_every_object_is_counted_once(seed):
    records, _ = random_scene(seed)
    matrix = confusion_matrix(records, jittered(records, seed, 3), NAMES, score_threshold=0.0)
    for label in range(3):
        count = sum(int((record.labels[record.trainable] == label).sum()) for record in records)
        assert matrix[label].sum() == count


def test_detections_by_class_and_by_image_are_the_same():
    records, detections = random_scene(2)
    by_class = split_by_class(records, detections, NAMES)
    again = split_by_class(records, group_by_image(records, by_class, NAMES), NAMES)
    for name in NAMES:
        rows, rows_again = (
            sorted(zip(each.images, each.scores, map(tuple, each.boxes), strict=True)) for each in (by_class[name], again[name])
        )
        assert rows == rows_again


def test_tables_name_the_metric_and_the_classes():
    records, _ = random_scene(1)
    detections = jittered(records, 1, 3)
    shown = text_of(voc_table(evaluate_voc(records, detections, NAMES, metric="voc07")))
    assert "VOC07 11-point" in shown and "cat" in shown and "mean" in shown
    result = evaluate_coco_records(records, detections, NAMES)
    shown = text_of(coco_table(result.numbers, result.class_ap))
    assert "AR100" in shown and "AP of dog" in shown and "-1" not in shown


def test_report_files(tmp_path):
    records, _ = random_scene(1)
    detections = jittered(records, 1, 3)
    result = evaluate_voc(records, detections, NAMES)
    files = write_report(tmp_path / "new", result, records, detections, NAMES)
    assert [file.name for file in files] == ["voc.json", "pr_curves.png", "confusion.json", "confusion.png"]
    assert json.loads(files[0].read_text())["mAP"] == result.mean_ap
    assert json.loads(files[2].read_text())["classes"] == [*NAMES, "background"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files if file.suffix == ".png")


def test_report_without_detections(tmp_path):
    records = [make_record("a", [A])]
    assert len(write_report(tmp_path, evaluate_voc(records, {}, ["cat"]), records, {}, ["cat"])) == 4
