"""Drawing: what is where, and the odd cases; how it looks is for people to judge."""

import numpy as np
import pytest
import torch

from detection.data.images import read_image
from detection.errors import DatasetError
from detection.masks import Masks
from detection.visualize import class_color, contact_sheet, draw_boxes, draw_masks, draw_trails, save_image


@pytest.fixture
def grey() -> np.ndarray:
    return np.full((120, 200, 3), 128, np.uint8)


def test_box_and_label(grey):
    drawn = draw_boxes(grey, torch.tensor([[50.0, 40, 150, 100]]), torch.tensor([1]), ["a", "b"], torch.tensor([0.5]))
    assert (grey == 128).all(), "the image is not drawn into"
    color = np.array(class_color(1))
    for x, y in ((50, 70), (149, 70), (100, 99), (149, 40)):
        np.testing.assert_array_equal(drawn[y, x], color)
    assert (drawn[60:90, 60:140] == 128).all() and (drawn[105:] == 128).all() and (drawn[:, :48] == 128).all()
    assert (drawn[25:40, 50:80] == color).all(axis=2).any(), "the label's ground is above the box"


def test_mask_has_a_seen_through_inside_and_an_outline(grey):
    bitmaps = torch.zeros(2, 120, 200, dtype=torch.bool)
    bitmaps[0, 20:100, 50:150] = True
    drawn = draw_masks(grey, Masks.from_bitmaps(bitmaps), torch.tensor([1, 2]))
    assert (grey == 128).all(), "the image is not drawn into"
    color = np.array(class_color(1))
    np.testing.assert_allclose(drawn[60, 100], 0.55 * 128 + 0.45 * color, atol=1)
    for y, x in ((20, 50), (20, 149), (99, 50), (99, 149), (60, 50)):
        np.testing.assert_array_equal(drawn[y, x], color)
    outside = ~bitmaps[0].numpy()
    assert (drawn[outside] == 128).all(), "a mask without a pixel draws nothing"


def test_small_masks_lie_on_large_ones_and_none_is_fine(grey):
    bitmaps = torch.zeros(2, 120, 200, dtype=torch.bool)
    bitmaps[0, 40:60, 40:60] = True
    bitmaps[1] = True
    masks = Masks.from_bitmaps(bitmaps)
    drawn = draw_masks(grey, masks, np.array([0, 1]), tracks=[3, None])
    np.testing.assert_array_equal(drawn[40, 50], class_color(3))
    np.testing.assert_array_equal(drawn[0, 0], (160, 160, 160))
    np.testing.assert_array_equal(draw_masks(grey, masks[:0], np.zeros(0)), grey)


def test_colors_are_stable_and_distinct():
    colors = [class_color(label) for label in range(80)]
    assert len(set(colors)) == 80 and class_color(3) == colors[3]


@pytest.mark.parametrize(
    "box", [[0, 0, 200, 120], [190, 110, 200, 120], [-30, -30, 500, 500], [10, 10, 10, 10], [20, 20, 10, 10]]
)
def test_boxes_at_and_over_the_border(grey, box):
    drawn = draw_boxes(grey, np.array([box], np.float32), np.array([0]), ["a long name with ä, Ω and я"])
    assert drawn.shape == grey.shape and (drawn != grey).any()


def test_followed_objects_have_the_colours_of_their_numbers(grey):
    boxes = torch.tensor([[10.0, 40, 50, 100], [70, 40, 110, 100], [130, 40, 170, 100]])
    drawn = draw_boxes(grey, boxes, torch.tensor([0, 0, 0]), ["a"], tracks=[5, None, 6])
    assert [tuple(drawn[70, x]) for x in (10, 70, 130)] == [class_color(5), (160, 160, 160), class_color(6)]
    way = draw_trails(grey, {5: [(20.0, 60), (80, 60)], 6: [(100.0, 60)]})
    assert tuple(way[60, 50]) == class_color(5) and (way[:, 90:] == 128).all() and (grey == 128).all()


def test_nothing_to_draw(grey):
    np.testing.assert_array_equal(draw_boxes(grey, torch.zeros(0, 4), torch.zeros(0), []), grey)


def test_tiny_image():
    assert draw_boxes(np.zeros((4, 3, 3), np.uint8), np.array([[0, 0, 3, 4]]), np.array([0]), ["name"]).shape == (4, 3, 3)


def test_contact_sheet(grey):
    sheet = contact_sheet([grey, grey[:60], grey[:, :50], grey, grey], columns=2, cell_size=100)
    # Cells of 100x60, 100x30 / 42x100, 100x60 / 100x60, with gaps of 6.
    assert sheet.shape == (6 + 66 + 106 + 66, 6 + 2 * 106, 3)
    assert contact_sheet([]).shape[2] == 3
    assert contact_sheet([grey], columns=4).shape == (132, 212, 3)


def test_save(tmp_path, grey):
    save_image(tmp_path / "new/x.png", grey)
    np.testing.assert_array_equal(read_image(tmp_path / "new/x.png"), grey)
    with pytest.raises(DatasetError, match=r"x\.txt.*\.png or \.jpg"):
        save_image(tmp_path / "x.txt", grey)
