"""ImageNet DET in the layout of 2015: Data/DET/, Annotations/DET/, ImageSets/DET/, and the development kit's maps and lists.

An XML file names classes by their WNIDs, which the kit's map_det.txt calls by names for people. Its boxes count pixels from 0
and include the last one: (xmin, ymin, xmax, ymax) becomes (xmin, ymin, xmax + 1, ymax + 1), which is not Pascal VOC's rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from backbones.errors import printable, shorten
from detection.config import IlsvrcDetSource
from detection.config.class_lists import list_names
from detection.data.classes import ClassMap
from detection.data.faults import Faults
from detection.data.formats.listing import list_folder
from detection.data.ilsvrc_devkit import IlsvrcClasses, read_det_classes
from detection.data.ilsvrc_lists import NO_CLASS, DetImages, list_det_images
from detection.data.images import image_size
from detection.data.records import AnnotatedObject, make_record, needs_no_repair, repair_box
from detection.data.voc_xml import describe_box, parse_xml, read_box, read_name, read_size
from detection.errors import DatasetError, MissingImageError
from detection.structures import Record

FIRST_PIXEL = 0
"""What ImageNet's files call the first pixel of a row."""

_WNID = re.compile(r"n[0-9]+")


@dataclass(frozen=True)
class FilesByStem:
    """The files of one kind below a folder. An image is found by its stem, wherever it lies: ids have a folder or not."""

    folder: Path
    suffix: str
    paths: Mapping[str, str]  # stem -> path in the folder
    twice: Mapping[str, str]  # stem -> another path, where two files have it

    @classmethod
    def below(cls, folder: Path, suffix: str) -> FilesByStem:
        """List them. Raises DatasetError where there is no such folder."""
        if not folder.is_dir():
            raise DatasetError(f"there is no folder {folder}: is the source's root right?")
        paths, twice = dict[str, str](), dict[str, str]()
        for path in list_folder(folder).files:
            if path.endswith(suffix):
                stem = path.rpartition("/")[2].removesuffix(suffix)
                (twice if stem in paths else paths)[stem] = path
        return cls(folder, suffix, paths, twice)

    def find(self, image_id: str) -> Path | None:
        """The image's file, if there is one. Raises DatasetError where it cannot be told which is meant."""
        stem = image_id.rpartition("/")[2]
        path = self.paths.get(stem)
        if stem in self.twice:
            both = f"{printable(path or '')} and {printable(self.twice[stem])}"
            raise DatasetError(f"{self.folder} holds {both}: remove the one that is not image {shorten(image_id)}")
        return None if path is None else self.folder / path


@dataclass(frozen=True)
class DetFolder:
    """A split of ImageNet DET."""

    classes: IlsvrcClasses  # C, of the kit
    listed: DetImages
    images: FilesByStem
    annotations: FilesByStem | None  # None: they are not published


def open_det(source: IlsvrcDetSource, root: Path, devkit: Path, faults: Faults) -> DetFolder:
    """Read the kit's map and the split's lists, and list the files. Both folders are resolved. Raises DatasetError."""
    classes = read_det_classes(devkit)
    place = source.split if source.split in ("train", "test") else "val"
    images = FilesByStem.below(root / "Data" / "DET" / place, ".JPEG")
    annotations = FilesByStem.below(root / "Annotations" / "DET" / place, ".xml") if source.annotated else None
    listed = list_det_images(source.split, root / "ImageSets" / "DET", devkit, classes, faults)
    return DetFolder(classes, listed, images, annotations)


def read_ilsvrc_det(source: IlsvrcDetSource, root: Path, devkit: Path, classes: ClassMap, faults: Faults) -> list[Record]:
    """The images of a split, in the order of its lists. `root` and `devkit` are the source's, resolved; see `data_folder`.

    Objects of WNIDs that are none of DET's classes are left out with a count: folders of train show more than these. An
    image without an XML file has no objects, unless a list gives it the label 1. Raises DatasetError: no such folder or list,
    an image missing, an XML file missing where it must be there, or malformed, an unknown class.
    """
    folder = open_det(source, root, devkit, faults)
    masks = _known_masks(folder, classes, faults)
    records, num_annotated = [], 0
    for place, image_id in enumerate(folder.listed.ids):
        with faults.guard():
            path = None if folder.annotations is None else folder.annotations.find(image_id)
            num_annotated += path is not None
            records.append(_read_image(folder, place, path, classes, masks[folder.listed.mask_of[place]], faults))
    if folder.annotations is not None and records:
        _tell_of_unannotated(source, folder.annotations.folder, len(records), num_annotated, faults)
    return records


