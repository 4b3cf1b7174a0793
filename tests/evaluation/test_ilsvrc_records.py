"""DET's measure of records and detections by image: the kit's algorithm on the same scenes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from detection.errors import DatasetError
from detection.evaluation.ilsvrc_records import det_truth_of, detections_as_det, evaluate_det_records
from detection.structures import Detections
from tests.evaluation.ilsvrc_scenes import plain_det, random_det
from tests.evaluation.scenes import make_detections, make_record


def as_records(truth, found):
    """The scene as a detector's program has it: images by name, names of classes that are not evaluated, float32."""
    records, detections, unevaluated = [], {}, {}
    for image in range(truth.num_images):
        rows = truth.images == image
        records.append(make_record(f"i{image}", truth.boxes[rows].tolist(), truth.labels[rows].tolist()))
        rows = np.flatnonzero(found.images == image)
        if len(rows) or image % 2:
            columns = (found.boxes[rows].tolist(), found.scores[rows].tolist(), found.labels[rows].tolist())
            detections[f"i{image}"] = make_detections(*columns)
        names = [truth.class_names[label] for each, label in truth.unevaluated.tolist() if each == image]
        unevaluated[f"i{image}"] = [*names, "of another data set"]
    return records, detections, unevaluated


@pytest.mark.parametrize("seed", range(10))
def test_it_is_what_the_kit_computes(seed):
    truth, found = random_det(seed)
    records, detections, unevaluated = as_records(truth, found)
    result = evaluate_det_records(records, detections, truth.class_names, unevaluated)
    expected = {name: plain_det(truth, found, label) for label, name in enumerate(truth.class_names)}
    assert result.ap == pytest.approx({name: ap for name, ap in expected.items() if not np.isnan(ap)}, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_classes_does_not_matter(seed):
    truth, found = random_det(seed)
    records, detections, unevaluated = as_records(truth, found)
    turn = torch.tensor([2, 0, 1])
    turned = [replace(record, labels=turn[record.labels]) for record in records]
    found_turned = {key: replace(each, labels=turn[each.labels]) for key, each in detections.items()}
    result = evaluate_det_records(records, detections, ("a", "b", "c"), unevaluated)
    again = evaluate_det_records(turned, found_turned, ("b", "c", "a"), unevaluated)
    assert again.ap == result.ap and len(result.ap) == 3


def test_what_an_image_does_not_know_is_not_evaluated_there():
    # Image b knows class 1 only: its object of class 0 is none to find, and the detection there is not false.
    known = replace(make_record("b", [(0, 0, 9, 9)]), known=torch.tensor([False, True]))
    records = [make_record("a", [(0, 0, 9, 9)]), known]
    detections = {
        "a": make_detections([(0, 0, 9, 9)], [0.5]),
        "b": make_detections([(50, 50, 60, 60), (50, 50, 60, 60)], [0.9, 0.8], [0, 1]),
    }
    truth = det_truth_of(records, ("x", "y"))
    assert truth.unevaluated.tolist() == [[1, 0]] and truth.images.tolist() == [0, 1]
    assert evaluate_det_records(records, detections, ("x", "y")).ap == {"x": 1.0}
    assert evaluate_det_records([records[0], make_record("b")], detections, ("x", "y")).ap == {"x": 0.5}


def test_difficult_objects_and_crowds_of_other_data_are_not_to_be_found():
    record = make_record(1, [(0, 0, 9, 9), (20, 0, 29, 9), (40, 0, 49, 9)], None, [True, False, False], [False, True, False])
    truth = det_truth_of([record], ("x",))
    assert truth.boxes.tolist() == [[40, 0, 49, 9]] and truth.boxes.dtype == np.float64


def test_nothing_at_all():
    result = evaluate_det_records([], {}, ("x",))
    assert result.ap == {} and np.isnan(result.mean_ap)
    table = detections_as_det([make_record(1)], {1: Detections.empty()})
    assert table.boxes.shape == (0, 4) and table.labels.dtype == np.int64
    assert evaluate_det_records([make_record(1, [(0, 0, 9, 9)])], {}, ("x",)).ap == {"x": 0.0}


def test_detections_of_another_image_are_refused():
    with pytest.raises(DatasetError, match="detections of image '2', which the evaluated split does not hold"):
        evaluate_det_records([make_record(1)], {2: Detections.empty()}, ("x",))
