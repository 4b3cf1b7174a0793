"""Average precision against numbers worked out by hand and against the development kit's algorithm, written out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.errors import DatasetError
from detection.evaluation import voc
from detection.evaluation.metrics import VocMetric
from detection.evaluation.voc import aligned_iou, evaluate_voc
from detection.structures import Detections, DetectionsByImage, Record
from tests.evaluation import devkit
from tests.evaluation.scenes import jittered, make_detections, make_record, random_scene

METRICS: list[VocMetric] = ["voc07", "area"]
A, B, FAR = (0, 0, 10, 10), (50, 50, 70, 70), (100, 100, 110, 110)


def one_class(records: list[Record], detections: DetectionsByImage, metric: VocMetric = "area") -> float:
    return evaluate_voc(records, detections, ["cat"], metric=metric).mean_ap


def oracle(records: list[Record], detections: DetectionsByImage, label: int, metric: VocMetric, least: float = 0.5) -> float:
    """The kit's AP: boxes are handed to it in its own convention."""
    images, rows = {}, []
    for record in records:
        image = images[str(record.image_id)] = devkit.Image()
        for box, flag in zip(
            record.boxes[record.labels == label].tolist(), record.difficult[record.labels == label], strict=True
        ):
            image.boxes.append((box[0] + 1, box[1] + 1, box[2], box[3]))
            image.difficult.append(bool(flag))
        found = detections.get(record.image_id, Detections.empty())
        found = found[found.labels == label]
        for box, score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True):
            rows.append((str(record.image_id), score, (box[0] + 1, box[1] + 1, box[2], box[3])))
    return devkit.evaluate(images, rows, metric, least)


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_detections_score_one(metric):
    assert one_class([make_record("a", [A, B])], {"a": make_detections([A, B], [0.9, 0.8])}, metric) == pytest.approx(1)


def test_right_wrong_right_by_hand():
    # Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: area = 1/2 * 1 + 1/2 * 2/3; eleven points: 6 * 1 + 5 * 2/3.
    records = [make_record("a", [A, B])]
    detections = {"a": make_detections([A, FAR, B], [0.9, 0.8, 0.7])}
    assert one_class(records, detections, "area") == pytest.approx(5 / 6)
    assert one_class(records, detections, "voc07") == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_half_found_by_hand():
    records, detections = [make_record("a", [A, B])], {"a": make_detections([A], [0.9])}
    assert one_class(records, detections, "area") == pytest.approx(1 / 2)
    assert one_class(records, detections, "voc07") == pytest.approx(6 / 11)


def test_recall_of_three_tenths_misses_the_fourth_point():
    # 0.1 * 3 is 0.30000000000000004: the known quirk of the 11-point metric, kept.
    boxes = [(20.0 * index, 0.0, 20.0 * index + 10, 10.0) for index in range(10)]
    detections = {"a": make_detections(boxes[:3], [0.9, 0.8, 0.7])}
    assert one_class([make_record("a", boxes)], detections, "voc07") == pytest.approx(3 / 11)


def test_the_second_detection_of_an_object_is_wrong():
    records = [make_record("a", [A, B])]
    detections = {"a": make_detections([A, A, B], [0.9, 0.8, 0.7])}
    assert one_class(records, detections) == pytest.approx(5 / 6)


def test_a_detection_prefers_its_best_object_even_if_taken():
    # The second detection overlaps the free object by .5 too, but the taken one more: it is wrong, not right.
    first, second = (0, 0, 10, 10), (5, 0, 15, 10)
    records = [make_record("a", [first, second])]
    detections = {"a": make_detections([first, (1, 0, 11, 10)], [0.9, 0.8])}
    assert one_class(records, detections) == pytest.approx(1 / 2)


def test_iou_of_exactly_one_half_is_enough():
    assert one_class([make_record("a", [(0, 0, 10, 10)])], {"a": make_detections([(0, 0, 10, 5)], [0.9])}) == 1
    assert one_class([make_record("a", [(0, 0, 10, 10)])], {"a": make_detections([(0, 0, 10, 4.99)], [0.9])}) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_difficult_objects_are_neither_wanted_nor_wrong(metric):
    records = [make_record("a", [A, B], difficult=[False, True])]
    detections = {"a": make_detections([B, B, A], [0.9, 0.8, 0.7])}
    assert one_class(records, detections, metric) == pytest.approx(1)


