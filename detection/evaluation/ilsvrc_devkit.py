"""The files of ImageNet's development kit that an evaluation needs: classes, lists of images, ground truth, blacklists.

N images, K classes. Raises DatasetError naming file, line, value and the fix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backbones.errors import shorten
from detection.data.records import parse_number
from detection.data.voc_xml import parse_xml
from detection.errors import DatasetError
from detection.evaluation.ilsvrc import DetGroundTruth, LocGroundTruth
from detection.evaluation.voc import Floats, Ints
from detection.files import read_text
from detection.matlab import read_matlab

DET_SPLITS = ("val", "val1", "val2")


@dataclass(frozen=True)
class IlsvrcClasses:
    """K classes in the order of the kit's ids, which count from 1: the label is the id - 1."""

    wnids: tuple[str, ...]
    names: tuple[str, ...]  # for people

    @property
    def labels(self) -> dict[str, int]:
        """WNID -> label."""
        return {wnid: label for label, wnid in enumerate(self.wnids)}


@dataclass(frozen=True)
class ImageList:
    """A split's images in the order of their numbers, which count from 1."""

    ids: tuple[str, ...]  # "ILSVRC2012_val_00000001"

    @property
    def positions(self) -> dict[str, int]:
        """Image id -> position, from 0."""
        return {image_id: position for position, image_id in enumerate(self.ids)}


def data_folder(devkit: Path) -> Path:
    """The folder with the kit's maps: DEVKIT/data, or DEVKIT itself."""
    for folder in (devkit / "data", devkit):
        if any((folder / name).is_file() for name in ("map_det.txt", "map_clsloc.txt")):
            return folder
    raise DatasetError(f"{devkit} is no development kit of ImageNet: neither data/map_det.txt nor data/map_clsloc.txt is in it")


def read_classes(file: Path) -> IlsvrcClasses:
    """map_det.txt or map_clsloc.txt: "WNID ID NAME" on each line, the ids 1 to K each once."""
    entries: dict[int, tuple[str, str]] = {}
    for where, fields in _lines(file):
        number = _whole(fields[1]) if len(fields) == 3 else None
        if number is None:
            raise DatasetError(f"{where}: expected 'WNID ID NAME', found {shorten(' '.join(fields))}")
        if number in entries:
            raise DatasetError(f"{where}: class {number} is there already, as {shorten(entries[number][0])}")
        entries[number] = (fields[0], fields[2].replace("_", " "))
    if sorted(entries) != list(range(1, len(entries) + 1)):
        raise DatasetError(f"{file}: the ids must be 1 to {len(entries)}, each once")
    ordered = [entries[number] for number in sorted(entries)]
    wnids = tuple(wnid for wnid, _ in ordered)
    if len(set(wnids)) < len(wnids):
        raise DatasetError(f"{file}: a WNID is there twice")
    return IlsvrcClasses(wnids, tuple(name for _, name in ordered))


def read_image_list(file: Path) -> ImageList:
    """A list "IMAGE_ID NUMBER", where the number is that of the line, from 1; without numbers, in the order of the lines."""
    ids: list[str] = []
    for where, fields in _lines(file):
        if len(fields) > 1 and _whole(fields[1]) != len(ids) + 1:
            raise DatasetError(f"{where}: expected 'IMAGE_ID {len(ids) + 1}', found {shorten(' '.join(fields))}")
        ids.append(fields[0])
    if len(set(ids)) < len(ids):
        raise DatasetError(f"{file}: an image is there twice")
    return ImageList(tuple(ids))


def find_det_list(folder: Path, split: str) -> Path:
    """The list of a split: det_val2.txt, val2.txt or det_lists/val2.txt in the kit's data folder."""
    names = (f"det_{split}.txt", f"{split}.txt", f"det_lists/{split}.txt")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DatasetError(f"{folder} has no list of the images of '{split}': none of {', '.join(names)}")


