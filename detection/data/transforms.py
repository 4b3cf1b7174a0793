"""An image and its objects on the way to the network: albumentations as the config lists them, then the resize.

G objects and I ignored regions of one image. Boxes: xyxy pixels. Masks: (G, H, W) bool; images without any pay nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor

from detection.config import Resizing
from detection.data.augmentations import apply_augmentation, reseed
from detection.data.records import MIN_SIDE
from detection.masks import Masks
from detection.resize import resize_image, resized_size
from detection.structures import Record, Target
from detection.tiles import Window


def make_target(record: Record, partial_labels: bool = True) -> Target:
    """The target of a record, in the pixels of its file, or of its window: difficult and crowd objects become ignored regions.

    `partial_labels`: as `data.partial_labels`; without it what is not annotated is background, whatever the image knows.
    """
    keep = record.trainable
    known = record.known if partial_labels else None
    target = Target(record.boxes[keep], record.labels[keep], record.boxes[~keep], known)
    return target if record.masks is None else with_masks(target, record.masks[keep], record.window)


def with_masks(target: Target, masks: Masks, window: Window | None) -> Target:
    """The target with the masks of its G objects, which are those of a whole image: what a window (None: all) shows of them.

    Objects of whose mask the window shows nothing are left out.
    """
    masks = masks.rasterised()
    seen = Window.whole(masks.size_hw) if window is None else window
    part = slice(seen.y, seen.y + seen.height), slice(seen.x, seen.x + seen.width)
    bitmaps = np.zeros((len(masks), *seen.size_hw), dtype=bool)
    for row, bitmap in enumerate(bitmaps):  # one at a time: all of a large image may be many times the window
        bitmap[:] = masks.decode_part(row, part)
    target = replace(target, masks=torch.from_numpy(bitmaps))
    if window is None:
        return target
    bounds = clip(masks.boxes() - torch.tensor([seen.x, seen.y] * 2, device="cpu"), seen.size_hw)
    return fit_boxes(target, masks.areas > 0, distances(target.boxes, bounds))


def fit_boxes(target: Target, known: Tensor, slack: Tensor) -> Target:
    """Boxes of objects that were cut or turned, after their masks: none reaches more than `slack` (G,) px beyond its mask.

    Objects whose mask was `known` (G,) and has no pixel left are left out; those whose mask was not keep their boxes.
    """
    assert target.masks is not None
    bounds = mask_boxes(target.masks)
    filled = (bounds[:, 2:] > 0).all(dim=1)
    least, most = bounds[:, :2] - slack[:, None], bounds[:, 2:] + slack[:, None]
    fitted = torch.cat([torch.maximum(target.boxes[:, :2], least), torch.minimum(target.boxes[:, 2:], most)], dim=1)
    boxes = torch.where(filled[:, None], fitted, target.boxes)
    keep = (filled | ~known) & (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(dim=1)
    return replace(target, boxes=boxes[keep], labels=target.labels[keep], masks=target.masks[keep])


def mask_boxes(masks: Tensor) -> Tensor:
    """(G, H, W) bool -> (G, 4) float32: the smallest box around each mask; four zeros around one without a pixel."""
    xywh = [cv2.boundingRect(mask) for mask in masks.numpy().view(np.uint8)]
    boxes = torch.tensor(xywh, dtype=torch.float32, device="cpu").reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def distances(boxes: Tensor, others: Tensor) -> Tensor:
    """(G, 4) twice -> (G,): how far apart two boxes' edges are at most."""
    return (boxes - others).abs().amax(dim=1)


def prepare(
    image: np.ndarray,
    target: Target,
    augmentation: A.Compose,
    shorter_sides: Sequence[int],
    longer_side: int,
    seed: int,
    resizing: Resizing = "opencv",
    file: str = "",
) -> tuple[Tensor, Target]:
    """(H, W, 3) uint8 and its target -> (3, h, w), of the type that `resize_image` gives, and the target in its pixels:
    augmented, then resized.

    A function of its arguments: the seed decides the augmentation and which of the shorter sides is taken; `file` names the
    image in a ConfigError, see `augment`.
    """
    reseed(augmentation, seed)
    image, target = augment(image, target, augmentation, file)
    shorter_side = int(np.random.default_rng(seed).choice(shorter_sides))
    size_hw = resized_size(image.shape[:2], shorter_side, longer_side, resizing)
    image, target = resize(image, target, size_hw, resizing)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), target