def test_crowd_counts_as_difficult():
    records = [make_record("a", [A, B], crowd=[False, True])]
    assert one_class(records, {"a": make_detections([B, A], [0.9, 0.8])}) == 1


def test_equal_scores_keep_their_order():
    records = [make_record("a", [A]), make_record("b")]
    right_first = {"a": make_detections([A], [0.5]), "b": make_detections([A], [0.5])}
    assert one_class(records, right_first) == 1
    assert one_class(records[::-1], right_first) == pytest.approx(1 / 2)


@pytest.mark.parametrize("metric", METRICS)
def test_no_detections_score_zero(metric):
    assert one_class([make_record("a", [A])], {}, metric) == 0
    assert one_class([make_record("a", [A])], {"a": Detections.empty()}, metric) == 0


def test_classes_without_objects_are_named_and_left_out_of_the_mean():
    records = [make_record("a", [A, B], labels=[0, 2], difficult=[False, True])]
    result = evaluate_voc(records, {"a": make_detections([A, A], [0.9, 0.8], [0, 1])}, ["cat", "dog", "cow"])
    assert result.absent == ("dog", "cow")
    assert result.ap == {"cat": 1.0} and result.mean_ap == 1


def test_without_any_object_the_mean_is_nan():
    assert math.isnan(one_class([make_record("a")], {"a": make_detections([A], [0.9])}))
    assert math.isnan(one_class([], {}))


def test_an_unknown_image_is_refused():
    with pytest.raises(DatasetError, match="'b'"):
        one_class([make_record("a", [A])], {"b": make_detections([A], [0.9])})


def test_mean_json_and_curve():
    records = [make_record("a", [A, B], labels=[0, 1])]
    result = evaluate_voc(records, {"a": make_detections([A, FAR], [0.9, 0.8], [0, 1])}, ["cat", "dog"], metric="voc07")
    assert result.as_json() == {"mAP": pytest.approx(0.5), "AP": {"cat": pytest.approx(1), "dog": 0.0}, "metric": "voc07"}
    assert result.curves["dog"].num_objects == 1 and result.curves["dog"].precision.tolist() == [0.0]


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), least=st.sampled_from([0.3, 0.5, 0.75]))
def test_equals_the_development_kit(metric, seed, least):
    records, detections = random_scene(seed)
    result = evaluate_voc(records, detections, ["cat", "dog", "cow"], least, metric)
    for label, name in enumerate(["cat", "dog", "cow"]):
        expected = oracle(records, detections, label, metric, least)
        assert result.ap.get(name, math.nan) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_equals_the_development_kit_on_fractional_boxes(seed):
    random = np.random.default_rng(seed)
    corners = torch.from_numpy(random.random((12, 2)) * 50)
    boxes = torch.cat([corners, corners + 5 + torch.from_numpy(random.random((12, 2)) * 60)], dim=1).float()
    records = [make_record(index, boxes[index * 3 : index * 3 + 3].tolist()) for index in range(4)]
    detections = jittered(records, seed, num_classes=1)
    for metric in METRICS:
        assert one_class(records, detections, metric) == pytest.approx(oracle(records, detections, 0, metric), abs=1e-9)


def test_only_boxes_of_one_image_and_class_are_compared(monkeypatch):
    """What keeps an evaluation of thousands of images quick: no pair of boxes is compared that cannot match, all pairs of a
    class in one call."""
    random = np.random.default_rng(0)
    records: list[Record] = []
    detections: dict[int, Detections] = {}
    for index in range(500):
        boxes = np.sort(random.random((3, 2, 2)) * 200, axis=1).reshape(3, 4)
        records.append(make_record(index, boxes.tolist(), random.integers(0, 20, 3).tolist()))
        found = torch.from_numpy(np.sort(random.random((100, 2, 2)) * 200, axis=1).reshape(100, 4)).float()
        labels = torch.from_numpy(random.integers(0, 20, 100))
        detections[index] = Detections(found, torch.from_numpy(random.random(100)).float(), labels)
    compared = []

    def counted(boxes_a, boxes_b):
        compared.append(len(boxes_a))
        return aligned_iou(boxes_a, boxes_b)

    monkeypatch.setattr(voc, "aligned_iou", counted)
    evaluate_voc(records, detections, [str(label) for label in range(20)])
    counts = [[torch.bincount(each.labels, minlength=20) for each in images] for images in (list(detections.values()), records)]
    pairs = [found * true for found, true in zip(*counts, strict=True)]
    assert compared == torch.stack(pairs).sum(dim=0).tolist()
