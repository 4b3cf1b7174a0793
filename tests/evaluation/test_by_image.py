"""Detections by image from the forms of files are those that the files were made of."""

import numpy as np
import pytest

from detection.evaluation.by_image import group_by_image, results_by_image
from detection.evaluation.detection_files import coco_results
from detection.evaluation.voc import split_by_class
from tests.evaluation.scenes import random_scene

NAMES = ["cat", "dog", "cow"]


@pytest.mark.parametrize("seed", range(3))
def test_detections_by_class_and_by_image_are_the_same(seed):
    records, detections = random_scene(seed)
    by_class = split_by_class(records, detections, NAMES)
    again = split_by_class(records, group_by_image(records, by_class, NAMES), NAMES)
    for name in NAMES:
        rows, rows_again = (
            sorted(zip(each.images, each.scores, map(tuple, each.boxes), strict=True)) for each in (by_class[name], again[name])
        )
        assert rows == rows_again


@pytest.mark.parametrize("seed", range(3))
def test_results_of_a_file_are_the_detections_that_were_written(seed):
    records, detections = random_scene(seed)
    ids: dict[str, int | str] = {"cat": 7, "dog": "d", "cow": 3}
    results = coco_results(detections, NAMES, ids)
    again = results_by_image(records, results, {number: name for name, number in ids.items()}, NAMES)
    assert list(again) == [record.image_id for record in records]
    for image, found in detections.items():
        order = np.argsort(-found.scores.numpy(), kind="stable")
        np.testing.assert_array_equal(again[image].scores, found.scores[order])
        np.testing.assert_array_equal(again[image].labels, found.labels[order])
        np.testing.assert_allclose(again[image].boxes, found.boxes[order], atol=1e-9)


def test_results_of_other_categories_are_left_out():
    records, detections = random_scene(0)
    results = coco_results(detections, NAMES, {name: number for number, name in enumerate(NAMES)})
    kept = results_by_image(records, results, {0: "cat", 1: "bird", 2: "cow"}, ["cow", "cat"])
    for image, found in detections.items():
        assert (kept[image].labels == 0).sum() == (found.labels == 2).sum() and len(kept[image]) == (found.labels != 1).sum()
    assert all(len(found) == 0 for found in results_by_image(records, [], {}, NAMES).values())
