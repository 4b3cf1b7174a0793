"""Kinds of errors and their costs are TIDE's: as its plain way has them, and by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detection.evaluation.coco_files import sorted_ids
from detection.evaluation.errors import ErrorKind, find_errors
from detection.evaluation.matches import NONE, match
from detection.evaluation.tide import MAIN_FIXES, Fix, tide
from detection.structures import Detections
from tests.evaluation.plain_tide import Thing, plain_tide
from tests.report.scenes import scene

SCENES = {
    "three classes": {"num_images": 8},
    "one class": {"num_images": 3, "class_names": ("a",), "num_detections": 20, "num_objects": 2},
    "classes without objects": {"class_names": tuple("abcdefghij"), "num_images": 3, "num_objects": 3},
    "more detections than count": {"num_images": 4, "class_names": tuple("abcdef"), "num_detections": 150},
    "few detections": {"num_images": 10, "num_detections": 4, "num_objects": 8},
}


def plainly(records, found):
    """The plain TIDE of the same images."""
    by_id = {record.image_id: record for record in records}
    images = []
    for image_id in sorted_ids(list(by_id)):
        record, detected = by_id[image_id], found.get(image_id, Detections.empty())
        there = zip(record.labels.tolist(), record.boxes.double().tolist(), record.trainable.tolist(), strict=True)
        seen = zip(detected.labels.tolist(), detected.boxes.double().tolist(), detected.scores.double().tolist(), strict=True)
        images.append(([Thing(*each) for each in seen], [Thing(label, box, ignored=not real) for label, box, real in there]))
    return plain_tide(images)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", SCENES.values(), ids=SCENES)
def test_the_costs_are_those_of_the_plain_way(options, seed):
    dataset, found = scene(seed=seed, **options)
    ap, costs, class_costs = plainly(dataset.records, found)
    result = tide(match(dataset.records, found, dataset.class_names))
    assert 100 * result.ap == pytest.approx(ap, abs=1e-9)
    np.testing.assert_allclose(100 * result.gains, list(costs.values()), atol=1e-9)
    for fix, of_classes in zip(Fix, class_costs.values(), strict=True):
        expected = [of_classes.get(label, 0.0) for label in range(len(dataset.class_names))]
        np.testing.assert_allclose(100 * result.class_gains[fix], expected, atol=1e-9)


def one_image(objects, detections, ignored=()):
    """The matches of one image: (label, xyxy) and (label, xyxy, score); class names "cat", "dog"."""
    dataset, _ = scene(num_images=1, num_objects=0, class_names=("cat", "dog"))
    boxes = torch.tensor([box for _, box in objects], dtype=torch.float32).reshape(-1, 4)
    record = replace(
        dataset.records[0],
        boxes=boxes,
        labels=torch.tensor([label for label, _ in objects], dtype=torch.long),
        difficult=torch.tensor([each in ignored for each in range(len(objects))], dtype=torch.bool),
        crowd=torch.zeros(len(objects), dtype=torch.bool),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(dim=1),
    )
    found = Detections(
        torch.tensor([box for _, box, _ in detections], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([score for *_, score in detections]),
        torch.tensor([label for label, *_ in detections], dtype=torch.long),
    )
    return match([record], {0: found}, dataset.class_names)


CAT, DOG = 0, 1
SQUARE = (0, 0, 10, 10)
KINDS = {
    "found": ([(CAT, SQUARE, 0.9)], ErrorKind.CORRECT),
    "class": ([(DOG, SQUARE, 0.9)], ErrorKind.CLASS),
    "too small": ([(CAT, (0, 0, 10, 4), 0.9)], ErrorKind.LOCALISATION),
    "a tenth": ([(CAT, (0, 0, 10, 1), 0.9)], ErrorKind.LOCALISATION),
    "class and place": ([(DOG, (0, 0, 10, 4), 0.9)], ErrorKind.BOTH),
    "twice": ([(CAT, SQUARE, 0.95), (CAT, SQUARE, 0.9)], ErrorKind.DUPLICATE),
    "nothing there": ([(CAT, (50, 50, 60, 60), 0.9)], ErrorKind.BACKGROUND),
    "a tenth of another": ([(DOG, (0, 0, 10, 1), 0.9)], ErrorKind.BACKGROUND),
}


@pytest.mark.parametrize(("detections", "kind"), KINDS.values(), ids=KINDS)
def test_each_kind_by_hand(detections, kind):
    errors = find_errors(one_image([(CAT, SQUARE)], detections))
    assert errors.kinds[-1] == kind
    found = {ErrorKind.CORRECT, ErrorKind.DUPLICATE}
    assert errors.missed.tolist() == [kind not in found | {ErrorKind.CLASS, ErrorKind.LOCALISATION}]


def test_a_class_error_comes_before_a_duplicate():
    matches = one_image([(CAT, SQUARE), (DOG, (0, 1, 10, 11))], [(CAT, SQUARE, 0.9), (CAT, (0, 0.5, 10, 10.5), 0.8)])
    assert find_errors(matches).kinds.tolist() == [ErrorKind.CORRECT, ErrorKind.CLASS]


def test_costs_by_hand():
    """One dog called a cat before the one cat that is found: the cat's AP is 1/2, the dog's 0."""
    matches = one_image([(CAT, SQUARE), (DOG, (50, 0, 60, 10))], [(CAT, (50, 0, 60, 10), 0.9), (CAT, SQUARE, 0.8)])
    result = tide(matches)
    assert result.ap == 1 / 4
    np.testing.assert_allclose(result.gains, [3 / 4, 0, 0, 0, 0, 0, 1 / 4, 1 / 4])
    np.testing.assert_allclose(result.class_gains[Fix.CLASS], [1 / 2, 1])


def test_of_errors_at_one_object_the_best_is_put_right_and_the_others_are_removed():
    shifted = [(CAT, (0, 0, 10, 3), 0.9), (CAT, (0, 0, 10, 4), 0.8), (DOG, SQUARE, 0.7)]
    result = tide(one_image([(CAT, SQUARE)], shifted))
    assert result.ap == 0 and result.gains[Fix.LOCALISATION] == pytest.approx(1 / 2)
    # The dog's detection is no longer there; the cat has a better one, which stays what it is.
    assert result.gains[Fix.CLASS] == 0 and result.class_gains[Fix.LOCALISATION].tolist() == [1, 0]


def test_what_lies_on_an_ignored_object_is_no_error():
    matches = one_image(
        [(CAT, SQUARE), (CAT, (50, 50, 90, 90))], [(CAT, (50, 50, 70, 70), 0.9), (CAT, SQUARE, 0.8)], ignored=[1]
    )
    errors = find_errors(matches)
    assert errors.kinds.tolist() == [ErrorKind.IGNORED, ErrorKind.CORRECT] and not errors.missed.any()
    assert tide(matches).ap == 1 and not tide(matches).gains.any()


def test_every_error_has_one_kind_and_every_object_one_fate():
    dataset, found = scene(num_images=20, seed=3)
    matches = match(dataset.records, found, dataset.class_names)
    errors = find_errors(matches)
    np.testing.assert_array_equal(errors.kinds == ErrorKind.CORRECT, matches.true_positives(0))
    np.testing.assert_array_equal(errors.kinds == ErrorKind.IGNORED, matches.ignored(0))
    assert set(errors.kinds) == set(ErrorKind)
    assert errors.missed.any() and (matches.detection_of(0)[errors.missed] == NONE).all()


def test_a_perfect_detector_and_one_without_anything():
    perfect = tide(one_image([(CAT, SQUARE)], [(CAT, SQUARE, 0.9)]))
    assert perfect.ap == 1 and not perfect.gains.any() and not perfect.class_gains.any()
    blind = tide(one_image([(CAT, SQUARE)], []))
    assert blind.ap == 0 and not blind.gains.any()
    idle = tide(one_image([], []))
    assert idle.ap == 0 and not idle.gains.any()
    empty = match([], {}, ("cat",))
    assert tide(empty).ap == 0 and find_errors(empty).kinds.shape == (0,)


def test_main_kinds_have_the_kinds_of_detections():
    assert [fix.kind for fix in MAIN_FIXES] == [*list(ErrorKind)[1:6], None]
