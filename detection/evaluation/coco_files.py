"""COCO's annotation and result files, checked as far as the evaluation needs it.

Annotation files are read by the rules of `detection.data.coco_format`, as for training. Raises DatasetError naming file, entry
and value for whatever would crash the reference implementation or, worse, be ignored by it: detections of an unknown image or
category.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.errors import shorten
from detection.data.coco_format import (
    MAX_COORDINATE,
    CocoFile,
    CocoId,
    image_name,
    other_kind,
    read_box,
    read_coco_file,
    read_id,
    read_object,
)
from detection.data.faults import Faults
from detection.data.records import finite_number
from detection.errors import DatasetError
from detection.files import read_json

logger = logging.getLogger(__name__)


def read_annotations(file: Path) -> dict[str, Any]:
    """The content of an annotation file, checked. Objects without a usable box are left out, and said. Raises DatasetError."""
    faults = Faults()
    content = read_coco_file(file, faults)
    dataset = as_dataset(content, faults)
    degenerate = sum(min(annotation["bbox"][2:]) <= 0 for annotation in dataset["annotations"])
    if degenerate:
        faults.inform(f"{file}: {degenerate} objects have a box without area; they count as never found, as in pycocotools")
    faults.warn()
    if any(annotation["id"] == 0 for annotation in dataset["annotations"]):
        # The reference marks what is not matched with 0. Its numbers are the standard, so they are kept.
        logger.warning("%s: annotation 0 counts as never found, as in pycocotools; number annotations from 1", file)
    return dataset


def as_dataset(content: CocoFile, faults: Faults, class_names: Collection[str] | None = None) -> dict[str, Any]:
    """An annotation file's content with its values checked and nothing that the evaluation does not need.

    `class_names`: annotations of other classes are left out; all are kept if None. The ids of annotations are those of the
    file if each has its own, else 1, 2, ... Raises DatasetError for an `iscrowd` that is neither 0 nor 1.
    """
    names = {image.id: image_name(image) for image in content.images}
    wanted = {key for key, name in content.categories.items() if class_names is None or name in class_names}
    annotations: list[dict[str, Any]] = []
    own_ids = len({each.id for each in content.annotations} - {None}) == len(content.annotations)
    for each in content.annotations:
        if each.category_id not in wanted:
            continue
        found = read_object(each, names[each.image_id], content.path, faults)
        if found is not None:
            annotation = {"id": each.id if own_ids else len(annotations) + 1, "image_id": each.image_id}
            values = {"category_id": each.category_id, "bbox": found.xywh, "area": found.area, "iscrowd": int(found.crowd)}
            annotations.append(annotation | values)
    return {
        "images": [image.entry | {"id": image.id} for image in content.images],
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in content.categories.items()],
    }


def read_results(file: Path, dataset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The content of a result file, each entry of an image and a category of `dataset`. Raises DatasetError."""
    results = read_json(file)
    if not isinstance(results, list):
        raise DatasetError(f"{file} must hold a list of results, found a {type(results).__name__}")
    images = {image["id"] for image in dataset["images"]}
    categories = {category["id"] for category in dataset["categories"]}
    return [_result(entry, f"{file}: results[{number}]", images, categories) for number, entry in enumerate(results)]


def _result(entry: Any, where: str, images: Collection[CocoId], categories: Collection[CocoId]) -> dict[str, Any]:
    fields = ("image_id", "category_id", "bbox", "score")
    if not isinstance(entry, dict):
        raise DatasetError(f"{where} must be an object with {', '.join(fields)}, found {shorten(entry)}")
    missing = [field for field in fields if field not in entry]
    if missing:
        raise DatasetError(f"{where} has no '{missing[0]}'")
    image_id, category_id = read_id(entry["image_id"]), read_id(entry["category_id"])
    box, score = read_box(entry["bbox"]), finite_number(entry["score"])
    if image_id is None or category_id is None:
        field = "image_id" if image_id is None else "category_id"
        raise DatasetError(f"{where}: '{field}' must be a whole number or text, found {shorten(entry[field])}")
    if box is None or max(map(abs, box)) > MAX_COORDINATE:
        wanted = "four finite numbers (x, y, width, height) up to 1e9 px"
        raise DatasetError(f"{where}: 'bbox' must be {wanted}, found {shorten(entry['bbox'])}")
    if score is None:
        raise DatasetError(f"{where}: 'score' must be a finite number, found {shorten(entry['score'])}")
    if image_id not in images:
        hint = other_kind(image_id, images)
        raise DatasetError(f"{where} is of image {shorten(image_id)}, which the annotations do not hold{hint}")
    if category_id not in categories:
        hint = other_kind(category_id, categories)
        raise DatasetError(f"{where} is of category {shorten(category_id)}, which is not defined{hint}")
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


def category_ids(dataset: Mapping[str, Any]) -> dict[str, CocoId]:
    """Class name -> the id to write results with; of several categories of one name that with most objects, else the first."""
    counts = Counter(annotation["category_id"] for annotation in dataset["annotations"])
    ids: dict[str, CocoId] = {}
    for category in sorted(dataset["categories"], key=lambda category: -counts[category["id"]]):
        ids.setdefault(category["name"], category["id"])
    return {category["name"]: ids[category["name"]] for category in dataset["categories"]}


def sorted_ids(ids: Sequence[CocoId]) -> list[CocoId]:
    """Ids in the reference's order, ascending; numbers come before texts."""
    return sorted(ids, key=lambda each: (isinstance(each, str), each))
