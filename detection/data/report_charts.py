"""Bars of the page about a data set: how many objects a class has, and how large they are beside the anchors.

A bar is a part of the page whose size is given in per cent: no script draws it, and it has the page's colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detection.config import Config
from detection.data.anchor_advice import AnchorAdvice, AnchorFit, network_boxes
from detection.data.catalog import Dataset
from detection.data.check import CheckedSplit, SplitStatistics
from detection.data.tiles import tile_dataset

_BARS_PER_OCTAVE = 4
_SIZES = (1.0, 2.0**14)  # px: what is smaller or larger is in the first or the last bar
_LEAST_HEIGHT = 1.5  # per cent: one object of a million is seen


@dataclass(frozen=True)
class ClassBar:
    """The objects of one class."""

    name: str
    counts: Sequence[int]  # in each split
    widths: Sequence[float]  # of each split's part of the bar; the longest bar has 100 together


@dataclass(frozen=True)
class SizeBar:
    """Objects of about one size, the square root of the area in px of the network's input."""

    low: float
    high: float
    count: int
    height: float  # the highest bar of a split has 100


@dataclass(frozen=True)
class SizeHistogram:
    """The sizes of one split's objects."""

    split: str
    num_objects: int
    bars: Sequence[SizeBar]


@dataclass(frozen=True)
class SizeMark:
    """A size on the axis."""

    text: str
    left: float  # per cent of the axis


@dataclass(frozen=True)
class SizeChart:
    """Sizes on one logarithmic axis."""

    histograms: Sequence[SizeHistogram]
    ticks: Sequence[SizeMark]
    anchors: Sequence[SizeMark]  # the config's
    suggested: Sequence[SizeMark]  # those that would fit better; none where these do


def class_bars(statistics: Sequence[SplitStatistics], class_names: Sequence[str]) -> list[ClassBar]:
    """A bar a class, those with most objects first."""
    counts = {name: [each.objects_by_class[name] for each in statistics] for name in class_names}
    longest = max(map(sum, counts.values()), default=0) or 1
    ordered = sorted(class_names, key=lambda name: -sum(counts[name]))
    return [ClassBar(name, counts[name], [round(100 * count / longest, 2) for count in counts[name]]) for name in ordered]


def size_chart(splits: Sequence[CheckedSplit], config: Config, advice: AnchorAdvice) -> SizeChart | None:
    """The sizes of what is learnt as the network sees it, a histogram a split; None without objects."""
    sizes = {split.name: _sizes(split, config) for split in splits}
    if not any(map(len, sizes.values())):
        return None
    marked = [*advice.current.sizes, *(advice.suggested.sizes if advice.suggested else ())]
    edges = _edges(np.concatenate([*sizes.values(), np.array(marked)]))
    return SizeChart(
        [_histogram(name, values, edges) for name, values in sizes.items() if len(values)],
        _marks(2.0 ** np.arange(np.ceil(np.log2(edges[0])), np.log2(edges[-1]) + 1e-6), edges),
        _anchor_marks(advice.current, edges),
        _anchor_marks(advice.suggested, edges),
    )


def _sizes(split: CheckedSplit, config: Config) -> np.ndarray:
    boxes = network_boxes(tile_dataset(Dataset(config.data.class_names, split.records), config.data).records, config)
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).clip(*_SIZES)


def _edges(sizes: np.ndarray) -> np.ndarray:
    """Of bars that hold all sizes; the axis begins and ends at powers of two."""
    first, last = np.floor(np.log2(sizes.min())), np.floor(np.log2(sizes.max())) + 1
    return 2.0 ** np.linspace(first, last, round(last - first) * _BARS_PER_OCTAVE + 1)


def _histogram(name: str, sizes: np.ndarray, edges: np.ndarray) -> SizeHistogram:
    counts, _ = np.histogram(sizes, edges)
    heights = np.where(counts > 0, np.maximum(100 * counts / counts.max(), _LEAST_HEIGHT), 0.0)
    rows = zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), heights.round(2).tolist(), strict=True)
    return SizeHistogram(name, len(sizes), [SizeBar(*row) for row in rows])


def _anchor_marks(fit: AnchorFit | None, edges: np.ndarray) -> list[SizeMark]:
    return [] if fit is None else _marks(np.array(fit.sizes), edges)


def _marks(sizes: np.ndarray, edges: np.ndarray) -> list[SizeMark]:
    low, high = np.log2(edges[[0, -1]])
    places = (100 * (np.log2(sizes.clip(*_SIZES)) - low) / (high - low)).clip(0, 100)
    return [SizeMark(f"{size:g}", round(place, 2)) for size, place in zip(sizes.tolist(), places.tolist(), strict=True)]
