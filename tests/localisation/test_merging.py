"""The best box of a class, and its best few."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.config import LocRcnnConfig, LocTestConfig
from detection.localisation.merging import ClassBoxes, best_box, top_proposals
from detection.modeling.boxes import pairwise_iou

PLAIN, VOTING = LocTestConfig(merging="none"), LocTestConfig(merging="voting", voting_iou=0.5)


def of_one_class(scores, boxes) -> ClassBoxes:
    return ClassBoxes(torch.tensor([scores]), torch.tensor([boxes], dtype=torch.float32), (50, 80))


def random_boxes(num_classes: int, num_boxes: int) -> ClassBoxes:
    """Some of them without an area."""
    corners = torch.rand(num_classes, num_boxes, 2) * 40
    boxes = torch.cat([corners, corners + (torch.rand(num_classes, num_boxes, 2) * 40 - 8).clamp(min=0)], dim=2)
    return ClassBoxes(torch.rand(num_classes, num_boxes), boxes, (80, 80))


def test_the_best_box_has_the_best_score():
    found = ClassBoxes(torch.tensor([[0.2, 0.9], [0.6, 0.6]]), torch.arange(16.0).reshape(2, 2, 4), (50, 80))
    boxes, scores = best_box(found, PLAIN)
    assert boxes.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.6]))


def test_voting_is_the_weighted_mean_of_the_boxes_around():
    # IoU of the second with the first: 9 / 11; the third overlaps neither.
    found = of_one_class([0.6, 0.2, 0.5], [[0, 0, 10, 10], [1, 0, 11, 10], [40, 0, 50, 10]])
    boxes, scores = best_box(found, VOTING)
    torch.testing.assert_close(boxes, torch.tensor([[0.25, 0, 10.25, 10]]))
    torch.testing.assert_close(scores, torch.tensor([0.6]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("voting_iou", [0.0, 0.3, 1.0])
def test_voting_in_a_plain_loop(seed, voting_iou):
    torch.manual_seed(seed)
    found = random_boxes(3, 30)
    boxes, _ = best_box(found, LocTestConfig(merging="voting", voting_iou=voting_iou))
    for label in range(3):
        candidates = [
            (score, box)
            for score, box in zip(found.scores[label], found.boxes[label], strict=True)
            if box[2] > box[0] and box[3] > box[1]
        ]
        _, best = max(candidates, key=lambda each: each[0].item())
        voters = [(score, box) for score, box in candidates if pairwise_iou(box[None], best[None]).item() >= voting_iou]
        mean = sum(score * box for score, box in voters) / sum(score for score, _ in voters)
        torch.testing.assert_close(boxes[label], mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("test", [PLAIN, VOTING])
def test_a_box_without_area_is_never_the_best(test):
    boxes, scores = best_box(of_one_class([0.9, 0.1], [[5, 5, 5, 20], [0, 0, 10, 10]]), test)
    assert boxes.tolist() == [[0, 0, 10, 10]]
    torch.testing.assert_close(scores, torch.tensor([0.1]))


@pytest.mark.parametrize("test", [PLAIN, VOTING, LocTestConfig(merging="voting", voting_iou=0.0)])
@pytest.mark.parametrize("num_boxes", [0, 2])
def test_a_class_without_any_box_is_the_whole_image(test, num_boxes):
    found = ClassBoxes(torch.full((2, num_boxes), 0.7), torch.zeros(2, num_boxes, 4), (50, 80))
    boxes, scores = best_box(found, test)
    assert boxes.tolist() == [[0, 0, 80, 50]] * 2 and scores.tolist() == [0, 0]


def test_no_class():
    found = ClassBoxes(torch.zeros(0, 3), torch.zeros(0, 3, 4), (50, 80))
    boxes, scores = best_box(found, VOTING)
    assert (boxes.shape, scores.shape, len(found)) == ((0, 4), (0,), 0)
    assert top_proposals(found, LocRcnnConfig()) == ([], [])


def test_a_score_of_zero_is_better_than_none():
    boxes, scores = best_box(of_one_class([0.0, 0.0], [[0, 0, 0, 0], [0, 0, 10, 10]]), VOTING)
    assert boxes.tolist() == [[0, 0, 10, 10]] and scores.tolist() == [0]


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.7, 1.0]), st.integers(1, 12))
def test_proposals_are_what_greedy_suppression_leaves(seed, threshold, count):
    torch.manual_seed(seed)
    found = random_boxes(2, 15)
    boxes, scores = top_proposals(found, LocRcnnConfig(nms_threshold=threshold, num_proposals=count))
    for label in range(2):
        kept: list[int] = []
        iou = pairwise_iou(found.boxes[label], found.boxes[label]).tolist()
        for place in found.scores[label].argsort(descending=True).tolist():
            if found.valid[label, place] and all(iou[place][other] <= threshold for other in kept):
                kept.append(place)
        torch.testing.assert_close(boxes[label], found.boxes[label, kept[:count]])
        torch.testing.assert_close(scores[label], found.scores[label, kept[:count]])


def test_a_class_without_any_box_has_no_proposals():
    found = ClassBoxes(
        torch.tensor([[0.5, 0.4], [0.3, 0.6]]), torch.tensor([[[0.0, 0, 5, 5]] * 2, [[3.0, 3, 3, 3]] * 2]), (50, 80)
    )
    boxes, scores = top_proposals(found, LocRcnnConfig())
    assert [len(each) for each in boxes] == [len(each) for each in scores] == [1, 0]
    assert boxes[1].shape == (0, 4)
