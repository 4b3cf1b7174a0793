"""The augmentations that a config names, built and checked before data are read; applied, with errors that name them.

G boxes of one image: xyxy pixels, and more columns, such as the label, that stay as they are. M masks.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import albumentations as A
import cv2
import numpy as np
from albumentations.augmentations.crops.transforms import CropSizeError
from pydantic import ValidationError

from backbones.errors import printable, shorten
from detection.data.paper_transforms import PAPER_TRANSFORMS
from detection.errors import ConfigError, did_you_mean

logger = logging.getLogger(__name__)

Node: TypeAlias = A.BasicTransform | A.BaseCompose

# What albumentations and the libraries below it raise: documented, or seen with odd images and values.
_FAULTS = (
    ArithmeticError, AssertionError, AttributeError, CropSizeError, ImportError, LookupError, MemoryError, RuntimeError,
    TypeError, ValueError, Warning, cv2.error,
)  # fmt: skip
# Said of parameters that work: an alias, or a slower way.
_HARMLESS_WARNINGS = ("is an alias for", "is a special case of", "is a specialized version of", "is very slow")
_COMPOSITION_PARAMETERS = {
    "SomeOf": {"n", "replace"},
    "RandomOrder": {"n", "replace"},
    "SelectiveChannelTransform": {"channels"},
}
_SIZES = {"height", "width", "size", "max_size", "max_size_hw", "min_height", "min_width", "min_max_height", "px"}
_LARGEST_SIZE, _LARGEST_NUMBER, _LARGEST_N, _DEEPEST = 2**14, 2**16, 100, 8
_ANY = "known are the transforms of albumentations, AlexNetColor and RandomShorterSide"

_BASE = "is only the base of other transforms"
_FLOATS = "gives floating-point pixels, and normalisation is the model's: leave it out"
_REFUSED = {
    **dict.fromkeys(["BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D", "BaseCompose"], _BASE),
    **dict.fromkeys(["Normalize", "ToFloat", "FromFloat"], _FLOATS),
    **dict.fromkeys(["ToTensorV2", "ToTensor3D"], "gives a tensor, and the loader makes its own: leave it out"),
    **dict.fromkeys(
        ["ConstrainedCoarseDropout", "CropNonEmptyMaskIfExists"],
        "needs masks of whole images, which data sets do not have here",
    ),
    "Lambda": "needs functions, which a config cannot hold",
    "ReplayCompose": "keeps records that nothing replays: write Compose",
    "ToRGB": "changes nothing: all images are RGB",
}

_REFUSED_WITH_BOXES = {"Morphological": "moves boxes wrongly (OpenCV takes their masks' columns for channels)"}
_REFUSED_WITHOUT_BOXES = dict.fromkeys(
    ["BBoxSafeRandomCrop", "RandomSizedBBoxSafeCrop"], "needs boxes, and labels are all there is"
)


def build_augmentation(
    augmentations: Sequence[Mapping[str, Mapping[str, Any]]],
    *,
    boxes: bool = True,
    masks: bool = False,
    key: str = "data.augmentations",
) -> A.Compose:
    """`[{"HorizontalFlip": {"p": 0.5}}, ...]` -> one callable of images, with `boxes` of their `bboxes`, with `masks` of these.

    A list under `transforms` is built the same way: `{"OneOf": {"transforms": [{"Blur": {}}, {"CLAHE": {}}]}}`. Every transform
    is tried on a small image. Raises ConfigError, which names the transform and `key`, the config's: an unknown name,
    parameters that albumentations does not take or changes, and what gives no uint8 RGB image or needs more than one.
    """
    builder = _Builder(key, boxes, masks)
    nodes = builder.build_all(augmentations, 1)
    for node in nodes:
        builder.try_out(node)
    return _compose(nodes, boxes)


def reseed(augmentation: A.Compose, seed: int) -> None:
    """Make the next call a function of the seed.

    `Compose.set_random_seed` gives one seed to all of its transforms, which then draw the same numbers: two flips of
    p = 0.5 would always come together. Here each draws its own.
    """
    seeds = np.random.default_rng(seed)
    waiting: list[Node] = [augmentation]
    while waiting:
        node = waiting.pop()
        node.set_random_seed(int(seeds.integers(2**32)))
        # Composing nodes hand their seed down, so that their children come after them.
        waiting += reversed(_children(node))


def apply_augmentation(
    augmentation: A.Compose,
    image: np.ndarray,
    rows: np.ndarray | None,
    key: str,
    file: str = "",
    masks: np.ndarray | None = None,
) -> dict[str, Any]:
    """What albumentations makes of an image (H, W, 3) uint8 RGB and, unless None, of its boxes (G, 4 and more columns) and its
    masks (M, H, W) uint8, at least one.

    Raises ConfigError naming `key`, the config's, the transform, the image's size and `file`: one that cannot be applied (a
    crop larger than the image), or a result that is no (H, W, 3) uint8 image.
    """
    height, width = image.shape[:2]
    try:
        # Numpy's own settings, whatever the program's: underflow is no fault.
        with np.errstate(divide="warn", over="warn", invalid="warn", under="ignore"):
            given = {"bboxes": rows, "masks": masks}
            result: dict[str, Any] = augmentation(image=image, **{k: each for k, each in given.items() if each is not None})
    except _FAULTS as error:
        name = _name_of_raising(error)
        which = f"{width}x{height} image{_named(file)}"
        raise ConfigError(f"{key}{name} cannot be applied to a {which}: {_reason(error)}") from None
    found = result["image"]
    if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3:
        raise ConfigError(f"{key} must give (H, W, 3) uint8 images, not {tuple(found.shape)} {found.dtype}{_named(file)}")
    return result


class _Builder:
    """Builds the transforms of one key of the config; what it raises names that key."""

    def __init__(self, key: str, boxes: bool, masks: bool) -> None:
        self.key = key
        self.boxes = boxes
        self.masks = masks

    def build_all(self, items: Any, depth: int, owner: str = "") -> list[Node]:
        """A list of `{name: parameters}`, of the whole key or of the composition `owner` -> transforms. Raises ConfigError."""
        if depth > _DEEPEST:
            raise ConfigError(f"{self.key}: transforms are nested deeper than {_DEEPEST} levels")
        if not isinstance(items, Sequence) or isinstance(items, str):
            raise ConfigError(f"{self.key}{owner}: it must be a list of `- Name: {{parameter: value}}`, got {shorten(items)}")
        nodes = []
        for item in items:
            if not isinstance(item, Mapping) or not item:
                raise ConfigError(f"{self.key}{owner}: an item must be `Name: {{parameter: value}}`, got {shorten(item)}")
            nodes += [self.build(name, parameters, depth, owner) for name, parameters in item.items()]
        return nodes

    def build(self, name: Any, parameters: Any, depth: int, owner: str = "") -> Node:
        """One transform, of the whole key or of the composition `owner`. Raises ConfigError."""
        kind = find_transform(name)
        if kind is None:
            known = [*PAPER_TRANSFORMS, *(each for each in dir(A) if find_transform(each) and each not in _REFUSED)]
            raise ConfigError(f"{self.key}{owner}: unknown augmentation {shorten(name)}{did_you_mean(str(name), known, _ANY)}")
        if reason := _REFUSED.get(name) or (_REFUSED_WITH_BOXES if self.boxes else _REFUSED_WITHOUT_BOXES).get(name):
            raise ConfigError(f"{self.key}: augmentation '{name}' {reason}")
        if parameters is not None and not isinstance(parameters, Mapping):
            raise self._wrong(name, parameters, "its parameters must be `{parameter: value}`")
        values = dict(parameters or {})
        if fault := _fault_of_numbers(values, depth):
            raise self._wrong(name, values, fault)
        if issubclass(kind, A.BaseCompose):
            if fault := _fault_of_composition(name, values):
                raise self._wrong(name, values, fault)
            values["transforms"] = self.build_all(values["transforms"], depth + 1, f": '{name}'")
        node = self._construct(name, kind, values, {} if parameters is None else parameters)
        if fault := _fault_of_needs(node, self.boxes, self.masks):
            raise ConfigError(f"{self.key}: augmentation '{name}' {fault}")
        return node

    def _construct(self, name: str, kind: type[Node], values: dict[str, Any], written: Mapping[str, Any]) -> Node:
        with warnings.catch_warnings(record=True) as caught:
            # Albumentations only warns of a parameter that it does not know, changes, or leaves at its default.
            warnings.simplefilter("always")
            try:
                node: Node = kind(**values)
            except _FAULTS as error:
                raise self._wrong(name, written, _reason(error)) from None
        for warning in caught:
            text = " ".join(str(warning.message).split())
            if not any(harmless in text for harmless in _HARMLESS_WARNINGS):
                raise self._wrong(name, written, text)
            logger.info("%s: %s", self.key, text)
        return node

    def _wrong(self, name: str, parameters: Any, reason: str) -> ConfigError:
        return ConfigError(f"{self.key}: augmentation '{name}' with {shorten(parameters)}: {reason}")

    def try_out(self, node: Node) -> None:
        """Apply each transform by itself to a small image with boxes, and to one without. Raises ConfigError."""
        if isinstance(node, A.BaseCompose) and not isinstance(node, A.SelectiveChannelTransform):
            for child in _children(node):
                self.try_out(child)
            return
        alone = copy.deepcopy(node)
        for part in (alone, *_children(alone)):
            part.p = 1.0
        trial = _compose([alone], self.boxes)
        image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        rows = np.array([[8, 8, 40, 60, 0], [50, 20, 128, 96, 1], [0, 0, 128, 96, -1]], np.float32)
        for given in (rows, rows[:0]) if self.boxes else (None,):
            reseed(trial, 0)
            try:
                masks = None if given is None or not self.masks or not len(given) else _fill(given, image.shape[:2])
                apply_augmentation(trial, image, given, f"{self.key}: augmentation '{type(node).__name__}'", masks=masks)
            except ConfigError as error:
                # Whether a crop fits depends on the images.
                is_crop = type(node).__module__.startswith("albumentations.augmentations.crops")
                if not (is_crop and isinstance(error.__context__, CropSizeError | ValueError)):
                    raise


def _fill(rows: np.ndarray, size_hw: Sequence[int]) -> np.ndarray:
    """Masks (G, H, W) uint8 that fill boxes of whole pixels, to try transforms with."""
    masks = np.zeros((len(rows), *size_hw), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, rows[:, :4].astype(int).tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return masks


def find_transform(name: Any) -> type[Node] | None:
    """The class of a transform by its name in a config; None where there is none."""
    kind = PAPER_TRANSFORMS.get(name) or getattr(A, name, None) if isinstance(name, str) else None
    return kind if isinstance(kind, type) and issubclass(kind, A.BasicTransform | A.BaseCompose) else None


def _compose(nodes: list[Node], boxes: bool) -> A.Compose:
    bbox_params = A.BboxParams(format="pascal_voc", clip=True, filter_invalid_bboxes=True) if boxes else None
    with warnings.catch_warnings():
        # That no transform of the list moves boxes is nothing to warn of.
        warnings.filterwarnings("ignore", message="Got processor for bboxes")
        return A.Compose(nodes, bbox_params=bbox_params)


def _children(node: Node) -> list[Node]:
    # Some transforms (ColorJitter) have an attribute `transforms` that holds no transforms.
    return list(node.transforms) if isinstance(node, A.BaseCompose) else []


def _fault_of_needs(node: Node, boxes: bool, masks: bool) -> str | None:
    """Why a transform cannot work with nothing but an image, and its boxes and masks if it has some."""
    if isinstance(node, A.BaseCompose):
        moving = [child for child in _children(node) if not isinstance(child, A.ImageOnlyTransform)]
        if isinstance(node, A.SelectiveChannelTransform) and moving:
            return f"cannot hold {type(moving[0]).__name__}, which moves pixels of some channels only"
        return None
    if isinstance(node, A.Transform3D):
        return "is for volumes, not for images"
    if missing := sorted({*node.targets_as_params} - {"image", *(["bboxes"] if boxes else [])}):
        return f"needs {', '.join(missing)}, which the images of this data set do not have"
    if boxes and isinstance(node, A.DualTransform) and "bboxes" not in node.targets:
        return "does not move boxes with the image"
    if masks and isinstance(node, A.DualTransform) and "mask" not in node.targets:
        return "does not move masks with the image, which model.mask needs: leave it out"
    return None


def _fault_of_composition(name: str, values: Mapping[str, Any]) -> str | None:
    """What is wrong with the parameters of a composition, which albumentations does not check."""
    allowed = {"transforms", "p"} | _COMPOSITION_PARAMETERS.get(name, set())
    if unknown := [each for each in values if each not in allowed]:
        return f"unknown parameter {shorten(unknown[0])}{did_you_mean(str(unknown[0]), allowed, f'it takes {sorted(allowed)}')}"
    transforms, p, n, channels = (values.get(each) for each in ("transforms", "p", "n", "channels"))
    if not isinstance(transforms, Sequence) or isinstance(transforms, str) or not transforms:
        return "needs a list `transforms` with at least one transform"
    if name == "OneOrOther" and len(transforms) != 2:
        return f"needs two transforms, got {len(transforms)}"
    if "p" in values and (isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1):
        return "p must be between 0 and 1"
    if "n" in values and (isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= _LARGEST_N):
        return f"n must be a whole number from 1 to {_LARGEST_N}"
    if not isinstance(values.get("replace", False), bool):
        return "replace must be true or false"
    if "channels" in values and not (isinstance(channels, list | tuple) and _are_channels(channels)):
        return "channels must be a list of different numbers among 0, 1 and 2"
    return None


def _are_channels(channels: Sequence[Any]) -> bool:
    whole = all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each <= 2 for each in channels)
    return whole and 0 < len(channels) == len(set(channels))


def _fault_of_numbers(value: Any, depth: int, name: str = "") -> str | None:
    """What is wrong with the first number that no image can need: not finite, or too large for any memory or time."""
    if depth > _DEEPEST:
        return f"its parameters are nested deeper than {_DEEPEST} levels"
    if isinstance(value, Mapping):
        parts = [(each, str(key)) for key, each in value.items() if key != "transforms"]
    elif isinstance(value, list | tuple):
        parts = [(each, name) for each in value]
    elif isinstance(value, int | float):
        largest = _LARGEST_SIZE if name in _SIZES else _LARGEST_NUMBER
        return (
            None if -largest <= value <= largest else f"{name} must be between {-largest} and {largest}, got {shorten(value)}"
        )
    else:
        return None
    return next((fault for each, key in parts if (fault := _fault_of_numbers(each, depth + 1, key))), None)


def _named(file: str) -> str:
    return f" ({printable(file)})" if file else ""


def _name_of_raising(error: BaseException) -> str:
    """ ": 'Blur'", the innermost transform in the traceback of an error; "" where there is none."""
    names = []
    trace = error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, A.BasicTransform):
            names.append(type(owner).__name__)
        trace = trace.tb_next
    return f": '{names[-1]}'" if names else ""


def _reason(error: BaseException) -> str:
    """The message in one line; of a pydantic report, which albumentations wraps, only its keys, messages and values."""
    if isinstance(error.__cause__, ValidationError):
        return "; ".join(_one_report(item) for item in error.__cause__.errors())
    text = printable(" ".join(str(error).split()))
    return text if isinstance(error, ValueError | CropSizeError | Warning) and text else f"{type(error).__name__}: {text}"


def _one_report(item: Any) -> str:
    where = ".".join(map(str, item["loc"]))
    message = printable(" ".join(item["msg"].removeprefix("Value error, ").split()))
    got = "" if item["type"] == "missing" or not where else f", got {shorten(item['input'])}"
    return f"{where}: {message}{got}" if where else message
