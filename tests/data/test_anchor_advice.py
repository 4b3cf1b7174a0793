"""Anchors against objects: values by hand, the RPN's own anchors as the oracle, and a suggestion that fits."""

from pathlib import Path

import numpy as np
import pytest
import torch

from detection.config import Config, RpnConfig
from detection.config.files import override_config
from detection.data.anchor_advice import best_ious, suggest_anchors
from detection.data.records import AnnotatedObject, make_record
from detection.modeling.anchors import anchors_of_maps, generate_cell_anchors, grid_anchors
from detection.modeling.boxes import pairwise_iou
from detection.structures import Record


def test_by_hand():
    """A box of 64 px on a cell's centre; one shifted by 8 px each way; one of half the width."""
    boxes = np.array([[0, 0, 64, 64], [8, 8, 72, 72], [16, 0, 48, 64]], dtype=float)
    shifted = 56**2 / (2 * 64**2 - 56**2)
    assert best_ious(boxes, {16: (64,)}, (1.0,)) == pytest.approx([1, shifted, 0.5])
    assert best_ious(boxes, {16: (64, 64 / 2**0.5)}, (1.0, 2.0))[2] == pytest.approx(1)
    assert best_ious(boxes[1:2], {16: (64,)}, (1.0,), offset=0.5) == pytest.approx([1])
    assert best_ious(np.zeros((0, 4)), {16: (64,)}, (1.0,)).shape == (0,)


def test_the_anchors_of_the_rpn_agree():
    rng = np.random.default_rng(0)
    centre, extent = rng.uniform(250, 350, (50, 2)), rng.uniform(10, 200, (50, 2))
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], axis=1)
    sizes, ratios = (32, 64, 128), (0.5, 1.0, 2.0)
    anchors = grid_anchors(generate_cell_anchors(sizes, ratios), 16, (40, 40))
    expected = pairwise_iou(torch.from_numpy(boxes).float(), anchors).max(dim=1).values
    np.testing.assert_allclose(best_ious(boxes, {16: sizes}, ratios), expected, rtol=1e-4)


def test_the_anchors_of_a_pyramid_agree():
    rng = np.random.default_rng(1)
    centre, extent = rng.uniform(250, 350, (50, 2)), rng.uniform(10, 200, (50, 2))
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], axis=1)
    config, strides = RpnConfig(anchor_sizes=(16, 32, 64), anchor_offset=0.5), (4, 8, 16)
    cells = anchors_of_maps(strides, config)
    anchors = [grid_anchors(cell, stride, (640 // stride,) * 2) for cell, stride in zip(cells, strides, strict=True)]
    expected = pairwise_iou(torch.from_numpy(boxes).float(), torch.cat(anchors)).max(dim=1).values
    found = best_ious(boxes, {4: (16,), 8: (32,), 16: (64,)}, config.anchor_ratios, 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def records_of(sizes: list[tuple[float, float]], size_hw: tuple[int, int] = (600, 800)) -> list[Record]:
    boxes = [(16.0, 16.0, 16 + width, 16 + height) for width, height in sizes]
    return [make_record(number, Path(f"{number}.jpg"), size_hw, [AnnotatedObject(box, 0)]) for number, box in enumerate(boxes)]


def test_small_objects_get_small_anchors():
    records = records_of([(20, 20), (20, 40), (40, 20), (40, 40), (40, 80), (80, 40), (80, 80), (80, 160), (160, 80)] * 5)
    advice = suggest_anchors(records, Config())
    assert advice.num_objects == 45 and advice.suggested is not None
    assert advice.suggested.sizes == pytest.approx((24, 48, 97), rel=0.35) and advice.suggested.ratios == (0.5, 1.0, 2.0)
    assert advice.suggested.mean_iou > advice.current.mean_iou + 0.2
    keys = [f"rpn.anchor_sizes={list(advice.suggested.sizes)}", f"rpn.anchor_ratios={list(advice.suggested.ratios)}"]
    again = suggest_anchors(records, override_config(Config(), keys))
    assert again.suggested is None and again.current == advice.suggested and len(again.lines()) == 1
    assert "rpn.anchor_sizes: [" in advice.lines()[1]


def test_sizes_are_those_that_the_network_sees():
    """An image of 1200 px is halved: its box of 256 px is as one of 128."""
    config = override_config(Config(), ["rpn.anchor_sizes=[128]", "rpn.anchor_ratios=[1]"])
    (record,) = records_of([(256, 256)], (1200, 1600))
    advice = suggest_anchors([record], config)
    assert advice.current.mean_iou == pytest.approx(best_ious(np.array([[8, 8, 136, 136.0]]), {16: (128,)}, (1,))[0])
    assert suggest_anchors([], config).lines() == ["no objects to compare the anchors with"]
    (square,) = records_of([(500, 500)])
    assert suggest_anchors([square] * 3, Config()).current.negative == 0


PYRAMID = override_config(Config(), ["model.neck=fpn", "rpn.anchor_sizes=[32,64,128,256,512]"])


def test_a_pyramid_gets_a_size_for_each_of_its_maps():
    records = records_of([(side, side) for side in (8.0, 16.0, 32.0, 64.0, 128.0)] * 9)
    advice = suggest_anchors(records, PYRAMID)
    assert advice.suggested is not None and advice.suggested.sizes == (8, 16, 32, 64, 130)
    keys = [f"rpn.anchor_sizes={list(advice.suggested.sizes)}", f"rpn.anchor_ratios={list(advice.suggested.ratios)}"]
    assert suggest_anchors(records, override_config(PYRAMID, keys)).current == advice.suggested


def test_objects_of_few_sizes_get_no_pyramid():
    assert suggest_anchors(records_of([(20, 20)] * 9), PYRAMID).suggested is None
