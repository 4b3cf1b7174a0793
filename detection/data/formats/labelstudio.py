"""Label Studio's exports as JSON and JSON-MIN: a list of tasks, one image each, with coordinates in percent.

Rectangles, polygons and ellipses become boxes; brushes and key points have none and are left out, with a count. Of several
annotations of one task the one that is marked as ground truth counts, or else the last; predictions do not. A task that nobody
has annotated is left out: its image is not known to be without objects.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from backbones.errors import shorten
from detection.config import FolderSource
from detection.data.faults import Faults
from detection.data.formats.contents import json_kind, read_ends
from detection.data.formats.listing import list_folder
from detection.data.formats.named_images import (
    NamedImage,
    find_images,
    image_folder,
    inform_left_out,
    label_files,
    read_class_name,
    read_size,
)
from detection.data.formats.shapes import ellipse_box, points_box, read_numbers, sized_box, turned_box
from detection.data.images import is_image_name
from detection.data.labelled import LabelledImage, LabelledObject
from detection.data.records import Box
from detection.errors import DatasetError
from detection.files import read_json

_SHAPES = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels")
_WITHOUT_BOX = ("brushlabels", "keypointlabels", "bitmasklabels", "vectorlabels", "videorectangle", "hypertextlabels")
_IMAGE_KEYS = ("image", "img", "picture", "photo", "url", "image_url")
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
_IMAGE_PATH = re.compile(r"/data/(upload|local-files)/", re.IGNORECASE)

Json = dict[str, Any]


@dataclass
class _Reading:
    """What is read of one file, and the counts of what is told about it."""

    path: Path
    faults: Faults
    left_out: Counter[str] = field(default_factory=Counter)
    unannotated: int = 0
    with_others: int = 0  # tasks with several annotations
    with_names: int = 0  # shapes with several classes


def read_labelstudio(source: FolderSource, root: Path, faults: Faults) -> list[LabelledImage]:
    """The images of Label Studio's export files, in the order of their tasks. Raises DatasetError."""
    files = label_files(
        source, root, ".json", lambda file: json_kind(read_ends(file)) == "labelstudio", "JSON export of Label Studio"
    )
    folder = image_folder(source, root)
    named = [image for file in files for image in _read_file(file, faults)]
    return find_images(_with_own_names(named, folder, faults), root, [folder], faults)


def _with_own_names(images: Sequence[NamedImage], folder: Path, faults: Faults) -> list[NamedImage]:
    """Uploaded images by the names that they had before, where the uploaded ones are not those of files.

    An upload gets a prefix, which `ImageFinder` knows of, spaces become underscores, and most other signs are left out.
    """
    known, originals = set[str](), dict[str, list[str]]()
    for path in list_folder(folder).images:
        name = PurePosixPath(path).name
        known.add(name)
        originals.setdefault(_uploaded(name), []).append(path)
    renamed = []
    for image in images:
        uploaded = PurePosixPath(image.name).name
        name = _UPLOAD.sub("", uploaded)
        is_other = _IMAGE_PATH.search(image.name) is not None and not known & {uploaded, name}
        found = originals.get(name, []) if is_other else []
        renamed.append(replace(image, name=found[0]) if len(found) == 1 else image)
    count = sum(new is not old for new, old in zip(renamed, images, strict=True))
    if count:
        faults.inform(
            f"{folder}: {count} images are named as Label Studio calls its uploads, with other signs than their files"
        )
    return renamed


def _uploaded(name: str) -> str:
    """The name that an uploaded file gets, without the prefix."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _read_file(path: Path, faults: Faults) -> list[NamedImage]:
    content = read_json(path)
    tasks = [content] if isinstance(content, dict) else content
    if not isinstance(tasks, list):
        raise DatasetError(f"{path} is no export of Label Studio: it must hold a list of tasks, found {shorten(content)}")
    reading, images = _Reading(path, faults), list[NamedImage]()
    for number, task in enumerate(tasks):
        with faults.guard():
            image = _read_task(task, f"{path}: task {_name(task, number)}", reading)
            images += [] if image is None else [image]
    _inform(reading)
    return images


def _name(task: Any, number: int) -> str:
    own = task.get("id") if isinstance(task, dict) else None
    return shorten(own) if isinstance(own, int | str) else f"[{number}]"


def _inform(reading: _Reading) -> None:
    inform_left_out(reading.left_out, reading.path, reading.faults)
    for count, what in (
        (reading.unannotated, "tasks are left out, which nobody has annotated"),
        (reading.with_others, "tasks have several annotations: that marked as ground truth counts, or else the last"),
        (reading.with_names, "shapes have several classes: each counts as an object"),
    ):
        if count:
            reading.faults.inform(f"{reading.path}: {count} {what}")


def _read_task(task: Any, where: str, reading: _Reading) -> NamedImage | None:
    """The image of a task, or None for one that nobody has annotated."""
    if not isinstance(task, dict):
        raise DatasetError(f"{where} must be an object, found {shorten(task)}")
    whole = isinstance(task.get("data"), dict)
    name = _image_name(task["data"] if whole else task)
    if name is None:
        raise DatasetError(f"{where} names no image{' in its data' if whole else ''}: {shorten(task.get('data', task))}")
    results = _annotated(task, where, reading) if whole else _minimal(task)
    if results is None:
        reading.unannotated += 1
        return None
    size_hw = next((size for each in results if (size := _size(each)) is not None), None)
    objects = [
        found for number, each in enumerate(results) for found in _read_result(each, f"{where}, result {number}", reading)
    ]
    return NamedImage(name, reading.path, objects, size_hw, relative=True)


def _image_name(data: Json) -> str | None:
    """The image that the data of a task name: under a usual key, or else the first text that is an image's path."""
    texts = {key: value.strip() for key, value in data.items() if isinstance(value, str) and value.strip()}
    paths = {key: text for key, text in texts.items() if is_image_name(text.split("?")[0]) or _IMAGE_PATH.search(text)}
    usual = [key for key in _IMAGE_KEYS if key in paths] or list(paths) or [key for key in _IMAGE_KEYS if key in texts]
    return texts[usual[0]] if usual else None


