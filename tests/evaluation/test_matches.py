"""Matches give COCO's own numbers, and agree with the plain way of matching."""

import numpy as np
import pytest

from detection.errors import DatasetError
from detection.evaluation.coco import evaluate_coco_records
from detection.evaluation.matches import COCO_THRESHOLDS, NONE, match, overlaps
from detection.evaluation.precision_recall import coco_average_precision
from tests.evaluation.matched import plain_ranking
from tests.evaluation.scenes import make_record
from tests.report.scenes import scene


@pytest.mark.parametrize("seed", range(20))
def test_the_mean_precision_is_cocos(seed):
    dataset, found = scene(num_images=8, seed=seed)
    expected = evaluate_coco_records(dataset.records, found, dataset.class_names)
    matches = match(dataset.records, found, dataset.class_names)
    ap = np.array([coco_average_precision(matches, row) for row in range(len(COCO_THRESHOLDS))])
    np.testing.assert_allclose(np.nanmean(ap), expected.numbers["AP"], rtol=1e-12)
    np.testing.assert_allclose(np.nanmean(ap[matches.at(0.75)]), expected.numbers["AP75"], rtol=1e-12)
    np.testing.assert_allclose(ap.mean(axis=0), [expected.class_ap[name] for name in dataset.class_names], rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_detections_take_objects_as_the_plain_way_says(seed):
    dataset, found = scene(num_images=6, seed=seed)
    matches = match(dataset.records, found, dataset.class_names)
    detections, objects = matches.detections, matches.objects
    for row, threshold in enumerate(matches.iou_thresholds):
        taken, expected = set(), np.full(len(detections), NONE)
        for each in range(len(detections)):
            iou = overlaps(detections.boxes[[each]], objects.boxes, objects.ignored)[0]
            there = (objects.images == detections.images[each]) & (objects.labels == detections.labels[each])
            possible = [key for key in np.flatnonzero(there & (iou >= threshold)) if key not in taken]
            if possible:
                expected[each] = max(possible, key=lambda key: (not objects.ignored[key], iou[key], key))
                taken |= {expected[each]} - set(np.flatnonzero(objects.ignored))
        np.testing.assert_array_equal(matches.object_of[row], expected)


def test_nothing_found_and_nothing_to_find():
    dataset, found = scene(num_images=3)
    none = match(dataset.records, {}, dataset.class_names)
    assert len(none.detections) == 0 and none.object_of.shape == (10, 0) and (none.detection_of(0) == NONE).all()
    empty, _ = scene(num_images=3, num_objects=0)
    matches = match(empty.records, found, empty.class_names)
    assert not matches.true_positives(0).any() and np.isnan(coco_average_precision(matches, 0)).all()
    assert match([], {}, ("cat",)).num_objects.tolist() == [0]


@pytest.mark.parametrize("names", [("a", "b", "c", "d"), ("a",)])
def test_classes_are_ranked_as_one_by_one(names):
    dataset, found = scene(class_names=names)
    matches = match(dataset.records, found, names)
    for counted in (None, ~matches.ignored(0)):
        rankings = matches.ranked_by_class(counted)
        assert len(rankings) == len(names)
        for label, rows in enumerate(rankings):
            np.testing.assert_array_equal(rows, plain_ranking(matches, label, counted))


def test_no_classes_have_no_rankings():
    assert match([], {}, ()).ranked_by_class() == []


def test_two_images_of_one_id_are_refused():
    """As the tiles of an image have it: detections by image id would be those of one of them."""
    with pytest.raises(DatasetError, match="two images have the id 7: give tiles ids of their own"):
        match([make_record(7, [[0, 0, 9, 9]]), make_record(8), make_record(7)], {}, ("cat",))
