"""COCO's instance annotations: one JSON file, one folder of images.

Category ids of the file (1..90 with gaps, or anything) are matched to classes by name. Boxes are `xywh` in the file,
continuous and 0-based, and `xyxy` here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from detection.config import CocoSource
from detection.data.faults import Faults
from detection.data.images import image_size
from detection.data.records import AnnotatedObject, Box, list_files, make_record, repair_box
from detection.errors import DatasetError, did_you_mean
from detection.files import read_json
from detection.structures import Record

Json = dict[str, Any]


@dataclass(frozen=True)
class CocoFile:
    """A parsed annotation file. Each entry of its lists has at least the keys that `read_coco_file` checks."""

    path: Path
    images: list[Json]
    annotations: list[Json]
    categories: list[Json]


def read_coco(source: CocoSource, root: Path, class_names: Sequence[str], faults: Faults) -> list[Record]:
    """The images of a file, in its order. `root` is the source's, resolved.

    Raises DatasetError: no such file or folder, JSON cut short, a key missing, an image missing or listed twice,
    annotations of unknown images or categories, none of the classes among the categories.
    """
    content = read_coco_file(root / source.annotations)
    labels = match_categories(content, class_names, faults)
    folder = root / source.images
    present = list_files(folder)
    with faults.guard():
        _check_unique(content)
    with faults.guard():
        _check_references(content, "image_id", {image["id"] for image in content.images}, "images")
    with faults.guard():
        _check_references(content, "category_id", set(labels), "categories")
    annotations = defaultdict(list)
    for annotation in content.annotations:
        annotations[annotation["image_id"]].append(annotation)
    records = []
    for image in content.images:
        with faults.guard():
            file = _find_image(folder, image["file_name"], present, content.path)
            records.append(_read_image(image, file, annotations[image["id"]], labels, content.path, faults))
    return records


def read_coco_file(path: Path) -> CocoFile:
    """Read a file and check that its lists hold what is needed. Raises DatasetError."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(
            f"{path} must hold an object with images, annotations and categories, not a {type(content).__name__}"
        )
    return CocoFile(
        path,
        _entries(content, "images", ("id", "file_name"), path),
        _entries(content, "annotations", ("image_id", "category_id"), path),
        _entries(content, "categories", ("id", "name"), path),
    )


def _entries(content: Json, key: str, needed: Sequence[str], path: Path) -> list[Json]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DatasetError(f"{path} has no list '{key}'")
    for number, entry in enumerate(entries):
        missing = [name for name in needed if not isinstance(entry, dict) or not isinstance(entry.get(name), int | str)]
        if missing:
            raise DatasetError(f"{path}: {key}[{number}] has no '{missing[0]}'")
    return entries


def match_categories(content: CocoFile, class_names: Sequence[str], faults: Faults) -> dict[int | str, int | None]:
    """Category id -> label, or None for a category that is not among the classes.

    Categories that are left out are counted in a message. A class that the file lacks is a fault: it may be misspelt.
    """
    wanted = {name: label for label, name in enumerate(class_names)}
    names = [str(category["name"]) for category in content.categories]
    if not wanted.keys() & set(names):
        known = ", ".join(names[:10]) or "none"
        raise DatasetError(f"{content.path} has none of data.classes ({', '.join(class_names)}); its categories: {known}")
    for name in class_names:
        if name not in names:
            faults.note(f"{content.path}: '{name}'{did_you_mean(name, names)}", "class that is no category", "without objects")
    labels = {category["id"]: wanted.get(str(category["name"])) for category in content.categories}
    skipped = Counter(annotation["category_id"] for annotation in content.annotations)
    unwanted = sum(skipped[category] for category, label in labels.items() if label is None)
    if unwanted:
        faults.inform(f"{content.path}: {unwanted} objects of categories that are not in data.classes are left out")
    return labels


def _check_unique(content: CocoFile) -> None:
    counts = Counter(image["id"] for image in content.images)
    repeated = [image_id for image_id, count in counts.items() if count > 1]
    if repeated:
        raise DatasetError(f"{content.path} lists {len(repeated)} image ids more than once; the first: {repeated[0]!r}")


def _check_references(content: CocoFile, key: str, known: set[int | str], listed: str) -> None:
    dangling = [annotation for annotation in content.annotations if annotation[key] not in known]
    if dangling:
        first = f"annotation {dangling[0].get('id')} has {key} {dangling[0][key]!r}"
        raise DatasetError(f"{content.path}: {len(dangling)} annotations refer to none of its {listed}; the first: {first}")


def _find_image(folder: Path, name: str, present: set[str], path: Path) -> Path:
    file = folder / name
    if name not in present and not file.is_file():
        raise DatasetError(f"{path} lists an image that does not exist: {file}")
    return file


def _read_image(
    image: Json, file: Path, annotations: Sequence[Json], labels: Mapping[int | str, int | None], path: Path, faults: Faults
) -> Record:
    height, width = (_side(image.get(key)) for key in ("height", "width"))
    size_hw = (height, width) if height and width else image_size(file)
    objects = []
    for annotation in annotations:
        label = labels.get(annotation["category_id"])
        if label is not None:
            with faults.guard():
                where = f"{path}: annotation {annotation.get('id')} of {file.name}"
                annotated = _read_object(annotation, label, size_hw, where, faults)
                objects += [] if annotated is None else [annotated]
    return make_record(image["id"], file, size_hw, objects)


def _side(value: Any) -> int | None:
    """A height or width of at least 1 px, or None where the file has no such number."""
    return int(value) if isinstance(value, int | float) and isfinite(value) and value >= 1 else None


def _read_object(annotation: Json, label: int, size_hw: tuple[int, int], where: str, faults: Faults) -> AnnotatedObject | None:
    """The object, or None where it was dropped, which is noted in `faults`."""
    xywh = annotation.get("bbox")
    if not (isinstance(xywh, list) and len(xywh) == 4 and all(map(_is_number, xywh))):
        faults.note(f"{where}: bbox {xywh!r}", "bbox that is not four numbers", "dropped")
        return None
    box = repair_box(_to_xyxy(xywh), size_hw, f"{where}, bbox {xywh}", faults)
    if box is None:
        return None
    area = annotation.get("area")
    crowd = bool(annotation.get("iscrowd", 0))
    return AnnotatedObject(box, label, crowd=crowd, area=area if _is_number(area) else xywh[2] * xywh[3])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _to_xyxy(xywh: Sequence[float]) -> Box:
    x, y, width, height = xywh
    return x, y, x + width, y + height
