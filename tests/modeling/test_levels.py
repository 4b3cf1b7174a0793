"""What looks at several feature maps, a pyramid's, does with one map what it does for C4."""

import torch

from detection.config import RpnConfig
from detection.modeling.anchors import anchors_of_maps, generate_cell_anchors, grid_anchors
from detection.modeling.boxes import clip_boxes, decode_boxes, nonempty_boxes
from detection.modeling.levels import joined, levels_of, pool_at_chosen
from detection.modeling.nms import nms
from detection.modeling.roi_head import RoiHead, pool_rois
from detection.modeling.rpn import RegionProposalNetwork, best_of_maps
from tests.small_detector import detector


def test_one_map_has_the_anchors_of_all_sizes_and_each_of_several_those_of_one():
    config = RpnConfig(anchor_sizes=(32, 64), anchor_ratios=(0.5, 1), anchor_offset=0.5)
    torch.testing.assert_close(anchors_of_maps([16], config), generate_cell_anchors((32, 64), (0.5, 1))[None] + 8)
    fine, coarse = anchors_of_maps([4, 8], config)
    torch.testing.assert_close(fine, generate_cell_anchors((32,), (0.5, 1)) + 2)
    torch.testing.assert_close(coarse, generate_cell_anchors((64,), (0.5, 1)) + 4)


def test_the_best_of_each_map_by_hand():
    logits = torch.tensor([0.1, 0.9, 0.5, 0.7, -torch.inf, 0.8])
    places, levels = best_of_maps(logits, (3, 3), 2)
    assert levels is not None and (places.tolist(), levels.tolist()) == ([1, 2, 5, 3], [0, 0, 1, 1])
    places, levels = best_of_maps(logits, (6,), 2)
    assert (places.tolist(), levels) == ([1, 5], None)
    places, levels = best_of_maps(logits, (5, 1), 100)
    assert levels is not None and (places.tolist(), levels.tolist()) == ([1, 3, 2, 0, 4, 5], [0] * 5 + [1])


def test_regions_are_pooled_from_the_map_that_suits_their_size():
    sides = torch.tensor([1.0, 111, 112, 223, 224, 447, 448, 5000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert levels_of(boxes, (4, 8, 16, 32)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert levels_of(boxes, (8, 16)).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert levels_of(boxes[:0], (4, 8)).shape == (0,) and levels_of(torch.zeros(1, 4), (4, 8)).tolist() == [0]


def test_joining_one_part_copies_nothing():
    part = torch.ones(2)
    assert joined([part]) is part and joined([part, part]).tolist() == [1, 1, 1, 1]


def test_regions_come_back_in_their_order():
    regions = [torch.tensor([[0.0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]]), torch.zeros(0, 4), torch.tensor([[6.0, 6, 7, 7]])]
    choices = [torch.tensor([1, 0, 1]), torch.zeros(0, dtype=torch.long), torch.tensor([1])]
    calls = []

    def pool(number, images, boxes):
        calls.append((number, list(images), [len(each) for each in boxes]))
        return torch.cat(list(boxes))[:, :1, None, None] + 100 * number

    cells = pool_at_chosen(pool, regions, choices, 3)
    assert cells.flatten().tolist() == [100, 2, 104, 106]
    assert calls == [(0, [0], [1]), (1, [0, 2], [2, 1])]


def test_rpn_of_two_maps_proposes_the_best_of_each_after_nms_in_each():
    config = RpnConfig(
        anchor_sizes=(8, 16), anchor_ratios=(1.0,), pre_nms_test=20, post_nms_test=12, min_size=0, ignore_straddling=False
    )
    rpn = RegionProposalNetwork(4, (4, 8), config)
    features = [torch.randn(2, 4, 8, 6), torch.randn(2, 4, 4, 3)]
    with torch.no_grad():
        output = rpn(features)
        alone = [rpn._predict(each) for each in features]
    assert output.counts == (48, 12) and output.logits.shape == (2, 60)
    torch.testing.assert_close(output.logits[:, :48], alone[0][0])
    torch.testing.assert_close(output.deltas[:, 48:], alone[1][1])
    cells = anchors_of_maps((4, 8), config)
    torch.testing.assert_close(
        output.anchors, torch.cat([grid_anchors(cells[0], 4, (8, 6)), grid_anchors(cells[1], 8, (4, 3))])
    )
    for row, size_hw in enumerate([(32, 24), (30, 24)]):
        found = rpn.test_proposals(output, [(32, 24), (30, 24)])[row]
        candidates = []
        for part in (slice(0, 48), slice(48, 60)):
            logits = rpn.mask_padding(output.logits[row, part], output.anchors[part], *size_hw)
            boxes = clip_boxes(decode_boxes(output.deltas[row, part], output.anchors[part]), size_hw)
            best = logits.topk(min(20, len(logits))).indices
            best = best[(logits[best] > -torch.inf) & nonempty_boxes(boxes[best])]
            kept = best[nms(boxes[best], logits[best], config.nms_threshold)]
            candidates += [(float(logits[place]), boxes[place].tolist()) for place in kept]
        assert found.tolist() == [box for _, box in sorted(candidates, reverse=True)[:12]]


def test_roi_head_of_two_maps_pools_each_region_from_its_own():
    model = detector(roi={"pooling": "align", "sampling_ratio": 2})
    head = RoiHead(model.roi_head.conv5, (8, 16), 3, model.config.roi)
    channels = model.trunk.channels
    features = [torch.randn(2, channels, 40, 40), torch.randn(2, channels, 20, 20), torch.randn(2, channels, 10, 10)]
    rois = [torch.tensor([[0.0, 0, 300, 310], [10, 10, 60, 50]]), torch.tensor([[5.0, 5, 100, 90], [0, 0, 320, 320]])]
    size = model.config.roi.pool_size
    expected = torch.cat(
        [
            pool_rois(features[level][row : row + 1], [rois[row][place : place + 1]], size, (8, 16)[level], "align", 2)
            for row, place, level in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1))
        ]
    )
    torch.testing.assert_close(head.pool(features, rois), expected)
    torch.testing.assert_close(head.vectors(features, rois), head.conv5(expected), rtol=1e-4, atol=1e-4)