def _annotated(task: Json, where: str, reading: _Reading) -> list[Json] | None:
    """The results of the annotation that counts; None without one."""
    annotations = task.get("annotations", task.get("completions", []))
    if not isinstance(annotations, list) or not all(isinstance(each, dict) for each in annotations):
        raise DatasetError(f"{where}: 'annotations' must be a list of objects, found {shorten(annotations)}")
    finished = [each for each in annotations if each.get("was_cancelled") is not True]
    if not finished:
        return None
    reading.with_others += len(finished) > 1
    # Of those of one date, max() takes the first: reversed, the last.
    chosen = max(reversed(finished), key=_precedence)
    results = chosen.get("result", [])
    if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
        raise DatasetError(f"{where}: 'result' must be a list of objects, found {shorten(results)}")
    return results


def _precedence(annotation: Json) -> tuple[bool, str]:
    """What the annotation that counts has most of: being marked as ground truth; then the date, in ISO's form."""
    date = annotation.get("updated_at")
    return annotation.get("ground_truth") is True, date if isinstance(date, str) else ""


def _minimal(task: Json) -> list[Json] | None:
    """The results of a task of JSON-MIN, which has them under the names of the labelling interface."""
    lists = [value for value in task.values() if isinstance(value, list)]
    results = [each for values in lists for each in values if isinstance(each, dict) and _kind(each) is not None]
    return results if results or "annotation_id" in task else None


def _value(result: Json) -> Json:
    value = result.get("value")
    return value if isinstance(value, dict) else result


def _kind(result: Json) -> str | None:
    """Under which key a result has its classes; None where it is no shape with classes, such as a choice or a text."""
    value = _value(result)
    return next((key for key in (*_SHAPES, *_WITHOUT_BOX) if key in value), None)


def _read_result(result: Json, where: str, reading: _Reading) -> Iterator[LabelledObject]:
    """The objects of a result: one for each of its classes."""
    kind, value = _kind(result), _value(result)
    if kind in _WITHOUT_BOX or result.get("type") in _WITHOUT_BOX:
        reading.left_out[str(kind or result["type"])] += 1
    elif kind is not None:
        box = _box(value, _size(result))
        if box is None:
            reading.faults.note(f"{where}: {shorten(value)}", "shape without its numbers", "dropped")
            return
        names = value[kind] if isinstance(value[kind], list) else [value[kind]]
        reading.with_names += len(names) > 1
        for each in names or [None]:
            name = read_class_name(each, where, reading.faults)
            if name is not None:
                yield LabelledObject(name, box, where)


def _size(result: Json) -> tuple[int, int] | None:
    return read_size(result.get("original_height"), result.get("original_width"))


def _box(value: Mapping[str, Any], size_hw: tuple[int, int] | None) -> Box | None:
    """The box around a shape in fractions of the image's size; None where it lacks a number.

    A box is turned about its upper left corner, an ellipse about its centre, in pixels: a turned one needs the image's size.
    """
    if "points" in value:
        return _fractions(_around_points(value["points"]))
    if size_hw is None and value.get("rotation") not in (None, 0):
        return None
    height, width = size_hw or (1, 1)
    keys = ("x", "y", "radiusX", "radiusY") if "radiusX" in value else ("x", "y", "width", "height")
    percents = read_numbers([value.get(key) for key in keys])
    if percents is None:
        return None
    pixels = [percent * side for percent, side in zip(percents, (width, height) * 2, strict=True)]
    degrees = value.get("rotation") or 0
    box = ellipse_box(pixels, degrees) if "radiusX" in value else sized_box(pixels)
    if box is not None and "radiusX" not in value:
        box = turned_box(box, degrees, (box[0], box[1]))
    return None if box is None else _fractions((box[0] / width, box[1] / height, box[2] / width, box[3] / height))


def _around_points(points: Any) -> Box | None:
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        return None
    return points_box([x for x, _ in points], [y for _, y in points])


def _fractions(box: Box | None) -> Box | None:
    return None if box is None else (box[0] / 100, box[1] / 100, box[2] / 100, box[3] / 100)
