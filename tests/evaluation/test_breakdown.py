"""The lost AP by kind, size and crowding adds up, and is in the bins of what lost it."""

import numpy as np
import pytest

from detection.evaluation.breakdown import (
    CROWDING,
    SIZES,
    break_down_by_crowding,
    break_down_by_size,
    detection_sizes,
    divide_losses,
    neighbour_iou,
    sizes_of,
)
from detection.evaluation.errors import ErrorKind, find_errors
from detection.evaluation.lost_ap import divided_lost_ap
from detection.evaluation.matches import match, overlaps
from detection.evaluation.tide import Fix
from tests.evaluation.test_errors import CAT, DOG, SQUARE, one_image
from tests.report.scenes import scene


def matched(**options):
    dataset, found = scene(**options)
    return match(dataset.records, found, dataset.class_names)


@pytest.mark.parametrize("seed", range(3))
def test_all_that_is_lost_is_divided_and_has_the_kind_of_its_error(seed):
    matches = matched(seed=seed)
    errors, divided = find_errors(matches), divided_lost_ap(matches, 0)
    losses = divide_losses(matches, errors, divided)
    assert losses.costs.sum() == pytest.approx(divided.total)
    num_detections = len(matches.detections)
    false = (errors.kinds != ErrorKind.CORRECT) & (errors.kinds != ErrorKind.IGNORED)
    np.testing.assert_array_equal(losses.fixes[:num_detections][false], errors.kinds[false] - 1)
    lost = divided.objects > 0
    np.testing.assert_array_equal((losses.fixes[num_detections:] == Fix.MISSED)[lost], errors.missed[lost])
    assert set(losses.fixes[num_detections:][lost]) <= {Fix.CLASS, Fix.LOCALISATION, Fix.MISSED}
    wrong = losses.fixes == Fix.CLASS
    counts = losses.costs > 0
    np.testing.assert_array_equal(losses.true_labels[counts] >= 0, wrong[counts])
    assert (losses.true_labels[wrong & counts] != losses.detected_labels[wrong & counts]).all()


def test_an_object_taken_for_another_class_by_hand():
    """The dog is called a cat: its AP is lost, and half of that of the cat behind it."""
    matches = one_image([(CAT, SQUARE), (DOG, (50, 0, 60, 10))], [(CAT, (50, 0, 60, 10), 0.9), (CAT, SQUARE, 0.8)])
    losses = divide_losses(matches, find_errors(matches), divided_lost_ap(matches, 0))
    assert losses.costs.tolist() == [1 / 4, 0, 0, 1 / 2]
    assert losses.labels.tolist() == [CAT, CAT, CAT, DOG]
    assert losses.fixes[[0, 3]].tolist() == [Fix.CLASS, Fix.CLASS]
    assert losses.true_labels[[0, 3]].tolist() == [DOG, DOG] and losses.detected_labels[[0, 3]].tolist() == [CAT, CAT]


def test_sizes_are_cocos():
    assert [SIZES[size] for size in sizes_of(np.array([0, 1023.9, 1024, 9215, 9216, 1e9]))] == [
        "small",
        "small",
        "medium",
        "medium",
        "large",
        "large",
    ]


@pytest.mark.parametrize("seed", range(3))
def test_sizes_hold_all_objects_and_all_losses(seed):
    matches = matched(seed=seed)
    divided = divided_lost_ap(matches, 0)
    parts = break_down_by_size(matches, 0, divided)
    np.testing.assert_array_equal(parts.num_objects.sum(axis=1), matches.num_objects)
    assert parts.lost_missing.sum() + parts.lost_false.sum() == pytest.approx(divided.total)
    for label in range(3):
        for size in range(3):
            there = (matches.objects.labels == label) & (sizes_of(matches.objects.areas) == size)
            found = (matches.detections.labels == label) & (detection_sizes(matches) == size)
            assert parts.num_found[label, size] == (matches.detection_of(0)[there] >= 0).sum()
            assert parts.lost_missing[label, size] == pytest.approx(divided.objects[there].sum())
            assert parts.lost_false[label, size] == pytest.approx(divided.detections[found].sum())


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_are_those_of_the_class_and_the_image(seed):
    matches = matched(seed=seed, num_objects=12, class_names=("a", "b"))
    objects, values = matches.objects, neighbour_iou(matches)
    iou = overlaps(objects.boxes, objects.boxes, np.zeros(len(objects), dtype=bool))
    for each in range(len(objects)):
        others = (objects.labels == objects.labels[each]) & (objects.images == objects.images[each]) & ~objects.ignored
        others[each] = False
        expected = 0.0 if objects.ignored[each] else iou[each][others].max(initial=0.0)
        assert values[each] == pytest.approx(expected)


def test_crowding_by_hand():
    objects = [
        (CAT, (0, 0, 10, 10)),
        (CAT, (9, 0, 19, 10)),
        (CAT, (50, 0, 60, 10)),
        (CAT, (50, 5, 60, 15)),
        (CAT, (100, 0, 110, 9)),
    ]
    # A box between the first and the second is near the first; one that meets nothing is in no bin.
    found = [(CAT, (-6, 0, 4, 10), 0.9), (CAT, (200, 0, 210, 10), 0.8), (CAT, (50, 0, 60, 10), 0.7)]
    matches = one_image(objects, found)
    parts = break_down_by_crowding(matches, 0, divided_lost_ap(matches, 0))
    assert parts.bins == CROWDING
    assert parts.num_objects[CAT].tolist() == [1, 2, 0, 2] and parts.num_found[CAT].tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(parts.lost_missing[CAT], [1 / 5, 2 / 5, 0, 1 / 5])
    np.testing.assert_allclose(parts.lost_false[CAT], [0, 1 / 15, 0, 0])
    assert not parts.num_objects[DOG].any()


@pytest.mark.parametrize("options", [{"num_images": 0}, {"num_detections": 0}, {"num_objects": 0}])
def test_without_images_detections_or_objects(options):
    matches = matched(**options)
    divided = divided_lost_ap(matches, 0)
    losses = divide_losses(matches, find_errors(matches), divided)
    for parts in (break_down_by_size(matches, 0, divided), break_down_by_crowding(matches, 0, divided)):
        assert parts.num_objects.sum() == matches.num_objects.sum() and parts.num_found.sum() == 0
    assert losses.costs.sum() == pytest.approx(divided.total)
    assert np.isfinite(losses.costs).all()
