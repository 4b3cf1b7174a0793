"""The ground truth of ImageNet's development kit, with what is not evaluated of it.

N images, K classes. Raises DatasetError naming file, line, value and the fix.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones.errors import shorten
from detection.data.ilsvrc_devkit import (
    DET_BLACKLIST,
    LOC_BLACKLIST,
    IlsvrcClasses,
    ImageList,
    data_folder,
    only_file,
    read_classes,
    read_det_blacklist,
    read_det_classes,
    read_det_images,
    read_loc_blacklist,
)
from detection.data.records import parse_number
from detection.data.voc_xml import parse_xml
from detection.errors import DatasetError
from detection.evaluation.ilsvrc import DetGroundTruth, LocGroundTruth
from detection.evaluation.voc import Floats, Ints
from detection.files import is_file
from detection.matlab import read_matlab

logger = logging.getLogger(__name__)


def read_det_truth(devkit: Path, split: str = "val", annotations: Path | None = None) -> tuple[DetGroundTruth, ImageList]:
    """The objects of val, val1 or val2, from the kit's .mat file or, where `annotations` is given, from its XML files.

    Images have the numbers of the split's own list; the .mat file and the blacklist have those of val's, and are joined by
    image id.
    """
    folder = data_folder(devkit)
    classes, val = read_det_classes(folder), read_det_images([folder], "val")
    images = val if split == "val" else read_det_images([folder], split)
    positions = val.positions
    # Position in val -> position in the split.
    places = {positions[image_id]: position for position, image_id in enumerate(images.ids)}
    blacklist = read_det_blacklist(only_file(folder, DET_BLACKLIST), classes, len(val.ids))
    kept = np.array([(places[image], label) for image, label in blacklist if image in places], dtype=np.int64).reshape(-1, 2)
    if annotations is None:
        file = only_file(folder, "*det_validation_ground_truth.mat")
        rows = _det_mat_rows(file, len(val.ids), len(classes.wnids), places)
    else:
        file, rows = annotations, _xml_rows(annotations, images, classes)
    number, labels, boxes = _table(rows)
    _check_boxes(boxes, [images.ids[image] for image in number.tolist()], file)
    return DetGroundTruth(classes.names, len(images.ids), number, labels, boxes, kept), images


def read_loc_truth(devkit: Path) -> tuple[LocGroundTruth, IlsvrcClasses]:
    """The classes and boxes of CLS-LOC's validation images, in the order of their numbers."""
    folder = data_folder(devkit)
    classes = read_classes(folder / "map_clsloc.txt")
    file = only_file(folder, "*clsloc_validation_ground_truth.mat")
    title = "the kit's ground truth of CLS-LOC"
    records = read_matlab(file, ("rec",), title)["rec"]
    try:
        objects = [_flat_objects(record["objects"]) for record in records]
        labels = np.array([each[0][0] for each in objects], dtype=np.int64) - 1
        number = np.repeat(np.arange(len(objects)), [len(each) for each in objects])
        boxes = np.array([box for each in objects for _, box in each], dtype=np.float64).reshape(-1, 4)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise DatasetError(f"{file} is not {title}") from None
    if not ((labels >= 0) & (labels < len(classes.wnids))).all():
        raise DatasetError(f"{file} has classes beyond {len(classes.wnids)}, the number of those in map_clsloc.txt")
    boxes = boxes + [0, 0, 1, 1]
    _check_boxes(boxes, (number + 1).tolist(), file)
    unevaluated = np.zeros(len(labels), dtype=bool)
    unevaluated[read_loc_blacklist(only_file(folder, LOC_BLACKLIST), len(labels))] = True
    return LocGroundTruth(len(classes.wnids), labels, number, boxes, unevaluated), classes


def _flat_objects(objects: Sequence[Any]) -> list[tuple[int, list[float]]]:
    """Class id and box of each object of a struct, whose fields are arrays of one row."""
    return [(int(each["label"][0][0]), [float(value) for value in each["bbox"][0]]) for each in objects]


