"""Pasting by windows and matrices, against whole bitmaps: detectron2's and torchvision's way, as it is written down."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detection.inference.mask_windows import encode_edges, masks_in_image, runs_of_columns
from detection.inference.pasting import paste_masks
from detection.masks import Masks
from detection.tiles import Window


def by_grid(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """The probability at the centre of every pixel of the image, (D, H, W): zero outside of the box's grid."""
    x0, y0, x1, y1 = boxes.double()[:, :, None].unbind(1)
    y = (torch.arange(height, dtype=torch.float64) + 0.5 - y0) / (y1 - y0) * 2 - 1
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - x0) / (x1 - x0) * 2 - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3)
    return F.grid_sample(masks[:, None].double(), grid, align_corners=False)[:, 0]


def by_torchvision(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    return paste_masks_in_image(masks[:, None], boxes, (height, width))[:, 0]


FORMS = [("grid", by_grid), ("whole_pixels", by_torchvision)]


def random_boxes(generator: torch.Generator, count: int, height: int, width: int) -> Tensor:
    """Some end at the image's borders, some are smaller than a pixel."""
    corners = (torch.rand(count, 2, 2, generator=generator) * 1.4 - 0.2).clamp(0, 1) * torch.tensor([width, height])
    low, high = corners.amin(1), corners.amax(1)
    high = torch.where(torch.rand(count, 1, generator=generator) < 0.2, low + 0.3, high)
    return torch.cat([low, torch.maximum(high, low + 1e-3)], dim=1)


@pytest.mark.parametrize(("form", "oracle"), FORMS, ids=["grid", "whole_pixels"])
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60), st.integers(1, 9))
@settings(max_examples=40)
def test_the_same_as_whole_bitmaps(form, oracle, seed, height, width, cells):
    generator = torch.Generator().manual_seed(seed)
    masks, boxes = torch.rand(3, cells, cells, generator=generator), random_boxes(generator, 3, height, width)
    values = oracle(masks, boxes, height, width)
    found = paste_masks(masks, boxes, (height, width), form).decode()
    differ = found != (values >= 0.5)
    assert not (differ & ((values - 0.5).abs() > 1e-4)).any(), "but for pixels at the threshold"


@pytest.mark.parametrize(("form", "oracle"), FORMS, ids=["grid", "whole_pixels"])
def test_a_large_box_is_pasted_in_parts(form, oracle, monkeypatch):
    monkeypatch.setattr("detection.inference.pasting._PIXELS_AT_A_TIME", 150)
    masks, boxes = torch.rand(2, 7, 7), torch.tensor([[0.0, 0, 50, 40], [3.3, 5.5, 44.1, 30.2]])
    found = paste_masks(masks, boxes, (40, 50), form)
    monkeypatch.undo()
    assert found == paste_masks(masks, boxes, (40, 50), form)
    assert torch.equal(found.decode(), oracle(masks, boxes, 40, 50) >= 0.5)


def test_by_hand():
    """2 x 2 cells in a box of 4 x 4 pixels: a cell's centre is between two pixels, so these take 3/4 of it."""
    mask = torch.tensor([[[1.0, 0], [0, 0]]])
    found = paste_masks(mask, torch.tensor([[1.0, 2, 5, 6]]), (8, 8))
    # Along an axis the four pixels take 3/4 (the box ends half a cell farther out), 3/4, 1/4 and nothing of the first cell.
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:4, 1:3] = True  # 9/16
    assert torch.equal(found.decode()[0], expected)
    # The empty cell around it: 4 x 4 cells in 9 x 9 whole pixels from (-1, 0) on.
    whole = paste_masks(torch.ones(1, 2, 2), torch.tensor([[1.0, 2, 5, 6]]), (8, 8), "whole_pixels").decode()[0]
    assert whole.nonzero().amin(0).tolist() == [2, 1] and whole.nonzero().amax(0).tolist() == [6, 5]


@pytest.mark.parametrize("form", ["grid", "whole_pixels"])
def test_nothing_to_paste(form):
    found = paste_masks(torch.zeros(0, 1, 1), torch.zeros(0, 4), (5, 6), form)
    assert len(found) == 0 and found.size_hw == (5, 6)
    below = paste_masks(torch.full((1, 3, 3), 0.49), torch.tensor([[0.0, 0, 6, 5]]), (5, 6), form)
    assert below.areas.tolist() == [0]
    empty = paste_masks(torch.ones(1, 3, 3), torch.tensor([[2.0, 2, 2, 2]]), (5, 6), "grid")
    assert empty.areas.tolist() == [0]


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=60)
def test_run_lengths_of_a_part_are_those_of_the_whole_bitmap(seed, height, width):
    generator = np.random.default_rng(seed)
    y, x = generator.integers(0, height), generator.integers(0, width)
    h, w = generator.integers(0, height - y + 1), generator.integers(0, width - x + 1)
    part = generator.random((h, w)) < generator.choice([0.0, 0.5, 1.0])
    whole = np.zeros((height, width), dtype=np.bool_)
    whole[y : y + h, x : x + w] = part
    expected = Masks.from_bitmaps(torch.from_numpy(whole)[None])
    assert encode_edges(runs_of_columns(part.T, x, y, height), (height, width)) == expected.counts[0]
    if h and w:
        masks = Masks.from_bitmaps(torch.from_numpy(part)[None])
        assert masks_in_image(masks, Window(int(x), int(y), int(w), int(h)), (height, width)) == expected


def test_the_share_of_a_disc():
    cells = 28
    places = (torch.arange(cells) + 0.5) / cells * 2 - 1
    disc = (1.3 - (places[:, None] ** 2 + places**2).sqrt()).clamp(0, 1)  # 0.5 at 0.8 of the box's half side
    area = int(paste_masks(disc[None], torch.tensor([[10.0, 20, 110, 120]]), (200, 150)).areas)
    assert area == pytest.approx(math.pi * 40**2, rel=0.01)
