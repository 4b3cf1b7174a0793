"""COCO's JSON by one set of rules, for training, `check-dataset` and evaluation alike. docs/custom-data.md has them in words.

Ids of images and categories are whole numbers or texts; 1 and "1" are two ids. Ids of annotations only name them in messages.
Boxes are (x, y, width, height), continuous and 0-based, as they stand in the file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from backbones.errors import printable, shorten
from detection.data.faults import Faults
from detection.data.records import finite_number
from detection.errors import DatasetError
from detection.files import read_json

Json = dict[str, Any]
CocoId = int | str

MAX_COORDINATE = 1e9
"""px; a larger one is a mistake, and its box has an area that float32 cannot hold."""

_MAX_AREA = MAX_COORDINATE**2
_LAST_EXACT_FLOAT = 2**53  # a larger float may stand for several whole numbers


class CocoImage(NamedTuple):
    """An image with its checked id; `entry` is all that the file says about it."""

    position: int
    id: CocoId
    entry: Json


class CocoAnnotation(NamedTuple):
    """An annotation whose references are checked. What `entry` says about its object, `read_object` reads."""

    position: int
    id: CocoId | None
    image_id: CocoId
    category_id: CocoId
    entry: Json

    @property
    def name(self) -> str:
        """What messages call it: "annotation 17", or its place in the file if it has no id."""
        if self.id is None:
            return f"annotations[{self.position}]"
        return f"annotation {self.id if isinstance(self.id, int) and abs(self.id) < 10**18 else shorten(self.id)}"


class CocoObject(NamedTuple):
    """An object whose values are checked."""

    xywh: list[float]
    area: float  # px^2; the box's own where the file has none
    crowd: bool


@dataclass(frozen=True)
class CocoFile:
    """A parsed annotation file. Annotations refer to its images and categories only."""

    path: Path
    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: dict[CocoId, str]  # id -> name


def read_coco_file(path: Path, faults: Faults) -> CocoFile:
    """Read a file and check its ids and references.

    Raises DatasetError naming the entry and its value: a list is missing, an id is neither a whole number nor text, an image
    or category id is used twice, a category has no name, an annotation refers to no image or category. With
    `faults.collect`, repeated image ids and unknown references are kept in `faults`, and stay in what is returned.
    """
    content = read_json(path, once=("images", "annotations", "categories"))
    if not isinstance(content, dict):
        raise DatasetError(f"{path} is no COCO annotation file: it must hold an object with lists, found {shorten(content)}")
    entries = _entries(content, "images", path)
    images = list(map(CocoImage, range(len(entries)), _ids(entries, "id", f"{path}: images"), entries))
    categories = _read_categories(content, path, faults)
    entries, where = _entries(content, "annotations", path), f"{path}: annotations"
    image_ids, category_ids = (_ids(entries, key, where) for key in ("image_id", "category_id"))
    own_ids = [read_id(entry.get("id")) for entry in entries]
    annotations = list(map(CocoAnnotation, range(len(entries)), own_ids, image_ids, category_ids, entries))
    with faults.guard():
        _require_unique([image.id for image in images], f"{path} lists", "image ids")
    with faults.guard():
        _require_known(annotations, "image_id", {image.id for image in images}, f"{path}: ", "images")
    with faults.guard():
        _require_known(annotations, "category_id", categories, f"{path}: ", "categories")
    _inform_of_ids(annotations, path, faults)
    return CocoFile(path, images, annotations, categories)


def read_object(annotation: CocoAnnotation, image: str, path: Path, faults: Faults) -> CocoObject | None:
    """An annotation's object, or None where it has no usable box, which is noted in `faults`. `image` is for messages.

    Raises DatasetError for an `iscrowd` that is neither 0 nor 1.
    """
    entry = annotation.entry
    xywh = read_box(entry.get("bbox"))
    if xywh is None or not within_bounds(xywh):
        fault = "bbox that is not four numbers" if xywh is None else f"bbox beyond {MAX_COORDINATE:.0e} px"
        faults.note(f"{describe(annotation, image, path)}: bbox {shorten(entry.get('bbox'))}", fault, "dropped")
        return None
    area, crowd = finite_number(entry.get("area")), entry.get("iscrowd")
    if area is None or not 0 <= area <= _MAX_AREA:
        area = _area_of_box(entry, xywh, describe(annotation, image, path), faults)
    if crowd not in (0, 1):
        crowd = _other_crowd(crowd, describe(annotation, image, path), faults)
    return CocoObject(xywh, area, bool(crowd))


def describe(annotation: CocoAnnotation, image: str, path: Path) -> str:
    """Where an annotation is, for messages: "a.json: annotation 17 of 1.jpg"."""
    return f"{path}: {annotation.name} of {image}"


def read_box(value: Any) -> list[float] | None:
    """A JSON value as (x, y, width, height), or None if it is no list of four finite numbers."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    x, y, width, height = value
    if type(x) is type(y) is type(width) is type(height) is float and math.isfinite(x + y + width + height):
        return value  # as nearly all of a file's millions are
    numbers = [number for number in map(finite_number, value) if number is not None]
    return numbers if len(numbers) == 4 else None


def within_bounds(xywh: Sequence[float]) -> bool:
    """Whether each of four finite numbers is at most MAX_COORDINATE, and at least its negative."""
    x, y, width, height = xywh
    # Two comparisons of each are several times quicker than min() and max().
    limit = MAX_COORDINATE
    return -limit <= x <= limit and -limit <= y <= limit and -limit <= width <= limit and -limit <= height <= limit


