"""Pascal VOC devkits, and folders laid out like one: Annotations/, ImageSets/Main/, JPEGImages/.

SegmentationObject/ may hold the objects' masks.

Without JPEGImages/ the images are where the annotations' <path> says: labels that were written beside images elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

from backbones.errors import printable, shorten
from detection.config import VocSource
from detection.data.classes import ClassMap
from detection.data.faults import Faults
from detection.data.images import image_size, is_image_name, looks_like_image, require_kind_that_is_read
from detection.data.object_masks import note_misfit
from detection.data.records import AnnotatedObject, list_files, make_record, needs_no_repair, repair_box
from detection.data.voc_masks import MASK_FOLDER, MaskTruth, read_voc_masks
from detection.data.voc_xml import describe_box, parse_xml, read_box, read_difficult, read_name, read_size
from detection.errors import DatasetError, MissingImageError
from detection.files import exists, fold_name, is_file, read_text
from detection.structures import Record

MAX_SPLIT_BYTES = 1 << 28

_FLAG = re.compile(r"\s+(-1|0|1)$")


@dataclass(frozen=True)
class VocFolder:
    """One year of a devkit."""

    root: Path  # holds Annotations/
    images: Mapping[str, Sequence[str]]  # stem -> file names in JPEGImages/, of which there should be one
    annotated: frozenset[str]  # stems that have an XML file
    classes: ClassMap
    mask_pictures: frozenset[str] = frozenset()  # files in SegmentationObject/; none where masks are not wanted

    def annotation(self, stem: str) -> Path:
        """The XML file of an image."""
        if stem not in self.annotated:
            stem = self._alike(self._annotated_alike, stem)
        return self.root / "Annotations" / f"{stem}.xml"

    def image_stem(self, stem: str) -> str:
        """The stem of an image's file: as it is given, or the only one that differs in case or Unicode form alone."""
        return stem if stem in self.images else self._alike(self._images_alike, stem)

    @staticmethod
    def _alike(stems: Mapping[str, Sequence[str]], stem: str) -> str:
        found = stems.get(fold_name(stem), [])
        return found[0] if len(found) == 1 else stem

    @cached_property
    def _images_alike(self) -> Mapping[str, Sequence[str]]:
        return _by_fold(self.images)

    @cached_property
    def _annotated_alike(self) -> Mapping[str, Sequence[str]]:
        return _by_fold(self.annotated)


