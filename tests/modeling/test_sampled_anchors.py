"""In training the RPN computes the anchors of its loss again: they equal those of whole maps, in their gradients too."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detection.config import RpnConfig
from detection.modeling.rpn import RegionProposalNetwork, neighbourhoods_of


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 99))
def test_neighbourhoods_are_those_of_unfold(sizes_hw, num_images, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(num_images, 2, *size_hw, generator=generator) for size_hw in sizes_hw]
    num_cells = sum(height * width for height, width in sizes_hw)
    cells = torch.randint(num_cells, (num_images, 7), generator=generator)
    # (N, C * 9, H * W) of each map -> all cells, each with its 9 neighbours' channels.
    whole = torch.cat([F.unfold(each, 3, padding=1).unflatten(1, (2, 9)) for each in maps], dim=3).permute(0, 3, 2, 1)
    expected = whole.gather(1, cells[..., None, None].expand(-1, -1, 9, 2))
    assert torch.equal(neighbourhoods_of(maps, cells), expected)


def outputs(rpn: RegionProposalNetwork, maps: list[Tensor], chosen: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    logits, deltas = rpn.at_anchors(rpn(maps), chosen)
    loss = (logits * torch.arange(1.0, logits.numel() + 1).view_as(logits)).sum() + deltas.square().sum()
    return logits, deltas, torch.autograd.grad(loss, [*maps, *rpn.parameters()])


@pytest.mark.parametrize("convs", [1, 2])
@pytest.mark.parametrize("num_maps", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equal_to_whole_maps(convs, num_maps, layout):
    torch.manual_seed(0)
    strides = (4, 8, 16)[:num_maps]
    sizes = (32.0, 64.0, 128.0)[:num_maps]
    rpn = RegionProposalNetwork(5, strides, RpnConfig(channels=6, convs=convs, anchor_sizes=sizes, sample_size=20)).double()
    for parameter in rpn.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    maps = [
        torch.randn(2, 5, 9 - level, 7 - level, dtype=torch.float64).to(memory_format=layout).requires_grad_()
        for level in range(num_maps)
    ]
    num_anchors = rpn(maps).logits.shape[1]
    chosen = torch.stack([torch.randperm(num_anchors)[:20] for _ in range(2)])
    assert not rpn.train()(maps).logits.requires_grad
    found, expected = outputs(rpn.train(), maps, chosen), outputs(rpn.eval(), maps, chosen)
    for ours, whole in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-5)  # the outputs are float32
    for ours, whole in zip(found[2], expected[2], strict=True):
        assert whole.abs().max() > 0
        torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("sample_size", "again"), [(13, True), (14, False)])
def test_on_small_maps_all_cells_have_a_gradient(sample_size, again):
    """A cell computed again costs its forward and backward, which is three products; one of a whole map two."""
    rpn = RegionProposalNetwork(5, (16,), RpnConfig(channels=6, sample_size=sample_size)).train()
    output = rpn([torch.randn(1, 5, 4, 5)])
    assert (output.maps is not None) is again and output.logits.requires_grad is not again
