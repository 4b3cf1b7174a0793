"""Box geometry: by hand, by property, and against torchvision."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import ops

from detection.modeling.boxes import (
    box_areas,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    nonempty_boxes,
    pairwise_coverage,
    pairwise_iou,
)

coordinate = st.floats(-500, 500, width=32)
side = st.floats(1, 500, width=32)


@st.composite
def box_lists(draw: st.DrawFn, min_size: int = 1) -> torch.Tensor:
    boxes = draw(st.lists(st.tuples(coordinate, coordinate, side, side), min_size=min_size, max_size=6))
    xywh = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)


def test_iou_by_hand():
    a = torch.tensor([[0.0, 0, 10, 10]])
    b = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 15], [10, 0, 20, 10], [2, 2, 2, 8], [8, 8, 4, 4]])
    torch.testing.assert_close(pairwise_iou(a, b), torch.tensor([[1, 25 / 175, 0, 0, 0]]))


def test_empty_boxes_score_zero_with_one_another():
    point = torch.tensor([[3.0, 3, 3, 3]])
    assert pairwise_iou(point, point).item() == 0
    assert pairwise_coverage(point, torch.tensor([[0.0, 0, 9, 9]])).item() == 0


@pytest.mark.parametrize(("a", "b"), [(0, 3), (3, 0), (0, 0)])
def test_iou_of_no_boxes_has_the_right_shape(a, b):
    assert pairwise_iou(torch.rand(a, 4), torch.rand(b, 4)).shape == (a, b)


@given(box_lists(), box_lists())
def test_iou_equals_torchvision(a, b):
    torch.testing.assert_close(pairwise_iou(a, b), ops.box_iou(a, b), rtol=1e-4, atol=1e-5)


@given(box_lists())
def test_iou_is_symmetric_and_bounded(boxes):
    iou = pairwise_iou(boxes, boxes)
    torch.testing.assert_close(iou, iou.T)
    assert (iou >= 0).all() and (iou <= 1 + 1e-6).all()
    torch.testing.assert_close(iou.diagonal(), torch.ones(len(boxes)))


def test_coverage_is_a_share_of_the_first_box():
    box, region = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 100, 5]])
    assert pairwise_coverage(box, region).item() == 0.5
    assert pairwise_coverage(region, box).item() == pytest.approx(0.1)


def test_encode_by_hand():
    anchor, box = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[5.0, 10, 25, 20]])
    expected = torch.tensor([[1.0, 0.25, 0.6931472, -0.6931472]])
    torch.testing.assert_close(encode_boxes(box, anchor), expected)
    torch.testing.assert_close(encode_boxes(box, anchor, (0.1, 0.1, 0.2, 0.2)), expected / torch.tensor([0.1, 0.1, 0.2, 0.2]))


@given(box_lists(), st.integers(0, 1000))
def test_decode_inverts_encode(boxes, seed):
    generator = torch.Generator().manual_seed(seed)
    jitter = torch.rand(boxes.shape, generator=generator) * 20
    anchors = torch.cat([boxes[:, :2] - jitter[:, :2], boxes[:, 2:] + jitter[:, 2:]], dim=1)
    std = (0.1, 0.1, 0.2, 0.2)
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors, std), anchors, std), boxes, rtol=1e-3, atol=1e-2)


def test_decode_equals_torchvision_and_never_overflows():
    from torchvision.models.detection.roi_heads import RoIHeads

    head = RoIHeads(
        box_roi_pool=torch.nn.Identity(),
        box_head=torch.nn.Identity(),
        box_predictor=torch.nn.Identity(),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=512,
        positive_fraction=0.25,
        bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
    )
    anchors = torch.rand(50, 4) * 100
    anchors[:, 2:] += anchors[:, :2] + 1
    deltas = torch.randn(50, 4)
    deltas[0, 2:] = 1e4
    theirs = head.box_coder.decode_single(deltas, anchors)
    ours = decode_boxes(deltas, anchors, (0.1, 0.1, 0.2, 0.2))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-3)
    assert ours.isfinite().all()


def test_decode_one_box_a_class():
    anchors, deltas = torch.tensor([[0.0, 0, 10, 10], [5, 5, 7, 9]]), torch.randn(2, 3, 4)
    boxes = decode_boxes(deltas, anchors[:, None])
    for label in range(3):
        torch.testing.assert_close(boxes[:, label], decode_boxes(deltas[:, label], anchors))


def test_clip_and_nonempty_boxes():
    boxes = torch.tensor([[-5.0, -5, 50, 50], [30, 2, 40, 8], [1, 1, 4, 9]])
    clipped = clip_boxes(boxes, (10, 20))
    assert clipped.tolist() == [[0, 0, 20, 10], [20, 2, 20, 8], [1, 1, 4, 9]]
    assert nonempty_boxes(clipped).tolist() == [True, False, True]
    assert nonempty_boxes(clipped, 4).tolist() == [True, False, False]
    assert box_areas(clipped).tolist() == [200, 0, 24]
