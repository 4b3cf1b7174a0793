"""Instance masks: run lengths against bitmaps, and whatever a file may hold in their place."""

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from detection.errors import DatasetError
from detection.masks import MAX_MASK_PIXELS, Masks, compact, mask_iou, rasterise, rle_areas
from detection.polygons import MAX_OUTLINE, is_packed, unpack_polygons

SQUARE: list[float] = [1, 1, 3, 1, 3, 3, 1, 3]


def random_bitmaps(seed: int, number: int | None = None) -> torch.Tensor:
    """(N, H, W): blots of all kinds, some empty, some full."""
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 12, 2)
    count = int(random.integers(0, 5)) if number is None else number
    thresholds = random.choice([0.0, 0.3, 0.7, 1.0], (count, 1, 1))
    return torch.from_numpy(random.random((count, int(height), int(width))) < thresholds)


def plain_runs(bitmap: torch.Tensor) -> list[int]:
    """Run lengths, column by column, pixel after pixel."""
    runs, value = [0], False
    for pixel in bitmap.T.reshape(-1).tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def plain_box(bitmap: torch.Tensor) -> list[float]:
    rows, columns = torch.nonzero(bitmap, as_tuple=True)
    if not len(rows):
        return [0, 0, 0, 0]
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


seeds = given(seed=st.integers(0, 10**6))
few = settings(max_examples=25)


def test_a_mask_by_hand():
    bitmap = torch.tensor([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]], dtype=torch.bool)
    masks = Masks.of([rasterise({"size": [3, 4], "counts": [3, 2, 1, 3, 3]}, (3, 4))], (3, 4))
    assert masks == Masks.from_bitmaps(bitmap[None])
    assert masks.decode().tolist() == bitmap[None].tolist()
    assert masks.areas.tolist() == [5] and masks.areas.dtype == torch.int64
    assert masks.boxes().tolist() == [[1, 0, 3, 3]] and masks.boxes().dtype == torch.float32


@few
@seeds
def test_bitmaps_come_back(seed):
    bitmaps = random_bitmaps(seed)
    masks = Masks.from_bitmaps(bitmaps)
    assert len(masks) == len(bitmaps) and masks.size_hw == tuple(bitmaps.shape[1:])
    decoded = masks.decode()
    assert decoded.dtype == torch.bool and torch.equal(decoded, bitmaps) and decoded.is_contiguous()
    assert masks.areas.tolist() == bitmaps.sum((1, 2)).tolist()
    assert masks.boxes().tolist() == list(map(plain_box, bitmaps))
    assert torch.equal(Masks.from_bitmaps(bitmaps.transpose(1, 2).contiguous().transpose(1, 2)).decode(), bitmaps)


