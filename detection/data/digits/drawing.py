"""Draw the images of the sample data: digits of scikit-learn's `load_digits` on crops of its two bundled photographs.

Images are (H, W, 3) uint8 RGB; all that is random comes from the generator that is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from detection.errors import DatasetError

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLIT_SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
CROP_SIDE = 64
CROP_DIGITS = (28, 58)  # pixels: what fits into a crop
MOST_SHRUNK = 2.5  # photographs, so that their texture is as coarse in a crop as in a scene

Image = npt.NDArray[np.uint8]
Alpha = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SceneObject:
    """One annotated object of an image: an xyxy box in continuous pixels, and its flags."""

    label: int
    box: tuple[int, int, int, int]
    difficult: bool = False
    crowd: bool = False


@dataclass(frozen=True)
class Material:
    """What scenes are made of."""

    scans: npt.NDArray[np.float32]  # (S, 8, 8) ink in [0, 1]
    labels: npt.NDArray[np.int64]  # (S,)
    photographs: list[Image]


def load_material() -> Material:
    """scikit-learn's bundled scans and photographs. Raises DatasetError where it is not installed."""
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError:
        raise DatasetError("the sample data needs scikit-learn: pip install 'resdet[sample]'") from None
    digits = load_digits()
    photographs = [np.ascontiguousarray(image) for image in load_sample_images().images]
    return Material((digits.images / 16).astype(np.float32), digits.target.astype(np.int64), photographs)


def split_scans(labels: npt.NDArray[np.int64], rng: np.random.Generator) -> dict[str, npt.NDArray[np.int64]]:
    """Indices of the scans of each split, each class divided alike."""
    parts: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in SPLIT_SHARES}
    bounds = np.cumsum(list(SPLIT_SHARES.values()))[:-1]
    for label in range(len(CLASSES)):
        members = rng.permutation(np.flatnonzero(labels == label))
        for name, part in zip(parts, np.split(members, (bounds * len(members)).astype(int)), strict=True):
            parts[name].append(part)
    return {name: np.concatenate(chunks) for name, chunks in parts.items()}


