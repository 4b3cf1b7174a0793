"""labelme: a JSON file for each image, with its size and shapes in pixels from 0.

Polygons, circles, masks and turned rectangles become the boxes around them; what has no extent (points, lines) is left out,
with a count. Shapes of one label and one group are one object, of which some parts are hidden. Polygons are its mask, too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from backbones.errors import printable, shorten
from detection.config import FolderSource
from detection.data.faults import Faults
from detection.data.formats.contents import json_kind, read_ends
from detection.data.formats.image_labels import ImagesOfLabels, label_files_of, some_are, sources_of_splits
from detection.data.formats.listing import FolderListing
from detection.data.formats.named_images import path_below, read_class_name, read_size
from detection.data.formats.shapes import points_box, read_numbers
from detection.data.labelled import LabelledImage, LabelledObject
from detection.data.records import Box
from detection.errors import DatasetError, MissingImageError
from detection.files import read_json
from detection.polygons import pack_polygons, unpack_polygons

Json = dict[str, Any]

MAX_BYTES = 1 << 29
"""Of a file, which may hold its image as text: an image of 180 million pixels, compressed to two bytes for each."""

_LEAST_POINTS = {"rectangle": 2, "polygon": 3, "circle": 2, "mask": 2, "oriented_rectangle": 3, "rotation": 3}
_WITHOUT_EXTENT = ("point", "points", "line", "linestrip")


@dataclass
class _Counts:
    """What is told about a source."""

    without_extent: Counter[str] = field(default_factory=Counter)
    grouped: int = 0  # shapes that are one object with another


def read_labelme(source: FolderSource, root: Path, faults: Faults) -> list[LabelledImage]:
    """The images of a folder that have a JSON file of labelme. Raises DatasetError."""
    images, counts, others, found = ImagesOfLabels(source, root), _Counts(), list[Path](), list[LabelledImage]()
    files = label_files_of(source, root, ".json")
    for file in files:
        with faults.guard():
            content = read_json(file, max_bytes=MAX_BYTES)
            if isinstance(content, dict) and isinstance(content.get("shapes"), list):
                found.append(_read_image(content, file, root, images, counts, faults))
            else:
                others.append(file)
    if len(others) == len(files):
        raise images.none_found("JSON files of labelme")
    if others:
        faults.inform(f"{root}: {len(others)} JSON files are not labelme's, e.g. {printable(str(others[0]))}")
    images.inform(faults)
    _inform(counts, root, faults)
    return found


def find(listing: FolderListing) -> list[FolderSource]:
    """The sources of a folder with labelme's files, one for each of its splits; none where there are none."""
    files = listing.by_suffix.get(".json", ())
    return sources_of_splits(listing, files, "labelme") if some_are(listing, files, is_labelme) else []


def is_labelme(file: Path) -> bool:
    """Whether a JSON file, by its ends, is labelme's."""
    return json_kind(read_ends(file)) == "labelme"


def _read_image(
    content: Json, file: Path, root: Path, images: ImagesOfLabels, counts: _Counts, faults: Faults
) -> LabelledImage:
    name = content.get("imagePath")
    try:
        image = images.find([name] if isinstance(name, str) and name.strip() else [], file)
    except MissingImageError as error:
        inside = "; its pixels are in the file: labelme_export_json takes them out" if content.get("imageData") else ""
        raise MissingImageError(f"{error.args[0]}{inside}") from None
    size_hw = read_size(content.get("imageHeight"), content.get("imageWidth"))
    objects = []
    for group in _groups(content["shapes"], counts):
        with faults.guard():
            found = [_read_shape(shape, f"{file}, shape {number}", counts, faults) for number, shape in group]
            objects += _joined([each for each in found if each is not None])
    return LabelledImage(path_below(image, root), image, str(file), size_hw, objects)


def _groups(shapes: Sequence[Any], counts: _Counts) -> list[list[tuple[int, Any]]]:
    """The shapes with their numbers, those of one label and one group together."""
    groups: dict[Any, list[tuple[int, Any]]] = {}
    for number, shape in enumerate(shapes, start=1):
        group = shape.get("group_id") if isinstance(shape, dict) else None
        key = number if group is None else (str(shape.get("label")), str(group))
        counts.grouped += key in groups
        groups.setdefault(key, []).append((number, shape))
    return list(groups.values())


def _joined(objects: Sequence[LabelledObject]) -> list[LabelledObject]:
    """The one object that some are parts of, in the box around them; none of none. It has a polygon if all parts have."""
    if len(objects) < 2:
        return list(objects)
    x1, y1, x2, y2 = zip(*(each.box for each in objects), strict=True)
    first, difficult = objects[0], any(each.difficult for each in objects)
    parts = [unpack_polygons(each.polygons) for each in objects if each.polygons is not None]
    polygons = pack_polygons(list(chain.from_iterable(parts))) if len(parts) == len(objects) else None
    box = min(x1), min(y1), max(x2), max(y2)
    return [LabelledObject(first.class_name, box, first.where, difficult, polygons=polygons)]


def _read_shape(shape: Any, where: str, counts: _Counts, faults: Faults) -> LabelledObject | None:
    """The object of a shape, or None where it has no box, which is counted or noted."""
    if not isinstance(shape, dict):
        raise DatasetError(f"{where} must be an object, found {shorten(shape)}")
    kind = shape.get("shape_type") or "polygon"  # which the first versions drew alone
    if kind in _WITHOUT_EXTENT:
        counts.without_extent[kind] += 1
        return None
    name = read_class_name(shape.get("label"), where, faults)
    box = _box(kind, shape.get("points"))
    if box is None:
        faults.note(f"{where}: {shorten(kind)} {shorten(shape.get('points'))}", "shape without its numbers", "dropped")
    if name is None or box is None:
        return None
    polygons = _polygons(shape["points"]) if kind == "polygon" else None
    where = f"{where} ({shorten(name)})"
    return LabelledObject(name, box, where, difficult=shape.get("difficult") is True, polygons=polygons)


def _polygons(points: Sequence[Sequence[Any]]) -> bytes | None:
    """The outline of points that have a box."""
    numbers = read_numbers(value for point in points for value in point)
    return None if numbers is None else pack_polygons([numbers])


def _box(kind: Any, points: Any) -> Box | None:
    """The box around a shape; None where it is of an unknown kind, or its points are not as many as it needs."""
    if not isinstance(kind, str) or kind not in _LEAST_POINTS or not isinstance(points, list):
        return None
    if len(points) < _LEAST_POINTS[kind] or not all(isinstance(point, list) and len(point) == 2 for point in points):
        return None
    xs, ys = (read_numbers(point[axis] for point in points) for axis in (0, 1))
    if xs is None or ys is None:
        return None
    if kind == "circle":  # its centre, and a point of its line
        radius = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
        return xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius
    box = points_box(xs, ys)
    # A mask's second point is its last pixel.
    return box if box is None or kind != "mask" else (box[0], box[1], box[2] + 1, box[3] + 1)


def _inform(counts: _Counts, root: Path, faults: Faults) -> None:
    if counts.without_extent:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in counts.without_extent.most_common())
        faults.inform(f"{root}: {counts.without_extent.total()} shapes without an extent are left out: {kinds}")
    if counts.grouped:
        faults.inform(f"{root}: {counts.grouped} shapes are parts of others of the same label and group")
