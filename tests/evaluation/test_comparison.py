"""Weighted images give the AP of repeated ones; intervals hold the truth as often as they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detection.evaluation.coco import evaluate_coco_records
from detection.evaluation.comparison import LEAST_IMAGES, compare, compare_all
from detection.evaluation.disagreement import disagreements
from detection.evaluation.matches import COCO_THRESHOLDS, NONE, match
from detection.evaluation.metrics import RESAMPLED_METRICS
from detection.evaluation.precision_recall import coco_average_precision
from detection.evaluation.resampling import resample_ap
from detection.evaluation.voc import evaluate_voc
from detection.structures import Detections
from tests.evaluation.matched import one_class_matches
from tests.report.scenes import scene


def matched(seed: int, **options):
    dataset, found = scene(seed=seed, **options)
    return match(dataset.records, found, dataset.class_names)


def another_detector(found, seed: int):
    """Other scores and moved boxes."""
    random = np.random.default_rng(seed)

    def changed(each: Detections) -> Detections:
        scores = torch.tensor(random.random(len(each)), dtype=torch.float32)
        order = torch.argsort(-scores)
        moved = each.boxes + torch.tensor(random.normal(0, 2, each.boxes.shape), dtype=torch.float32)
        moved[:, 2:] = torch.maximum(moved[:, 2:], moved[:, :2] + 1)
        return Detections(moved[order], scores[order], each.labels[order])

    return {image: changed(each) for image, each in found.items()}


@pytest.mark.parametrize("seed", range(10))
def test_with_each_image_once_it_is_the_ap_of_the_data_set(seed):
    dataset, found = scene(num_images=8, seed=seed)
    records, names = dataset.records, dataset.class_names
    matches = match(records, found, names)
    resampled = resample_ap(matches, resamples=2)
    ap = np.array([coco_average_precision(matches, row) for row in range(len(COCO_THRESHOLDS))])
    expected = [
        ap.mean(),
        ap[0].mean(),
        ap[5].mean(),
        evaluate_voc(records, found, names).mean_ap,
        evaluate_voc(records, found, names, metric="voc07").mean_ap,
    ]
    np.testing.assert_allclose(resampled.mean_ap[:, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(resampled.class_ap[0, 0], ap.mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_with_images_drawn_again_it_is_the_ap_of_copied_records(seed):
    """Copies of an image stand beside it. Scores differ within an image, where copies and weights rank ties differently."""
    dataset, found = scene(num_images=6, seed=seed)
    found = another_detector(found, seed) | {0: Detections.empty()}
    names = dataset.class_names
    resamples = 3
    resampled = resample_ap(match(dataset.records, found, names), resamples, seed)
    random = np.random.default_rng(seed)
    for draw in range(1, 1 + resamples):
        copies = sorted(random.integers(6, size=6).tolist())
        records = [replace(dataset.records[image], image_id=number) for number, image in enumerate(copies)]
        detections = {number: found[image] for number, image in enumerate(copies)}
        coco = evaluate_coco_records(records, detections, names)
        expected = [coco.numbers[key] for key in ("AP", "AP50", "AP75")]
        expected += [evaluate_voc(records, detections, names, metric=metric).mean_ap for metric in ("area", "voc07")]
        np.testing.assert_allclose(resampled.mean_ap[:, draw], expected, rtol=1e-12)
        for label, name in enumerate(names):
            np.testing.assert_allclose(resampled.class_ap[0, draw, label], coco.class_ap.get(name, np.nan), rtol=1e-12)


def test_draws_do_not_depend_on_how_many_fit_into_memory(monkeypatch):
    matches = matched(0)
    whole = resample_ap(matches, resamples=20)
    monkeypatch.setattr("detection.evaluation.resampling._MAX_ELEMENTS", 1)
    one_by_one = resample_ap(matches, resamples=20)
    np.testing.assert_allclose(one_by_one.class_ap, whole.class_ap, rtol=1e-12)


def test_a_detector_beside_itself_differs_in_nothing():
    matches = matched(0)
    comparison = compare(matches, matches, resamples=50)
    for each in (*comparison.metrics.values(), *(one.difference for one in comparison.classes)):
        assert (each.value, each.low, each.high, each.better, each.is_clear) == (0, 0, 0, 0, False)


def test_the_difference_turns_round_with_the_detectors():
    dataset, found = scene(num_images=20)
    one, other = (match(dataset.records, each, dataset.class_names) for each in (found, another_detector(found, 1)))
    there, back = compare(one, other, resamples=100, seed=3), compare(other, one, resamples=100, seed=3)
    for key in RESAMPLED_METRICS:
        first, second = there.metrics[key], back.metrics[key]
        np.testing.assert_allclose([first.value, first.low, first.high], [-second.value, -second.high, -second.low])
        assert first.low <= first.value <= first.high and first.better + second.better <= 1
    labels = [each.label for each in there.classes]
    assert [each.difference.value for each in there.classes] == sorted(each.difference.value for each in there.classes)[::-1]
    assert sorted(labels) == sorted(each.label for each in back.classes)


def test_several_are_compared_with_the_first():
    dataset, found = scene(num_images=10)
    several = [match(dataset.records, each, dataset.class_names) for each in (found, another_detector(found, 1), found)]
    comparisons = compare_all(several, resamples=20, seed=1)
    assert comparisons[0] == compare(several[0], several[1], resamples=20, seed=1)
    assert comparisons[1].metrics["AP"].value == 0 and compare_all(several[:1]) == []


def test_a_plain_gain_is_clear_with_enough_images_only():
    scores = np.linspace(0.9, 0.1, 40)
    worse, better = np.arange(40) % 2 == 0, np.ones(40, bool)
    comparison = compare(one_class_matches(worse, scores), one_class_matches(better, scores), resamples=200)
    assert comparison.metrics["AP50"].is_clear and comparison.classes[0].difference.better == 1
    few = LEAST_IMAGES - 1
    small = [one_class_matches(each[:few], scores[:few]) for each in (worse, better)]
    assert not compare(*small, resamples=200).metrics["AP50"].is_clear


def test_intervals_of_equal_detectors_hold_zero_as_often_as_they_say():
    random = np.random.default_rng(0)
    trials, images = 150, 80

    def detector():
        found = random.random(images) < 0.6
        scores = np.where(found, random.beta(3, 2, images), random.beta(2, 3, images))
        return one_class_matches(found, scores, np.array([0.5, 0.75]))

    held, signs = 0, []
    for trial in range(trials):
        difference = compare(detector(), detector(), resamples=80, seed=trial).metrics["AP50"]
        held += difference.low <= 0 <= difference.high
        signs.append(difference.better)
    assert 0.90 <= held / trials <= 0.985
    assert 0.42 < np.mean(signs) < 0.58


@pytest.mark.parametrize("options", [{"num_objects": 0}, {"num_images": 0}, {"num_detections": 0}])
def test_nothing_to_find_and_nothing_found(options):
    comparison = compare(matched(0, **options), matched(0, **options), resamples=10)
    difference = comparison.metrics["AP"]
    if "num_detections" in options:
        assert (difference.first, difference.value, difference.low, difference.better) == (0, 0, 0, 0)
    else:
        assert all(map(np.isnan, (difference.first, difference.value, difference.low, difference.better)))
        assert comparison.classes == () and not difference.is_clear


def test_a_class_in_one_image_is_absent_from_some_resamples():
    dataset, found = scene(num_images=30)
    records = [replace(record, labels=torch.where(record.labels == 2, 1, record.labels)) for record in dataset.records]
    records[7] = replace(records[7], labels=torch.full_like(records[7].labels, 2))
    resampled = resample_ap(match(records, found, dataset.class_names), resamples=100)
    absent = np.isnan(resampled.class_ap[0, 1:, 2])
    assert 20 < absent.sum() < 60 and not np.isnan(resampled.mean_ap).any()


def test_other_images_or_objects_are_refused():
    first = matched(0)
    for other in (matched(0, num_images=11), matched(1), matched(0, class_names=("cat", "dog", "cow"))):
        with pytest.raises(ValueError, match="same images, classes and objects"):
            compare(first, other)


def test_disagreements_are_what_one_by_one_says():
    dataset, found = scene(num_images=15)
    one, other = (match(dataset.records, each, dataset.class_names) for each in (found, another_detector(found, 1)))
    thresholds = 0.4, 0.6
    result = {each.image: each for each in disagreements(one, other, thresholds)}
    for image in range(15):
        seen = [_seen(matches, image, threshold) for matches, threshold in zip((one, other), thresholds, strict=True)]
        if seen[0] == seen[1]:
            assert image not in result
            continue
        assert set(result[image].gained.tolist()) == seen[1][0] - seen[0][0]
        assert set(result[image].lost.tolist()) == seen[0][0] - seen[1][0]
        assert result[image].false_positives == (seen[0][1], seen[1][1])
    gains = [abs(each.gain) for each in result.values()]
    assert gains == sorted(gains, reverse=True) and len(set(gains)) > 1


def _seen(matches, image: int, threshold: float) -> tuple[set[int], int]:
    """The objects found in an image, and how many false positives there are."""
    taken, false = set(), 0
    for row in np.flatnonzero(matches.detections.images == image):
        if matches.detections.scores[row] > np.float32(threshold):
            object_row = matches.object_of[0, row]
            if object_row == NONE:
                false += 1
            elif not matches.objects.ignored[object_row]:
                taken.add(int(object_row))
    return taken, false


def test_equal_detectors_disagree_on_no_image():
    matches = matched(0)
    assert disagreements(matches, matches, (0.5, 0.5)) == []
