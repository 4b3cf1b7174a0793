"""RoI max pooling by tables equals torchvision's operator, value by value, and in its gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import ops

from detection.modeling import roi_max_pool as module
from detection.modeling.roi_max_pool import roi_max_pool

SCALE = 1 / 16
# Multiples of 8 pixels lie half between two features; beyond the map there is nothing.
corner = st.integers(-6, 40).map(lambda number: number * 8.0) | st.floats(-40, 300, width=32)
box = st.tuples(corner, corner, corner, corner).map(
    lambda x: (min(x[0], x[2]), min(x[1], x[3]), max(x[0], x[2]), max(x[1], x[3]))
)


def both(features, rois, size, cell_stride=1):
    """Cells and the gradient of ours and of torchvision's, of a loss that weighs each cell."""
    found = []
    for pool in (
        lambda maps: roi_max_pool(maps, rois, size, SCALE, cell_stride),
        lambda maps: ops.roi_pool(maps, rois, size, SCALE)[:, :, ::cell_stride, ::cell_stride],
    ):
        maps = features.clone().requires_grad_()
        cells = pool(maps)
        weights = torch.arange(1.0, cells.numel() + 1).view_as(cells.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        (cells * weights.to(cells)).sum().backward()
        found.append((cells.detach(), maps.grad))
    return found


def assert_same(pair, **tolerance):
    (cells, gradient), (expected, expected_gradient) = pair
    assert torch.equal(cells, expected)
    torch.testing.assert_close(gradient, expected_gradient, **tolerance)


@settings(deadline=None, max_examples=60)
@given(st.lists(box, min_size=1, max_size=6), st.integers(1, 7), st.integers(1, 2), st.integers(0, 99))
def test_equals_torchvision(boxes, size, cell_stride, seed):
    """Half the features are 0, as behind a ReLU: of equal ones the first gets the gradient."""
    features = torch.randn(1, 3, 11, 13, generator=torch.Generator().manual_seed(seed)).relu()
    assert_same(both(features, [torch.tensor(boxes)], size, cell_stride))


def test_several_images_one_without_proposals(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 5)  # more than one part
    torch.manual_seed(0)
    corners = torch.rand(7, 2) * 90
    boxes = torch.cat([corners, corners + torch.rand(7, 2) * 120], dim=1)
    assert_same(both(torch.randn(3, 4, 9, 14), [boxes[:4], boxes[:0], boxes[4:]], 3))


def test_no_proposals():
    features = torch.randn(1, 4, 5, 6, requires_grad=True)
    cells = roi_max_pool(features, [torch.zeros(0, 4)], 7, SCALE)
    assert cells.shape == (0, 4, 7, 7)
    cells.sum().backward()
    assert features.grad is not None and not features.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types(dtype):
    torch.manual_seed(0)
    features = torch.randn(1, 8, 9, 14).to(dtype)
    boxes = torch.tensor([[0.0, 0, 200, 140], [30, 20, 90, 130]])
    cells = roi_max_pool(features, [boxes], 4, SCALE)
    assert cells.dtype == dtype and cells.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(cells, ops.roi_pool(features.double(), [boxes.double()], 4, SCALE).to(dtype))
    if dtype == torch.float64:
        assert_same(both(features, [boxes.double()], 4), rtol=1e-12, atol=0)
