"""RoIAlign as a sparse product equals torchvision's op, values and gradients; RoI max pooling by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import ops

from detection.modeling.roi_align import axis_weights, roi_align
from detection.modeling.roi_head import pool_rois


def rois_in_and_around(count: int, height: int, width: int) -> torch.Tensor:
    """Boxes of all sizes, some beyond the border, some far outside, some tiny."""
    corners = torch.rand(count, 2) * torch.tensor([width, height]) * 1.4 - 40
    boxes = torch.cat([corners, corners + torch.rand(count, 2) ** 2 * 300], dim=1)
    special = [[0.0, 0, width, height], [-500, -500, -400, -400], [5, 5, 5.01, 5.01], [width, height, width + 9, height + 9]]
    return torch.cat([boxes, torch.tensor(special)])


def two_products(features, rois, scale, size, sampling_ratio):
    """RoIAlign of one image's (C, H, W) as it reads: weights along each axis, Wy . F . Wx^T."""
    boxes = rois * scale - 0.5
    rows = axis_weights(boxes[:, 1], boxes[:, 3], size, features.shape[1], sampling_ratio)
    columns = axis_weights(boxes[:, 0], boxes[:, 2], size, features.shape[2], sampling_ratio)
    return torch.einsum("rsh,chw,rtw->rcst", rows, features, columns)


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [1, 7, 14])
def test_equals_torchvision_and_two_dense_products(size, sampling_ratio):
    features = torch.randn(2, 5, 13, 19, dtype=torch.float64, requires_grad=True)
    rois = [rois_in_and_around(count, 13 * 16, 19 * 16).double() for count in (30, 10)]
    ours = roi_align(features, rois, size, 1 / 16, sampling_ratio)
    theirs = ops.roi_align(features, rois, size, 1 / 16, sampling_ratio, aligned=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    plain = [two_products(image, boxes, 1 / 16, size, sampling_ratio) for image, boxes in zip(features, rois, strict=True)]
    torch.testing.assert_close(ours, torch.cat(plain), rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(theirs)
    found = torch.autograd.grad((ours * weight).sum(), features)[0]
    expected = torch.autograd.grad((theirs * weight).sum(), features)[0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


SIDES = st.integers(1, 6)


@given(size=st.integers(1, 8), cell_stride=st.integers(1, 4), height=SIDES, width=SIDES, seed=st.integers(0, 99))
def test_any_map_any_cells(size, cell_stride, height, width, seed):
    torch.manual_seed(seed)
    features, rois = torch.randn(1, 3, height, width), [rois_in_and_around(4, height * 16, width * 16)]
    theirs = ops.roi_align(features, rois, size, 1 / 16, 2, aligned=True)[:, :, ::cell_stride, ::cell_stride]
    torch.testing.assert_close(roi_align(features, rois, size, 1 / 16, 2, cell_stride), theirs, rtol=1e-4, atol=1e-5)


def test_channels_go_last_without_a_copy():
    pooled = roi_align(torch.randn(2, 8, 5, 5), [torch.tensor([[0.0, 0, 60, 60]])] * 2, 4, 1 / 16, 2)
    assert pooled.is_contiguous(memory_format=torch.channels_last)


def test_bf16_is_close():
    features, rois = torch.randn(1, 4, 10, 12), [rois_in_and_around(9, 160, 192)]
    exact = roi_align(features, rois, 7, 1 / 16, 2)
    rough = roi_align(features.bfloat16(), rois, 7, 1 / 16, 2)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("pooling", ["max", "align"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_order_and_empty_images(pooling, sampling_ratio):
    features = torch.randn(3, 4, 8, 8)
    boxes = torch.tensor([[0.0, 0, 64, 64], [16, 16, 90, 80]])
    pooled = pool_rois(features, [boxes, boxes[:0], boxes[:1]], 5, 16, pooling, sampling_ratio)
    assert pooled.shape == (3, 4, 5, 5)
    last = pool_rois(features[2:], [boxes[:1]], 5, 16, pooling, sampling_ratio)
    torch.testing.assert_close(pooled[2:], last)
    none = pool_rois(features, [boxes[:0]] * 3, 5, 16, pooling, sampling_ratio)
    assert none.shape == (0, 4, 5, 5)


def test_align_of_a_ramp_by_hand():
    # The value of feature i is i, at pixel 16 i + 8. Pixels 16..80 span values 0.5..4.5: two cells, centred at 1.5 and 3.5.
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    pooled = pool_rois(ramp, [torch.tensor([[16.0, 16, 80, 80]])], 2, 16, "align", 2)
    torch.testing.assert_close(pooled, torch.tensor([[1.5, 3.5], [1.5, 3.5]])[None, None])


def test_max_by_hand():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    # Pixels 16..63 are features 1..4 (the last one included): cells 1..2 and 3..4.
    pooled = pool_rois(ramp, [torch.tensor([[16.0, 16, 64, 64]])], 2, 16, "max")
    assert pooled[0, 0, 0, 1] == 4 and pooled[0, 0, 0, 0] >= 2
