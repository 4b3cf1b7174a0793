"""Anchors and their assignment: by hand and against torchvision."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from detection.modeling.anchors import centered_on_image, generate_cell_anchors, grid_anchors, inside_image
from detection.modeling.boxes import pairwise_iou
from detection.modeling.matching import (
    IGNORED,
    NEGATIVE,
    POSITIVE,
    ignore_covered,
    match_anchors,
    match_proposals,
    sample_matches,
)


def random_boxes(count: int, extent: float = 100) -> torch.Tensor:
    corners = torch.rand(count, 2) * extent
    return torch.cat([corners, corners + 1 + torch.rand(count, 2) * extent / 2], dim=1)


def test_cell_anchors_are_exact():
    cells = generate_cell_anchors((128,), (0.5, 1, 2))
    torch.testing.assert_close(cells[1], torch.tensor([-64.0, -64, 64, 64]))
    width, height = cells[2, 2] * 2, cells[2, 3] * 2
    torch.testing.assert_close(width * height, torch.tensor(128.0**2))
    torch.testing.assert_close(height / width, torch.tensor(2.0))


def test_grid_equals_torchvision_but_for_its_rounding():
    generator = AnchorGenerator(((32, 64),), ((0.5, 1.0, 2.0),))
    # torchvision's cells are rounded and ordered ratio first; put ours in their place to compare the grid alone.
    cells = generator.cell_anchors[0] if generator.cell_anchors else None
    images = ImageList(torch.zeros(1, 3, 80, 112), [(80, 112)])
    theirs = generator(images, [torch.zeros(1, 8, 5, 7)])[0]
    cells = generator.cell_anchors[0]
    torch.testing.assert_close(grid_anchors(cells, 16, (5, 7)), theirs)
    exact = generate_cell_anchors((32, 64), (0.5, 1.0, 2.0)).reshape(2, 3, 4).transpose(0, 1).reshape(-1, 4)
    assert (exact - cells).abs().max() <= 0.5 + 1e-6


def test_straddling_and_padding():
    anchors = torch.tensor([[0.0, 0, 20, 10], [-1, 0, 5, 5], [15, 5, 25, 9], [18, 8, 30, 20]])
    assert inside_image(anchors, (10, 20)).tolist() == [True, False, False, False]
    assert centered_on_image(anchors, 10, 21).tolist() == [True, True, True, False]
    heights, widths = torch.tensor([[10], [4]]), torch.tensor([[21], [10]])
    two_images = [[True, True, True, False], [False, True, False, False]]
    assert centered_on_image(anchors, heights, widths).tolist() == two_images


def test_match_anchors_by_hand():
    gt = torch.tensor([[0.0, 0, 10, 10], [100, 100, 110, 110]])
    anchors = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 5], [104, 104, 114, 114], [50, 50, 60, 60]])
    match_labels, matched = match_anchors(anchors, gt, 0.7, 0.3)
    # The third is far from 0.7 but it is the best that the second box has; the second lies between the thresholds.
    assert match_labels.tolist() == [POSITIVE, IGNORED, POSITIVE, NEGATIVE]
    assert matched[[0, 2]].tolist() == [0, 1]


def test_a_box_that_no_anchor_meets_makes_nothing_positive():
    match_labels, _ = match_anchors(torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([[50.0, 50, 60, 60]]), 0.7, 0.3)
    assert match_labels.tolist() == [NEGATIVE]


def test_match_anchors_equals_torchvision():
    counts = {"training": 100, "testing": 100}
    rpn = RegionProposalNetwork(AnchorGenerator(), RPNHead(4, 1), 0.7, 0.3, 256, 0.5, counts, counts, 0.7)
    matcher = rpn.proposal_matcher
    for seed in range(20):
        torch.manual_seed(seed)
        anchors, gt = random_boxes(200), random_boxes(5)
        theirs = matcher(pairwise_iou(gt, anchors))
        match_labels, matched = match_anchors(anchors, gt, 0.7, 0.3)
        assert torch.equal(match_labels == POSITIVE, theirs >= 0)
        assert torch.equal(match_labels == NEGATIVE, theirs == matcher.BELOW_LOW_THRESHOLD)
        assert torch.equal(matched[theirs >= 0], theirs[theirs >= 0])


def test_match_proposals_by_hand():
    gt = torch.tensor([[0.0, 0, 10, 10]])
    proposals = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 4], [0, 0, 10, 1], [0, 0, 10, 0.5], [40, 40, 50, 50]])
    match_labels, _ = match_proposals(proposals, gt, 0.5, (0.1, 0.5))
    assert match_labels.tolist() == [POSITIVE, NEGATIVE, NEGATIVE, IGNORED, IGNORED]


def test_no_boxes_no_candidates():
    for match in (
        lambda a, b: match_anchors(a, b, 0.7, 0.3),
        lambda a, b: match_proposals(a, b, 0.5, (0.1, 0.5)),
    ):
        match_labels, matched = match(random_boxes(4), torch.zeros(0, 4))
        assert match_labels.tolist() == [NEGATIVE] * 4 and matched.tolist() == [0] * 4
        match_labels, matched = match(torch.zeros(0, 4), random_boxes(2))
        assert len(match_labels) == len(matched) == 0


def test_negatives_in_a_crowd_are_ignored():
    match_labels = torch.tensor([NEGATIVE, NEGATIVE, POSITIVE])
    boxes = torch.tensor([[0.0, 0, 10, 10], [8, 0, 18, 10], [0, 0, 10, 10]])
    crowd = torch.tensor([[0.0, 0, 10, 100]])
    assert ignore_covered(match_labels, boxes, crowd, 0.5).tolist() == [IGNORED, NEGATIVE, POSITIVE]
    assert ignore_covered(match_labels, boxes, crowd[:0], 0.5) is match_labels


def test_unusable_anchors_are_as_if_they_were_not_there():
    for seed in range(20):
        torch.manual_seed(seed)
        anchors, gt, usable = random_boxes(200), random_boxes(5), torch.rand(200) < 0.6
        match_labels, matched = match_anchors(anchors, gt, 0.7, 0.3, usable)
        alone, matched_alone = match_anchors(anchors[usable], gt, 0.7, 0.3)
        assert torch.equal(match_labels[usable], alone) and torch.equal(matched[usable], matched_alone)
        assert (match_labels[~usable] == IGNORED).all()
    match_labels, _ = match_anchors(anchors, gt[:0], 0.7, 0.3, usable)
    assert torch.equal(match_labels == NEGATIVE, usable)


def plain_sample(match_labels: torch.Tensor, size: int, positive_fraction: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What `sample_matches` draws of one row, by lists of places and permutations: positives and negatives."""
    positive = (match_labels == POSITIVE).nonzero().squeeze(1)
    positive = positive[torch.randperm(len(positive))[: int(size * positive_fraction)]]
    negative = (match_labels == NEGATIVE).nonzero().squeeze(1)
    return positive, negative[torch.randperm(len(negative))[: size - len(positive)]]


