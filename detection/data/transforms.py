"""An image and its boxes on the way to the network: albumentations as the config lists them, then the resize.

G objects and I ignored regions of one image. Boxes: xyxy pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import albumentations as A
import numpy as np
import torch
from albumentations.augmentations.crops.transforms import CropSizeError
from pydantic import ValidationError
from torch import Tensor

from detection.config import Resizing
from detection.data.augmentations import PAPER_TRANSFORMS
from detection.data.records import MIN_SIDE
from detection.errors import ConfigError, did_you_mean
from detection.resize import resize_image, resized_size
from detection.structures import Record, Target


def build_augmentation(augmentations: Sequence[Mapping[str, Mapping[str, Any]]], *, boxes: bool = True) -> A.Compose:
    """`[{"HorizontalFlip": {"p": 0.5}}, ...]` -> one callable of images, and with `boxes` of their `bboxes` too.

    A list under `transforms` is built the same way: `{"OneOf": {"transforms": [{"Blur": {}}, {"CLAHE": {}}]}}`.
    Raises ConfigError: an unknown name, parameters that albumentations does not take.
    """
    bbox_params = A.BboxParams(format="pascal_voc", clip=True, filter_invalid_bboxes=True) if boxes else None
    with warnings.catch_warnings():
        # That no transform of the list moves boxes is nothing to warn of.
        warnings.filterwarnings("ignore", message="Got processor for bboxes")
        return A.Compose(_build_all(augmentations), bbox_params=bbox_params)


def reseed(augmentation: A.Compose, seed: int) -> None:
    """Make the next call a function of the seed.

    `Compose.set_random_seed` gives one seed to all of its transforms, which then draw the same numbers: two flips of
    p = 0.5 would always come together. Here each draws its own.
    """
    seeds = np.random.default_rng(seed)
    waiting = [augmentation]
    while waiting:
        node = waiting.pop()
        node.set_random_seed(int(seeds.integers(2**32)))
        # Composing nodes hand their seed down, so that their children come after them.
        waiting += reversed(getattr(node, "transforms", []))


def make_target(record: Record) -> Target:
    """The target of a record, in the pixels of its file: difficult and crowd objects become ignored regions."""
    keep = record.trainable
    return Target(record.boxes[keep], record.labels[keep], record.boxes[~keep])


def prepare(
    image: np.ndarray,
    target: Target,
    augmentation: A.Compose,
    shorter_sides: Sequence[int],
    longer_side: int,
    seed: int,
    resizing: Resizing = "opencv",
) -> tuple[Tensor, Target]:
    """(H, W, 3) uint8 and its target -> (3, h, w) uint8 and the target in its pixels: augmented, then resized.

    A function of its arguments: the seed decides the augmentation and which of the shorter sides is taken.
    """
    reseed(augmentation, seed)
    image, target = augment(image, target, augmentation)
    shorter_side = int(np.random.default_rng(seed).choice(shorter_sides))
    image, target = resize(image, target, resized_size(image.shape[:2], shorter_side, longer_side), resizing)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), target


def augment(image: np.ndarray, target: Target, augmentation: A.Compose) -> tuple[np.ndarray, Target]:
    """Image and boxes after the augmentation; boxes of which nothing is left in the image are dropped.

    Raises ConfigError if it cannot be applied (a crop larger than the image), or if the result is no uint8 RGB image:
    normalisation is the model's.
    """
    if not augmentation.transforms:
        return image, target
    # The label rides along as a fifth column, -1 for ignored regions: label fields keep a state between calls.
    labels = torch.cat([target.labels, target.labels.new_full((len(target.ignored),), -1)])
    rows = torch.cat([torch.cat([target.boxes, target.ignored]), labels[:, None].float()], dim=1)
    try:
        result = augmentation(image=image, bboxes=rows.numpy())
    except (ValueError, CropSizeError) as error:
        height, width = image.shape[:2]
        raise ConfigError(f"data.augmentations cannot be applied to a {width}x{height} image: {_reason(error)}") from None
    image = result["image"]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ConfigError(f"data.augmentations must give (H, W, 3) uint8 images, not {tuple(image.shape)} {image.dtype}")
    rows = torch.as_tensor(np.asarray(result["bboxes"]), dtype=torch.float32).reshape(-1, 5)
    boxes, labels = _clip(rows[:, :4], image.shape[:2]), rows[:, 4].round().long()
    keep = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(dim=1)
    is_object = keep & (labels >= 0)
    return image, Target(boxes[is_object], labels[is_object], boxes[keep & (labels < 0)])


def resize(
    image: np.ndarray, target: Target, size_hw: tuple[int, int], resizing: Resizing = "opencv"
) -> tuple[np.ndarray, Target]:
    """Image and boxes at another size; boxes by the true ratios, as rounding makes them differ between the axes."""
    ratio_y, ratio_x = size_hw[0] / image.shape[0], size_hw[1] / image.shape[1]
    scale = torch.tensor([ratio_x, ratio_y, ratio_x, ratio_y])
    boxes, ignored = (_clip(part * scale, size_hw) for part in (target.boxes, target.ignored))
    return resize_image(image, size_hw, resizing), Target(boxes, target.labels, ignored)


def _clip(boxes: Tensor, size_hw: Sequence[int]) -> Tensor:
    height, width = size_hw[:2]
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def _build_all(augmentations: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[A.BasicTransform | A.BaseCompose]:
    return [_build(name, dict(parameters or {})) for item in augmentations for name, parameters in item.items()]


def _build(name: str, parameters: dict[str, Any]) -> A.BasicTransform | A.BaseCompose:
    kind = PAPER_TRANSFORMS.get(name) or getattr(A, name, None)
    if not _is_transform(kind):
        known = [*PAPER_TRANSFORMS, *(key for key in dir(A) if _is_transform(getattr(A, key)))]
        raise ConfigError(f"unknown augmentation '{name}'{did_you_mean(name, known)} (any transform of albumentations)")
    if "transforms" in parameters:
        parameters["transforms"] = _build_all(parameters["transforms"])
    with warnings.catch_warnings():
        # Albumentations only warns of a parameter that it does not know, and goes on without it.
        warnings.filterwarnings("error", message="Argument")
        try:
            return kind(**parameters)
        except (ValueError, TypeError, UserWarning) as error:
            raise ConfigError(f"augmentation '{name}' with {parameters}: {_reason(error)}") from None


def _is_transform(kind: Any) -> TypeGuard[Callable[..., A.BasicTransform | A.BaseCompose]]:
    return isinstance(kind, type) and issubclass(kind, A.BasicTransform | A.BaseCompose)


def _reason(error: Exception) -> str:
    """The message in one line; of a pydantic report, which albumentations wraps, only its keys and messages."""
    if isinstance(error.__cause__, ValidationError):
        return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.__cause__.errors())
    return " ".join(str(error).split())
