"""Write the sample data as VOC devkit, COCO JSON and class folders. The same options give the same files, byte for byte.

Every scan of a digit belongs to one split, so that the test split's handwriting is unseen in training.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import cv2
import numpy as np
import numpy.typing as npt

from detection.data.catalog import data_home
from detection.data.digits.drawing import (
    CLASSES,
    Image,
    Material,
    SceneObject,
    load_material,
    make_crop,
    make_scene,
    split_scans,
)
from detection.errors import DatasetError

GENERATOR_VERSION = 5
LARGEST_DIGIT = 200  # pixels; turned, it must fit into the scenes


@dataclass(frozen=True)
class DigitsOptions:
    """What decides the files' contents. Their order is that of digits.json."""

    seed: int = 0
    train: int = 2500  # images
    val: int = 100
    test: int = 200
    crops: int = 12000  # single digits for the classification stage, training split
    image_size: int = 256  # longer side in pixels; the shorter is 3/4 of it
    min_digit: int = 24  # height of the smallest digits in pixels
    max_digit: int = 128


def make_digits(folder: Path, options: DigitsOptions | None = None, *, force: bool = False) -> bool:
    """Make the sample data in `folder`; False, and nothing done, where this very set is there already.

    `force` replaces a set that was made with other options. Raises DatasetError for impossible options, for a folder that
    holds anything else, and where scikit-learn is not installed; OSError where the files cannot be written.
    """
    options = DigitsOptions() if options is None else options
    _check_sizes(options)
    if not _is_wanted(folder, options, force):
        return False
    _write(folder, options)
    return True


def default_folder() -> Path:
    """Where the configs look for it: below $RESDET_DATASETS, else below datasets/ in the working folder."""
    return data_home() / "digits"


def _check_sizes(options: DigitsOptions) -> None:
    if not 128 <= options.image_size <= 424:
        raise DatasetError(f"image_size must be 128 to 424, for the photographs are 640 x 427; got {options.image_size}")
    largest = min(options.image_size * 3 // 4, LARGEST_DIGIT)
    if not 8 <= options.min_digit <= options.max_digit <= largest:
        digits = f"min_digit {options.min_digit} and max_digit {options.max_digit}"
        raise DatasetError(f"{digits} must be ascending and 8 to {largest}, the shorter side of the images at most")


def _is_wanted(folder: Path, options: DigitsOptions, force: bool) -> bool:
    """False where this very set is there. Raises DatasetError for another set, unless `force`, and for any other folder."""
    if not folder.exists() and not folder.is_symlink():
        return True
    found = read_stamp(folder)
    if found is None:
        # Not even with force: it would delete someone's files.
        raise DatasetError(f"{folder} exists and is no sample data set; choose another folder")
    if found != stamp(options) and not force:
        raise DatasetError(f"{folder} was made with other options; --force replaces it")
    return found != stamp(options)


def _write(folder: Path, options: DigitsOptions) -> None:
    """Write everything below `folder`: built beside it and moved there when complete, in place of an older set."""
    material = load_material()
    splits = split_scans(material.labels, np.random.default_rng(options.seed))
    building = folder.with_name(folder.name + ".part")
    shutil.rmtree(building, ignore_errors=True)
    num_images = {"train": options.train, "val": options.val, "test": options.test}
    num_crops = {"train": options.crops, "val": max(options.crops // 10, len(CLASSES))}
    parts: list[Callable[[], None]] = []
    for index, (split, scans) in enumerate(splits.items()):
        # A stream for each part, so that more training images leave the test split as it is.
        rng = np.random.default_rng([options.seed, index])
        parts.append(partial(write_scenes, building, split, material, scans, rng, num_images[split], options))
        if split in num_crops:
            rng = np.random.default_rng([options.seed, index, 1])
            parts.append(partial(write_crops, building / "crops" / split, num_crops[split], material, scans, rng))
    # NumPy and OpenCV leave the interpreter free while they compute: two threads keep two cores busy.
    with ThreadPoolExecutor(2) as pool:
        for part in [pool.submit(part) for part in parts]:
            part.result()
    (building / "digits.json").write_text(json.dumps(stamp(options), indent=2) + "\n", encoding="utf-8")
    _put_in_place(folder, building)


def _put_in_place(folder: Path, new: Path) -> None:
    """Put the folder `new` in the place of `folder`, which need not exist."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def stamp(options: DigitsOptions) -> dict[str, Any]:
    """The content of digits.json: what decides the files' contents."""
    return {"generator_version": GENERATOR_VERSION, **asdict(options)}


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """The parameters that a folder was made with; None if it is no folder of ours."""
    try:
        found = json.loads((folder / "digits.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def voc_xml(name: str, image: Image, objects: list[SceneObject]) -> str:
    """A devkit annotation: 1-based boxes with both ends included. A crowd has no place in VOC but as a difficult object."""
    height, width = image.shape[:2]
    lines = ["<annotation>", f"  <folder>VOC2007</folder>\n  <filename>{escape(name)}</filename>"]
    lines.append(f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n  <segmented>0</segmented>")
    for each in objects:
        x1, y1, x2, y2 = each.box
        lines.append(
            f"  <object>\n    <name>{CLASSES[each.label]}</name>\n    <pose>Unspecified</pose>\n    <truncated>0</truncated>\n"
            f"    <difficult>{int(each.difficult or each.crowd)}</difficult>\n"
            f"    <bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>\n  </object>"
        )
    return "\n".join([*lines, "</annotation>"]) + "\n"


def coco_json(scenes: list[tuple[str, Image, list[SceneObject]]]) -> dict[str, Any]:
    """COCO's annotations of the same images."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, image, objects) in enumerate(scenes, start=1):
        images.append({"id": image_id, "file_name": name, "height": image.shape[0], "width": image.shape[1]})
        for each in objects:
            x1, y1, x2, y2 = each.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": each.label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(each.crowd),
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
    num_images: int,
    options: DigitsOptions,
) -> None:
    """One split as a VOC devkit and as a COCO JSON that points to the same images."""
    devkit = folder / "VOCdevkit" / "VOC2007"
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (devkit / name).mkdir(parents=True, exist_ok=True)
    scenes = []
    for index in range(num_images):
        image, objects = make_scene(material, scans, rng, options.image_size, (options.min_digit, options.max_digit))
        name = f"{split}_{index:05d}"
        write_image(devkit / "JPEGImages" / f"{name}.jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        (devkit / "Annotations" / f"{name}.xml").write_text(voc_xml(f"{name}.jpg", image, objects), encoding="utf-8")
        scenes.append((f"{name}.jpg", image, objects))
    stems = "".join(f"{Path(name).stem}\n" for name, _, _ in scenes)
    (devkit / "ImageSets" / "Main" / f"{split}.txt").write_text(stems, encoding="utf-8")
    annotations = folder / "coco" / "annotations"
    annotations.mkdir(parents=True, exist_ok=True)
    (annotations / f"instances_{split}.json").write_text(json.dumps(coco_json(scenes)), encoding="utf-8")


def write_crops(folder: Path, count: int, material: Material, scans: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
    """`count` single digits in class folders; every scan in turn, so that all are used alike."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    order = np.resize(rng.permutation(scans), count)
    for index, scan in enumerate(order):
        crop = make_crop(material, int(scan), rng)
        path = folder / CLASSES[material.labels[scan]] / f"{index:05d}.png"
        write_image(path, crop)
