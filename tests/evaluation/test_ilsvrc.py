"""ImageNet's DET and CLS-LOC measures against the kit's algorithm in plain loops, and against its own published numbers."""

from __future__ import annotations

import numpy as np
import pytest

from detection.evaluation.ilsvrc import (
    DetDetections,
    DetGroundTruth,
    LocGroundTruth,
    LocGuesses,
    evaluate_det,
    evaluate_loc,
    iou_threshold_of,
)
from tests.evaluation.ilsvrc_scenes import plain_det, plain_iou, random_det


@pytest.mark.parametrize("seed", range(30))
def test_det_is_what_the_kit_computes(seed):
    truth, found = random_det(seed)
    result = evaluate_det(truth, found)
    expected = {name: plain_det(truth, found, label) for label, name in enumerate(truth.class_names)}
    assert result.ap == pytest.approx({name: ap for name, ap in expected.items() if not np.isnan(ap)}, abs=1e-12)
    assert result.mean_ap == pytest.approx(np.mean(list(result.ap.values())), abs=1e-12)
    assert result.median_ap == np.median(list(result.ap.values()))


def test_small_objects_are_met_with_less():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 100, 100], [5, 5, 25, 15]], dtype=float)
    assert iou_threshold_of(boxes) == pytest.approx([0.25, 0.5, 200 / 600])


def test_a_detection_takes_the_next_best_object_when_the_best_is_taken():
    boxes = np.array([[0, 0, 100, 100], [0, 0, 100, 80]], dtype=float)
    truth = DetGroundTruth(("a",), 1, np.zeros(2, int), np.zeros(2, int), boxes, np.zeros((0, 2), int))
    both = DetDetections(np.zeros(2, int), np.zeros(2, int), np.array([0.9, 0.8]), boxes[[0, 0]])
    assert evaluate_det(truth, both).ap == {"a": 1.0}


def test_det_of_nothing():
    nothing = DetDetections(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros((0, 4)))
    truth, _ = random_det(0)
    assert set(evaluate_det(truth, nothing).ap.values()) == {0.0}
    everything = np.array([(image, label) for image in range(truth.num_images) for label in range(3)])
    unevaluated = DetGroundTruth(truth.class_names, truth.num_images, truth.images, truth.labels, truth.boxes, everything)
    result = evaluate_det(unevaluated, random_det(0)[1])
    assert result.ap == {} and np.isnan(result.mean_ap) and np.isnan(result.median_ap)


@pytest.mark.parametrize("seed", range(10))
def test_loc_is_what_the_kit_computes(seed):
    random = np.random.default_rng(seed)
    num_images = 40
    labels = random.integers(0, 4, num_images)
    images = np.sort(random.integers(0, num_images, 70))
    corners = random.integers(0, 40, (70, 2)).astype(float)
    boxes = np.concatenate([corners, corners + random.integers(5, 40, (70, 2))], axis=1)
    guessed = random.integers(-1, 4, (num_images, 5))
    places = np.stack([boxes[random.integers(0, 70, num_images)] + random.uniform(-2, 3, (num_images, 4)) for _ in range(5)], 1)
    truth = LocGroundTruth(4, labels, images, boxes, random.random(num_images) < 0.2)
    result = evaluate_loc(truth, LocGuesses(guessed, places))
    for count in range(1, 6):
        classified = [labels[image] in guessed[image, :count] for image in range(num_images)]
        localised = [
            any(
                guessed[image, guess] == labels[image] and plain_iou(places[image, guess], box) >= 0.5
                for guess in range(count)
                for box in boxes[images == image]
            )
            for image in range(num_images)
        ]
        kept = [hit for image, hit in enumerate(localised) if not truth.unevaluated[image]]
        assert result.classification_error[count - 1] == pytest.approx(1 - np.mean(classified))
        assert result.localisation_error[count - 1] == pytest.approx(1 - np.mean(kept))


def test_the_error_of_the_true_class_looks_at_its_first_box():
    boxes = np.array([[0, 0, 10, 10]] * 3, dtype=float)
    truth = LocGroundTruth(2, np.array([0, 0, 1]), np.arange(3), boxes, np.zeros(3, bool))
    far = [50.0, 50.0, 60.0, 60.0]
    places = np.array([[far, [0, 0, 10, 10]], [[0, 0, 10, 10], far], [far, far]], dtype=float)
    result = evaluate_loc(truth, LocGuesses(np.array([[0, 0], [1, 0], [0, 0]]), places))
    # Image 0 has it at the second box of its class, image 1 not at all, image 2's class was not guessed.
    assert result.gt_class_error == 1.0 and result.localisation_error[1] == pytest.approx(2 / 3)
