"""Several views of the same images, of other networks or mirrored, as if they were one (appendix B).

V views of N images, P regions each, K classes. Boxes: xyxy pixels of the first view's size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detection.inference.multiscale import region_vectors
from detection.inference.refinement import Classify, Scored
from detection.inference.views import View
from detection.modeling.boxes import scale_boxes
from detection.modeling.roi_head import whole_image


def unite_proposals(views: Sequence[View]) -> list[Tensor]:
    """Every proposal of every view, N x (P, 4), a box that several make only once."""
    found = [[scale_boxes(boxes, view.size_hw, views[0].size_hw) for boxes in view.propose()] for view in views]
    return [_without_repeats(torch.cat(parts)) if len(parts) > 1 else parts[0] for parts in zip(*found, strict=True)]


def average(views: Sequence[View]) -> Classify:
    """A function from regions to the means of the views' scores and boxes."""

    def classify(regions: Sequence[Tensor]) -> Scored:
        results = [_classify_in_pixels_of(views[0], view, regions) for view in views]
        scores, boxes = ([_mean(parts) for parts in zip(*lists, strict=True)] for lists in zip(*results, strict=True))
        return scores, boxes

    return classify


def classify_view(view: View, regions: Sequence[Tensor]) -> Scored:
    """Class probabilities N x (P, K) and a box a class N x (P, K, 4), in the view's own pixels."""
    head = view.detector.roi_head
    if not any(len(boxes) for boxes in regions):
        empty = [boxes.new_zeros((0, head.num_classes)) for boxes in regions]
        return empty, [scores.new_zeros((0, head.num_classes, 4)) for scores in empty]
    seen = view.mirror(regions)
    if view.detector.config.roi.context and view.context is None:
        # The whole image is pooled as any other region is: from the scales that its size asks for.
        view.context = region_vectors(view, [whole_image(view.size_hw, boxes) for boxes in seen])
    logits, deltas = head.predict(region_vectors(view, seen), seen, view.context)
    scores, boxes = head.decode(logits, deltas, seen)
    return scores, view.mirror(boxes)


def _classify_in_pixels_of(first: View, view: View, regions: Sequence[Tensor]) -> Scored:
    scores, boxes = classify_view(view, [scale_boxes(part, first.size_hw, view.size_hw) for part in regions])
    return scores, [scale_boxes(part, view.size_hw, first.size_hw) for part in boxes]


def _without_repeats(boxes: Tensor) -> Tensor:
    """(P, 4) -> (P', 4): the first of each group of equal boxes, in their order."""
    _, group = boxes.unique(dim=0, return_inverse=True)
    places = torch.arange(len(boxes), device=boxes.device)
    first = torch.full_like(places, len(boxes)).scatter_reduce(0, group, places, "amin")
    return boxes[first[first < len(boxes)].sort().values]


def _mean(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).mean(dim=0)