def read_det_truth(devkit: Path, split: str = "val", annotations: Path | None = None) -> tuple[DetGroundTruth, ImageList]:
    """The objects of val, val1 or val2, from the kit's .mat file or, where `annotations` is given, from its XML files.

    Images have the numbers of the split's own list; the .mat file and the blacklist have those of val's, and are joined by
    image id.
    """
    folder = data_folder(devkit)
    classes, val = read_classes(folder / "map_det.txt"), read_image_list(find_det_list(folder, "val"))
    images = val if split == "val" else read_image_list(find_det_list(folder, split))
    positions = val.positions
    unknown = next((image_id for image_id in images.ids if image_id not in positions), None)
    if unknown is not None:
        raise DatasetError(
            f"{find_det_list(folder, split)}: image {shorten(unknown)} is not in the list of val: of another year?"
        )
    # Position in val -> position in the split.
    places = {positions[image_id]: position for position, image_id in enumerate(images.ids)}
    blacklist = read_det_blacklist(_only(folder, "*det_validation_blacklist.txt"), classes, len(val.ids))
    kept = np.array([(places[image], label) for image, label in blacklist if image in places], dtype=np.int64).reshape(-1, 2)
    if annotations is None:
        rows = _det_mat_rows(_only(folder, "*det_validation_ground_truth.mat"), len(val.ids), len(classes.wnids), places)
    else:
        rows = _xml_rows(annotations, images, classes)
    number, labels, boxes = _table(rows)
    return DetGroundTruth(classes.names, len(images.ids), number, labels, boxes, kept), images


def read_det_blacklist(file: Path, classes: IlsvrcClasses, num_images: int) -> list[tuple[int, int]]:
    """Lines "IMAGE_NUMBER WNID" as pairs of position in val and label."""
    labels = classes.labels
    pairs = []
    for where, fields in _lines(file):
        number = _whole(fields[0])
        if len(fields) != 2 or number is None or not 1 <= number <= num_images or fields[1] not in labels:
            known = f"an image's number up to {num_images} and a WNID of map_det.txt"
            raise DatasetError(f"{where}: expected {known}, found {shorten(' '.join(fields))}")
        pairs.append((number - 1, labels[fields[1]]))
    return pairs


def read_loc_truth(devkit: Path) -> tuple[LocGroundTruth, IlsvrcClasses]:
    """The classes and boxes of CLS-LOC's validation images, in the order of their numbers."""
    folder = data_folder(devkit)
    classes = read_classes(folder / "map_clsloc.txt")
    file = _only(folder, "*clsloc_validation_ground_truth.mat")
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
    unevaluated = np.zeros(len(labels), dtype=bool)
    for where, fields in _lines(_only(folder, "*clsloc_validation_blacklist.txt")):
        image = _whole(fields[0])
        if image is None or not 1 <= image <= len(labels):
            raise DatasetError(f"{where}: expected an image's number up to {len(labels)}, found {shorten(fields[0])}")
        unevaluated[image - 1] = True
    return LocGroundTruth(len(classes.wnids), labels, number, boxes + [0, 0, 1, 1], unevaluated), classes


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
    for image in sorted(places, key=places.__getitem__):
        try:
            # (4, n) numbers, 1 or n of them in a row: uint8 or uint16 in the file, plain numbers here.
            columns = zip(*boxes[image], strict=True)
            numbers = [int(value) for row in labels[image] for value in row]
            rows = [(places[image], number - 1, column) for number, column in zip(numbers, columns, strict=True)]
        except (TypeError, ValueError):
            raise DatasetError(f"{file} is not {title}: image {image + 1} has not one box per object") from None
        if any(not 0 <= label < num_classes for _, label, _ in rows):
            raise DatasetError(f"{file}: image {image + 1} has a class outside of 1..{num_classes}")
        yield from rows


def _xml_rows(annotations: Path, images: ImageList, classes: IlsvrcClasses) -> Iterator[_Row]:
    """The objects of each image's XML file; an image without one has none."""
    labels = classes.labels
    if not annotations.is_dir():
        raise DatasetError(f"no such folder of annotations: {annotations}")
    for image, image_id in enumerate(images.ids):
        file = annotations / f"{image_id}.xml"
        if not file.is_file():
            continue
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


def _only(folder: Path, pattern: str) -> Path:
    """The one file of this form. Raises DatasetError for none and for several."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DatasetError(f"{folder} has {len(found) or 'no'} files {pattern}: it must have one")
    return found[0]


def _lines(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Where each line stands that is not blank, and its first two words and the rest."""
    for number, text in enumerate(read_text(file).split("\n"), start=1):
        if text.strip():
            yield f"{file}, line {number}", text.split(maxsplit=2)


def _whole(text: str) -> int | None:
    """A number of ASCII digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
