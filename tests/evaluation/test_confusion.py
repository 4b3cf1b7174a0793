"""The confusion matrices of all thresholds agree with a plain implementation that matches anew at each."""

from collections.abc import Sequence

import numpy as np
import pytest

from detection.evaluation.confusion import confuse, confusion_matrix, reach, score_levels
from detection.evaluation.matches import NONE, match
from detection.modeling.boxes import pairwise_iou
from detection.structures import Detections, DetectionsByImage, Record
from tests.evaluation.scenes import jittered, make_detections, make_record, random_scene
from tests.report.scenes import scene

NAMES = ["cat", "dog", "cow"]
A, B, FAR = (0, 0, 10, 10), (50, 50, 70, 70), (100, 100, 110, 110)
THRESHOLDS = np.arange(0, 1.01, 0.07)


def plain_matrix(
    records: Sequence[Record], detections: DetectionsByImage, num_classes: int, iou: float = 0.5, score: float = 0.5
) -> np.ndarray:
    """(K + 1, K + 1) counts, image by image and detection by detection."""
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=int)
    for record in records:
        found = detections.get(record.image_id, Detections.empty())
        found = found[found.scores >= score]
        overlaps = pairwise_iou(found.boxes.double(), record.boxes.double()).numpy()
        left = record.trainable.numpy().copy()
        for detection in np.argsort(-found.scores.numpy(), kind="stable"):
            values = np.where(left, overlaps[detection], -1.0)
            label = int(found.labels[detection])
            if len(values) and values.max() >= iou:
                left[values.argmax()] = False
                matrix[record.labels[values.argmax()], label] += 1
            elif not (overlaps[detection][~record.trainable.numpy()] >= iou).any():
                matrix[num_classes, label] += 1
        np.add.at(matrix, (record.labels.numpy()[left], num_classes), 1)
    return matrix


def matrix_of(records, detections, names=NAMES, iou=0.5, score=0.5) -> np.ndarray:
    matches = match(records, detections, names)
    return confusion_matrix(matches, confuse(matches, iou), score)


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(6))
def test_every_threshold_agrees_with_the_plain_way(seed, iou):
    dataset, found = scene(num_images=6, seed=seed)
    matches = match(dataset.records, found, dataset.class_names)
    confusion = confuse(matches, iou)
    for score in THRESHOLDS:
        expected = plain_matrix(dataset.records, found, len(dataset.class_names), iou, score)
        np.testing.assert_array_equal(confusion_matrix(matches, confusion, score), expected)


def test_by_hand():
    records = [make_record("a", [A, B, FAR], [0, 1, 1])]
    # The cat is taken for a cow, the first dog found and found once more, the second missed; a faint one does not count.
    found = make_detections([A, B, B, FAR], [0.9, 0.8, 0.7, 0.4], [2, 1, 1, 1])
    expected = np.zeros((4, 4), int)
    expected[0, 2] = expected[1, 1] = expected[3, 1] = expected[1, 3] = 1
    assert matrix_of(records, {"a": found}).tolist() == expected.tolist()


def test_a_detection_on_an_ignored_object_alone_is_not_counted():
    records = [make_record("a", [A, A, B], [0, 1, 1], difficult=[True, False, False])]
    found = make_detections([A, A, A], [0.9, 0.8, 0.7], [2, 2, 2])
    matrix = matrix_of(records, {"a": found})
    # The first takes the dog of the same place; the others find nothing but what is to be ignored.
    assert matrix[1, 2] == 1 and matrix[1, 3] == 1 and matrix.sum() == 2
    matches = match(records, {"a": found}, NAMES)
    assert confuse(matches).true_labels.tolist() == [1, NONE, NONE]


@pytest.mark.parametrize("boxes", [[], [A]])
def test_without_detections_or_objects(boxes):
    missed = matrix_of([make_record("a", boxes)], {})
    assert missed.sum() == missed[0, 3] == len(boxes)
    invented = matrix_of([make_record("a")], {"a": make_detections(boxes, [0.9] * len(boxes))})
    assert invented.sum() == invented[3, 0] == len(boxes)
    assert matrix_of([], {}).sum() == 0


@pytest.mark.parametrize("seed", range(3))
def test_every_object_is_counted_once(seed):
    records, _ = random_scene(seed)
    matrix = matrix_of(records, jittered(records, seed, 3), score=0.0)
    for label in range(3):
        count = sum(int((record.labels[record.trainable] == label).sum()) for record in records)
        assert matrix[label].sum() == count


def test_a_score_reaches_the_threshold_that_is_written_like_it():
    scores = np.arange(101, dtype=np.float32) / np.float32(100)
    for number, score in enumerate(scores.astype(np.float64)):
        assert reach(np.array([score, number / 100]), number / 100).all()
    assert score_levels(scores.astype(np.float64), 101).tolist() == list(range(101))
    assert score_levels(np.array([-1.0, 0.0, 0.005, 0.999, 1.0, 2.0]), 101).tolist() == [-1, 0, 0, 99, 100, 100]


def test_scores_beyond_float32_are_compared_as_its_greatest():
    scores = np.array([1e300, 1.0, -1e300])
    assert reach(scores, 0.5).tolist() == [True, True, False]
    assert score_levels(scores, 101).tolist() == [100, 100, -1]
