"""The VGG Image Annotator, version 1 and 2: its project or export as JSON, and its CSV. Boxes are in pixels from 0.

Rectangles, polygons, polylines, circles and ellipses become boxes; points have none and are left out, with a count. The class
of a region stands under one of its attributes, which the program leaves to people: if there is only one, it is that, and else
`label_key` names it. Where no region has an attribute, all are of one class, "object".
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.errors import first_names, shorten
from detection.config import FolderSource
from detection.data.faults import Faults
from detection.data.formats.contents import json_kind, read_ends
from detection.data.formats.named_images import (
    NamedImage,
    find_images,
    image_folder,
    inform_left_out,
    inform_of_unnamed,
    label_files,
    read_class_name,
)
from detection.data.formats.shapes import ellipse_box, points_box, sized_box
from detection.data.formats.tables import first_row, read_rows
from detection.data.labelled import LabelledImage, LabelledObject
from detection.data.records import Box, finite_number
from detection.errors import DatasetError
from detection.files import read_json

Json = dict[str, Any]

ONLY_CLASS = "object"
"""The class of regions without any attribute."""

COLUMNS = ("filename", "region_shape_attributes", "region_attributes")


@dataclass(frozen=True)
class _Region:
    """A region as the file has it."""

    shape: Json
    attributes: Json
    where: str


@dataclass(frozen=True)
class _Entry:
    """An image as the file has it."""

    name: str
    file: Path
    regions: Sequence[_Region]


def read_via(source: FolderSource, root: Path, faults: Faults) -> list[LabelledImage]:
    """The images of VIA's files. Raises DatasetError, also where it cannot be told which attribute is the class."""
    entries = [entry for file in _files(source, root) for entry in _read_file(file, faults)]
    key = _label_key(entries, source, root, faults)
    left_out, named = Counter[str](), list[NamedImage]()
    for entry in entries:
        objects = [_read_region(region, key, left_out, faults) for region in entry.regions]
        named.append(NamedImage(entry.name, entry.file, [each for each in objects if each is not None]))
    inform_left_out(left_out, root, faults)
    found = find_images(named, root, [image_folder(source, root)], faults)
    inform_of_unnamed(found, source, root, faults)
    return found


def _files(source: FolderSource, root: Path) -> list[Path]:
    try:
        return label_files(source, root, ".json", lambda file: json_kind(read_ends(file)) == "via", "JSON of VIA")
    except DatasetError:
        if source.annotations is not None:
            raise
        return label_files(source, root, ".csv", is_via_table, "JSON or CSV of VIA")


def is_via_table(path: Path) -> bool:
    """Whether a table is VIA's, by its header. Raises DatasetError if it cannot be read."""
    return set(COLUMNS) <= {cell.strip().lstrip("#") for cell in first_row(read_ends(path))}


def _read_file(file: Path, faults: Faults) -> list[_Entry]:
    if file.suffix.lower() == ".csv":
        return _read_table(file)
    content = read_json(file)
    images = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(images, dict):
        raise DatasetError(f"{file} is no file of VIA: it must hold an object of images, found {shorten(content)}")
    entries = []
    for key, image in images.items():
        with faults.guard():
            entries.append(_read_entry(image, f"{file}: {shorten(key)}", file))
    return entries


