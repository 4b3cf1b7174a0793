"""How well a config's anchors fit the objects of a data set, and which would fit better.

All at the size at which the network sees the images. The best anchor of an object is looked for at the cell whose centre is
nearest to the object's, on each of a pyramid's maps; the border of the image, beyond which no anchor is trained, is left out of
account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detection.config import Config
from detection.resize import resized_size
from detection.structures import Record

_MAX_OBJECTS = 20_000  # from all over the data; more would say the same
_WORTH = 0.02  # of mean IoU: a suggestion that gains less is none


@dataclass(frozen=True)
class AnchorFit:
    """Anchors, and how well they fit."""

    sizes: tuple[float, ...]
    ratios: tuple[float, ...]
    mean_iou: float  # of the objects with their best anchor
    positive: float  # share of the objects whose best anchor has at least rpn.positive_iou
    negative: float  # share of those whose best anchor has less than rpn.negative_iou


@dataclass(frozen=True)
class AnchorAdvice:
    """The config's anchors, and those that would fit the objects better, if any."""

    num_objects: int
    current: AnchorFit
    suggested: AnchorFit | None

    def lines(self) -> list[str]:
        """In words, for people; the keys can be copied into a config."""
        if not self.num_objects:
            return ["no objects to compare the anchors with"]
        said = [f"the config's anchors: {_describe(self.current)}"]
        if self.suggested is not None:
            keys = f"rpn.anchor_sizes: {_listed(self.suggested.sizes)}, rpn.anchor_ratios: {_listed(self.suggested.ratios)}"
            said.append(f"these would fit better: {keys}: {_describe(self.suggested)}")
        return said


def suggest_anchors(records: Sequence[Record], config: Config) -> AnchorAdvice:
    """Compare the config's anchors with the objects of its training images, and with as many anchors made for these."""
    boxes = network_boxes(records, config)
    boxes = boxes[:: len(boxes) // _MAX_OBJECTS + 1]
    rpn = config.rpn
    current = _fit(boxes, config)
    if not len(boxes):
        return AnchorAdvice(0, current, None)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    sizes = _centres(np.sqrt(width * height).clip(1, 100_000), len(rpn.anchor_sizes))
    ratios = _centres((height / width).clip(0.01, 100), len(rpn.anchor_ratios))
    others = {"anchor_sizes": sizes, "anchor_ratios": ratios}
    if len(sizes) != len(rpn.anchor_sizes) and len(config.anchor_sizes_by_stride) > 1:
        return AnchorAdvice(len(boxes), current, None)  # a pyramid has a size for each map, and these objects are of few
    suggested = _fit(boxes, config.model_copy(update={"rpn": rpn.model_copy(update=others)}))
    better = suggested.mean_iou >= current.mean_iou + _WORTH
    return AnchorAdvice(len(boxes), current, suggested if better else None)


def network_boxes(records: Sequence[Record], config: Config) -> np.ndarray:
    """(N, 4) xyxy: the boxes that are learnt, in the pixels of the images as training resizes them at its middle size."""
    shorter = sorted(config.data.shorter_sides)[len(config.data.shorter_sides) // 2]
    boxes = [np.zeros((0, 4))]
    for record in records:
        height, width = resized_size(record.size_hw, shorter, config.data.longer_side, config.data.resizing)
        scale = np.array([width / record.size_hw[1], height / record.size_hw[0]] * 2)
        boxes.append(record.boxes[record.trainable].numpy().astype(np.float64) * scale)
    return np.concatenate(boxes)


def best_ious(
    boxes: np.ndarray, sizes_by_stride: Mapping[int, Sequence[float]], ratios: Sequence[float], offset: float = 0.0
) -> np.ndarray:
    """(N, 4) xyxy -> (N,): the IoU of each box with the best of the anchors at the nearest cell of each map.

    `sizes_by_stride`: the sizes of a map's anchors by the map's stride, px between two cells. `offset` in cells.
    """
    extents = boxes[:, 2:] - boxes[:, :2]
    best = np.zeros(len(boxes))
    for stride, sizes in sizes_by_stride.items():
        centres = (boxes[:, 2:] + boxes[:, :2]) / 2 / stride - offset
        away = np.abs(centres - np.round(centres)) * stride
        anchors = np.array([[size / ratio**0.5, size * ratio**0.5] for size in sizes for ratio in ratios])
        for anchor in anchors:
            shared = np.minimum(extents / 2, away + anchor / 2) - np.maximum(-extents / 2, away - anchor / 2)
            shared = shared.clip(0).prod(axis=1)
            best = np.maximum(best, shared / (extents.prod(axis=1) + anchor.prod() - shared))
    return best


def _fit(boxes: np.ndarray, config: Config) -> AnchorFit:
    """How well the config's anchors fit the boxes."""
    sizes, ratios = config.rpn.anchor_sizes, config.rpn.anchor_ratios
    best = best_ious(boxes, config.anchor_sizes_by_stride, ratios, config.rpn.anchor_offset)
    count = max(len(best), 1)
    positive, negative = (best >= config.rpn.positive_iou).sum(), (best < config.rpn.negative_iou).sum()
    return AnchorFit(tuple(sizes), tuple(ratios), float(best.sum() / count), float(positive / count), float(negative / count))


def _centres(values: np.ndarray, count: int) -> tuple[float, ...]:
    """The centres of `count` clusters of positive numbers by their logarithms (k-means), two digits each, ascending."""
    logs = np.log(np.sort(values))
    centres = np.quantile(logs, (np.arange(count) + 0.5) / count)
    for _ in range(100):
        nearest = np.abs(logs[:, None] - centres).argmin(axis=1)
        moved = np.array([logs[nearest == k].mean() if (nearest == k).any() else centres[k] for k in range(count)])
        if np.allclose(moved, centres):
            break
        centres = moved
    return tuple(sorted({float(f"{value:.2g}") for value in np.exp(centres)}))


def _describe(fit: AnchorFit) -> str:
    return (
        f"an object's IoU with the best of them is {fit.mean_iou:.2f} in the mean; {fit.positive:.0%} of the objects reach "
        f"rpn.positive_iou, {fit.negative:.0%} stay below rpn.negative_iou"
    )


def _listed(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"
