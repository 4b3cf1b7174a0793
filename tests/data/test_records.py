"""The rules that readers of several formats share: what a number is, in JSON and in text."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.errors import shorten
from detection.data.faults import Faults
from detection.data.records import (
    Box,
    describe_crowded,
    describe_relative,
    finite_number,
    needs_no_repair,
    parse_number,
    repair_box,
)
from tests.evaluation.scenes import make_record


@pytest.mark.parametrize(
    "value", [True, False, None, "1", [1], {}, math.nan, math.inf, -math.inf, 10**400, -(10**5000)], ids=shorten
)
def test_what_is_no_finite_number_in_json(value: Any):
    assert finite_number(value) is None


@given(st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**300), 10**300)))
def test_finite_numbers_stay(value: float):
    assert finite_number(value) == float(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_written_numbers_are_read_back(value: float):
    assert parse_number(f" {value!r}\n") == value


@pytest.mark.parametrize("text", ["1", "+1", "-1.", ".5", "1e3", "1E-3", "007", " 2.5\t"])
def test_decimal_texts(text: str):
    assert parse_number(text) == float(text)


@pytest.mark.parametrize(
    "text", [None, "", " ", "1_0", "nan", "inf", "-Infinity", "1e400", "0x10", "1,5", "\u0661\u0662", "\uff11", "1 2", "."]
)
def test_what_is_no_decimal_text(text: str | None):
    assert parse_number(text) is None


def test_a_long_text_takes_no_long_time():
    assert parse_number("1" * 10**6) is None and parse_number("1" * 10**6 + "x") is None


@given(st.tuples(*[st.integers(-3, 13).map(lambda n: n / 2 + n % 3 * 0.004)] * 4))
def test_boxes_that_need_no_repair_stay_as_they_are(box: Box):
    faults = Faults()
    repaired = repair_box(box, (4, 6), "here", faults)
    assert needs_no_repair(box, (4, 6)) <= (repaired == box and not faults.notes)
    assert needs_no_repair((1, 1, 3, 3), (4, 6)) and not needs_no_repair((1, 1, 7, 3), (4, 6))


A = (0, 0, 10, 10)


def test_boxes_that_are_fractions_are_told():
    records = [make_record(1, [(0, 0.1, 0.5, 0.9), (0.2, 0.2, 1, 1)]), make_record(2)]
    assert describe_relative(records) == (
        "all 2 boxes lie within the first pixel of their images: are they fractions? Boxes are in pixels"
    )
    assert describe_relative([*records, make_record(3, [A])]) is None and describe_relative([make_record(2)]) is None


def test_objects_beyond_the_detections_are_counted():
    records = [make_record(1, [A] * 5), make_record(2, [A] * 3), make_record(3, [A] * 9, difficult=[True] * 9), make_record(4)]
    assert describe_crowded(records, 5) is None
    expected = "2 images have more objects than test.max_detections (2), up to 5: 4 of 8 objects cannot be found"
    assert describe_crowded(records, 2) == expected
