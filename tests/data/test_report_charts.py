"""Bars of the page about a data set, by hand and by properties."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detection.config import Config
from detection.data.anchor_advice import suggest_anchors
from detection.data.check import CheckedSplit, SplitStatistics
from detection.data.faults import Faults
from detection.data.report_charts import class_bars, size_chart
from tests.report.scenes import scene


def statistics(counts: dict[str, int]) -> SplitStatistics:
    return SplitStatistics(1, 1, 0, sum(counts.values()), 0, 0, 0, counts, {})


def test_bars_by_hand():
    bars = class_bars(
        [statistics({"cat": 1, "dog": 6, "bird": 0}), statistics({"cat": 1, "dog": 2, "bird": 0})], ["cat", "dog", "bird"]
    )
    assert [(bar.name, list(bar.counts), list(bar.widths)) for bar in bars] == [
        ("dog", [6, 2], [75.0, 25.0]),
        ("cat", [1, 1], [12.5, 12.5]),
        ("bird", [0, 0], [0.0, 0.0]),
    ]
    assert class_bars([], ["cat"])[0].counts == [] and class_bars([], []) == []


def chart_of(sizes: list[float]):
    """Of one split of images as large as the network's input, with square objects."""
    config = Config()
    record = scene(num_images=1, num_objects=1)[0].records[0]
    side = config.data.shorter_sides[0]
    boxes = torch.tensor([[0.0, 0, size, size] for size in sizes]).reshape(-1, 4)
    flags = torch.zeros(len(sizes), dtype=torch.bool)
    record = replace(record, size_hw=(side, side), boxes=boxes, labels=flags.long(), difficult=flags, crowd=flags)
    split = CheckedSplit("train", [record], Faults(), [])
    return size_chart([split], config, suggest_anchors([record], config)), config


def test_a_histogram_by_hand():
    chart, config = chart_of([100.0, 100, 130, 300])
    (histogram,) = chart.histograms
    assert histogram.num_objects == 4 and sum(bar.count for bar in histogram.bars) == 4
    (highest,) = (bar for bar in histogram.bars if bar.height == 100)
    assert highest.low <= 100 < highest.high and highest.count == 2
    assert [mark.text for mark in chart.anchors] == [f"{size:g}" for size in config.rpn.anchor_sizes]
    places = {mark.text: mark.left for mark in [*chart.ticks, *chart.anchors]}
    assert places["128"] - places["64"] == pytest.approx(places["256"] - places["128"], abs=0.02)


@pytest.mark.parametrize("sizes", [[1e-9], [0.01, 5000], [599.9], np.geomspace(1, 600, 50).tolist()])
def test_all_objects_are_in_a_bar(sizes):
    chart, _ = chart_of(sizes)
    assert sum(bar.count for bar in chart.histograms[0].bars) == len(sizes)
    assert all(0 <= mark.left <= 100 for mark in [*chart.ticks, *chart.anchors, *chart.suggested])


def test_without_objects_there_is_no_chart():
    assert chart_of([])[0] is None
