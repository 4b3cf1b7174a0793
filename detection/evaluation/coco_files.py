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
    CocoFile,
    CocoId,
    image_name,
    other_kind,
    read_box,
    read_coco_file,
    read_id,
    read_object,
    within_bounds,
)
from detection.data.faults import Faults
from detection.data.records import finite_number
from detection.errors import DatasetError
from detection.evaluation.coco_masks import image_sizes, result_mask, with_masks
from detection.evaluation.metrics import IouType
from detection.files import read_json

logger = logging.getLogger(__name__)

_REGIONS: dict[IouType, str] = {"boxes": "bbox", "masks": "segmentation"}


def read_annotations(file: Path, iou_type: IouType = "boxes") -> dict[str, Any]:
    """The content of an annotation file, checked. Objects without a usable box are left out, and said. Raises DatasetError.

    With `iou_type` "masks" objects have their mask as `segmentation`, and those without a usable one are left out.
    """
    faults = Faults()
    content, rles = read_coco_file(file, faults), None
    if iou_type == "masks":
        content, rles = with_masks(content, faults)
    dataset = as_dataset(content, faults)
    for annotation, rle in zip(dataset["annotations"], rles or [], strict=rles is not None):
        annotation["segmentation"] = rle
    degenerate = sum(min(annotation["bbox"][2:]) <= 0 for annotation in dataset["annotations"])
    if degenerate:
        empty = "box without area" if rles is None else "mask without a pixel"
        faults.inform(f"{file}: {degenerate} objects have a {empty}; they count as never found, as in pycocotools")
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
            annotations.append(
                {
                    "id": each.id if own_ids else len(annotations) + 1,
                    "image_id": each.image_id,
                    "category_id": each.category_id,
                    "bbox": found.xywh,
                    "area": found.area,
                    "iscrowd": int(found.crowd),
                }
            )
    return {
        "images": [image.entry | {"id": image.id} for image in content.images],
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in content.categories.items()],
    }


def read_results(file: Path, dataset: Mapping[str, Any], iou_type: IouType = "boxes") -> list[dict[str, Any]]:
    """The content of a result file, each entry of an image and a category of `dataset`. Raises DatasetError.

    With `iou_type` "masks" entries have their mask as `segmentation`, and no box."""
    results = read_json(file)
    if not isinstance(results, list):
        raise DatasetError(f"{file} must hold a list of results, found a {type(results).__name__}{_annotations_hint(results)}")
    images = {image["id"]: image.get("file_name") for image in dataset["images"]}
    categories = {category["id"]: category["name"] for category in dataset["categories"]}
    sizes = image_sizes(dataset["images"]) if iou_type == "masks" else None
    read: list[dict[str, Any]] = []
    for entry in results:
        where = f"{file}: results[{len(read)}]"
        result = _read_result(entry, images, categories, _REGIONS[iou_type])
        if result is None:
            raise DatasetError(f"{where}{_result_fault(entry, images, categories, _REGIONS[iou_type])}")
        if sizes is not None:
            result["segmentation"] = result_mask(result["segmentation"], sizes[result["image_id"]], where)
        read.append(result)
    return read


def _read_result(entry: Any, images: Collection[CocoId], categories: Collection[CocoId], region: str) -> dict[str, Any] | None:
    """A checked result, or None where something is wrong with it: millions of right ones need no messages.

    `region` is "bbox", which is checked too, or "segmentation", which is not.
    """
    if not isinstance(entry, dict) or region not in entry:
        return None
    image_id, category_id = read_id(entry.get("image_id")), read_id(entry.get("category_id"))
    score = finite_number(entry.get("score"))
    if image_id not in images or category_id not in categories or score is None:
        return None
    found = entry[region] if region != "bbox" else read_box(entry["bbox"])
    if region == "bbox" and (found is None or not within_bounds(found)):
        return None
    return {"image_id": image_id, "category_id": category_id, region: found, "score": score}


def _annotations_hint(content: object) -> str:
    """The end of the message about a file that holds no list: what people name by mistake."""
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        return ""
    return ": this is an annotation file, the detections are in another"


def _result_fault(entry: Any, images: Mapping[CocoId, object], categories: Mapping[CocoId, str], region: str) -> str:
    """What is wrong with a result that `_read_result` refuses; the end of a message."""
    fields = ("image_id", "category_id", region, "score")
    if not isinstance(entry, dict):
        return f" must be an object with {', '.join(fields)}, found {shorten(entry)}"
    missing = [field for field in fields if field not in entry]
    if missing:
        return f" has no '{missing[0]}'"
    image_id, category_id = read_id(entry["image_id"]), read_id(entry["category_id"])
    if image_id is None or category_id is None:
        field = "image_id" if image_id is None else "category_id"
        return f": '{field}' must be a whole number or text, found {shorten(entry[field])}"
    box = read_box(entry.get("bbox"))
    if region == "bbox" and (box is None or not within_bounds(box)):
        return f": 'bbox' must be four finite numbers (x, y, width, height) up to 1e9 px, found {shorten(entry['bbox'])}"
    if finite_number(entry["score"]) is None:
        return f": 'score' must be a finite number, found {shorten(entry['score'])}"
    if image_id not in images:
        hint = other_kind(image_id, images) or _named_hint(image_id, images)
        return f" is of image {shorten(image_id)}, which the annotations do not hold{hint}"
    hint = other_kind(category_id, categories) or _category_hint(category_id, categories)
    return f" is of category {shorten(category_id)}, which is not defined{hint}"


def _named_hint(name: CocoId, images: Mapping[CocoId, object]) -> str:
    """The end of a message about an unknown image: its id, where it is named by its file, as programs for YOLO do."""
    for key, file in images.items():
        if isinstance(file, str) and isinstance(name, str) and name in (file, Path(file).name, Path(file).stem):
            return f"; it is the file of image {shorten(key)} there: write that id"
    return "; give the annotations of the images that were detected on, or leave the result out"


def _category_hint(unknown: CocoId, categories: Mapping[CocoId, str]) -> str:
    """The end of a message about an unknown category: its id where it is a name, else the ids that there are."""
    named = next((key for key, name in categories.items() if name == unknown), None)
    if named is not None:
        return f"; it is the name of category {shorten(named)} there: write that id"
    numbers = [key for key in categories if isinstance(key, int)]
    if not isinstance(unknown, int) or not numbers:
        return ""
    return f": the {len(categories)} ids there are {min(numbers)} to {max(numbers)}, and not positions in a list of classes"


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
