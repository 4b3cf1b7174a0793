"""The rules that readers of several formats share: what a number is, in JSON and in text."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.errors import shorten
from detection.data.records import finite_number, parse_number


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
