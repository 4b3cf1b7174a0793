"""What each error costs is what the AP gains without it; divided among the errors it adds up to all that is lost."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detection.evaluation.lost_ap import divided_lost_ap, lost_ap, lost_ap_of_images
from detection.evaluation.matches import NONE, match
from detection.structures import Detections
from tests.evaluation.matched import plain_ranking
from tests.report.scenes import scene


def matched(**options):
    dataset, found = scene(**options)
    return match(dataset.records, found, dataset.class_names)


def plain_mean_ap(matches, row, removed=None, found=None):
    """The uninterpolated AP, detection by detection, without one of them, or with one missed object found first."""
    values = []
    for label in np.flatnonzero(matches.num_objects):
        num_true, rank, total = 0, 0, 0.0
        if found is not None and matches.objects.labels[found] == label:
            num_true, rank, total = 1, 1, 1.0
        for each in plain_ranking(matches, label):
            if each == removed or matches.ignored(row)[each]:
                continue
            rank += 1
            if matches.true_positives(row)[each]:
                num_true += 1
                total += num_true / rank
        values.append(total / matches.num_objects[label])
    return np.mean(values)


@pytest.mark.parametrize("seed", range(3))
def test_the_closed_form_is_the_gain_of_putting_one_error_right(seed):
    matches = matched(num_images=5, num_objects=5, num_detections=20, seed=seed)
    row = matches.at(0.5)
    lost, now = lost_ap(matches, row), plain_mean_ap(matches, row)
    false = ~matches.true_positives(row) & ~matches.ignored(row)
    for each in range(len(matches.detections)):
        gain = plain_mean_ap(matches, row, removed=each) - now if false[each] else 0.0
        assert lost.detections[each] == pytest.approx(gain, abs=1e-12)
    missed = (matches.detection_of(row) == NONE) & ~matches.objects.ignored
    assert missed.any() and matches.ignored(row).any()
    for each in range(len(matches.objects)):
        gain = plain_mean_ap(matches, row, found=each) - now if missed[each] else 0.0
        assert lost.objects[each] == pytest.approx(gain, abs=1e-12)


@pytest.mark.parametrize("row", [0, 5])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_divided_adds_up_to_all_that_is_lost(seed, row):
    matches = matched(seed=seed)
    divided = divided_lost_ap(matches, row)
    assert divided.total == pytest.approx(1 - plain_mean_ap(matches, row), abs=1e-12)
    assert (divided.detections >= lost_ap(matches, row).detections - 1e-12).all()
    true = matches.true_positives(row) | matches.ignored(row)
    assert (divided.detections[true] == 0).all() and (divided.objects[matches.objects.ignored] == 0).all()


def test_one_class_by_hand():
    """Three objects; by score: false, true, true, false; so AP = (1/2 + 2/3) / 3."""
    dataset, _ = scene(num_images=1, class_names=("cat", "dog"), num_objects=0)
    square = torch.tensor([0.0, 0.0, 10.0, 10.0])
    boxes = torch.stack([square, square + 20, square + 40, square + 60, square + 80])
    flags, areas = torch.zeros(3, dtype=torch.bool), torch.full((3,), 100.0)
    labels = torch.zeros(3, dtype=torch.long)
    record = replace(dataset.records[0], boxes=boxes[:3], labels=labels, difficult=flags, crowd=flags, areas=areas)
    found = Detections(boxes[[3, 0, 1, 4]], torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.zeros(4, dtype=torch.long))
    matches = match([record], {0: found}, dataset.class_names)
    lost, divided = lost_ap(matches, 0), divided_lost_ap(matches, 0)
    np.testing.assert_allclose(lost.detections, [(1 / 1 - 1 / 2 + 2 / 2 - 2 / 3) / 3, 0, 0, 0])
    np.testing.assert_allclose(lost.objects, [0, 0, (1 + 2 / 3 - 1 / 2 + 3 / 4 - 2 / 3) / 3])
    np.testing.assert_allclose(divided.detections, [(1 / 2 + 1 / 3) / 3, 0, 0, 0])
    np.testing.assert_allclose(divided.objects, [0, 0, 1 / 3])
    np.testing.assert_allclose(lost_ap_of_images(lost, matches), [lost.total])


def test_each_image_has_the_sum_of_its_errors():
    matches = matched()
    lost = lost_ap(matches, 0)
    sums = lost_ap_of_images(lost, matches)
    for image in range(matches.num_images):
        there, found = matches.objects.images == image, matches.detections.images == image
        assert sums[image] == pytest.approx(lost.detections[found].sum() + lost.objects[there].sum())


@pytest.mark.parametrize("options", [{"num_images": 0}, {"num_detections": 0}, {"num_objects": 0}])
def test_without_images_detections_or_objects(options):
    matches = matched(**options)
    lost, divided = lost_ap(matches, 0), divided_lost_ap(matches, 0)
    assert lost_ap_of_images(lost, matches).shape == (matches.num_images,)
    assert divided.total == pytest.approx(1 if matches.num_objects.any() else 0)
    np.testing.assert_array_equal(lost.objects, divided.objects)
