"""COCO's annotation and result files, checked as far as the evaluation needs it.

Raises DatasetError naming file, entry and value for whatever would crash the reference implementation or, worse, be
ignored by it: detections of an unknown image or category.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detection.errors import DatasetError
from detection.files import read_json

logger = logging.getLogger(__name__)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and value == int(value)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


class FieldRule(NamedTuple):
    """What the value of a JSON field must be."""

    accepts: Callable[[Any], bool]
    wanted: str  # the same in words, for the error


_NUMBER = FieldRule(_is_number, "a finite number")
_WHOLE = FieldRule(_is_whole, "a whole number")
_TEXT = FieldRule(lambda value: isinstance(value, str), "text")
_IMAGE_ID = FieldRule(lambda value: isinstance(value, str) or _is_whole(value), "a whole number or text")
_BOX = FieldRule(_is_box, "four finite numbers (x, y, width, height)")

_ENTRIES = {
    "images": {"id": _IMAGE_ID},
    "annotations": {"id": _WHOLE, "image_id": _IMAGE_ID, "category_id": _WHOLE, "bbox": _BOX},
    "categories": {"id": _WHOLE, "name": _TEXT},
}
_RESULT = {"image_id": _IMAGE_ID, "category_id": _WHOLE, "bbox": _BOX, "score": _NUMBER}
_OPTIONAL = {"area": _NUMBER, "iscrowd": _NUMBER}


def read_annotations(file: Path) -> dict[str, Any]:
    """The content of an annotation file. Raises DatasetError."""
    dataset = read_json(file)
    if not isinstance(dataset, dict) or not all(isinstance(dataset.get(key), list) for key in _ENTRIES):
        raise DatasetError(f"{file} is no COCO annotation file: it must hold the lists {', '.join(_ENTRIES)}")
    for key, rules in _ENTRIES.items():
        for position, entry in enumerate(dataset[key]):
            _check_entry(entry, rules, f"{file}: {key}[{position}]")
        _check_unique([entry["id"] for entry in dataset[key]], f"{file}: {key}")
    _check_references(dataset["annotations"], dataset, f"{file}: annotations")
    if any(annotation["id"] == 0 for annotation in dataset["annotations"]):
        # The reference marks what is not matched with 0. Its numbers are the standard, so they are kept.
        logger.warning("%s: annotation 0 counts as never found, as in pycocotools; number annotations from 1", file)
    return dataset


def read_results(file: Path, dataset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The content of a result file, each entry of an image and a category of `dataset`. Raises DatasetError."""
    results = read_json(file)
    if not isinstance(results, list):
        raise DatasetError(f"{file} must hold a list of results, found a {type(results).__name__}")
    for position, result in enumerate(results):
        _check_entry(result, _RESULT, f"{file}: results[{position}]")
    _check_references(results, dataset, f"{file}: results")
    return results


def _check_entry(entry: Any, rules: Mapping[str, FieldRule], where: str) -> None:
    if not isinstance(entry, dict):
        raise DatasetError(f"{where} must be an object with {', '.join(rules)}, found {entry!r}")
    for field, rule in rules.items():
        if field not in entry:
            raise DatasetError(f"{where} lacks '{field}'")
        if not rule.accepts(entry[field]):
            raise DatasetError(f"{where}: '{field}' must be {rule.wanted}, found {entry[field]!r}")
    for field, rule in _OPTIONAL.items():
        if field in entry and not rule.accepts(entry[field]):
            raise DatasetError(f"{where}: '{field}' must be {rule.wanted}, found {entry[field]!r}")


def _check_unique(ids: Sequence[int | str], where: str) -> None:
    if len(set(ids)) == len(ids):
        return
    seen: set[int | str] = set()
    for each in ids:
        if each in seen:
            raise DatasetError(f"{where}: id {each!r} is used twice")
        seen.add(each)


def _check_references(entries: Sequence[Mapping[str, Any]], dataset: Mapping[str, Any], where: str) -> None:
    images = {image["id"] for image in dataset["images"]}
    categories = {category["id"] for category in dataset["categories"]}
    for position, entry in enumerate(entries):
        if entry["image_id"] not in images:
            raise DatasetError(f"{where}[{position}] is of image {entry['image_id']!r}, which the annotations do not hold")
        if entry["category_id"] not in categories:
            raise DatasetError(f"{where}[{position}] is of category {entry['category_id']!r}, which is not defined")
