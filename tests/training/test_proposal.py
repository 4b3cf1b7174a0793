"""Settings chosen for data and machine, by hand-computed numbers and properties."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detection.data.records import AnnotatedObject, make_record
from detection.structures import Record
from detection.training.proposal import (
    DataSummary,
    detections_of,
    input_side,
    longer_side,
    mirrors,
    steps_of,
    summarise,
    tile_side,
    training_sides,
)


def record(size_hw: tuple[int, int], *sides: float) -> Record:
    objects = [AnnotatedObject((0.0, 0.0, side, side), 0) for side in sides]
    return make_record("a", Path("a.jpg"), size_hw, objects)


def summary(small: float, image_side: float = 480) -> DataSummary:
    return DataSummary(100, image_side, small, 10)


def test_the_summary_measures_objects_against_their_images() -> None:
    found = summarise([record((480, 640), 48, 96), record((1000, 500)), record((100, 100), *[10.0] * 150)])
    assert (found.num_images, found.image_side, found.most_objects) == (3, 480, 150)
    assert found.small_object == pytest.approx(0.1)


def test_data_without_objects_have_a_summary() -> None:
    assert summarise([record((480, 640))]).small_object == 1


@pytest.mark.parametrize(
    ("small", "device", "side"),
    [
        (0.07, "cpu", 480),
        (0.07, "cuda", 600),
        (0.05, "cuda", 640),
        (0.001, "cpu", 600),
        (0.001, "cuda", 800),
        (0.9, "cpu", 400),
    ],
)
def test_small_objects_get_larger_images(small: float, device: str, side: int) -> None:
    assert input_side(summary(small), device) == side


@given(st.floats(0, 1), st.sampled_from(["cpu", "cuda"]))
def test_sides_fit_together(small: float, device: str) -> None:
    side = input_side(summary(small), device)
    sides = training_sides(side)
    assert sides == sorted(set(sides)) and sides[-1] == side and min(sides) >= 0.8 * side and longer_side(side) > side


def test_tiles_show_small_objects_large_enough() -> None:
    # Objects of 10 px in images of 2000 px, whose shorter side becomes 800: 4 px. A tile of 400 px shows them with 20.
    assert tile_side(summary(10 / 2000, 2000), 800) == 416
    assert tile_side(summary(0.1, 2000), 800) is None  # 80 px as they are
    assert tile_side(summary(20 / 1000, 1000), 800) is None  # 16 px: a tile of 800 of 1000 px is nearly the image


def test_steps_grow_with_the_data_within_bounds() -> None:
    assert [steps_of(count, 2, "cpu") for count in (1, 100, 10_000)] == [750, 2000, 4000]
    assert [steps_of(count, 8, "cuda") for count in (1, 500, 100_000)] == [500, 2500, 5000]


def test_detections_cover_crowded_images() -> None:
    assert [detections_of(count) for count in (0, 66, 67, 300)] == [100, 100, 200, 500]


def test_names_that_tell_left_from_right_are_not_mirrored() -> None:
    assert mirrors(["cat", "leftover", "bright"])
    assert not mirrors(["turn-Left", "stop"])
