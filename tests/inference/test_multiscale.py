"""Multi-scale testing: the rule by hand, the merge against pooling region by region, and no scale computed in vain."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.config import TestConfig as Settings
from detection.config import parse_config
from detection.errors import ConfigError
from detection.inference.images import network_sizes
from detection.inference.multiscale import adjacent_scales
from detection.inference.views import View
from tests.small_detector import detector, noise, pyramid

SCALES = {"scales": [32, 64, 128], "scale_area": 24}


def squares(*sides: float) -> torch.Tensor:
    return torch.tensor([[0.0, 0, side, side] for side in sides]).reshape(-1, 4)


def test_the_rule_by_hand():
    # At half, the same, and double the size: 100 px squares are 50, 100, 200 there.
    sizes = [(50, 50), (100, 100), (200, 200)]
    # 224^2 = 50176. 10: all too small, so the largest, then the middle. 100: 40000 is closest, then 10000.
    # 200: 40000 in the middle, then |10000 - 50176| < |160000 - 50176|. 400: 40000 in the small one, then the middle.
    choice = adjacent_scales(squares(10, 100, 200, 400), (100, 100), sizes, 224)
    assert choice.tolist() == [[2, 1], [2, 1], [1, 0], [0, 1]]
    assert adjacent_scales(squares(10, 400), (100, 100), sizes[:1], 224).tolist() == [[0], [0]]
    assert adjacent_scales(squares(), (100, 100), sizes, 224).shape == (0, 2)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=6, unique=True), st.integers(1, 2000))
@settings(max_examples=60)
def test_the_rule_in_other_words(scales, side):
    sizes = [(scale, scale) for scale in sorted(scales)]
    first, second = adjacent_scales(squares(side), (600, 600), sizes, 224)[0].tolist()
    misses = [abs(side**2 * (scale / 600) ** 2 - 224**2) for scale, _ in sizes]
    assert misses[first] == pytest.approx(min(misses), rel=1e-4)
    assert abs(first - second) == 1
    beside = [misses[index] for index in (first - 1, first + 1) if 0 <= index < len(sizes)]
    assert misses[second] == pytest.approx(min(beside), rel=1e-4)


def test_sizes_keep_the_proportions_of_an_image_that_longer_side_cuts_down():
    test = Settings(shorter_side=600, longer_side=1000, scales=(300, 1200))
    assert network_sizes((500, 500), test, "opencv") == {600: (600, 600), 300: (300, 300), 1200: (1200, 1200)}
    assert network_sizes((200, 1000), test, "opencv") == {600: (200, 1000), 300: (100, 500), 1200: (400, 2000)}


@pytest.mark.parametrize("build", [detector, pyramid])
@pytest.mark.parametrize("merge", ["pool", "conv5"])
def test_vectors_equal_those_of_regions_pooled_one_by_one(build, merge):
    model = build(test={**SCALES, "scale_merge": merge}).eval()
    arrays = [noise(64, 80).permute(1, 2, 0).numpy() for _ in range(2)]
    regions = [
        torch.tensor([[0.0, 0, 60, 60], [3, 5, 12, 17], [20, 20, 50, 40], [0, 0, 80, 64]]),
        torch.tensor([[30.0, 2, 70, 60]]),
    ]
    head = model.roi_head
    with torch.inference_mode():
        view = View(model, arrays)
        found = view.region_vectors(regions)
        expected = []
        for row, boxes in enumerate(regions):
            for box in boxes:
                pair = adjacent_scales(box[None], (64, 80), [(32, 40), (64, 80), (128, 160)], 24)[0].tolist()
                maps = [view.extract([32, 64, 128][index], [row]) for index in pair]
                cells = [head.pool(image, [box[None] * 2.0 ** (index - 1)]) for image, index in zip(maps, pair, strict=True)]
                if merge == "pool":
                    expected.append(head.conv5(torch.maximum(*cells)))
                else:
                    expected.append(torch.maximum(head.conv5(cells[0]), head.conv5(cells[1])))
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_only_scales_that_a_region_needs_are_computed_and_each_once():
    model = detector(test=SCALES).eval()
    sizes = []
    model.trunk.register_forward_pre_hook(lambda module, inputs: sizes.append((len(inputs[0]), *inputs[0].shape[2:])))
    with torch.inference_mode():
        view = View(model, [noise(64, 80).permute(1, 2, 0).numpy() for _ in range(2)])
        view.region_vectors([squares(12), squares(13)])
        assert sorted(sizes) == [(2, 64, 80), (2, 128, 160)]
        view.region_vectors([squares(60), squares(13)])
        assert sizes[2:] == [(1, 32, 40)]
        view.region_vectors([squares(60), squares(13)])
        assert len(sizes) == 3


def test_scales_ascend():
    for scales in ([64, 32], [64, 64]):
        with pytest.raises(ConfigError, match="test.scales must ascend"):
            parse_config(type(detector().config), {"test": {"scales": scales}}, "x.yaml")