def digit_alpha(scan: npt.NDArray[np.float32], side: int, angle: float) -> Alpha:
    """A scan as a mask of ink in [0, 1], about `side` pixels high before it is turned by `angle` degrees, cut tight."""
    # A margin lets the strokes end softly; the turn about the middle stays inside.
    canvas = round(side * 1.6)
    scale = side / 8
    turn = np.asarray(cv2.getRotationMatrix2D((3.5, 3.5), angle, scale), np.float64)
    turn[:, 2] += canvas / 2 - 3.5
    ink = cv2.warpAffine(scan, turn, (canvas, canvas), flags=cv2.INTER_CUBIC, borderValue=0)
    # Cubic overshoot and the scans' grey margin go; strokes become solid.
    ink = np.clip((ink - 0.2) / 0.45, 0, 1).astype(np.float32)
    rows, columns = np.flatnonzero((ink > 0.3).any(axis=1)), np.flatnonzero((ink > 0.3).any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def background(photographs: list[Image], size_hw: tuple[int, int], rng: np.random.Generator) -> Image:
    """A random crop of a random photograph, flipped and brightened at random, at the wanted size."""
    photograph = photographs[rng.integers(len(photographs))]
    height, width = photograph.shape[:2]
    scale = rng.uniform(1, min(height / size_hw[0], width / size_hw[1], MOST_SHRUNK))
    crop_h, crop_w = int(size_hw[0] * scale), int(size_hw[1] * scale)
    y, x = rng.integers(height - crop_h + 1), rng.integers(width - crop_w + 1)
    crop = cv2.resize(photograph[y : y + crop_h, x : x + crop_w], size_hw[::-1], interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return np.clip(crop * rng.uniform(0.6, 1.1) + rng.uniform(-20, 20), 0, 255).astype(np.uint8)


def ink_color(patch: Image, rng: np.random.Generator, faint: bool) -> npt.NDArray[np.float32]:
    """A colour that stands out from the patch's mean brightness, or hardly does."""
    brightness = float(patch.mean())
    contrast = rng.uniform(18, 30) if faint else rng.uniform(80, 150)
    towards_light = rng.random() < (255 - brightness) / 255
    level = brightness + contrast if towards_light else brightness - contrast
    return np.clip(level + rng.uniform(-40, 40, size=3) * (0.3 if faint else 1), 0, 255).astype(np.float32)


def paint(image: Image, alpha: Alpha, x: int, y: int, rng: np.random.Generator, faint: bool = False) -> None:
    """Blend ink onto the image in place, its top left corner at (x, y)."""
    height, width = alpha.shape
    patch = image[y : y + height, x : x + width]
    mask = (alpha * rng.uniform(0.8, 1.0))[..., None]
    patch[:] = (patch * (1 - mask) + ink_color(patch, rng, faint) * mask).astype(np.uint8)


def add_noise(image: Image, rng: np.random.Generator) -> Image:
    """Sensor noise of a random strength."""
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(0, 8))
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Shared area over the smaller area, in [0, 1]."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(width, 0) * max(height, 0) / smaller


def place(
    alpha: Alpha, size_hw: tuple[int, int], objects: list[SceneObject], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """A free place for the ink, its box overlapping others by 30% at most; None if ten tries find none."""
    height, width = alpha.shape
    if height > size_hw[0] or width > size_hw[1]:
        return None
    for _ in range(10):
        x, y = int(rng.integers(size_hw[1] - width + 1)), int(rng.integers(size_hw[0] - height + 1))
        box = (x, y, x + width, y + height)
        if all(overlap(box, each.box) <= 0.3 for each in objects):
            return box
    return None


def random_alpha(material: Material, scan: int, rng: np.random.Generator, sides: tuple[int, int]) -> Alpha:
    """A scan at a random size and tilt. 6 and 9 differ by half a turn, so 20 degrees is safe."""
    return digit_alpha(material.scans[scan], round(rng.uniform(*sides)), rng.uniform(-20, 20))


def add_crowd(
    image: Image, material: Material, scans: npt.NDArray[np.int64], objects: list[SceneObject], rng: np.random.Generator
) -> None:
    """A heap of small digits of one class, annotated as one region."""
    label = int(rng.integers(len(CLASSES)))
    members = rng.choice(scans[material.labels[scans] == label], size=6)
    height, width = image.shape[:2]
    x0, y0 = int(rng.integers(width - 64)), int(rng.integers(height - 48))
    boxes = []
    for scan in members:
        alpha = digit_alpha(material.scans[scan], 22, rng.uniform(-20, 20))
        x, y = x0 + int(rng.integers(64 - alpha.shape[1])), y0 + int(rng.integers(48 - alpha.shape[0]))
        paint(image, alpha, x, y, rng)
        boxes.append((x, y, x + alpha.shape[1], y + alpha.shape[0]))
    corners = np.array(boxes)
    box = (*corners[:, :2].min(axis=0).tolist(), *corners[:, 2:].max(axis=0).tolist())
    objects.append(SceneObject(label, box, crowd=True))


def make_scene(
    material: Material, scans: npt.NDArray[np.int64], rng: np.random.Generator, long_side: int, sides: tuple[int, int]
) -> tuple[Image, list[SceneObject]]:
    """An image, landscape or portrait, and what is in it: often 2 to 5 digits, sometimes nothing."""
    short = long_side * 3 // 4
    size_hw = (short, long_side) if rng.random() < 0.6 else (long_side, short)
    image = background(material.photographs, size_hw, rng)
    objects: list[SceneObject] = []
    kind = rng.random()
    if kind < 0.05:
        return add_noise(image, rng), objects
    if kind < 0.10:
        add_crowd(image, material, scans, objects, rng)
    for scan in rng.choice(scans, size=rng.integers(1, 6)):
        alpha = random_alpha(material, int(scan), rng, sides)
        box = place(alpha, size_hw, objects, rng)
        if box is None:
            continue
        faint = rng.random() < 0.04
        paint(image, alpha, box[0], box[1], rng, faint)
        objects.append(SceneObject(int(material.labels[scan]), box, difficult=faint))
    return add_noise(image, rng), objects


def make_crop(material: Material, scan: int, rng: np.random.Generator) -> Image:
    """One digit in a square of CROP_SIDE pixels, off centre, as large as it stands in the scenes: never rescaled."""
    alpha = random_alpha(material, scan, rng, CROP_DIGITS)[:CROP_SIDE, :CROP_SIDE]
    height, width = alpha.shape
    image = background(material.photographs, (CROP_SIDE, CROP_SIDE), rng)
    x, y = int(rng.integers(CROP_SIDE - width + 1)), int(rng.integers(CROP_SIDE - height + 1))
    paint(image, alpha, x, y, rng)
    return add_noise(image, rng)
