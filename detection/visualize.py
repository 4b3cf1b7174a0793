"""Boxes and masks drawn on images, and sheets of several images. Images are (H, W, 3) uint8 RGB."""

from __future__ import annotations

import colorsys
import io
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from detection.errors import DatasetError
from detection.fonts import drawable, font_for
from detection.masks import Masks

Color = tuple[int, int, int]

_HUE_STEP = 0.618034  # of the colour circle: by the golden ratio neighbouring classes differ, however many there are
_GREATEST_SIDE = {"JPEG": 65500, "WEBP": 16383}  # px; beyond it the encoders write to stderr by themselves
_NOT_FOLLOWED = (160, 160, 160)
_OPACITY = 0.45  # of a mask's inside; its outline hides what is below
_GAP = 6  # px between the images of a sheet


def draw_boxes(
    image: np.ndarray,
    boxes: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    class_names: Sequence[str],
    scores: Tensor | np.ndarray | None = None,
    tracks: Sequence[int | None] | None = None,
) -> np.ndarray:
    """A copy of the image with boxes (N, 4) xyxy, each labelled with its class, and score if given, in the class's colour.

    With `tracks`, the numbers of followed objects, a box has the colour of its number, which stands after the class; without
    a number it is grey.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    size = font_size(image.shape[:2])
    fonts: dict[Path, ImageFont.FreeTypeFont] = {}
    # Large boxes first: a small one in front of them stays visible.
    order = sorted(range(len(boxes)), key=lambda row: -_area(boxes[row].tolist()))
    numbers = [None] * len(boxes) if tracks is None else tracks
    colors = [_box_color(int(label), number, tracks is not None) for label, number in zip(labels, numbers, strict=True)]
    for row in order:
        pen.rectangle(_outline(boxes[row].tolist()), outline=colors[row], width=max(round(size / 7), 1))
    for row in order:
        name, number = class_names[int(labels[row])], numbers[row]
        words = [name, *([] if number is None else [f"#{number}"]), *([] if scores is None else [f"{float(scores[row]):.2f}"])]
        text = " ".join(words)
        file = font_for(text)  # not Pillow's own font, which has little beyond ASCII
        if file not in fonts:
            fonts[file] = ImageFont.truetype(file, size)
        _draw_label(pen, drawable(text, [file]), boxes[row].tolist(), fonts[file], colors[row], canvas.size)
    return np.array(canvas)


def draw_masks(
    image: np.ndarray, masks: Masks, labels: Tensor | np.ndarray, tracks: Sequence[int | None] | None = None
) -> np.ndarray:
    """A copy of the image with N masks of its size, translucent with an outline, in the colours of `draw_boxes`.

    Masks without a pixel are passed over. Draw them before the boxes, whose labels they would hide.
    """
    canvas, masks = image.copy(), masks.rasterised()
    numbers = [None] * len(masks) if tracks is None else tracks
    colors = [_box_color(int(label), number, tracks is not None) for label, number in zip(labels, numbers, strict=True)]
    boxes, areas, width = masks.boxes().int().tolist(), masks.areas.tolist(), max(font_size(image.shape[:2]) // 8, 1)
    for row in sorted((row for row, area in enumerate(areas) if area), key=lambda row: -areas[row]):
        x1, y1, x2, y2 = boxes[row]
        part = slice(y1, y2), slice(x1, x2)
        _paint(canvas[part], masks.decode_part(row, part).view(np.uint8), colors[row], width)
    return canvas


def _paint(part: np.ndarray, inside: np.ndarray, color: Color, width: int) -> None:
    """Colour the pixels (H, W, 3) of a mask (H, W) of 0 and 1 in place: through and through those at its border, `width` px."""
    core = cv2.erode(inside, np.ones((3, 3), np.uint8), iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    tint = np.array([*(_OPACITY * channel for channel in color), 0.0])  # OpenCV's scalars have four channels
    blended = cv2.add(cv2.convertScaleAbs(part, alpha=1 - _OPACITY), tint)
    painted = cv2.copyTo(blended, core, part.copy())
    painted[inside > core] = color
    part[:] = painted


def _box_color(label: int, number: int | None, followed: bool) -> Color:
    if not followed:
        return class_color(label)
    return _NOT_FOLLOWED if number is None else class_color(number)


def draw_trails(image: np.ndarray, trails: Mapping[int, Sequence[tuple[float, float]]]) -> np.ndarray:
    """A copy of the image with the ways of followed objects: for each number its points (x, y), in the number's colour."""
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    for number, points in trails.items():
        if len(points) > 1:
            pen.line(list(points), fill=class_color(number), width=max(font_size(image.shape[:2]) // 5, 2), joint="curve")
    return np.array(canvas)


def class_color(label: int) -> Color:
    """A bright (red, green, blue), always the same for a class, or for the number of a followed object."""
    # Three brightnesses, one after the other, make similar hues different.
    red, green, blue = colorsys.hsv_to_rgb((label * _HUE_STEP + 0.02) % 1, 0.85, (1.0, 0.85, 0.7)[label % 3])
    return round(red * 255), round(green * 255), round(blue * 255)


def font_size(size_hw: Sequence[int]) -> int:
    """Height of a label's text in pixels, to be readable when the whole image is looked at."""
    return int(np.clip(round(max(size_hw) / 48), 10, 60))


def contact_sheet(images: Iterable[np.ndarray], columns: int = 4, cell_size: int = 480) -> np.ndarray:
    """Images in rows of `columns`, each shrunk to at most `cell_size` pixels a side; without images one grey cell."""
    shrunk = [_shrink(image, cell_size) for image in images] or [np.full((cell_size, cell_size, 3), 128, np.uint8)]
    rows = [shrunk[start : start + columns] for start in range(0, len(shrunk), columns)]
    heights = [max(image.shape[0] for image in row) + _GAP for row in rows]
    width = max(image.shape[1] for image in shrunk) + _GAP
    sheet = np.full((sum(heights) + _GAP, width * min(columns, len(shrunk)) + _GAP, 3), 255, np.uint8)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            left = _GAP + column * width
            sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
        top += height
    return sheet


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Write an image in the format of the suffix; the folder is made.

    Raises DatasetError for an unknown suffix, and for an image that the format cannot hold; nothing is written then. Raises
    OSError where the file cannot be written.
    """
    path = Path(path)
    image_format = Image.registered_extensions().get(path.suffix.lower())
    if image_format is None:
        raise DatasetError(f"cannot write {path}: '{path.suffix}' is not the suffix of an image format; take .png or .jpg")
    height, width = image.shape[:2]
    if max(height, width) > _GREATEST_SIDE.get(image_format, math.inf):
        limit = _GREATEST_SIDE[image_format]
        raise DatasetError(
            f"cannot write {path}: {width} x {height} pixels, and {image_format} takes {limit} a side; take .png, or shrink it"
        )
    encoded = io.BytesIO()
    try:
        Image.fromarray(image).save(encoded, image_format)
    except (
        OSError,
        ValueError,
        KeyError,
        OverflowError,
        struct.error,
    ) as error:  # each format has its own way to refuse a size
        raise DatasetError(f"cannot write {path}: {image_format} does not take {width} x {height} pixels ({error})") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        try:
            file.write(encoded.getbuffer())
        except OSError:  # a full disk
            path.unlink()
            raise


def _draw_label(
    pen: ImageDraw.ImageDraw,
    text: str,
    box: Sequence[float],
    font: ImageFont.FreeTypeFont,
    color: Color,
    size_wh: tuple[int, int],
) -> None:
    """Draw text above its box, or inside it if there is no room above; never outside the image."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    pad = max((bottom - top) // 6, 1)
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(min(box[0], size_wh[0] - width), 0)
    y = box[1] - height if box[1] >= height else max(min(box[1], size_wh[1] - height), 0)
    pen.rectangle((x, y, x + width, y + height), fill=color)
    pen.text((x + pad - left, y + pad - top), text, font=font, fill=_text_color(color))


def _text_color(color: Color) -> Color:
    """Black on a light colour, white on a dark one (by its luminance, ITU-R BT.601)."""
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    return (0, 0, 0) if luminance > 140 else (255, 255, 255)


def _outline(box: Sequence[float]) -> tuple[float, float, float, float]:
    """The outermost pixels inside a box; Pillow refuses corners in the wrong order."""
    x1, y1, x2, y2 = box
    return x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shrink(image: np.ndarray, cell_size: int) -> np.ndarray:
    shrunk = Image.fromarray(image)
    shrunk.thumbnail((cell_size, cell_size))
    return np.array(shrunk)
