"""Large images in tiles: which windows of an image are looked at, and one list of detections from those of all windows.

Each window is an image of its own to the detector. What several windows found is merged by NMS in each class, in which a
box that a tile's border cuts gives way to the whole object as the neighbouring tile, or the whole image, shows it.

D detections of one image. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from backbones.constants import constant
from detection.config import TestConfig
from detection.inference.mask_windows import masks_in_image
from detection.inference.voting import vote
from detection.masks import Masks
from detection.modeling.boxes import clip_boxes, pairwise_coverage, pairwise_iou
from detection.modeling.nms import batched_nms
from detection.structures import Detections
from detection.tiles import Window, tile_windows

# Of a tile's side: a box that ends so close to a border is taken for cut. Regression seldom ends exactly where a tile does.
BORDER_SHARE = 0.01
# A cut box with this share of its area in a whole one of its class is a part of that object. Of IoU a part may have little.
PART_COVERAGE = 0.5
_PARTS_AT_A_TIME = 256


def windows_of(size_hw: tuple[int, int], test: TestConfig) -> list[Window]:
    """What the detector looks at of an image: its tiles, and before them the whole image, if the settings say so.

    An image that fits into a tile is looked at once, as is every image where `test.tile` is 0.
    """
    tiles = tile_windows(size_hw, test.tile, test.tile_overlap)
    return [Window.whole(size_hw), *tiles] if test.tile_whole and len(tiles) > 1 else tiles


def merge_windows(
    found: Sequence[Detections], windows: Sequence[Window], size_hw: tuple[int, int], test: TestConfig
) -> Detections:
    """The detections of an image of `size_hw` from those in each of its windows, which are in the window's pixels.

    Those in the only window are returned as they are.
    """
    if len(windows) == 1:
        return found[0]
    pairs = list(zip(found, windows, strict=True))
    cut = torch.cat([cut_boxes(each.boxes, window, size_hw) for each, window in pairs])
    joined = Detections(
        torch.cat([each.boxes + constant((window.x, window.y) * 2, each.boxes.device) for each, window in pairs]),
        torch.cat([each.scores for each in found]),
        torch.cat([each.labels for each in found]),
    )
    # Adding the tile's place rounds: a box at the image's border may end beyond it by the last digit.
    joined = replace(joined, boxes=clip_boxes(joined.boxes, size_hw))
    best = keep_whole_first(joined, cut, test.nms_threshold)[: test.max_detections]
    kept = replace(joined[best], masks=_masks_in_image(pairs, best, size_hw))
    if not test.voting or not len(kept):
        return kept
    # A cut box would draw the whole one towards the tile's border.
    scores = one_hot(joined.labels) * (joined.scores * ~cut)[:, None]
    return vote(kept, scores, joined.boxes[:, None].expand(-1, scores.shape[1], -1), test.voting_iou)


def _masks_in_image(pairs: Sequence[tuple[Detections, Window]], chosen: Tensor, size_hw: tuple[int, int]) -> Masks | None:
    """The masks of the chosen of all windows' detections, as masks of the image; None where the windows have none."""
    every = [(each.masks, number, window) for each, window in pairs if each.masks is not None for number in range(len(each))]
    if any(each.masks is None for each, _ in pairs):
        return None
    parts = [every[place] for place in chosen.tolist()]
    moved = [masks_in_image(masks[number : number + 1], window, size_hw) for masks, number, window in parts]
    return Masks(size_hw, tuple(each.counts[0] for each in moved))


def cut_boxes(boxes: Tensor, window: Window, size_hw: tuple[int, int]) -> Tensor:
    """Which boxes (D, 4), in the pixels of a window, end at a border of it that is no border of the image: (D,) bool."""
    height, width = size_hw
    across, down = BORDER_SHARE * window.width, BORDER_SHARE * window.height
    return (
        ((boxes[:, 0] <= across) & (window.x > 0))
        | ((boxes[:, 1] <= down) & (window.y > 0))
        | ((boxes[:, 2] >= window.width - across) & (window.x + window.width < width))
        | ((boxes[:, 3] >= window.height - down) & (window.y + window.height < height))
    )


def keep_whole_first(found: Detections, cut: Tensor, nms_threshold: float) -> Tensor:
    """Indices (int64, by descending score) of the detections that remain, where `cut` (D,) says which are parts of objects.

    NMS in each class, first among the whole boxes; of the cut ones those remain that no whole box explains, after NMS.
    """
    whole, parts = (~cut).nonzero().squeeze(1), cut.nonzero().squeeze(1)
    kept = _nms_among(found, whole, nms_threshold)
    unexplained = parts[~_explained(found[parts], found[kept], nms_threshold)]
    kept = torch.cat([kept, _nms_among(found, unexplained, nms_threshold)])
    return kept[found.scores[kept].argsort(descending=True, stable=True)]


def _nms_among(found: Detections, members: Tensor, nms_threshold: float) -> Tensor:
    chosen = found[members]
    return members[batched_nms(chosen.boxes, chosen.scores, chosen.labels, nms_threshold)]


def _explained(parts: Detections, whole: Detections, nms_threshold: float) -> Tensor:
    """Which parts lie in a whole box of their class, or overlap one as much as NMS allows none: (D,) bool."""
    flags = [parts.labels.new_zeros(0, dtype=torch.bool)]
    for start in range(0, len(parts), _PARTS_AT_A_TIME):
        some = parts[start : start + _PARTS_AT_A_TIME]
        covered = pairwise_coverage(some.boxes, whole.boxes) >= PART_COVERAGE
        overlapping = pairwise_iou(some.boxes, whole.boxes) > nms_threshold
        flags.append(((covered | overlapping) & (some.labels[:, None] == whole.labels)).any(dim=1))
    return torch.cat(flags)