@few
@seeds
def test_all_forms_of_run_lengths_are_one(seed):
    random, bitmaps = np.random.default_rng(seed), random_bitmaps(seed)
    masks = Masks.from_bitmaps(bitmaps)
    size = masks.size_hw
    for bitmap, rle, text in zip(bitmaps, masks.rles, masks.as_json(), strict=True):
        runs = plain_runs(bitmap)
        assert rasterise({"size": list(size), "counts": runs}, size) == rle
        assert rasterise(text, size) == rle == rasterise(dict(rle), size)
        split = [part for run in runs for part in ([run] if random.random() < 0.5 else [run // 3, 0, run - run // 3])]
        assert rasterise({"size": list(size), "counts": split + [0] * int(random.integers(0, 3))}, size) == rle


def test_runs_of_no_length_are_left_out_of_the_text_too():
    for counts in ([2, 0, 1, 3], [6, 0], [0, 0, 6], [3, 3, 0, 0]):
        (written,) = mask_api.frPyObjects([{"size": [2, 3], "counts": counts}], 2, 3)
        bitmap = mask_api.decode(written)[None].astype(bool)
        assert Masks.of([rasterise(written, (2, 3))], (2, 3)) == Masks.from_bitmaps(torch.from_numpy(bitmap))


@few
@seeds
def test_sets_of_pixels(seed):
    bitmaps = random_bitmaps(seed)
    others = bitmaps.flip(0)[: seed % 3].roll(1, 2)
    masks, other_masks = Masks.from_bitmaps(bitmaps), Masks.from_bitmaps(others)
    assert torch.equal(masks.union().decode(), bitmaps.any(0)[None])
    assert torch.equal(masks.without(other_masks).decode(), bitmaps & ~others.any(0))
    assert len(masks.union()) == 1
    crowd = torch.tensor([index % 2 == 1 for index in range(len(others))], dtype=torch.bool)
    inter = (bitmaps[:, None] & others[None]).sum((2, 3)).double()
    union = (bitmaps[:, None] | others[None]).sum((2, 3)).double()
    own = bitmaps.sum((1, 2)).double()[:, None].expand(inter.shape)
    expected = torch.where(crowd, inter / own, inter / union).nan_to_num(0.0)
    torch.testing.assert_close(mask_iou(masks, other_masks, crowd), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(mask_iou(masks, other_masks), (inter / union).nan_to_num(0.0), rtol=0, atol=1e-15)


@few
@seeds
def test_a_selection_is_that_of_the_rows(seed):
    bitmaps = random_bitmaps(seed, 5)
    masks, rows = Masks.from_bitmaps(bitmaps), torch.tensor([3, 0, 3])
    for index in (rows, bitmaps.any(2).any(1), slice(1, 4), slice(None, None, 2), torch.zeros(0, dtype=torch.long)):
        assert torch.equal(masks[index].decode(), bitmaps[index])
    with pytest.raises(IndexError):
        masks[torch.tensor([5])]


def test_no_mask_is_a_valid_value():
    for none in (Masks((4, 6)), Masks.from_bitmaps(torch.zeros((0, 4, 6), dtype=torch.bool)), Masks.of([], (4, 6))):
        assert none == Masks((4, 6)) and len(none) == 0
        assert none.decode().shape == (0, 4, 6) and none.decode().dtype == torch.bool
        assert none.areas.shape == (0,) and none.boxes().shape == (0, 4)
        assert none.union().areas.tolist() == [0]
        assert len(none[torch.zeros(0, dtype=torch.bool)]) == 0
        full = Masks.from_bitmaps(torch.ones((2, 4, 6), dtype=torch.bool))
        assert mask_iou(none, full).shape == (0, 2) and mask_iou(full, none).shape == (2, 0)
        assert full.without(none) == full and len(none.without(full)) == 0


def test_masks_travel_to_other_processes():
    masks = Masks.from_bitmaps(random_bitmaps(3, 4))
    assert pickle.loads(pickle.dumps(masks)) == masks


def test_masks_of_different_images_are_not_compared():
    one, other = Masks((4, 6)), Masks((6, 4))
    for compare in (mask_iou, Masks.without):
        with pytest.raises(DatasetError, match="masks of 4 x 6 and of 6 x 4 px are not of one image"):
            compare(one, other)
    with pytest.raises(DatasetError, match="a mask of 6 x 4 px cannot be one of an image of 4 x 6"):
        Masks.of(other.union().rles, (4, 6))


@pytest.mark.parametrize("bitmaps", [torch.zeros(3, 4, dtype=torch.bool), torch.zeros(1, 3, 4)])
def test_bitmaps_of_another_kind_are_a_mistake_of_the_caller(bitmaps):
    with pytest.raises(ValueError, match=r"bitmaps must be \(N, H, W\) bool, got "):
        Masks.from_bitmaps(bitmaps)


def blob(random: np.random.Generator, size_hw: tuple[int, int]) -> list[float]:
    """The outline of an object in a picture: a circle with waves, of 40 to 250 px radius."""
    angles = np.linspace(0, 2 * math.pi, 120, endpoint=False)
    waves = sum(random.normal(0, 0.2 / k) * np.cos(k * angles + random.uniform(0, 6)) for k in range(2, 14))
    radius = random.uniform(40, 250) * (1 + waves + random.normal(0, 0.01, 120))
    centre = random.uniform(0.2, 0.8, 2) * size_hw[::-1]
    return np.stack([centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)], axis=1).reshape(-1).tolist()


def test_a_hundred_masks_of_a_large_image_take_little_memory():
    size, random = (800, 1333), np.random.default_rng(0)
    masks = Masks.of([rasterise([blob(random, size)], size) for _ in range(100)], size)
    assert masks.areas.double().mean() > 20_000  # objects, not specks
    # As bitmaps they are 107 MB.
    assert sum(map(len, masks.counts)) < 150_000 and len(pickle.dumps(masks)) < 160_000


def areas_of(polygons: list[list[float]], size: tuple[int, int] = (5, 6)) -> int:
    return int(Masks.of([rasterise(polygons, size)], size).areas)


def test_polygons_by_hand():
    assert areas_of([SQUARE]) == 4
    assert areas_of([SQUARE, SQUARE]) == 4
    assert areas_of([SQUARE, [2, 1, 4, 1, 4, 3, 2, 3]]) == 6
    assert areas_of([[-5, -5, 20, -5, 20, 20, -5, 20]]) == 30
    assert areas_of([[10, 10, 20, 10, 20, 20]]) == 0
    square = Masks.of([rasterise([SQUARE], (5, 6))], (5, 6))
    assert square.boxes().tolist() == [[1, 1, 3, 3]]


@few
@seeds
def test_polygons_are_pycocotools(seed):
    random = np.random.default_rng(seed)
    parts = [(random.random(2 * int(random.integers(3, 9))) * 30 - 5).tolist() for _ in range(int(random.integers(1, 4)))]
    expected = mask_api.merge(mask_api.frPyObjects(parts, 17, 23))
    assert rasterise(parts, (17, 23)) == expected


@few
@seeds
def test_polygons_stay_such_until_pixels_are_asked_for(seed):
    """To the last bit, with two decimals as in COCO and with all of them."""
    random = np.random.default_rng(seed)
    parts = [random.random(2 * int(random.integers(3, 9))) * 30 - 5 for _ in range(int(random.integers(1, 4)))]
    parts = [part.round(2) for part in parts] if seed % 2 else parts
    written = [part.tolist() for part in parts]
    mask = compact(written, (17, 23))
    assert is_packed(mask) and [each.tolist() for each in unpack_polygons(mask)] == written
    numbers = sum(map(len, parts))
    assert len(mask) == 6 + 4 * len(parts) + (4 if seed % 2 else 8) * numbers
    lazy, eager = Masks((17, 23), (mask, Masks.empty((17, 23)))), [rasterise(written, (17, 23)), rle([17 * 23], (17, 23))]
    assert lazy.known.tolist() == [True, False] and pickle.loads(pickle.dumps(lazy)) == lazy
    expected = Masks.of([rasterise(each, (17, 23)) for each in eager], (17, 23))
    assert lazy.rasterised() == expected == expected.rasterised() and lazy.rles == expected.rles
    assert lazy.decode().equal(expected.decode()) and lazy.areas.equal(expected.areas) and lazy.boxes().equal(expected.boxes())
    assert (lazy.decode_part(0, (slice(2, 9), slice(5))) == expected.decode()[0, 2:9, :5].numpy()).all()
    assert lazy.as_json() == expected.as_json() and lazy[1:] == expected[1:] and lazy.union() == expected.union()


def test_more_masks_than_a_byte_counts():
    bitmaps = torch.arange(300)[:, None, None] > torch.arange(20).reshape(4, 5)
    masks = Masks.from_bitmaps(bitmaps)
    assert masks.areas.tolist() == [min(number, 20) for number in range(300)] == rle_areas(masks.rles).tolist()
    assert masks.boxes()[-1].tolist() == [0, 0, 5, 4] and mask_iou(masks, masks)[299, 298] == 1


def rle(counts: Any, size: Any = (3, 4)) -> dict[str, Any]:
    return {"size": list(size), "counts": counts}


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "a mask must be a list of polygons or an object with size and counts, found None"),
        ("abc", "found 'abc'"),
        (3, "found 3"),
        ([], "a mask has no polygon: its list is empty"),
        ([[]], "polygon 1 of 1 of a mask must have x and y of at least 3 corners, found 0 numbers"),
        ([SQUARE, [0, 0, 2, 2]], "polygon 2 of 2 .* found 4 numbers, which pycocotools would take for a box"),
        ([[0, 0, 2, 0]], "found 4 numbers, which pycocotools would take for a box"),
        ([[0, 0, 2, 0, 2]], "found 5 numbers"),
        ([[*SQUARE, 1]], "found 9 numbers"),
        (SQUARE, "polygon 1 of 8 of a mask must be a list of numbers, found 1"),
        ([[0, 0, 2, "0", 2, 2]], r"must be a list of numbers, found \[0, 0, 2, '0', 2, 2\]"),
        ([[0, 0, 2, True, 2, 2]], "must be a list of numbers"),
        ([[0, 0, 2, None, 2, 2]], "must be a list of numbers"),
        ([{"size": [3, 4], "counts": [12]}], "polygon 1 of 1 of a mask must be a list of numbers"),
        ([[0, 0, math.nan, 0, 2, 2]], r"must have finite coordinates up to 1e\+08 px, found nan"),
        ([[0, 0, 2, -math.inf, 2, 2]], "found -inf"),
        ([[0, 0, 2, 10**400, 2, 2]], "found a number of 400 digits"),
        ([[0, 0, 3e8, 0, 3e8, 3e8]], "found 300000000.0"),
        ([[0, 0, 9e7, 0, 9e7, 9e7]], f"the outlines of a mask's polygons have 2.7e.08 px; at most {MAX_OUTLINE} can be"),
        ([[0, 0, *[1e5, 1e5, 0, 0] * 50]], "the outlines of a mask's polygons have 1e.07 px"),
        ({}, r"'size' must be that of its image, \[3, 4\] \(height, width\), found None"),
        (rle([12], (4, 3)), r"found \[4, 3\]"),
        (rle([10**18], (10**9, 10**9)), r"found \[1000000000, 1000000000\]"),
        (rle([12], (3, 4, 1)), r"found \[3, 4, 1\]"),
        (rle([12], ("3", "4")), r"found \['3', '4'\]"),
        ({"size": "34", "counts": [12]}, "found '34'"),
        (rle(None), "'counts' must be a list of run lengths or COCO's text for one, found None"),
        (rle([5, -1, 8]), r"'counts' must be whole numbers from 0 on, found \[5, -1, 8\]"),
        (rle([5.0, 7]), "whole numbers from 0 on"),
        (rle(["5", 7]), "whole numbers from 0 on"),
        (rle([True, 11]), "whole numbers from 0 on"),
        (rle([]), "'counts' stand for 0 pixels; its image has 3 x 4"),
        (rle([5, 6]), "'counts' stand for 11 pixels; its image has 3 x 4"),
        (rle([5, 2**32 + 7]), "'counts' stand for 4294967308 pixels"),
        (rle([10**4400]), "'counts' stand for a number of 4400 digits pixels"),
        (rle(""), "or COCO's text for one, found ''"),
        (rle("héllo"), "or COCO's text"),
        (rle("5 "), "or COCO's text"),
        (rle("\x00"), "or COCO's text"),
        (rle("5o"), "or COCO's text"),  # more of the number should follow
        (rle("oooooooooooooooo0"), "or COCO's text"),  # a number of 85 bits
        (rle("O="), "or COCO's text"),  # -1, 13
        (rle("5"), "'counts' stand for 5 pixels; its image has 3 x 4"),
        (rle("oooooO"), "or COCO's text"),
        (rle("ooooo?" * 1000), "'counts' stand for .* pixels"),
        (rle("P00"), "'counts' stand for 0 pixels"),
    ],
)
def test_faults_are_one_line(segmentation, message):
    with pytest.raises(DatasetError, match=message) as caught:
        rasterise(segmentation, (3, 4))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("size", [(0, 4), (3, 0), (-3, -4), (10**9, 10**9), (2**14, 2**14 + 1), (1, 10**30)])