def read_id(value: Any) -> CocoId | None:
    """A JSON value as an id: a whole number, which may be written 1.0, or text; None for anything else."""
    if type(value) is int or type(value) is str:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LAST_EXACT_FLOAT:
        return int(value)
    return None


def other_kind(unknown: CocoId, known: Collection[CocoId]) -> str:
    """The end of a message about an id that is unknown, but known as text instead of a number or the other way round."""
    if isinstance(unknown, int):
        return f"; it is the text '{unknown}' there: write both alike" if str(unknown) in known else ""
    number = int(unknown) if unknown.isascii() and unknown.isdigit() and len(unknown) < 20 else None
    return f"; it is the number {number} there: write both alike" if number is not None and number in known else ""


def shared_names(categories: dict[CocoId, str]) -> list[str]:
    """Names that several categories have, which count as one class, in the file's order."""
    return [name for name, count in Counter(categories.values()).items() if count > 1]


def _entries(content: Json, key: str, path: Path) -> list[Json]:
    """The entries of a list, all of them objects."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DatasetError(f"{path} is no COCO annotation file: it has no list '{key}'")
    bad = next((number for number, entry in enumerate(entries) if not isinstance(entry, dict)), None)
    if bad is not None:
        raise DatasetError(f"{path}: {key}[{bad}] must be an object, found {shorten(entries[bad])}")
    return entries


def _ids(entries: Sequence[Json], key: str, where: str) -> list[CocoId]:
    """The id under a key of each entry."""
    ids = [read_id(entry.get(key)) for entry in entries]
    if None in ids:
        number = ids.index(None)
        found = f" has no '{key}'"
        if key in entries[number]:
            found = f": '{key}' must be a whole number or text, found {shorten(entries[number][key])}"
        raise DatasetError(f"{where}[{number}]{found}")
    return cast("list[CocoId]", ids)


def _read_categories(content: Json, path: Path, faults: Faults) -> dict[CocoId, str]:
    categories: dict[CocoId, str] = {}
    entries = _entries(content, "categories", path)
    for number, (entry, category) in enumerate(zip(entries, _ids(entries, "id", f"{path}: categories"), strict=True)):
        name = _category_name(entry, f"{path}: categories[{number}]")
        if category in categories:
            names = f"{shorten(categories[category])} and {shorten(name)}"
            raise DatasetError(f"{path}: categories: id {shorten(category)} is used twice, for {names}")
        categories[category] = name
    for name in shared_names(categories):
        ids = ", ".join(shorten(each) for each, its_name in categories.items() if its_name == name)
        faults.inform(f"{path}: the categories {ids} have one name, {shorten(name)}: they count as one class")
    return categories


def _category_name(entry: Json, where: str) -> str:
    """The name; one that is a whole number, as of digits, becomes text."""
    if "name" not in entry:
        raise DatasetError(f"{where} has no 'name'")
    name = read_id(entry["name"])
    if name is None or not str(name).strip():
        raise DatasetError(f"{where}: 'name' must be text, found {shorten(entry['name'])}")
    return str(name)


def _require_unique(ids: Sequence[CocoId], where: str, what: str) -> None:
    repeated = [each for each, count in Counter(ids).items() if count > 1]
    if repeated:
        raise DatasetError(f"{where} {len(repeated)} {what} more than once; the first: {shorten(repeated[0])}")


def _require_known(annotations: Sequence[CocoAnnotation], key: str, known: Collection[CocoId], where: str, listed: str) -> None:
    dangling = [each for each in annotations if getattr(each, key) not in known]
    if dangling:
        unknown = getattr(dangling[0], key)
        first = f"{dangling[0].name} has {key} {shorten(unknown)}{other_kind(unknown, known)}"
        raise DatasetError(f"{where}{len(dangling)} annotations refer to none of its {listed}; the first: {first}")


def _inform_of_ids(annotations: Sequence[CocoAnnotation], path: Path, faults: Faults) -> None:
    """Say how many annotations have no id of their own: each counts all the same, but other tools lose some of them."""
    counts = Counter(each.id for each in annotations)
    without = counts.pop(None, 0)
    repeated = [each for each, count in counts.items() if count > 1]
    if without:
        faults.inform(f"{path}: {without} annotations have no usable id; each counts")
    if repeated:
        faults.inform(
            f"{path}: {len(repeated)} annotation ids are used more than once, e.g. {shorten(repeated[0])}; each counts"
        )


def _area_of_box(entry: Json, xywh: Sequence[float], where: str, faults: Faults) -> float:
    if entry.get("area") is not None:
        faults.note(f"{where}: area {shorten(entry['area'])}", "area that is no number from 0 on", "taken from the box")
    return xywh[2] * xywh[3]


def _other_crowd(value: Any, where: str, faults: Faults) -> bool:
    """What `iscrowd` says where it is neither 0 nor 1."""
    if value not in (None, "0", "1"):
        raise DatasetError(f"{where}: 'iscrowd' must be 0 or 1, found {shorten(value)}")
    if value is not None:
        faults.note(f"{where}: iscrowd {value!r}", "text for a number", "taken as that number")
    return value == "1"


def image_name(image: CocoImage) -> str:
    """What messages call an image: the last part of its file name, or else its id."""
    name = image.entry.get("file_name")
    return printable(name.rpartition("/")[2]) if isinstance(name, str) and name else f"image {shorten(image.id)}"
