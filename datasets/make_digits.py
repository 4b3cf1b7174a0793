"""Make the sample data set: real handwritten digits on real photographs, as VOC devkit, COCO JSON and class folders.

The digits are the 8 x 8 scans of scikit-learn's `load_digits`, the photographs its two bundled ones. Every scan belongs to
one split, so that the test split's handwriting is unseen in training. The same seed gives the same files, byte for byte.

    python datasets/make_digits.py
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import cv2
import numpy as np
import numpy.typing as npt

GENERATOR_VERSION = 5
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLIT_SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
CROP_SIDE = 64
CROP_DIGITS = (28, 58)  # pixels: what fits into a crop
MOST_SHRUNK = 2.5  # photographs, so that their texture is as coarse in a crop as in a scene
LARGEST_DIGIT = 200  # pixels; turned, it must fit into the scenes

Image = npt.NDArray[np.uint8]
Alpha = npt.NDArray[np.float32]


class MakeError(ValueError):
    """The set cannot be made as asked: one line for the user."""


@dataclass(frozen=True)
class Thing:
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
    """scikit-learn's bundled scans and photographs. Raises MakeError where it is not installed."""
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError:
        raise MakeError("the sample data needs scikit-learn: pip install 'resdet[sample]'") from None
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


def ink_colour(patch: Image, rng: np.random.Generator, faint: bool) -> npt.NDArray[np.float32]:
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
    patch[:] = (patch * (1 - mask) + ink_colour(patch, rng, faint) * mask).astype(np.uint8)


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
    alpha: Alpha, size_hw: tuple[int, int], things: list[Thing], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """A free place for the ink, its box overlapping others by 30% at most; None if ten tries find none."""
    height, width = alpha.shape
    if height > size_hw[0] or width > size_hw[1]:
        return None
    for _ in range(10):
        x, y = int(rng.integers(size_hw[1] - width + 1)), int(rng.integers(size_hw[0] - height + 1))
        box = (x, y, x + width, y + height)
        if all(overlap(box, thing.box) <= 0.3 for thing in things):
            return box
    return None


def random_alpha(material: Material, scan: int, rng: np.random.Generator, sides: tuple[int, int]) -> Alpha:
    """A scan at a random size and tilt. 6 and 9 differ by half a turn, so 20 degrees is safe."""
    return digit_alpha(material.scans[scan], round(rng.uniform(*sides)), rng.uniform(-20, 20))