def augment(image: np.ndarray, target: Target, augmentation: A.Compose, file: str = "") -> tuple[np.ndarray, Target]:
    """Image and objects after the augmentation; objects of which nothing is left in the image, by box or mask, are dropped.

    Boxes of objects with masks are cut down to what is left of these.

    Raises ConfigError, naming the transform and `file`, if one cannot be applied (a crop larger than the image), or if the
    result is no uint8 RGB image.
    """
    if not augmentation.transforms:
        return image, target
    # The label rides along as a fifth column, -1 for ignored regions: label fields keep a state between calls.
    # So does the place among the objects, to find the mask by: boxes that leave the image are gone, their masks are not.
    labels = torch.cat([target.labels, target.labels.new_full((len(target.ignored),), -1)])
    places = torch.arange(len(labels), device="cpu")
    rows = torch.cat([torch.cat([target.boxes, target.ignored]), labels[:, None].float(), places[:, None].float()], dim=1)
    masks = None if target.masks is None or not len(target.masks) else target.masks.numpy().view(np.uint8)
    result = apply_augmentation(augmentation, image, rows.numpy(), "data.augmentations", file, masks)
    image = result["image"]
    rows = torch.from_numpy(np.array(result["bboxes"], dtype=np.float32)).reshape(-1, 6)
    boxes, labels = clip(rows[:, :4], image.shape[:2]), rows[:, 4].round().long()
    keep = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(dim=1)
    is_object = keep & (labels >= 0)
    moved = Target(boxes[is_object], labels[is_object], boxes[keep & (labels < 0)], target.known)
    if target.masks is None:
        return image, moved
    return image, _with_moved_masks(moved, target, result.get("masks", ()), rows[is_object, 5].round().long(), image.shape[:2])


def _with_moved_masks(
    moved: Target, before: Target, masks: Sequence[np.ndarray], places: Tensor, size_hw: Sequence[int]
) -> Target:
    """What is left of `before` with its masks, moved as well: object i of `moved` was `places[i]`, as others may."""
    assert before.masks is not None
    shown = [np.asarray(masks[place], dtype=bool) for place in places.tolist()]
    if len(set(places.tolist())) < len(shown):
        # Borders that mirror the image show an object several times: each box has its own part of the mask.
        shown = [_inside(mask, box) for mask, box in zip(shown, moved.boxes.tolist(), strict=True)]
    bitmaps = torch.from_numpy(np.stack(shown) if shown else np.zeros((0, *size_hw[:2]), dtype=bool))
    bounds = mask_boxes(before.masks)
    known, slack = (bounds[:, 2:] > 0).all(dim=1), distances(before.boxes, bounds)
    return fit_boxes(replace(moved, masks=bitmaps), known[places], slack[places])


def _inside(mask: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """A mask (H, W) without what lies outside a box."""
    x1, y1, x2, y2 = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])
    inside = np.zeros_like(mask)
    inside[y1:y2, x1:x2] = mask[y1:y2, x1:x2]
    return inside


def resize(
    image: np.ndarray, target: Target, size_hw: tuple[int, int], resizing: Resizing = "opencv"
) -> tuple[np.ndarray, Target]:
    """Image and objects at another size; boxes by the true ratios, as rounding makes them differ between the axes.

    A mask that is smaller than a pixel then may have none left; its object's mask is not known any more.
    """
    ratio_y, ratio_x = size_hw[0] / image.shape[0], size_hw[1] / image.shape[1]
    scale = target.boxes.new_tensor([ratio_x, ratio_y, ratio_x, ratio_y])
    boxes, ignored = (clip(part * scale, size_hw) for part in (target.boxes, target.ignored))
    masks = None if target.masks is None else _resize_masks(target.masks, size_hw)
    return resize_image(image, size_hw, resizing), replace(target, boxes=boxes, ignored=ignored, masks=masks)


def _resize_masks(masks: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(G, H, W) bool -> (G, h, w): of each pixel's centre the nearest pixel."""
    if masks.shape[1:] == size_hw:
        return masks
    height, width = size_hw
    resized = np.zeros((len(masks), height, width), dtype=np.uint8)
    for mask, found in zip(masks.numpy().view(np.uint8), resized, strict=True):
        cv2.resize(mask, (width, height), dst=found, interpolation=cv2.INTER_NEAREST_EXACT)
    return torch.from_numpy(resized.view(bool))


def clip(boxes: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Cut (N, 4) boxes off at the border of an image of (height, width); one that lies outside becomes empty."""
    height, width = size_hw[:2]
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)
