import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backbones import Preprocessing
from detection.localisation.warping import mean_colour, warp_region

FILL = (1, 2, 3)


def picture(height: int = 30, width: int = 40) -> np.ndarray:
    """Noise without the fill's values."""
    return np.random.default_rng(0).integers(10, 256, (height, width, 3), dtype=np.uint8)


def bilinear(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """The image at a continuous place: between the centres of its four nearest pixels, those at the border repeated."""
    height, width = image.shape[:2]
    y, x = y - 0.5, x - 0.5
    y0, x0 = math.floor(y), math.floor(x)
    value = np.zeros(3)
    for row, weight_y in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
        for column, weight_x in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
            pixel = image[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
            value += weight_y * weight_x * pixel
    return value


def nearest(value: float) -> int:
    return math.floor(value + 0.5)


def warp_pixel_by_pixel(image: np.ndarray, box, size: int, padding: int) -> np.ndarray:
    """R-CNN's geometry, a pixel of the square after the other."""
    sides: list[tuple[int, int, int, int]] = []
    for low, high, limit in ((box[1], box[3], image.shape[0]), (box[0], box[2], image.shape[1])):
        margin = (high - low) * padding / (size - 2 * padding)
        start, end = nearest(low - margin), nearest(high + margin)
        if start == end:
            start, end = math.floor((low + high) / 2), math.floor((low + high) / 2) + 1
        seen = [pixel for pixel in range(start, end) if 0 <= pixel < limit]
        if not seen:
            return np.broadcast_to(FILL, (size, size, 3))
        first = min(nearest((seen[0] - start) * size / (end - start)), size - 1)
        last = max(nearest((seen[-1] + 1 - start) * size / (end - start)), first + 1)
        sides.append((first, last, seen[0], seen[-1] + 1))
    result = np.zeros((size, size, 3))
    for row in range(size):
        for column in range(size):
            result[row, column] = FILL
            (top, bottom, y1, y2), (left, right, x1, x2) = sides
            if top <= row < bottom and left <= column < right:
                y = (row - top + 0.5) * (y2 - y1) / (bottom - top)
                x = (column - left + 0.5) * (x2 - x1) / (right - left)
                result[row, column] = bilinear(image[y1:y2, x1:x2], y, x)
    return result


@pytest.mark.parametrize(
    "box",
    [
        (5, 6, 25, 20),  # inside
        (0, 0, 40, 30),  # all of the image
        (30, 20, 40, 30),  # in a corner, so that its padding is outside
        (-10, -6, 14, 15),  # partly outside
        (35.4, 3.7, 55.2, 12.1),
        (50, 40, 60, 45),  # wholly outside
        (7, 8, 8, 9),  # one pixel
        (7.6, 8.2, 7.7, 8.3),  # less than a pixel
        (39.7, 29.7, 40, 30),  # ... at the border
        (3, 4, 4, 29),
    ],
)
@pytest.mark.parametrize(("size", "padding"), [(16, 0), (40, 16), (21, 0), (33, 16)])
def test_as_pixel_by_pixel(box, size, padding):
    expected = warp_pixel_by_pixel(picture(), box, size, padding)
    found = warp_region(picture(), box, size, padding, FILL)
    assert found.shape == (size, size, 3) and found.dtype == np.uint8
    np.testing.assert_allclose(found, expected, atol=1)
    np.testing.assert_array_equal((found == FILL).all(axis=2), (expected == FILL).all(axis=2))


def test_by_hand():
    """Columns 2 to 6 of the image fill the four inner pixels of eight; the padding shows the two columns on each side."""
    image = np.broadcast_to(np.arange(10, 20, dtype=np.uint8)[None, :, None], (10, 10, 3))
    assert warp_region(image, (2, 2, 6, 6), 4, 0, FILL)[0, :, 0].tolist() == [12, 13, 14, 15]
    assert warp_region(image, (2, 2, 6, 6), 8, 2, FILL)[0, :, 0].tolist() == [10, 11, 12, 13, 14, 15, 16, 17]
    assert warp_region(image, (6, 2, 10, 6), 8, 2, FILL)[0, :, 0].tolist() == [14, 15, 16, 17, 18, 19, 1, 1]
    assert warp_region(image, (-2, 0, 2, 4), 4, 0, FILL)[0, :, 0].tolist() == [1, 1, 10, 11]


def test_the_whole_image_at_its_size_is_the_image():
    image = picture(24, 24)
    np.testing.assert_array_equal(warp_region(image, (0, 0, 24, 24), 24, 0, FILL), image)


def test_a_tensor_is_a_box_too():
    box = torch.tensor([5.0, 6.0, 25.0, 20.0])
    np.testing.assert_array_equal(warp_region(picture(), box, 16, 2, FILL), warp_region(picture(), box.tolist(), 16, 2, FILL))


corners = st.tuples(*[st.floats(-60, 90)] * 4).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)


@given(corners, st.integers(1, 40), st.integers(0, 19))
def test_any_box_gives_a_square(box, size, padding):
    warped = warp_region(picture(), box, size, min(padding, (size - 1) // 2), FILL)
    assert warped.shape == (size, size, 3)


@given(st.integers(10, 20), st.integers(1, 5), st.sampled_from([0, 3]))
def test_mirrored_image_and_box_give_the_mirrored_warp(x, width, padding):
    """Of boxes whose enlarged sides are whole and inside of the image: rounding has a direction."""
    box, mirrored = (x, 4, x + width * 2, 24), (40 - x - width * 2, 4, 40 - x, 24)
    size = 4 * padding or 16
    found = warp_region(picture()[:, ::-1], mirrored, size, padding, FILL)
    np.testing.assert_allclose(found[:, ::-1], warp_region(picture(), box, size, padding, FILL), atol=1)


def test_the_mean_colour_is_zero_after_normalisation():
    rgb = Preprocessing("rgb", (123.675, 116.28, 103.53), (58.0, 57.0, 57.0))
    assert mean_colour(rgb) == (124, 116, 104)
    assert mean_colour(Preprocessing("bgr", (104.0, 117.0, 123.0), (1.0, 1.0, 1.0))) == (123, 117, 104)
    assert mean_colour(Preprocessing("rgb", (-5.0, 300.0, 0.4), (1.0, 1.0, 1.0))) == (0, 255, 0)
    image = torch.tensor(mean_colour(rgb), dtype=torch.uint8).view(3, 1, 1)
    assert rgb.normalize(image).abs().max() < 0.5 / 57