def add_crowd(
    image: Image, material: Material, scans: npt.NDArray[np.int64], things: list[Thing], rng: np.random.Generator
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
    things.append(Thing(label, box, crowd=True))


def make_scene(
    material: Material, scans: npt.NDArray[np.int64], rng: np.random.Generator, long_side: int, sides: tuple[int, int]
) -> tuple[Image, list[Thing]]:
    """An image, landscape or portrait, and what is in it: often 2 to 5 digits, sometimes nothing."""
    short = long_side * 3 // 4
    size_hw = (short, long_side) if rng.random() < 0.6 else (long_side, short)
    image = background(material.photographs, size_hw, rng)
    things: list[Thing] = []
    kind = rng.random()
    if kind < 0.05:
        return add_noise(image, rng), things
    if kind < 0.10:
        add_crowd(image, material, scans, things, rng)
    for scan in rng.choice(scans, size=rng.integers(1, 6)):
        alpha = random_alpha(material, int(scan), rng, sides)
        box = place(alpha, size_hw, things, rng)
        if box is None:
            continue
        faint = rng.random() < 0.04
        paint(image, alpha, box[0], box[1], rng, faint)
        things.append(Thing(int(material.labels[scan]), box, difficult=faint))
    return add_noise(image, rng), things


def make_crop(material: Material, scan: int, rng: np.random.Generator) -> Image:
    """One digit in a square of CROP_SIDE pixels, off centre, as large as it stands in the scenes: never rescaled."""
    alpha = random_alpha(material, scan, rng, CROP_DIGITS)[:CROP_SIDE, :CROP_SIDE]
    height, width = alpha.shape
    image = background(material.photographs, (CROP_SIDE, CROP_SIDE), rng)
    x, y = int(rng.integers(CROP_SIDE - width + 1)), int(rng.integers(CROP_SIDE - height + 1))
    paint(image, alpha, x, y, rng)
    return add_noise(image, rng)


def voc_xml(name: str, image: Image, things: list[Thing]) -> str:
    """A devkit annotation: 1-based boxes with both ends included. A crowd has no place in VOC but as a difficult object."""
    height, width = image.shape[:2]
    lines = ["<annotation>", f"  <folder>VOC2007</folder>\n  <filename>{escape(name)}</filename>"]
    lines.append(f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n  <segmented>0</segmented>")
    for thing in things:
        x1, y1, x2, y2 = thing.box
        lines.append(
            f"  <object>\n    <name>{CLASSES[thing.label]}</name>\n    <pose>Unspecified</pose>\n    <truncated>0</truncated>\n"
            f"    <difficult>{int(thing.difficult or thing.crowd)}</difficult>\n"
            f"    <bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>\n  </object>"
        )
    return "\n".join([*lines, "</annotation>"]) + "\n"


def coco_json(scenes: list[tuple[str, Image, list[Thing]]]) -> dict[str, Any]:
    """COCO's annotations of the same images."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, image, things) in enumerate(scenes, start=1):
        images.append({"id": image_id, "file_name": name, "height": image.shape[0], "width": image.shape[1]})
        for thing in things:
            x1, y1, x2, y2 = thing.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": thing.label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(thing.crowd),
                }
            )
    categories = [{"id": label + 1, "name": name, "supercategory": "digit"} for label, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_image(path: Path, image: Image, quality: Sequence[int] = ()) -> None:
    """Encode by the suffix. Raises OSError, as on a full disk, where cv2.imwrite would only return False."""
    _, data = cv2.imencode(path.suffix, image[..., ::-1], list(quality))
    path.write_bytes(data.tobytes())


def write_scenes(
    folder: Path,
    split: str,
    material: Material,
    scans: npt.NDArray[np.int64],
    rng: np.random.Generator,
    options: argparse.Namespace,
) -> None:
    """One split as a VOC devkit and as a COCO JSON that points to the same images."""
    devkit = folder / "VOCdevkit" / "VOC2007"
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (devkit / name).mkdir(parents=True, exist_ok=True)
    scenes = []
    for index in range(getattr(options, split)):
        image, things = make_scene(material, scans, rng, options.image_size, (options.min_digit, options.max_digit))
        name = f"{split}_{index:05d}"
        write_image(devkit / "JPEGImages" / f"{name}.jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        (devkit / "Annotations" / f"{name}.xml").write_text(voc_xml(f"{name}.jpg", image, things))
        scenes.append((f"{name}.jpg", image, things))
    stems = "".join(f"{Path(name).stem}\n" for name, _, _ in scenes)
    (devkit / "ImageSets" / "Main" / f"{split}.txt").write_text(stems)
    annotations = folder / "coco" / "annotations"
    annotations.mkdir(parents=True, exist_ok=True)
    (annotations / f"instances_{split}.json").write_text(json.dumps(coco_json(scenes)))


def write_crops(folder: Path, count: int, material: Material, scans: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
    """`count` single digits in class folders; every scan in turn, so that all are used alike."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    order = np.resize(rng.permutation(scans), count)
    for index, scan in enumerate(order):
        crop = make_crop(material, int(scan), rng)
        path = folder / CLASSES[material.labels[scan]] / f"{index:05d}.png"
        write_image(path, crop)


def make_dataset(folder: Path, options: argparse.Namespace) -> None:
    """Write everything below `folder`: built beside it and moved there when complete, in place of an older set."""
    material = load_material()
    splits = split_scans(material.labels, np.random.default_rng(options.seed))
    building = folder.with_name(folder.name + ".part")
    shutil.rmtree(building, ignore_errors=True)
    num_crops = {"train": options.crops, "val": max(options.crops // 10, len(CLASSES))}
    parts: list[Callable[[], None]] = []
    for index, (split, scans) in enumerate(splits.items()):
        # A stream for each part, so that more training images leave the test split as it is.
        rng = np.random.default_rng([options.seed, index])
        parts.append(partial(write_scenes, building, split, material, scans, rng, options))
        if split in num_crops:
            rng = np.random.default_rng([options.seed, index, 1])
            parts.append(partial(write_crops, building / "crops" / split, num_crops[split], material, scans, rng))
    # NumPy and OpenCV leave the interpreter free while they compute: two threads keep two cores busy.
    with ThreadPoolExecutor(2) as pool:
        for part in [pool.submit(part) for part in parts]:
            part.result()
    (building / "digits.json").write_text(json.dumps(stamp(options), indent=2) + "\n")
    replace(folder, building)


def replace(folder: Path, new: Path) -> None:
    """Put `new` in the place of `folder`, which need not exist."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def stamp(options: argparse.Namespace) -> dict[str, Any]:
    """What decides the files' contents."""
    parameters = {name: value for name, value in vars(options).items() if name not in ("output", "force")}
    return {"generator_version": GENERATOR_VERSION, **parameters}


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """The parameters that a folder was made with; None if it is no folder of ours."""
    try:
        found = json.loads((folder / "digits.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def positive(text: str) -> int:
    """An argument that counts something."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def natural(text: str) -> int:
    """A seed."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {number}")
    return number


def default_output() -> Path:
    """Where the configs look for it: below $RESDET_DATASETS, else in this script's folder."""
    return Path(os.environ.get("RESDET_DATASETS") or Path(__file__).parent) / "digits"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the sample data set of handwritten digits on photographs.")
    parser.add_argument("--output", type=Path, default=default_output(), help="default: %(default)s")
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--train", type=positive, default=2500, help="images")
    parser.add_argument("--val", type=positive, default=100, help="images")
    parser.add_argument("--test", type=positive, default=200, help="images")
    parser.add_argument(
        "--crops", type=positive, default=12000, help="single digits for the classification stage, training split"
    )
    parser.add_argument("--image-size", type=positive, default=256, help="longer side in pixels; the shorter is 3/4 of it")
    parser.add_argument("--min-digit", type=positive, default=24, help="height of the smallest digits in pixels")
    parser.add_argument("--max-digit", type=positive, default=128, help="height of the largest digits in pixels")
    parser.add_argument("--force", action="store_true", help="replace a set that was made with other parameters")
    return parser


def check(options: argparse.Namespace) -> bool:
    """Whether there is anything to do: False where this very set is there. Raises MakeError for what cannot be done."""
    if not 128 <= options.image_size <= 424:
        raise MakeError(f"--image-size must be 128 to 424, for the photographs are 640 x 427; got {options.image_size}")
    largest = min(options.image_size * 3 // 4, LARGEST_DIGIT)
    if not 8 <= options.min_digit <= options.max_digit <= largest:
        digits = f"--min-digit {options.min_digit} and --max-digit {options.max_digit}"
        raise MakeError(f"{digits} must be ascending and 8 to {largest}, the shorter side of the images at most")
    folder, found = options.output, read_stamp(options.output)
    if not folder.exists() and not folder.is_symlink():
        return True
    if found is None:
        # Not even with --force: it would delete someone's files.
        raise MakeError(f"{folder} exists and is no sample data set; choose another --output")
    if found != stamp(options) and not options.force:
        raise MakeError(f"{folder} was made with other parameters; --force replaces it")
    return found != stamp(options)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the set unless it is there."""
    options = build_parser().parse_args(argv)
    counts = f"{options.train} training, {options.val} validation and {options.test} test images"
    try:
        if not check(options):
            print(f"sample data: {options.output} is complete ({counts})")
            return 0
        make_dataset(options.output, options)
    except MakeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write {error.filename or options.output}: {error.strerror}", file=sys.stderr)
        return 2
    print(f"sample data: {options.output} made ({counts})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