_Row = tuple[int, int, Sequence[float]]  # image, label, box as the kit has it


def _det_mat_rows(file: Path, num_images: int, num_classes: int, places: dict[int, int]) -> Iterator[_Row]:
    title = "the kit's ground truth of DET"
    found = read_matlab(file, ("gt_obj_labels", "gt_obj_bboxes"), title)
    labels, boxes = found["gt_obj_labels"], found["gt_obj_bboxes"]
    if len(labels) != num_images or len(boxes) != num_images:
        raise DatasetError(f"{file} is of {len(labels)} images, and the list of val has {num_images}: of another year?")
    numbered = range(1, num_classes + 1)
    for image in sorted(places, key=places.__getitem__):
        try:
            # (4, n) numbers, 1 or n of them in a row: uint8 or uint16 in the file, plain numbers here.
            x1, y1, x2, y2 = boxes[image] if any(boxes[image]) else [[]] * 4
            numbers = [value for row in labels[image] for value in row]
            rows = [
                (places[image], number - 1, list(map(float, box)))
                for number, *box in zip(numbers, x1, y1, x2, y2, strict=True)
                if number in numbered
            ]
        except (TypeError, ValueError):
            raise DatasetError(f"{file} is not {title}: image {image + 1} has not one box per object") from None
        if len(rows) < len(numbers):
            raise DatasetError(f"{file}: image {image + 1} has a class outside of 1..{num_classes}")
        yield from rows


def _xml_rows(annotations: Path, images: ImageList, classes: IlsvrcClasses) -> Iterator[_Row]:
    """The objects of each image's XML file; an image without one has none, which is told unless no image has one."""
    labels = classes.labels
    if not annotations.is_dir():
        raise DatasetError(f"no such folder of annotations: {annotations}")
    files = {image: file for image, name in enumerate(images.ids) if is_file(file := annotations / f"{name}.xml")}
    if not files:
        raise DatasetError(f"none of the {len(images.ids)} images has an XML file in {annotations}")
    if len(files) < len(images.ids):
        num_empty = len(images.ids) - len(files)
        logger.warning(
            "images without an XML file, which count as images without objects: %d of %d", num_empty, len(images.ids)
        )
    for image, file in files.items():
        for number, element in enumerate(parse_xml(file).findall("object"), start=1):
            name = (element.findtext("name") or "").strip()
            box = [parse_number(element.findtext(f"bndbox/{tag}")) for tag in ("xmin", "ymin", "xmax", "ymax")]
            if name not in labels:
                raise DatasetError(f"{file}, object {number}: {shorten(name)} is no WNID of map_det.txt")
            if any(value is None for value in box):
                raise DatasetError(f"{file}, object {number}: <bndbox> needs four numbers")
            yield image, labels[name], [value for value in box if value is not None]


def _table(rows: Iterator[_Row]) -> tuple[Ints, Ints, Floats]:
    """Images, labels, and continuous boxes: the kit's count from 0 and include the last pixel."""
    listed = list(rows)
    images = np.array([image for image, _, _ in listed], dtype=np.int64)
    labels = np.array([label for _, label, _ in listed], dtype=np.int64)
    boxes = np.array([box for _, _, box in listed], dtype=np.float64).reshape(-1, 4)
    return images, labels, boxes + np.array([0.0, 0.0, 1.0, 1.0])


def _check_boxes(boxes: Floats, images: Sequence[object], file: Path) -> None:
    """Raise DatasetError for a box that nothing can be compared with; `images`: id or number of each box's."""
    wrong = np.flatnonzero(~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)))
    if len(wrong):
        numbers = " ".join(f"{value:g}" for value in boxes[wrong[0]] - [0, 0, 1, 1])
        where = f"{file}: image {shorten(images[wrong[0]])} has the box {numbers}"
        raise DatasetError(f"{where}: expected numbers with xmin <= xmax and ymin <= ymax")
