"""Box refinement: by hand, and against a literal reading of the paper on a real (random) network."""

from collections.abc import Sequence
from functools import partial

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detection.config import TestConfig as Settings
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
    found = refine_boxes(
        halving, [torch.tensor([[0.0, 0, 16, 12]]), torch.zeros(0, 4)], (20, 20), Settings(refinement_passes=2)
    )
    scores, boxes = found.scores, found.boxes
    # 16 x 12 is wide: its left half 8 x 12 comes next, then that one's upper half 8 x 6.
    torch.testing.assert_close(scores[0], torch.tensor([[0.8, 0.2], [0.2, 0.8], [0.8, 0.2]]))
    assert boxes[0][:, 0].tolist() == [[0, 0, 8, 12], [0, 0, 4, 12], [0, 0, 4, 6]]
    assert boxes[0][:, 1].tolist() == [[0, 0, 16, 6], [0, 0, 8, 6], [0, 0, 8, 3]]
    assert scores[1].shape == (0, 2) and boxes[1].shape == (0, 2, 4)


def test_no_pass_is_the_plain_classification():
    regions = [torch.tensor([[0.0, 0, 16, 12]])]
    found, expected = refine_boxes(halving, regions, (20, 20), Settings()), halving(regions)
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.boxes, expected.boxes)


def test_regions_are_clipped_and_empty_ones_dropped():
    boxes = torch.tensor([[[-5.0, -5, 10, 30]], [[25, 25, 30, 30]], [[3, 3, 3, 8]]])
    regions, rows = refined_regions(torch.ones(3, 1), boxes, (20, 20), (0, 1))
    assert regions.tolist() == [[0, 0, 10, 20]] and rows.tolist() == [0]


def test_the_mean_of_passes_by_hand():
    """The first proposal goes through both passes; the second one's box is empty after the first."""
    proposals = torch.tensor([[0.0, 0, 16, 12], [30, 0, 46, 12]])
    found = refine_boxes(halving, [proposals], (20, 20), Settings(refinement_passes=1, refinement="average"))
    torch.testing.assert_close(found.scores[0], torch.tensor([[0.5, 0.5], [0.8, 0.2]]))
    assert found.boxes[0].tolist() == [[[0, 0, 6, 12], [0, 0, 12, 6]], [[30, 0, 38, 12], [30, 0, 46, 6]]]


def literal(
    classify, proposals: Tensor, size_hw: tuple[int, int], test: Settings
) -> list[tuple[list[float], list[list[float]]]]:
    """Region by region, in Python: (scores, boxes) of every prediction."""
    passes: list[list[tuple[list[float], list[list[float]]]]] = [[] for _ in range(test.refinement_passes + 1)]
    means = []
    for proposal in proposals.tolist():
        region, own = proposal, []
        for number in range(test.refinement_passes + 1):
            found = classify([torch.tensor([region])])
            scores, boxes = found.scores[0][0].tolist(), found.boxes[0][0].tolist()
            passes[number].append((scores, boxes))
            own.append((found.scores[0][0], found.boxes[0][0]))
            x1, y1, x2, y2 = boxes[scores.index(max(scores))]
            region = [min(max(place, 0), size_hw[1 - axis % 2]) for axis, place in enumerate((x1, y1, x2, y2))]
            if region[2] <= region[0] or region[3] <= region[1] or not in_interval(max(scores), test.refine_scores):
                break
        means.append(tuple((sum(each) / len(own)).tolist() for each in zip(*own, strict=True)))
    return means if test.refinement == "average" else [each for found in passes for each in found]


def in_interval(score: float, interval: tuple[float, float]) -> bool:
    return interval[0] <= score <= interval[1]


INTERVALS = [(0, 1), (0, 0.45), (0.45, 1), (0.42, 0.48)]


@given(
    st.integers(0, 1000),
    st.integers(0, 4),
    st.integers(0, 2),
    st.sampled_from(["unite", "average"]),
    st.sampled_from(INTERVALS),
)
@settings(max_examples=16)
def test_equals_a_literal_loop(seed, count, passes, refinement, refine_scores):
    torch.manual_seed(seed)
    model = detector().eval()
    torch.nn.init.normal_(model.roi_head.class_scores.weight, std=0.05)
    torch.nn.init.normal_(model.roi_head.box_deltas.weight, std=0.05)
    classify = partial(classify_in_views, views_of([model], [noise(64, 80).permute(1, 2, 0).numpy()]))
    corner = torch.rand(count, 2) * 40
    proposals = torch.cat([corner, corner + 4 + torch.rand(count, 2) * 36], dim=1)
    test = Settings(refinement_passes=passes, refinement=refinement, refine_scores=refine_scores)
    with torch.inference_mode():
        found = refine_boxes(classify, [proposals], (64, 80), test)
        expected = literal(classify, proposals, (64, 80), test)
    assert len(found.scores[0]) == len(expected)
    for index, (expected_scores, expected_boxes) in enumerate(expected):
        torch.testing.assert_close(found.scores[0][index], torch.tensor(expected_scores), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.boxes[0][index], torch.tensor(expected_boxes), rtol=1e-4, atol=1e-2)


@given(st.integers(0, 1000), st.sampled_from(["unite", "average"]), st.sampled_from([(0, 1), (0, 0.4), (0.4, 1), (1, 1)]))
@settings(max_examples=20)
def test_which_regions_are_refined(seed, refinement, refine_scores):
    """Those whose best score is in the interval: `halving`'s are 0.8, here scaled by a number of each region."""
    torch.manual_seed(seed)
    proposals = torch.cat([torch.zeros(6, 2), 1 + torch.rand(6, 2) * 19], dim=1)
    counts = []

    def scaled(regions: Sequence[Tensor]) -> ScoredRegions:
        counts.append(len(regions[0]))
        found = halving(regions)
        return ScoredRegions([scores * (regions[0][:, 2:3] / 20) for scores in found.scores], found.boxes)

    first = scaled([proposals])
    inside = [in_interval(float(best), refine_scores) for best in first.scores[0].amax(dim=1)]
    found = refine_boxes(
        scaled, [proposals], (20, 20), Settings(refinement_passes=1, refinement=refinement, refine_scores=refine_scores)
    )
    assert counts == [6, 6, sum(inside)]
    if refinement == "unite":
        assert torch.equal(found.scores[0][:6], first.scores[0]) and len(found.scores[0]) == 6 + sum(inside)
    else:
        left_alone = torch.tensor([not each for each in inside])
        assert len(found.scores[0]) == 6 and torch.equal(found.boxes[0][left_alone], first.boxes[0][left_alone])
