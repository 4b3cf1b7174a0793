"""Tiles cover an image without a gap, and what is no larger than their overlap is whole in one of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detection.tiles import Window, tile_starts, tile_windows

SIDES = st.integers(1, 200)
TILES = st.integers(32, 120)
OVERLAPS = st.floats(0, 0.9)


def test_by_hand():
    assert tile_starts(1800, 800, 160) == [0, 640, 1000]
    assert tile_starts(801, 800, 160) == [0, 1]
    assert tile_windows((600, 1000), 800, 0.2) == [Window(0, 0, 800, 600), Window(200, 0, 800, 600)]
    assert tile_windows((800, 800), 800, 0.2) == tile_windows((800, 800), 0, 0.2) == [Window(0, 0, 800, 800)]


@given(SIDES, SIDES, TILES, OVERLAPS)
def test_tiles_have_one_size_and_cover_the_image(height, width, tile, overlap):
    windows = tile_windows((height, width), tile, overlap)
    assert {window.size_hw for window in windows} == {(min(tile, height), min(tile, width))}
    assert len(set(windows)) == len(windows)
    covered = np.zeros((height, width), bool)
    for window in windows:
        assert window.crop(covered).shape == window.size_hw  # none reaches out of the image
        window.crop(covered)[:] = True
    assert covered.all()


@given(st.data(), SIDES, TILES, OVERLAPS)
def test_what_fits_into_the_overlap_is_whole_in_a_tile(data, length, tile, overlap):
    shared = round(tile * overlap)
    start = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(start, min(start + shared, length)))
    assert any(first <= start and end <= first + tile for first in tile_starts(length, tile, shared))


@given(st.data(), SIDES, SIDES, TILES, OVERLAPS)
def test_a_pixel_of_a_window_is_the_image_s_at_its_offset(data, height, width, tile, overlap):
    window = data.draw(st.sampled_from(tile_windows((height, width), tile, overlap)))
    y, x = data.draw(st.integers(0, window.height - 1)), data.draw(st.integers(0, window.width - 1))
    image = np.arange(height * width).reshape(height, width)
    assert window.crop(image)[y, x] == image[window.y + y, window.x + x]
