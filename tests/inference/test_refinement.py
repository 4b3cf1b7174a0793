"""Box refinement: by hand, and against a literal reading of the paper on a real (random) network."""

from collections.abc import Sequence
from functools import partial

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detection.inference.detector import views_of
from detection.inference.refinement import refine_boxes, refined_regions
from detection.inference.views import classify_in_views
from detection.structures import ScoredRegions
from tests.small_detector import detector, noise


def halving(regions: Sequence[Tensor]) -> ScoredRegions:
    """Two classes: the first's box is the left half of the region, the second's the upper half; wide ones are class 0."""
    scores, boxes = [], []
    for image_regions in regions:
        x1, y1, x2, y2 = image_regions.unbind(1)
        wide = (x2 - x1 > y2 - y1).float()
        scores.append(torch.stack([0.2 + 0.6 * wide, 0.8 - 0.6 * wide], dim=1))
        left, upper = torch.stack([x1, y1, (x1 + x2) / 2, y2], 1), torch.stack([x1, y1, x2, (y1 + y2) / 2], 1)
        boxes.append(torch.stack([left, upper], dim=1))
    return ScoredRegions(scores, boxes)


def test_two_passes_by_hand():
    found = refine_boxes(halving, [torch.tensor([[0.0, 0, 16, 12]]), torch.zeros(0, 4)], (20, 20), passes=2)
    scores, boxes = found.scores, found.boxes
    # 16 x 12 is wide: its left half 8 x 12 comes next, then that one's upper half 8 x 6.
    torch.testing.assert_close(scores[0], torch.tensor([[0.8, 0.2], [0.2, 0.8], [0.8, 0.2]]))
    assert boxes[0][:, 0].tolist() == [[0, 0, 8, 12], [0, 0, 4, 12], [0, 0, 4, 6]]
    assert boxes[0][:, 1].tolist() == [[0, 0, 16, 6], [0, 0, 8, 6], [0, 0, 8, 3]]
    assert scores[1].shape == (0, 2) and boxes[1].shape == (0, 2, 4)


def test_no_pass_is_the_plain_classification():
    regions = [torch.tensor([[0.0, 0, 16, 12]])]
    found, expected = refine_boxes(halving, regions, (20, 20), 0), halving(regions)
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.boxes, expected.boxes)


def test_regions_are_clipped_and_empty_ones_dropped():
    boxes = torch.tensor([[[-5.0, -5, 10, 30]], [[25, 25, 30, 30]], [[3, 3, 3, 8]]])
    assert refined_regions(torch.ones(3, 1), boxes, (20, 20)).tolist() == [[0, 0, 10, 20]]


def literal(classify, proposals: Tensor, size_hw: tuple[int, int], passes: int) -> list[tuple[list[float], list[list[float]]]]:
    """Region by region, in Python: (scores, boxes) of every prediction."""
    predictions, regions = [], proposals.tolist()
    for number in range(passes + 1):
        following = []
        for region in regions:
            found = classify([torch.tensor([region])])
            predictions.append((found.scores[0][0].tolist(), found.boxes[0][0].tolist()))
            x1, y1, x2, y2 = predictions[-1][1][predictions[-1][0].index(max(predictions[-1][0]))]
            clipped = [
                min(max(x1, 0), size_hw[1]),
                min(max(y1, 0), size_hw[0]),
                min(max(x2, 0), size_hw[1]),
                min(max(y2, 0), size_hw[0]),
            ]
            if clipped[2] > clipped[0] and clipped[3] > clipped[1]:
                following.append(clipped)
        regions = following
        assert number <= passes
    return predictions


@given(st.integers(0, 1000), st.integers(0, 4), st.integers(0, 2))
@settings(max_examples=8)
def test_equals_a_literal_loop(seed, count, passes):
    torch.manual_seed(seed)
    model = detector().eval()
    torch.nn.init.normal_(model.roi_head.class_scores.weight, std=0.05)
    torch.nn.init.normal_(model.roi_head.box_deltas.weight, std=0.05)
    classify = partial(classify_in_views, views_of([model], [noise(64, 80).permute(1, 2, 0).numpy()]))
    corner = torch.rand(count, 2) * 40
    proposals = torch.cat([corner, corner + 4 + torch.rand(count, 2) * 36], dim=1)
    with torch.inference_mode():
        found = refine_boxes(classify, [proposals], (64, 80), passes)
        expected = literal(classify, proposals, (64, 80), passes)
    assert len(found.scores[0]) == len(expected)
    for index, (expected_scores, expected_boxes) in enumerate(expected):
        torch.testing.assert_close(found.scores[0][index], torch.tensor(expected_scores), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.boxes[0][index], torch.tensor(expected_boxes), rtol=1e-4, atol=1e-2)
