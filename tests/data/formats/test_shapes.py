"""Boxes around shapes: values worked out by hand, and a property of turning."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detection.data.formats.shapes import corner_box, ellipse_box, points_box, read_numbers, sized_box, turned_box


def test_boxes_of_numbers():
    assert corner_box([1, "2", 3.5, " 4 "]) == (1, 2, 3.5, 4)
    assert sized_box([1, 2, 3, 4]) == (1, 2, 4, 6)
    assert points_box([3, 1, 2], [5, 9, 7]) == (1, 5, 3, 9)
    assert ellipse_box([10, 20, 3, 4]) == pytest.approx((7, 16, 13, 24))
    assert ellipse_box([10, 20, 3, 4], 90) == pytest.approx((6, 17, 14, 23))


@pytest.mark.parametrize("value", [None, True, "", "x", "nan", float("nan"), float("inf"), 1e10, 10**400, [], {}, "1_0"])
def test_what_is_no_number_makes_no_box(value):
    assert read_numbers([1, value]) is None
    assert corner_box([1, 2, value, 4]) is None and sized_box([1, 2, value, 4]) is None
    assert points_box([1, value], [1, 2]) is None and ellipse_box([1, 2, 3, 4], value) is None
    assert turned_box((0, 0, 1, 1), value, (0, 0)) is None


def test_points_that_are_no_points():
    assert points_box([], []) is None and points_box([1, 2], [1]) is None


def test_a_box_is_turned_clockwise_about_a_point():
    assert turned_box((0, 0, 4, 2), 90, (0, 0)) == pytest.approx((-2, 0, 0, 4))
    assert turned_box((0, 0, 4, 2), "180", (2, 1)) == pytest.approx((0, 0, 4, 2))
    half = math.sqrt(2)
    assert turned_box((0, 0, 2, 2), 45, (1, 1)) == pytest.approx((1 - half, 1 - half, 1 + half, 1 + half))


@given(st.floats(-720, 720), st.floats(0.5, 100), st.floats(0.5, 100))
def test_a_circle_and_a_turned_box_hold_their_parts(degrees, width, height):
    box = turned_box((0, 0, width, height), degrees, (width / 2, height / 2))
    inside = ellipse_box([width / 2, height / 2, width / 2, height / 2], degrees)
    assert box is not None and inside is not None
    assert all(outer <= inner + 1e-6 for outer, inner in zip(box[:2], inside[:2], strict=True))
    assert all(outer >= inner - 1e-6 for outer, inner in zip(box[2:], inside[2:], strict=True))
