"""The images of CLS-LOC with their one class and its boxes, in a few arrays: half a million images, and workers copy them.

N images with G boxes together, K classes. Boxes: xyxy pixels, continuous, of images as high and wide as annotated.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from backbones.errors import name_fault, shorten
from detection.config import MAX_PIXELS, LocDataConfig, LocSplit
from detection.data.catalog import resolve_devkit, resolve_root
from detection.data.faults import Faults
from detection.data.ilsvrc_devkit import LOC_BLACKLIST, only_file, read_classes, read_loc_blacklist
from detection.data.images import image_size, read_image
from detection.data.records import Box, list_files, needs_no_repair, repair_box
from detection.data.voc_xml import describe_box, parse_xml, read_box, read_name, read_size
from detection.errors import DatasetError
from detection.files import read_text

logger = logging.getLogger(__name__)

NUM_VAL = 50_000
"""Images of CLS-LOC's validation split, whose numbers the kit's blacklist has."""
FIRST_PIXEL = 0
"""What ImageNet's XML files call the first pixel of a row."""
# Of the ratios of the sides, by which an image and its annotation differ where it was annotated at another size.
_SAME_SHAPE = 0.02


@dataclass(frozen=True)
class LocImages:
    """N images of one class each, with at least one box."""

    class_names: tuple[str, ...]  # K WNIDs in alphabetical order, as an ImageNet classifier's class folders
    titles: tuple[str, ...]  # K names for people
    folder: str  # where the images lie
    ids: np.ndarray  # (N,) bytes: "n01440764/n01440764_10026"; see `id_of` and `file_of`
    sizes_hw: np.ndarray  # (N, 2) int32, as annotated
    labels: np.ndarray  # (N,) int64
    boxes: np.ndarray  # (G, 4) float32 xyxy, each image's after those of the image before it
    ends: np.ndarray  # (N,) int64: where each image's boxes end in `boxes`
    unevaluated: np.ndarray  # (N,) bool: validation images that localisation is not measured on

    def __len__(self) -> int:
        return len(self.ids)

    def id_of(self, index: int) -> str:
        """The id of an image, as the lists have it."""
        return os.fsdecode(self.ids[index])

    def file_of(self, index: int) -> str:
        """The path of an image."""
        return f"{self.folder}/{self.id_of(index)}.JPEG"

    def size_hw(self, index: int) -> tuple[int, int]:
        """(height, width) of an image, as annotated."""
        height, width = self.sizes_hw[index].tolist()
        return height, width

    def boxes_of(self, index: int) -> Tensor:
        """(G_i, 4) float32: the boxes of an image, in the pixels of its annotated size."""
        start = int(self.ends[index - 1]) if index else 0
        # A copy: a tensor must not share the memory of all workers.
        return torch.from_numpy(self.boxes[start : self.ends[index]].copy())

    def image(self, index: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """(H, W, 3) uint8 RGB, perhaps of another size than annotated, of which its boxes are then to be scaled.

        Raises DatasetError where it cannot be read, or has another shape than annotated.
        """
        file, (height, width) = self.file_of(index), self.size_hw(index)
        pixels = read_image(file, max_pixels)
        ratio_y, ratio_x = pixels.shape[0] / height, pixels.shape[1] / width
        if abs(ratio_y - ratio_x) > _SAME_SHAPE * max(ratio_y, ratio_x):
            raise DatasetError(
                f"image {file} is {pixels.shape[1]}x{pixels.shape[0]} as displayed, but its annotation says {width}x{height}: "
                "its boxes cannot fit; mend it, leave it out of the list, or set data.on_bad_image to skip"
            )
        return pixels

    @property
    def num_boxes(self) -> np.ndarray:
        """(N,) int64: the number of boxes of each image."""
        return np.diff(self.ends, prepend=0)

    def subset(self, indices: Sequence[int] | np.ndarray) -> LocImages:
        """Some of the images, in this order."""
        chosen = np.asarray(indices, np.int64).reshape(-1)
        counts = self.num_boxes[chosen]
        ends = counts.cumsum()
        # Row r of the new boxes is the (r - start)-th of its image, whose own start is in the old ones.
        rows = np.arange(counts.sum()) + np.repeat(self.ends[chosen] - ends, counts)
        return replace(
            self,
            ids=self.ids[chosen],
            sizes_hw=self.sizes_hw[chosen],
            labels=self.labels[chosen],
            boxes=self.boxes[rows],
            ends=ends,
            unevaluated=self.unevaluated[chosen],
        )


class _Annotation(NamedTuple):
    """What an XML file says."""

    size_hw: tuple[int, int]
    label: int
    boxes: list[Box]


def read_loc_images(data: LocDataConfig, split: LocSplit) -> LocImages:
    """The images of a list that are annotated, in its order; of train less than half are. Some are left out with a count.

    The class of an image is the folder that its id names (train's are WNIDs), else that of its objects. Raises DatasetError: no
    data set, kit, list or annotations, an id that is there twice, malformed XML, a class that the kit lacks, or two of them.
    """
    root = resolve_root(data.root)
    kit = resolve_devkit(data, root)
    classes = read_classes(kit / "map_clsloc.txt")
    class_names = tuple(sorted(classes.wnids))
    names = dict(zip(classes.wnids, classes.names, strict=True))
    list_file = root / "ImageSets" / "CLS-LOC" / f"{split.list}.txt"
    ids, folder = read_loc_list(list_file), root / "Data" / "CLS-LOC" / split.folder
    annotations = root / "Annotations" / "CLS-LOC" / split.folder
    labels, faults = {wnid: label for label, wnid in enumerate(class_names)}, Faults()
    found = list(_annotated(ids, annotations, folder, labels, faults))
    faults.warn()
    if not found:
        raise DatasetError(f"none of the {len(ids)} images of {list_file} has a box in {annotations}")
    if len(found) < len(ids):
        logger.info("%s: %d of %d images have no box, and are left out", list_file, len(ids) - len(found), len(ids))
    unevaluated = _unevaluated(kit) if split.folder == "val" else frozenset()
    return _pack(class_names, tuple(names[wnid] for wnid in class_names), folder, found, unevaluated)


def read_loc_list(file: Path) -> list[str]:
    """The ids of a list, a line each: "n01440764/n01440764_10026" and, not read, a number. Raises DatasetError."""
    ids: dict[str, int] = {}
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        image_id = line.split(maxsplit=1)[0] if line.strip() else ""
        if image_id and (fault := name_fault(image_id)) is not None:
            raise DatasetError(f"{file}, line {number}: the image's id {fault}")
        if image_id in ids:
            raise DatasetError(f"{file}, line {number}: image {shorten(image_id)} is in line {ids[image_id]} already")
        if image_id:
            ids[image_id] = number
    if not ids:
        raise DatasetError(f"the list {file} has no image")
    return list(ids)


def _annotated(
    ids: Sequence[str], annotations: Path, folder: Path, labels: Mapping[str, int], faults: Faults
) -> Iterator[tuple[str, _Annotation]]:
    """The images that have an XML file with boxes. Raises DatasetError."""
    list_files(annotations)  # raises where it is not there; a folder in it may be missing

    @cache
    def xml_files(place: str) -> set[str]:
        return list_files(annotations / place) if (annotations / place).is_dir() else set()

    for image_id in ids:
        place, _, stem = image_id.rpartition("/")
        if f"{stem}.xml" in xml_files(place):
            wnid = place.rpartition("/")[2]
            file, image = annotations / f"{image_id}.xml", folder / f"{image_id}.JPEG"
            annotation = _read_annotation(file, image, wnid if wnid in labels else None, labels, faults)
            if annotation is not None:
                yield image_id, annotation


def _read_annotation(
    file: Path, image: Path, folder_class: str | None, labels: Mapping[str, int], faults: Faults
) -> _Annotation | None:
    """One XML file; None where it has no box, which is noted in `faults`. `image` has its size where the file lacks it."""
    tree = parse_xml(file)
    objects = []
    for number, element in enumerate(tree.findall("object"), start=1):
        name = read_name(element, f"{file}, object {number}", faults)
        objects += [] if name is None else [(f"{file}, object {number}", name, element)]
    size_hw = read_size(tree, file, faults) or image_size(image)
    wnid = folder_class or _only_class(file, [name for _, name, _ in objects], labels)
    boxes = []
    for where, name, element in objects:
        # Names that are no WNIDs occur in train ("Scottish_deerhound"): they are the image's class by another name.
        if name != wnid and name in labels:
            faults.note(where, "object of another class than its image", "dropped")
        elif (box := _read_box(element, where, size_hw, faults)) is not None:
            boxes.append(box)
    if not boxes:
        faults.note(str(file), "annotation without a box", "its image left out")
        return None
    return _Annotation(size_hw, labels[wnid], boxes)


def _only_class(file: Path, names: Sequence[str], labels: Mapping[str, int]) -> str:
    """The class of all objects; "" where there is none. Raises DatasetError."""
    different = list(dict.fromkeys(names))
    if len(different) > 1:
        raise DatasetError(
            f"{file} has objects of {shorten(different[0])} and {shorten(different[1])}: an image of CLS-LOC has one class"
        )
    if different and different[0] not in labels:
        raise DatasetError(f"{file}: <name> is {shorten(different[0])}, which is no WNID of the kit's map_clsloc.txt")
    return different[0] if different else ""


def _read_box(element: ElementTree.Element, where: str, size_hw: tuple[int, int], faults: Faults) -> Box | None:
    box = read_box(element, where, faults, FIRST_PIXEL)
    if box is None or needs_no_repair(box, size_hw):
        return box
    return repair_box(box, size_hw, describe_box(where, box, FIRST_PIXEL), faults)


def _unevaluated(kit: Path) -> frozenset[str]:
    """The ids of the validation images that the kit's blacklist numbers."""
    positions = read_loc_blacklist(only_file(kit, LOC_BLACKLIST), NUM_VAL)
    return frozenset(map(val_id, positions))


def val_id(position: int) -> str:
    """The id of a validation image by its place, from 0, in the whole list: the order of the blacklist and of submissions."""
    return f"ILSVRC2012_val_{position + 1:08d}"


def _pack(
    class_names: tuple[str, ...],
    titles: tuple[str, ...],
    folder: Path,
    found: Sequence[tuple[str, _Annotation]],
    unevaluated: Container[str],
) -> LocImages:
    return LocImages(
        class_names,
        titles,
        str(folder),
        ids=np.array([os.fsencode(image_id) for image_id, _ in found]),
        sizes_hw=np.array([each.size_hw for _, each in found], np.int32),
        labels=np.array([each.label for _, each in found], np.int64),
        boxes=np.array([box for _, each in found for box in each.boxes], np.float32),
        ends=np.array([len(each.boxes) for _, each in found], np.int64).cumsum(),
        unevaluated=np.array([image_id in unevaluated for image_id, _ in found], bool),
    )