def _by_fold(stems: Iterable[str]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for stem in stems:
        found.setdefault(fold_name(stem), []).append(stem)
    return found


class SplitEntry(NamedTuple):
    """One image of a split."""

    stem: str
    file_name: str | None  # where the split's line names the image's file, not just its stem


def read_voc(source: VocSource, root: Path, classes: ClassMap, faults: Faults, *, masks: bool = False) -> list[Record]:
    """The images of a split, in its order. `root` is the source's, resolved; `masks`: read the objects' masks too.

    Raises DatasetError: no such folder or split, a listed image or XML missing or not to be told from another, malformed
    XML, an unknown class.
    """
    folder = open_folder(root, source.year, classes, masks=masks)
    records = []
    for entry in read_image_set(folder.root, source.split, folder.annotated | folder.images.keys()):
        with faults.guard():
            records.append(read_annotation(folder, entry, faults) if source.annotated else read_unannotated(folder, entry))
    _inform_of_other_case(records, folder.root, faults)
    return records


def _inform_of_other_case(records: Sequence[Record], root: Path, faults: Faults) -> None:
    """Say how many images were found by a name that is not quite that of their file."""
    other = [record for record in records if record.file.stem != record.image_id]
    if other:
        first = f"{shorten(other[0].image_id)} is {printable(str(other[0].file))}"
        faults.inform(f"{root}: {len(other)} images are named in other case or another Unicode form, e.g. {first}")


def open_folder(root: Path, year: str | None, classes: ClassMap, *, masks: bool = False) -> VocFolder:
    """Find the year in a devkit, or a folder that is one itself, and list its images. Raises DatasetError."""
    folder = root if year is None else root / f"VOC{year}"
    if not (folder / "Annotations").is_dir():
        years = sorted(path.name for path in root.glob("VOC*") if path.is_dir())
        found = f"{root} holds {', '.join(years)}: set `year`" if years else "is `root` right?"
        if year is not None and (root / "Annotations").is_dir():
            found = f"{root} has Annotations/ itself: leave `year` out"
        raise DatasetError(f"there is no folder {folder / 'Annotations'}; {found}")
    place = folder / MASK_FOLDER
    pictures = list_files(place) if masks and place.is_dir() else ()
    return VocFolder(folder, list_images(folder), annotated_stems(folder), classes, frozenset(pictures))


def list_images(root: Path) -> dict[str, list[str]]:
    """The image files in JPEGImages/ by their stems; none without that folder. Raises DatasetError."""
    images: dict[str, list[str]] = {}
    if not exists(root / "JPEGImages"):
        return images
    for path in map(Path, sorted(list_files(root / "JPEGImages"))):
        if looks_like_image(path.name):
            images.setdefault(path.stem, []).append(path.name)
    return images


def annotated_stems(root: Path) -> frozenset[str]:
    """The stems of the XML files in Annotations/. Raises DatasetError."""
    return frozenset(name.removesuffix(".xml") for name in list_files(root / "Annotations") if name.endswith(".xml"))


def read_image_set(root: Path, split: str, known: Container[str]) -> list[SplitEntry]:
    """What ImageSets/Main/SPLIT.txt lists, a line each. `known`: the stems of all images and annotations.

    A line is an image's stem; or the name of its file, also behind the folder that it lies in; or, as in the lists of single
    classes (cat_train.txt), either of them and a flag -1, 0 or 1. The first of these that is known is what is meant: of
    "photo 1" that is the image of this name, if there is one. Raises DatasetError: missing, no text, or empty.
    """
    file = root / "ImageSets" / "Main" / f"{split}.txt"
    try:
        lines = read_text(file, MAX_SPLIT_BYTES).split("\n")
    except DatasetError as error:
        others = sorted(path.stem for path in file.parent.glob("*.txt"))
        there = f"; there are: {', '.join(others[:8])}" if others else ""
        raise DatasetError(f"cannot read split '{split}': {error}{there}") from None
    entries = [_read_line(line, root, known) for line in lines if line.strip()]
    if not entries:
        raise DatasetError(f"the split {file} lists no image")
    return entries


def _read_line(line: str, root: Path, known: Container[str]) -> SplitEntry:
    stripped = line.strip()
    texts = (line, stripped, _FLAG.sub("", line.rstrip()), _FLAG.sub("", stripped))
    readings = [reading for text in texts for reading in _readings(text, root)]
    # Where none is known, the last one is what is said to be missing.
    return next((reading for reading in readings if reading.stem in known), readings[-1])


def _readings(text: str, root: Path) -> list[SplitEntry]:
    """The text as a stem, and, where it may be one, as the name of a file."""
    readings, path = [SplitEntry(text, None)], PurePosixPath(text)
    if path.parent.name and not _is_end(path.parent, root.absolute() / path.parent.name):
        return readings  # a folder that is none of ours: what is in it is another image, though of the same name
    if looks_like_image(path.name):
        readings.append(SplitEntry(path.stem, path.name))
    elif path.name:
        readings.append(SplitEntry(path.name.removesuffix(".xml"), None))
    return readings


def _is_end(folder: PurePosixPath, whole: Path) -> bool:
    """Whether `folder` is JPEGImages or Annotations as the end of the path of ours: "JPEGImages", "VOC2007/JPEGImages"."""
    return folder.name in ("JPEGImages", "Annotations") and whole.parts[-len(folder.parts) :] == folder.parts


def find_image(folder: VocFolder, entry: SplitEntry, filename: str = "") -> Path:
    """The image's file. `filename` is the annotation's tag: of several files with one stem it tells which is meant.

    Raises DatasetError if there is none, or if it cannot be told.
    """
    place, stem, file_stem = folder.root / "JPEGImages", shorten(entry.stem), folder.image_stem(entry.stem)
    if file_stem not in folder.images:
        raise MissingImageError(f"there is no image of {stem} in {place}")
    names = folder.images[file_stem]
    found = [name for name in names if entry.file_name in (None, name) or file_stem != entry.stem]
    if not found:
        raise MissingImageError(f"there is no image {shorten(entry.file_name)} in {place}, but {shorten(names[0])}")
    tagged = re.split(r"[/\\]", filename.strip())[-1]
    if len(names) > 1 and tagged in names:
        found = [name for name in found if name == tagged]
    elif len(found) > 1:
        found = [name for name in found if is_image_name(name)]
    if len(found) != 1:
        raise DatasetError(
            f"{place} holds {' and '.join(map(shorten, names[:3]))}, and it cannot be told which is the image of {stem}: "
            f"name it in the split's line or in the annotation's <filename>, or remove the others"
        )
    require_kind_that_is_read(place / found[0])
    return place / found[0]


def find_elsewhere(folder: VocFolder, entry: SplitEntry, tree: ElementTree.Element) -> Path:
    """The image that an annotation's <path> leads to. Raises MissingImageError if there is none."""
    text = (tree.findtext("path") or "").strip()
    file = folder.root / "Annotations" / text
    if not (text and is_image_name(file.name) and is_file(file)):
        told = f"<path> {shorten(text)} of its annotation leads to none" if text else "its annotation has no <path>"
        place = folder.root / "JPEGImages"
        raise MissingImageError(f"there is no image of {shorten(entry.stem)} in {place}, and {told}: put the images there")
    return file


def read_unannotated(folder: VocFolder, entry: SplitEntry) -> Record:
    """One image of a split whose annotations are not published. Raises DatasetError naming the file."""
    file = find_image(folder, entry)
    return make_record(entry.stem, file, image_size(file), [])


def read_annotation(folder: VocFolder, entry: SplitEntry, faults: Faults) -> Record:
    """One image and its objects. Raises DatasetError naming the file."""
    if folder.images and folder.image_stem(entry.stem) not in folder.images:
        find_image(folder, entry)  # raises: that an image is missing says more than that its annotation is
    path = folder.annotation(entry.stem)
    tree = parse_xml(path)
    file = find_image(folder, entry, tree.findtext("filename") or "") if folder.images else find_elsewhere(folder, entry, tree)
    size_hw = read_size(tree, path, faults) or image_size(file)
    faults.image, objects, elements = file, [], tree.findall("object")
    truth = _read_masks(folder, path.stem, len(elements), size_hw, faults)
    for number, element in enumerate(elements, start=1):
        where = f"{path}, object {number}"
        with faults.guard():
            annotated = _read_object(element, folder.classes, size_hw, where, faults)
            if annotated is not None and truth is not None:
                annotated = replace(annotated, mask=truth.masks.counts[number - 1])
                note_misfit(annotated, size_hw, where, faults)
            objects += [] if annotated is None else [annotated]
    return make_record(entry.stem, file, size_hw, objects, void=None if truth is None else truth.void)


def _read_masks(folder: VocFolder, stem: str, num_objects: int, size_hw: tuple[int, int], faults: Faults) -> MaskTruth | None:
    """The masks of all objects of an image's XML, or None where it has no picture of them, or one that is noted in `faults`."""
    if f"{stem}.png" not in folder.mask_pictures:
        return None
    picture = folder.root / MASK_FOLDER / f"{stem}.png"
    try:
        truth = read_voc_masks(picture, num_objects)
    except DatasetError as error:
        faults.note(printable(str(error)), "picture of masks that cannot be read", "left out")
        return None
    if truth.masks.size_hw != size_hw:
        sizes = [f"{width}x{height}" for height, width in (truth.masks.size_hw, size_hw)]
        faults.note(f"{picture} is {sizes[0]}, its image {sizes[1]}", "picture of masks of another size", "left out")
        return None
    return truth


def _read_object(
    element: ElementTree.Element, classes: ClassMap, size_hw: tuple[int, int], where: str, faults: Faults
) -> AnnotatedObject | None:
    """The object, or None where it was dropped, which is noted in `faults`, or is of a class that is left out.

    Raises DatasetError for an unknown class.
    """
    name = read_name(element, where, faults)
    if name is None:
        return None
    label = classes.label(name, where)
    faults.meet(name, left_out=label is None)
    if label is None:
        return None
    where = f"{where} ({shorten(name)})"
    box = read_box(element, where, faults)
    difficult = read_difficult(element, where, faults)
    if box is not None and not needs_no_repair(box, size_hw):
        box = repair_box(box, size_hw, describe_box(where, box), faults)
    return None if box is None else AnnotatedObject(box, label, difficult)
