"""Shapes that labelling programs draw -> the boxes around them, xyxy; in pixels, or any other unit that x and y share.

Angles are in degrees. Numbers may be anything that a file holds: where a box cannot be made of them there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from detection.data.records import Box, finite_number, parse_number

MAX_COORDINATE = 1e9
"""A larger number is a mistake, and its box has an area that float32 cannot hold."""


def read_numbers(values: Iterable[Any]) -> list[float] | None:
    """Numbers of a file, also as text ("12.5"), or None where one of them is none, or beyond MAX_COORDINATE."""
    numbers = [parse_number(value) if isinstance(value, str) else finite_number(value) for value in values]
    found = [number for number in numbers if number is not None and abs(number) <= MAX_COORDINATE]
    return found if len(found) == len(numbers) else None


def corner_box(values: Sequence[Any]) -> Box | None:
    """(x1, y1, x2, y2) as a box."""
    numbers = read_numbers(values)
    return None if numbers is None else (numbers[0], numbers[1], numbers[2], numbers[3])


def sized_box(values: Sequence[Any]) -> Box | None:
    """(x, y, width, height) as a box, x and y its upper left corner."""
    numbers = read_numbers(values)
    return None if numbers is None else (numbers[0], numbers[1], numbers[0] + numbers[2], numbers[1] + numbers[3])


def points_box(xs: Sequence[Any], ys: Sequence[Any]) -> Box | None:
    """The box around points; None where there are none, or not as many x as y."""
    x, y = read_numbers(xs), read_numbers(ys)
    return None if not x or not y or len(x) != len(y) else (min(x), min(y), max(x), max(y))


def ellipse_box(values: Sequence[Any], degrees: Any = 0) -> Box | None:
    """(centre x, centre y, radius x, radius y), turned about the centre, as the box around it."""
    numbers = read_numbers((*values, degrees))
    if numbers is None:
        return None
    x, y, radius_x, radius_y, angle = numbers
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    half_width, half_height = math.hypot(radius_x * cosine, radius_y * sine), math.hypot(radius_x * sine, radius_y * cosine)
    return x - half_width, y - half_height, x + half_width, y + half_height


def turned_box(box: Box, degrees: Any, pivot: tuple[float, float]) -> Box | None:
    """The box around a box that is turned clockwise about a point; None where the angle is no number."""
    angle = read_numbers([degrees])
    if angle is None:
        return None
    if angle[0] == 0:
        return box
    cosine, sine = math.cos(math.radians(angle[0])), math.sin(math.radians(angle[0]))
    corners = [(x - pivot[0], y - pivot[1]) for x in (box[0], box[2]) for y in (box[1], box[3])]
    xs, ys = [x * cosine - y * sine for x, y in corners], [x * sine + y * cosine for x, y in corners]
    return pivot[0] + min(xs), pivot[1] + min(ys), pivot[0] + max(xs), pivot[1] + max(ys)
