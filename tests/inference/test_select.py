"""From scores and boxes to detections, by hand."""

import torch

from detection.inference.select import to_image_pixels
from detection.structures import Detections
from tests.small_detector import detector, select_one


def test_select_by_hand():
    config = detector(test={"score_threshold": 0.3, "nms_threshold": 0.5, "max_detections": 3}).config.test
    scores = torch.tensor([[0.9, 0.2], [0.8, 0.7], [0.6, 0.1], [0.5, 0.4]])
    rows = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [90, 90, 99, 99]])
    found = select_one(scores, rows[:, None].expand(4, 2, 4), (50, 50), config, 0.3)
    # Row 1 loses to row 0 in class 0 but not in class 1; row 3 lies outside the image.
    assert found.labels.tolist() == [0, 1, 0]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.7, 0.6]))
    assert found.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]]


def test_boxes_that_clipping_leaves_empty_count_among_the_top_and_are_dropped_then():
    config = detector(test={"score_threshold": 0.3, "nms_threshold": 0.5, "max_detections": 3}).config.test
    boxes = torch.tensor([[60.0, 0, 70, 10], [60, 0, 70, 10], [0, 0, 10, 10], [20, 20, 30, 30]])[:, None]
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    found = select_one(scores, boxes, (50, 50), config, 0.3)
    assert found.boxes.tolist() == [[0, 0, 10, 10]] and len(select_one(scores[2:], boxes[2:], (50, 50), config, 0.3)) == 2


def test_with_a_least_size_they_take_no_place_among_the_top():
    config = detector(test={"score_threshold": 0.3, "max_detections": 2, "min_size": 0.01}).config.test
    boxes = torch.tensor([[60.0, 0, 70, 10], [10, 10, 10.005, 20], [0, 0, 10, 10], [20, 20, 30, 30]])[:, None]
    found = select_one(torch.tensor([[0.9], [0.8], [0.7], [0.6]]), boxes, (50, 50), config, 0.3)
    assert found.boxes.tolist() == [[0, 0, 10, 10], [20, 20, 30, 30]]


def test_detections_return_to_the_image_by_each_axis_own_ratio():
    found = Detections(torch.tensor([[10.0, 10, 50, 30]]), torch.tensor([0.5]), torch.tensor([1]))
    assert to_image_pixels(found, (50, 100), (100, 150)).boxes.tolist() == [[15, 20, 75, 60]]
