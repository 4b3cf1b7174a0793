"""Views: the same images at several scales, mirrored, or seen by another detector, and the mean of several views.

N images that have the same size for the network, P regions each, K classes, C feature channels. Boxes are xyxy pixels of the
size at which the view's detector proposes, `test.shorter_side`; those of several views together are in the first view's pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detection.config import TestConfig
from detection.inference.images import batch_of_size, network_sizes
from detection.inference.multiscale import adjacent_scales
from detection.modeling import FasterRCNN
from detection.modeling.boxes import mirror_boxes, scale_boxes
from detection.modeling.faster_rcnn import resolve_score_threshold
from detection.modeling.fixed_sizes import all_of_them
from detection.modeling.levels import pool_at_chosen
from detection.modeling.roi_head import Begun, whole_image_box
from detection.structures import ScoredRegions


class View:
    """N images (H, W, 3) uint8 RGB as one detector sees them. It keeps every feature map, proposal and context it computes, and
    what conv5 makes of the maps before pooling.

    `test` says which scales are used, and how: the detector's own settings, or others by `with_settings`.
    """

    def __init__(self, detector: FasterRCNN, arrays: Sequence[np.ndarray], *, mirrored: bool = False) -> None:
        self.detector = detector
        self.arrays = [np.ascontiguousarray(array[:, ::-1]) for array in arrays] if mirrored else list(arrays)
        self.mirrored = mirrored
        self._features: dict[tuple[tuple[int, int], int], tuple[Tensor, ...]] = {}
        # Of all images together: the features, stacked, and what conv5 makes of them before pooling.
        self._begun: dict[tuple[int, int], tuple[tuple[Tensor, ...], Begun | None]] = {}
        self._proposals: dict[tuple[int, int], list[Tensor]] = {}
        self._apply_settings(detector.config.test)

    def _apply_settings(self, test: TestConfig) -> None:
        self.test = test
        self.sizes_hw = network_sizes(self.arrays[0].shape[:2], test, self.detector.config.data.resizing)
        self.size_hw = self.sizes_hw[test.shorter_side]
        self._context: Tensor | None = None

    def with_settings(self, test: TestConfig) -> View:
        """The same images under other settings. Both views share their feature maps and proposals, by size."""
        other = copy.copy(self)
        other._apply_settings(test)
        return other

    @property
    def score_threshold(self) -> float | Tensor:
        """What the scores of detections are above by `test`: a number, or (K,) float32 on the detector's device."""
        if self.test.score_threshold == self.detector.config.test.score_threshold:
            return self.detector.score_threshold
        return resolve_score_threshold(self.test, self.detector.class_names, self.detector.device)

    def extract(self, shorter_side: int, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """The feature maps (n, C, H/stride, W/stride) of n of the images at one scale."""
        size_hw = self.sizes_hw[shorter_side]
        missing = [index for index in indices if (size_hw, index) not in self._features]
        if missing:
            batch = batch_of_size([self.arrays[index] for index in missing], size_hw, self.detector.config.data.resizing)
            maps = self.detector.extract(batch.to(self.detector.device))
            self._features |= {(size_hw, index): own for index, own in zip(missing, zip(*maps, strict=True), strict=True)}
        same_map = zip(*(self._features[size_hw, index] for index in indices), strict=True)
        return tuple(map(torch.stack, same_map))

    def _extract_and_begin(self, shorter_side: int) -> tuple[tuple[Tensor, ...], Begun | None]:
        """The feature maps of all images at one scale, and what conv5 makes of them before pooling."""
        size_hw = self.sizes_hw[shorter_side]
        if size_hw not in self._begun:
            features = self.extract(shorter_side, range(len(self.arrays)))
            self._begun[size_hw] = features, self.detector.roi_head.begin(features)
        return self._begun[size_hw]

    def propose(self) -> list[Tensor]:
        """The detector's proposals at the scale of `test.shorter_side`, N x (P, 4)."""
        if self.size_hw not in self._proposals:
            features = self.extract(self.test.shorter_side, range(len(self.arrays)))
            self._proposals[self.size_hw] = self.detector.propose(features, [self.size_hw] * len(self.arrays))
        return self._mirror(self._proposals[self.size_hw])

    def classify(self, regions: Sequence[Tensor]) -> ScoredRegions:
        """Class probabilities and boxes of the regions N x (P, 4).

        A mirrored view, too, takes and gives boxes in the pixels of the images as they are.
        """
        if not any(len(boxes) for boxes in regions):
            return self.detector.no_regions(len(regions))
        seen = self._mirror(regions)
        found = self.detector.classify_vectors(self.region_vectors(seen), seen, self.context())
        return ScoredRegions(found.scores, self._mirror(found.boxes), found.finite)

    def segment(self, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Tensor]:
        """The masks of found objects in their boxes: N x (D, 4) and N x (D,) -> N x (D, M, M) probabilities.

        A mirrored view, too, takes boxes and gives masks as they are in the images.
        """
        seen = self._mirror(boxes)
        maps = self.mask_maps(seen) if any(len(each) for each in seen) else None
        found = self.detector.segment_maps(maps, labels)
        return [masks.flip(2) if self.mirrored else masks for masks in found]

    def context(self) -> Tensor | None:
        """The whole images' vectors (N, D), pooled as any other region is. None where the config asks for no context."""
        if self.detector.config.roi.context and self._context is None:
            self._context = self._compute_context()
        return self._context

    def _compute_context(self) -> Tensor | None:
        count = len(self.arrays)
        if len(self.test.scales) < 2:
            [side] = self.test.scales or (self.test.shorter_side,)
            return self.detector.roi_head.context(self.extract(side, range(count)), [self.sizes_hw[side]] * count)
        return self.region_vectors([whole_image_box(self.size_hw, self.detector.device)] * count)

    def region_vectors(self, regions: Sequence[Tensor]) -> Tensor:
        """conv5's vectors (R, D) of regions in the pixels of the images as seen: where there are several scales, the maximum
        of the two that suit each region, element by element."""
        head = self.detector.roi_head
        return self._of_regions(regions, head.vectors, head.conv5, None)

    def mask_maps(self, regions: Sequence[Tensor]) -> Tensor:
        """What the mask head works on, (R, C, S, S), of regions in the pixels of the images as seen; several scales are united
        as in `region_vectors`."""
        head = self.detector.roi_head
        assert head.mask_head is not None, "asked for by nobody else"
        pool_size = head.mask_head.pool_size
        return self._of_regions(regions, head.mask_maps, head.conv5.maps if pool_size is None else _same, pool_size)

    def _of_regions(
        self,
        regions: Sequence[Tensor],
        at_one_scale: Callable[[Sequence[Tensor], Sequence[Tensor], Begun | None], Tensor],
        after_pooling: Callable[[Tensor], Tensor],
        pool_size: int | None,
    ) -> Tensor:
        test, head = self.test, self.detector.roi_head
        sides = test.scales or (test.shorter_side,)
        if len(sides) == 1:
            features, begun = self._extract_and_begin(sides[0])
            return at_one_scale(features, self._at_scale(regions, sides[0]), begun)

        def pool(scale: int, indices: Sequence[int], boxes: Sequence[Tensor]) -> Tensor:
            return head.pool(self.extract(sides[scale], indices), self._at_scale(boxes, sides[scale]), pool_size=pool_size)

        sizes_hw = [self.sizes_hw[side] for side in sides]
        choices = [adjacent_scales(boxes, self.size_hw, sizes_hw, test.scale_area) for boxes in regions]
        first, second = (
            pool_at_chosen(pool, regions, [choice[:, column] for choice in choices], len(sides)) for column in (0, 1)
        )
        if test.scale_merge == "conv5":
            return torch.maximum(after_pooling(first), after_pooling(second))
        return after_pooling(torch.maximum(first, second))

    def _at_scale(self, regions: Sequence[Tensor], shorter_side: int) -> list[Tensor]:
        return [scale_boxes(boxes, self.size_hw, self.sizes_hw[shorter_side]) for boxes in regions]

    def _mirror(self, boxes: Sequence[Tensor]) -> list[Tensor]:
        """N x (..., 4) boxes of the images as they are, in the images as this view sees them, or back: its own inverse."""
        return [mirror_boxes(image_boxes, self.size_hw[1]) if self.mirrored else image_boxes for image_boxes in boxes]


def unite_proposals(views: Sequence[View]) -> list[Tensor]:
    """The proposals of all views, N x (P, 4). A box that several views propose is there once."""
    found = [[scale_boxes(boxes, view.size_hw, views[0].size_hw) for boxes in view.propose()] for view in views]
    return [_without_repeats(torch.cat(parts)) if len(parts) > 1 else parts[0] for parts in zip(*found, strict=True)]


def classify_in_views(views: Sequence[View], regions: Sequence[Tensor]) -> ScoredRegions:
    """Class probabilities and boxes of the regions N x (P, 4): the means of what the views give."""
    first = views[0].size_hw
    found = [view.classify([scale_boxes(boxes, first, view.size_hw) for boxes in regions]) for view in views]
    scores = [each.scores for each in found]
    boxes = [
        [scale_boxes(image_boxes, view.size_hw, first) for image_boxes in each.boxes]
        for view, each in zip(views, found, strict=True)
    ]
    return ScoredRegions(
        [_mean(parts) for parts in zip(*scores, strict=True)],
        [_mean(parts) for parts in zip(*boxes, strict=True)],
        all_of_them(each.finite for each in found),
    )


def segment_in_views(
    views: Sequence[View], size_hw: tuple[int, int], boxes: Sequence[Tensor], labels: Sequence[Tensor]
) -> list[Tensor]:
    """The masks of found objects, N x (D, M, M): the means of what the views give, all resized to the largest M.

    The boxes N x (D, 4) are in the pixels of an image of `size_hw`.
    """
    found = [view.segment([scale_boxes(each, size_hw, view.size_hw) for each in boxes], labels) for view in views]
    return [_mean(_of_one_size(parts)) for parts in zip(*found, strict=True)]


def _of_one_size(masks: Sequence[Tensor]) -> list[Tensor]:
    """Masks (D, M, M) of different M -> of the largest one, interpolated."""
    size = max(each.shape[-1] for each in masks)
    return [
        each if each.shape[-1] == size or not len(each) else F.interpolate(each[None], size=(size, size), mode="bilinear")[0]
        for each in masks
    ]


def _same(cells: Tensor) -> Tensor:
    return cells


def _without_repeats(boxes: Tensor) -> Tensor:
    """(P, 4) -> (P', 4): the first of each group of equal boxes, in their order."""
    _, group = boxes.unique(dim=0, return_inverse=True)
    places = torch.arange(len(boxes), device=boxes.device)
    first = torch.full_like(places, len(boxes)).scatter_reduce(0, group, places, "amin")
    return boxes[first[first < len(boxes)].sort().values]


def _mean(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).mean(dim=0)
