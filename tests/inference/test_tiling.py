"""Large images in tiles: the same detector on every window, then one list without the halves that borders leave."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detection import Detector, Ensemble
from detection.config import Config
from detection.inference import detector as detector_module
from detection.inference.tiling import cut_boxes, keep_whole_first, merge_windows, windows_of
from detection.modeling.boxes import box_areas, pairwise_intersection, pairwise_iou
from detection.structures import Detections
from detection.tiles import Window
from tests.inference.test_detector import EVERYTHING, assert_same, confident
from tests.small_detector import noise

TILES = Config.model_validate({"test": {"tile": 100, "nms_threshold": 0.5, "tile_whole": False}}).test
TWO = [Window(0, 0, 100, 100), Window(80, 0, 100, 100)]  # of an image 180 wide and 100 high
IMAGE = (100, 180)


def found(*rows: tuple[float, ...]) -> Detections:
    """Rows of x1, y1, x2, y2, score, label."""
    table = torch.tensor(rows).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


def rows(detections: Detections) -> list[tuple[float, ...]]:
    table = torch.cat([detections.boxes, detections.scores[:, None], detections.labels[:, None]], dim=1)
    return [tuple(round(value, 4) for value in row) for row in table.tolist()]


def merged(left: Detections, right: Detections, test: Any = TILES) -> list[tuple[float, ...]]:
    return rows(merge_windows([left, right], TWO, IMAGE, test))


def plain(**test: object) -> Detector:
    return confident(test=test)


def ensemble(**test: object) -> Ensemble:
    """Two detectors with all of the other strategies."""
    return Ensemble([confident(seed, test={**EVERYTHING, **test}) for seed in (0, 1)])


@pytest.mark.parametrize("make", [plain, ensemble])
def test_an_image_that_fits_into_a_tile_is_detected_as_ever(make):
    image = noise(64, 80)
    expected = make().predict([image])[0]
    for tile_whole in (False, True):
        assert_same(make(tile=80, tile_whole=tile_whole).predict([image])[0], expected, exactly=True)


@pytest.mark.parametrize("make", [plain, ensemble])
def test_a_large_image_is_its_windows_merged(make):
    image = noise(64, 110)
    tiled = make(tile=64, tile_overlap=0.25, batch_size=2)
    windows = windows_of((64, 110), tiled.config.test)
    assert windows == [Window(0, 0, 110, 64), Window(0, 0, 64, 64), Window(46, 0, 64, 64)]
    parts = make(batch_size=2).predict([image[:, w.y : w.y + w.height, w.x : w.x + w.width] for w in windows])
    assert_same(tiled.predict([image])[0], merge_windows(parts, windows, (64, 110), tiled.config.test), exactly=True)


def test_tiles_of_several_images_run_together_and_never_more_than_a_batch(monkeypatch):
    model = confident(test={"tile": 64, "tile_whole": False, "batch_size": 4})
    images, sizes, detect = [noise(64, 110), noise(64, 64), noise(110, 64)], list[int](), detector_module.detect

    def counted(models: Any, arrays: Any) -> list[Detections]:
        sizes.append(len(arrays))
        return detect(models, arrays)

    monkeypatch.setattr(detector_module, "detect", counted)
    together = model.predict(images)
    assert sizes == [4, 1]
    for image, detections in zip(images, together, strict=True):
        assert_same(detections, model.predict([image])[0])


def test_boxes_lie_in_the_image():
    detections = confident(test={"tile": 64}).predict([noise(70, 130)])[0]
    assert 0 < len(detections) <= 100 and (detections.boxes >= 0).all() and (detections.boxes[:, 2] <= 130).all()
    assert (detections.scores.diff() <= 0).all() and (detections.boxes[:, 0] > 80).any()


def test_a_box_that_a_border_cuts_gives_way_to_the_whole_object():
    half = found((70, 40, 100, 60, 0.9, 0))  # of an object that ends at 130
    whole = found((0, 40, 50, 60, 0.3, 0))  # in the right tile, from 80: its left border cuts it, too
    assert merged(half, whole) == [(70, 40, 100, 60, 0.9, 0), (80, 40, 130, 60, 0.3, 0)]  # neither is whole: both stay
    inner = found((10, 40, 50, 60, 0.3, 0))  # an object from 90 to 130, seen from 90 to 100 in the left tile
    assert merged(found((90, 40, 100, 60, 0.9, 0)), inner) == [(90, 40, 130, 60, 0.3, 0)]
    assert merged(found((90, 40, 100, 60, 0.9, 1)), inner) == [(90, 40, 100, 60, 0.9, 1), (90, 40, 130, 60, 0.3, 0)]


def test_two_views_of_one_object_are_one():
    left, right = found((82, 40, 95, 60, 0.6, 0)), found((3, 40, 15, 60, 0.8, 0))
    assert merged(left, right) == [(83, 40, 95, 60, 0.8, 0)]
    assert merged(left, found()) == [(82, 40, 95, 60, 0.6, 0)]
    assert merged(found(), found()) == []


def test_a_border_of_the_image_cuts_nothing():
    boxes = torch.tensor([[0.0, 40, 20, 60], [80, 0, 99.5, 20], [40, 0, 60, 100], [50, 50, 60, 60]])
    assert cut_boxes(boxes, TWO[0], IMAGE).tolist() == [False, True, False, False]
    assert cut_boxes(boxes, TWO[1], IMAGE).tolist() == [True, False, False, False]
    tall = Window(0, 50, 100, 100)
    assert cut_boxes(boxes, tall, (200, 100)).tolist() == [False, True, True, False]
    assert not cut_boxes(boxes, Window.whole((100, 100)), (100, 100)).any()


def test_voting_crosses_borders_and_cut_boxes_do_not_vote():
    test = TILES.model_copy(update={"voting": True, "voting_iou": 0.5})
    left, right = found((82, 40, 92, 60, 0.6, 0), (60, 40, 99.5, 60, 0.4, 0)), found((2, 40, 14, 60, 0.6, 0))
    assert merged(left, right, test)[0] == (82, 40, 93, 60, 0.6, 0)  # the mean of 92 and 94
    cut = found((82, 40, 100, 60, 0.9, 0))
    assert merged(cut, right, test) == [(82, 40, 94, 60, 0.6, 0)]


def test_the_image_gets_max_detections():
    test = TILES.model_copy(update={"max_detections": 3})
    left = found(*((10 * n, 0, 10 * n + 5, 5, 0.9 - 0.1 * n, 0) for n in range(4)))
    right = found(*((10 * n + 50, 50, 10 * n + 55, 55, 0.85 - 0.1 * n, 0) for n in range(3)))
    assert [row[4] for row in merged(left, right, test)] == pytest.approx([0.9, 0.85, 0.8])


@given(st.integers(0, 10**6), st.integers(0, 40))
def test_keeping_is_what_a_loop_over_the_boxes_keeps(seed, count):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 5 + 30 * torch.rand(count, 2, generator=generator)], dim=1)
    labels = torch.randint(0, 2, (count,), generator=generator)
    detections = Detections(boxes, torch.rand(count, generator=generator), labels)
    cut = torch.rand(count, generator=generator) < 0.4
    assert keep_whole_first(detections, cut, 0.3).tolist() == kept_by_a_loop(detections, cut, 0.3)


def kept_by_a_loop(detections: Detections, cut: Tensor, nms_threshold: float) -> list[int]:
    """Whole boxes first, each by descending score; a cut one has to miss whole boxes by coverage, too."""
    kept: list[int] = []
    for index in sorted(range(len(detections)), key=lambda i: (bool(cut[i]), -float(detections.scores[i]))):
        for other in kept:
            one, two = detections.boxes[[index]], detections.boxes[[other]]
            is_part = cut[index] and not cut[other] and pairwise_intersection(one, two) / box_areas(one) >= 0.5
            if detections.labels[index] == detections.labels[other] and (is_part or pairwise_iou(one, two) > nms_threshold):
                break
        else:
            kept.append(index)
    return sorted(kept, key=lambda i: -float(detections.scores[i]))