def sample(match_labels: torch.Tensor, size: int, positive_fraction: float) -> tuple[torch.Tensor, torch.Tensor]:
    chosen, sampled = sample_matches(match_labels, size, positive_fraction)
    assert chosen.shape == sampled.shape == (min(size, len(match_labels)),)
    count = int(sampled.sum())
    assert sampled[:count].all(), "the sampled ones come first"
    num_positive = int((match_labels[chosen[:count]] == POSITIVE).sum())
    return chosen[:num_positive], chosen[num_positive:count]


def test_sample_fills_up_with_negatives_only():
    match_labels = torch.tensor([POSITIVE] * 3 + [NEGATIVE] * 20 + [IGNORED] * 5)
    positive, negative = sample(match_labels, 16, 0.5)
    assert sorted(positive.tolist()) == [0, 1, 2] and len(negative) == 13
    match_labels = torch.tensor([POSITIVE] * 20 + [NEGATIVE] * 3)
    positive, negative = sample(match_labels, 16, 0.5)
    assert len(positive) == 8 and sorted(negative.tolist()) == [20, 21, 22]
    assert len(set(positive.tolist())) == 8


MATCH_LABELS = st.lists(st.sampled_from([POSITIVE, NEGATIVE, IGNORED]), max_size=60)


@given(MATCH_LABELS, st.integers(1, 40), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_a_sample_is_as_large_as_the_plain_one_and_of_the_same_candidates(match_labels, size, fraction):
    labels = torch.tensor(match_labels, dtype=torch.long)
    samples = zip(sample(labels, size, fraction), plain_sample(labels, size, fraction), strict=True)
    for kind, (ours, plain) in zip((POSITIVE, NEGATIVE), samples, strict=True):
        assert len(ours) == len(plain) == len(set(ours.tolist())) and (labels[ours] == kind).all()


def test_rows_are_sampled_each_by_itself():
    labels = torch.tensor([[POSITIVE, NEGATIVE, IGNORED], [IGNORED, IGNORED, POSITIVE], [NEGATIVE] * 3])
    chosen, sampled = sample_matches(labels, 2, 0.5)
    assert sampled.sum(dim=1).tolist() == [2, 1, 2] and chosen[0].tolist() == [0, 1] and chosen[1, 0] == 2


def test_candidates_are_drawn_as_often_as_by_the_plain_form():
    """Each of its kind equally often, and pairs too: chi-square of 4,000 draws below its 99.9 % point."""
    match_labels = torch.tensor([POSITIVE] * 6 + [IGNORED] * 2 + [NEGATIVE] * 6)
    for draw in (sample, plain_sample):
        torch.manual_seed(0)
        counts = torch.zeros(14, 14)
        for _ in range(4000):
            drawn = torch.zeros(14)
            drawn[torch.cat(draw(match_labels, 4, 0.5))] = 1
            counts += drawn[:, None] * drawn
        pairs = torch.combinations(torch.arange(6))
        for first in (0, 8):
            assert counts.diag()[first : first + 6].sum() == 2 * 4000
            of_pairs = counts[pairs[:, 0] + first, pairs[:, 1] + first]  # one of 15 in each draw
            expected = 4000 / 15
            assert ((of_pairs - expected) ** 2 / expected).sum() < 36.1  # 14 degrees of freedom
        assert counts[6:8].sum() == 0