def ilsvrc_det_names(source: IlsvrcDetSource, root: Path, devkit: Path, faults: Faults) -> Iterator[str]:
    """The name of each object's class, of those that are DET's. What cannot be read is in `faults`, and passed over."""
    if not source.annotated:
        return
    folder = open_det(source, root, devkit, faults)
    assert folder.annotations is not None
    for image_id in folder.listed.ids:
        with faults.guard():
            path = folder.annotations.find(image_id)
            for element in [] if path is None else parse_xml(path).findall("object"):
                name = folder.classes.name_of.get((element.findtext("name") or "").strip())
                if name is not None:
                    yield name


def _known_masks(folder: DetFolder, classes: ClassMap, faults: Faults) -> list[Tensor | None]:
    """`Record.known` for each mask of the lists: a class is known where all of the kit's that become it are.

    None stands for a mask of all classes. Classes that are none of the kit's are known nowhere, which is told.
    """
    kit_labels: list[list[int]] = [[] for _ in classes.names]
    for kit_label, name in enumerate(folder.classes.names):
        label = None if classes.leaves_out(name) else classes.labels.get(classes.rename.get(name, name))
        if label is not None:
            kit_labels[label].append(kit_label)
    foreign = [printable(name) for name, found in zip(classes.names, kit_labels, strict=True) if not found]
    if foreign:
        faults.inform(f"classes that ImageNet DET has not, and that are unknown in its images: {list_names(foreign)}")
    known = [folder.listed.known[:, found].all(axis=1) & bool(found) for found in kit_labels]
    masks = torch.from_numpy(np.stack(known, axis=1))
    return [None if bool(mask.all()) else mask.clone() for mask in masks]


def _read_image(
    folder: DetFolder, place: int, path: Path | None, classes: ClassMap, known: Tensor | None, faults: Faults
) -> Record:
    """One image. `path` is its XML file, if it has one. Raises DatasetError naming the file."""
    image_id, shown = folder.listed.ids[place], int(folder.listed.shown[place])
    file = folder.images.find(image_id)
    if file is None:
        raise MissingImageError(f"there is no image {printable(image_id.rpartition('/')[2])}.JPEG below {folder.images.folder}")
    if path is None and shown != NO_CLASS and folder.annotations is not None:
        name = printable(folder.classes.names[shown])
        raise DatasetError(
            f"image {file} shows {name}, by label 1 of class {shown + 1} in the lists of train, but has no XML file below "
            f"{folder.annotations.folder}"
        )
    if path is None:
        return make_record(image_id, file, image_size(file), [], known)
    tree = parse_xml(path)
    size_hw = read_size(tree, path, faults) or image_size(file)
    faults.image, objects = file, []
    for number, element in enumerate(tree.findall("object"), start=1):
        with faults.guard():
            annotated = _read_object(element, folder.classes, classes, size_hw, f"{path}, object {number}", faults)
            objects += [] if annotated is None else [annotated]
    return make_record(image_id, file, size_hw, objects, known)


def _read_object(
    element: ElementTree.Element,
    kit: IlsvrcClasses,
    classes: ClassMap,
    size_hw: tuple[int, int],
    where: str,
    faults: Faults,
) -> AnnotatedObject | None:
    """The object, or None where it was dropped, which is noted in `faults`, or is of a class that is left out.

    Raises DatasetError for a name that is no WNID, and for an unknown class.
    """
    wnid = read_name(element, where, faults)
    if wnid is None:
        return None
    if _WNID.fullmatch(wnid) is None:
        raise DatasetError(f"{where}: <name> is {shorten(wnid)}, not a WNID as n02084071: is it an annotation of ImageNet?")
    name = kit.name_of.get(wnid)
    label = None if name is None else classes.label(name, where)
    faults.meet(name or wnid, left_out=label is None)
    if label is None:
        return None
    where = f"{where} ({printable(name or wnid)})"
    box = read_box(element, where, faults, FIRST_PIXEL)
    if box is not None and not needs_no_repair(box, size_hw):
        box = repair_box(box, size_hw, describe_box(where, box, FIRST_PIXEL), faults)
    return None if box is None else AnnotatedObject(box, label)


def _tell_of_unannotated(source: IlsvrcDetSource, folder: Path, num_images: int, num_annotated: int, faults: Faults) -> None:
    """Say how many images of val have no XML file, as they count as images without objects; most of train's have none.

    Raises DatasetError where no image has one.
    """
    if num_annotated == 0:
        raise DatasetError(f"none of the {num_images} images of {source.split} has an XML file below {folder}")
    if num_annotated < num_images and source.split != "train":
        num_empty = num_images - num_annotated
        faults.inform(
            f"images of {source.split} without an XML file, which count as images without objects: {num_empty} of {num_images}"
        )