def _read_entry(image: Any, where: str, file: Path) -> _Entry:
    name = image.get("filename") if isinstance(image, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise DatasetError(f"{where} has no text 'filename': {shorten(image)}")
    regions = image.get("regions", [])
    listed = list(regions.values()) if isinstance(regions, dict) else regions  # version 1 numbers them
    if not isinstance(listed, list):
        raise DatasetError(f"{where}: 'regions' must be a list or an object, found {shorten(regions)}")
    return _Entry(name, file, [_region(each, f"{where}, region {number}") for number, each in enumerate(listed)])


def _region(value: Any, where: str) -> _Region:
    parts = [value.get(key) if isinstance(value, dict) else None for key in ("shape_attributes", "region_attributes")]
    shape, attributes = parts[0], {} if parts[1] is None else parts[1]
    if not isinstance(shape, dict) or not isinstance(attributes, dict):
        raise DatasetError(f"{where} must have objects 'shape_attributes' and 'region_attributes', found {shorten(value)}")
    return _Region(shape, attributes, where)


def _read_table(file: Path) -> list[_Entry]:
    rows = read_rows(file)
    header = [cell.strip().lstrip("#") for cell in next(rows, (0, []))[1]]
    if not set(COLUMNS) <= set(header):
        raise DatasetError(f"{file} is no CSV of VIA: its first line must name {', '.join(COLUMNS)}")
    indices = [header.index(name) for name in COLUMNS]
    images: dict[str, list[_Region]] = {}
    for number, row in rows:
        where = f"{file}, line {number}"
        if len(row) <= max(indices):
            raise DatasetError(f"{where} has {len(row)} columns, and its header has {len(header)}")
        name, shape, attributes = (row[index] for index in indices)
        if not name.strip():
            raise DatasetError(f"{where} names no image")
        regions = images.setdefault(name, [])
        if _cell(shape, where):  # an image without regions has a row too
            regions.append(_Region(_cell(shape, where), _cell(attributes, where), where))
    return [_Entry(name, file, regions) for name, regions in images.items()]


def _cell(text: str, where: str) -> Json:
    """The object that a cell holds as JSON; an empty one where the cell is empty."""
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        raise DatasetError(f"{where}: {shorten(text)} is not valid JSON") from None
    if not isinstance(value, dict):
        raise DatasetError(f"{where}: {shorten(text)} must be an object of JSON")
    return value


def _label_key(entries: Sequence[_Entry], source: FolderSource, root: Path, faults: Faults) -> str | None:
    """Which attribute is the class; None where there are no attributes. What is guessed is told."""
    counts = Counter(key for entry in entries for region in entry.regions for key in region.attributes)
    if source.label_key is not None:
        if counts and source.label_key not in counts:
            there = first_names(list(counts))
            raise DatasetError(f"no region of {root} has the attribute '{source.label_key}' (label_key); there are: {there}")
        return source.label_key
    if len(counts) > 1:
        found = "; ".join(f"{shorten(key)}: {', '.join(_examples(entries, key))}" for key in list(counts)[:5])
        raise DatasetError(
            f"the regions of {root} have several attributes: set label_key of the source to the class's ({found})"
        )
    if counts:
        faults.inform(f"{root}: the attribute {shorten(next(iter(counts)))} of the regions is taken for their class")
    elif any(entry.regions for entry in entries):
        faults.inform(f"{root}: the regions have no attributes: all are of one class, '{ONLY_CLASS}'")
    return next(iter(counts), None)


def _examples(entries: Sequence[_Entry], key: str) -> list[str]:
    """Up to three values of an attribute, for a message."""
    values = (region.attributes[key] for entry in entries for region in entry.regions if key in region.attributes)
    return list(dict.fromkeys(shorten(value) for _, value in zip(range(50), values, strict=False)))[:3]


def _read_region(region: _Region, key: str | None, left_out: Counter[str], faults: Faults) -> LabelledObject | None:
    """The object of a region, or None where it has no box, which is counted in `left_out` or noted in `faults`."""
    if region.shape.get("name") == "point":
        left_out["point"] += 1
        return None
    box = _box(region.shape)
    if box is None:
        faults.note(f"{region.where}: {shorten(region.shape)}", "region without its numbers", "dropped")
        return None
    name = ONLY_CLASS if key is None else read_class_name(_chosen(region.attributes.get(key)), region.where, faults)
    return None if name is None else LabelledObject(name, box, region.where)


def _chosen(value: Any) -> Any:
    """The value of an attribute; of boxes to tick, {"cat": true, "dog": false}, the only one that is ticked."""
    ticked = [name for name, is_ticked in value.items() if is_ticked is True] if isinstance(value, dict) else []
    return ticked[0] if len(ticked) == 1 else None if value == {} else value


def _box(shape: Mapping[str, Any]) -> Box | None:
    kind = shape.get("name")
    if kind == "rect":
        return sized_box([shape.get(key) for key in ("x", "y", "width", "height")])
    if kind == "circle":
        return ellipse_box([shape.get(key) for key in ("cx", "cy", "r", "r")])
    if kind == "ellipse":
        return ellipse_box([shape.get(key) for key in ("cx", "cy", "rx", "ry")], _degrees(shape.get("theta", 0)))
    xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
    return points_box(xs, ys) if isinstance(xs, list) and isinstance(ys, list) else None


def _degrees(radians: Any) -> Any:
    angle = finite_number(radians)
    return radians if angle is None else math.degrees(angle)
