"""Box voting: by hand, and against a literal reading of its definition."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.config import TestConfig as Settings
from detection.inference.voting import vote
from detection.structures import Detections
from tests.small_detector import select_one

Box = tuple[float, float, float, float]


def literal_iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (area - shared) if area > shared else 0.0


def literal_vote(box: Box, candidates: list[Box], scores: list[float], threshold: float) -> list[float]:
    voters = [(b, s) for b, s in zip(candidates, scores, strict=True) if literal_iou(box, b) >= threshold and s > 0]
    total = sum(score for _, score in voters)
    return [sum(score * b[side] for b, score in voters) / total for side in range(4)] if voters else list(box)


def test_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 4], [50, 50, 60, 60]])[:, None]
    scores = torch.tensor([[0.6], [0.3], [0.9], [0.5]])
    kept = Detections(boxes[[0, 3], 0], scores[[0, 3], 0], torch.tensor([0, 0]))
    voted = vote(kept, scores, boxes, iou_threshold=0.5)
    # The third has IoU 0.4 with the first: no vote. (0.6 * 10 + 0.3 * 6) / 0.9 = 8.667.
    torch.testing.assert_close(voted.boxes, torch.tensor([[0.0, 0, 10, 26 / 3], [50, 50, 60, 60]]))
    assert voted.scores.tolist() == kept.scores.tolist() and voted.labels.tolist() == [0, 0]


def test_other_classes_and_scores_of_zero_have_no_vote():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10]], [[0, 0, 10, 8], [0, 0, 10, 6]]])  # (2, 2, 4)
    scores = torch.tensor([[0.5, 0.2], [0.0, 0.2]])
    kept = Detections(boxes[[0, 0], [0, 1]], torch.tensor([0.5, 0.2]), torch.tensor([0, 1]))
    voted = vote(kept, scores, boxes, 0.5)
    torch.testing.assert_close(voted.boxes, torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8]]))


def test_candidates_are_all_boxes_or_those_above_the_threshold():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8]])[:, None]
    scores = torch.tensor([[0.9], [0.1]])
    chosen = Settings(voting=True, score_threshold=0.3)
    every = select_one(scores, boxes, (20, 20), chosen, 0.3)
    above = select_one(scores, boxes, (20, 20), chosen.model_copy(update={"voting_candidates": "above_threshold"}), 0.3)
    torch.testing.assert_close(every.boxes, torch.tensor([[0.0, 0, 10, 9.8]]))
    assert above.boxes.tolist() == [[0, 0, 10, 10]]


def test_no_detection():
    assert len(vote(Detections.empty(), torch.zeros(0, 3), torch.zeros(0, 3, 4), 0.5)) == 0
    assert len(select_one(torch.zeros(0, 3), torch.zeros(0, 3, 4), (9, 9), Settings(voting=True), 0.05)) == 0


corners = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20))
scored = st.lists(st.tuples(corners, st.integers(0, 8), st.integers(0, 2)), min_size=1, max_size=12)


@given(scored, st.sampled_from([0.0, 0.25, 0.5, 1.0]))
@settings(max_examples=60)
def test_equals_the_definition(found, threshold):
    rectangles = [(float(x), float(y), float(x + w), float(y + h)) for (x, y, w, h), _, _ in found]
    weights = [score / 8 for _, score, _ in found]
    labels = [label for _, _, label in found]
    # Each region has a box for each of 3 classes; only its own class has a score.
    boxes = torch.tensor(rectangles)[:, None].expand(-1, 3, 4)
    scores = torch.zeros(len(found), 3)
    scores[torch.arange(len(found)), torch.tensor(labels)] = torch.tensor(weights)
    kept = Detections(torch.tensor(rectangles), torch.tensor(weights), torch.tensor(labels))
    voted = vote(kept, scores, boxes, threshold)
    for index, (box, label) in enumerate(zip(rectangles, labels, strict=True)):
        mine = [weight if other == label else 0.0 for weight, other in zip(weights, labels, strict=True)]
        expected = torch.tensor(literal_vote(box, rectangles, mine, threshold))
        torch.testing.assert_close(voted.boxes[index], expected, rtol=1e-5, atol=1e-4)
