"""Boxes drawn on images, and sheets of images. Images: (H, W, 3) uint8 RGB."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from detection.errors import DatasetError

Color = tuple[int, int, int]

_GOLDEN = 0.618034  # of the colour circle: hues of neighbouring classes lie far apart, however many there are
_GAP = 6  # px between the images of a sheet


def draw_boxes(
    image: np.ndarray,
    boxes: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    class_names: Sequence[str],
    scores: Tensor | np.ndarray | None = None,
) -> np.ndarray:
    """A copy of the image with D boxes (D, 4) xyxy, each with its class (and score) on a ground of the class's colour."""
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    size = font_size(image.shape[:2])
    # DejaVu comes with matplotlib: Latin, Greek, Cyrillic and more, where Pillow's own font has little beyond ASCII.
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
    # Large boxes first: a small one in front of them stays visible.
    order = sorted(range(len(boxes)), key=lambda row: -_area(boxes[row].tolist()))
    for row in order:
        pen.rectangle(_edges(boxes[row].tolist()), outline=class_color(int(labels[row])), width=max(round(size / 7), 1))
    for row in order:
        name = class_names[int(labels[row])]
        text = name if scores is None else f"{name} {float(scores[row]):.2f}"
        _write(pen, text, boxes[row].tolist(), font, class_color(int(labels[row])), canvas.size)
    return np.array(canvas)


def class_color(label: int) -> Color:
    """A bright colour, always the same for a class."""
    # Three brightnesses in turn tell neighbours on the colour circle apart.
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN + 0.02) % 1, 0.85, (1.0, 0.85, 0.7)[label % 3])
    return round(red * 255), round(green * 255), round(blue * 255)


def font_size(size_hw: Sequence[int]) -> int:
    """Pixels: readable when the whole picture is looked at."""
    return int(np.clip(round(max(size_hw) / 48), 10, 60))


def contact_sheet(images: Sequence[np.ndarray], columns: int = 4, cell: int = 480) -> np.ndarray:
    """Images in rows of `columns`, each shrunk to fit `cell` x `cell` pixels; none gives one grey cell."""
    shrunk = [_fit(image, cell) for image in images] or [np.full((cell, cell, 3), 128, np.uint8)]
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
    """Write a picture, in the format of its suffix; the folder is made. Raises DatasetError for a suffix of no format."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() not in Image.registered_extensions():
        raise DatasetError(f"cannot write {path}: '{path.suffix}' is not the suffix of an image format; take .png or .jpg")
    Image.fromarray(image).save(path)


def _write(
    pen: ImageDraw.ImageDraw,
    text: str,
    box: Sequence[float],
    font: ImageFont.FreeTypeFont,
    color: Color,
    size_wh: tuple[int, int],
) -> None:
    """A label above its box, or inside where there is no room above; never outside the image."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    pad = max((bottom - top) // 6, 1)
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(min(box[0], size_wh[0] - width), 0)
    y = box[1] - height if box[1] >= height else max(min(box[1], size_wh[1] - height), 0)
    pen.rectangle((x, y, x + width, y + height), fill=color)
    pen.text((x + pad - left, y + pad - top), text, font=font, fill=_contrast(color))


def _contrast(color: Color) -> Color:
    """Black or white, whichever is read better on the colour (by its luminance, ITU-R BT.601)."""
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    return (0, 0, 0) if luminance > 140 else (255, 255, 255)


def _edges(box: Sequence[float]) -> tuple[float, float, float, float]:
    """A box's outermost pixels; Pillow refuses corners in the wrong order."""
    x1, y1, x2, y2 = box
    return x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _fit(image: np.ndarray, cell: int) -> np.ndarray:
    picture = Image.fromarray(image)
    picture.thumbnail((cell, cell))
    return np.array(picture)