def test_images_that_can_have_no_masks(size):
    for segmentation in ([SQUARE], rle([math.prod(size)], size), rle("0", size)):
        with pytest.raises(
            DatasetError, match="an image with masks must have at least one pixel and at most 268 million pixels"
        ):
            rasterise(segmentation, size)
    with pytest.raises(DatasetError, match="at least one pixel"):
        Masks.from_bitmaps(torch.zeros((0, 0, 5), dtype=torch.bool))


def test_the_largest_image_has_masks():
    size = (2**14, 2**14)
    assert math.prod(size) == MAX_MASK_PIXELS
    rles = [
        rasterise(rle([0, MAX_MASK_PIXELS], size), size),
        rasterise([[1e4, 1e4, 16384, 1e4, 16384, 16384, 1e4, 16384]], size),
    ]
    masks = Masks.of(rles, size)
    assert masks.areas.tolist() == [2**28, 6384**2]
    assert Masks.of([rasterise(each, size) for each in masks.as_json()], size) == masks
    assert masks.boxes()[1].tolist() == [10000, 10000, 16384, 16384]
    assert mask_iou(masks[:1], masks[1:]).item() == pytest.approx(6384**2 / 2**28, abs=1e-15)


@given(st.text(st.characters(min_codepoint=47, max_codepoint=113), max_size=12), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=100)
def test_any_text_is_a_mask_or_refused(text, height, width):
    try:
        found = rasterise(rle(text, (height, width)), (height, width))
    except DatasetError:
        return
    bitmap = mask_api.decode(dict(found))
    assert bitmap.shape == (height, width)
    # The same as the plain run lengths, or the text itself, which may say a number with more characters than it needs.
    assert found in (
        {"size": [height, width], "counts": text.encode()},
        rasterise(rle(plain_runs(torch.from_numpy(bitmap.astype(bool))), (height, width)), (height, width)),
    )


@given(st.lists(st.integers(0, 6), max_size=8), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=100)
def test_any_runs_are_a_mask_or_refused(runs, height, width):
    if sum(runs) != height * width:
        with pytest.raises(DatasetError, match="stand for"):
            rasterise(rle(runs, (height, width)), (height, width))
        return
    pixels = np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T
    decoded = Masks.of([rasterise(rle(runs, (height, width)), (height, width))], (height, width)).decode()
    assert decoded[0].int().tolist() == pixels.tolist()


def test_part_of_a_mask_is_that_of_its_bitmap():
    bitmaps = torch.rand(3, 7, 11, generator=torch.Generator().manual_seed(0)) < 0.5
    masks = Masks.from_bitmaps(bitmaps)
    for row in range(3):
        part = masks.decode_part(row, (slice(2, 6), slice(3, 11)))
        assert np.array_equal(part, bitmaps[row, 2:6, 3:].numpy()) and part.dtype == bool
