"""Pascal VOC devkits, and folders laid out like one: Annotations/, ImageSets/Main/, JPEGImages/.

VOC counts pixels from 1 and its box includes the last one; ours is continuous and counts from 0, so (xmin, ymin, xmax,
ymax) becomes (xmin - 1, ymin - 1, xmax, ymax). Fractions are kept: VOC 2012 has some.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from xml.etree import ElementTree

from detection.config import VocSource
from detection.data.faults import Faults
from detection.data.images import IMAGE_SUFFIXES, image_size
from detection.data.records import AnnotatedObject, Box, list_files, make_record, repair_box
from detection.errors import DatasetError, did_you_mean
from detection.structures import Record


@dataclass(frozen=True)
class VocFolder:
    """One year of a devkit."""

    root: Path  # holds Annotations/
    images: Mapping[str, str]  # stem -> file name in JPEGImages/
    labels: Mapping[str, int]  # class name -> 0..K-1

    def annotation(self, stem: str) -> Path:
        """The XML file of an image."""
        return self.root / "Annotations" / f"{stem}.xml"


def read_voc(source: VocSource, root: Path, class_names: Sequence[str], faults: Faults) -> list[Record]:
    """The images of a split, in its order. `root` is the source's, resolved.

    Raises DatasetError: no such folder or split, a listed image or XML missing, malformed XML, an unknown class.
    """
    folder = open_folder(root, source.year, class_names)
    records = []
    for stem in read_split(folder.root, source.split):
        with faults.guard():
            records.append(read_annotation(folder, stem, faults) if source.annotated else read_unannotated(folder, stem))
    return records


def open_folder(root: Path, year: str | None, class_names: Sequence[str]) -> VocFolder:
    """Find the year in a devkit, or a folder that is one itself, and list its images. Raises DatasetError."""
    folder = root if year is None else root / f"VOC{year}"
    if not (folder / "Annotations").is_dir():
        years = sorted(path.name for path in root.glob("VOC*") if path.is_dir())
        found = f"{root} holds {', '.join(years)}: set `year`" if years else "is `root` right?"
        if year is not None and (root / "Annotations").is_dir():
            found = f"{root} has Annotations/ itself: leave `year` out"
        raise DatasetError(f"there is no folder {folder / 'Annotations'}; {found}")
    names = sorted(list_files(folder / "JPEGImages"))
    images = {Path(name).stem: name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES}
    return VocFolder(folder, images, {name: label for label, name in enumerate(class_names)})


def read_split(root: Path, split: str) -> list[str]:
    """The stems that ImageSets/Main/SPLIT.txt lists. Raises DatasetError: missing or empty."""
    file = root / "ImageSets" / "Main" / f"{split}.txt"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        others = sorted(path.stem for path in file.parent.glob("*.txt"))
        there = f"; there are: {', '.join(others[:8])}" if others else ""
        raise DatasetError(f"cannot read split {file}: {getattr(error, 'strerror', None) or error}{there}") from None
    # The lists of single classes (cat_train.txt) have a flag -1, 0 or 1 after the stem.
    stems = [re.sub(r"\s+(-1|0|1)$", "", line.strip()) for line in lines if line.strip()]
    if not stems:
        raise DatasetError(f"the split {file} lists no image")
    return stems


def find_image(folder: VocFolder, stem: str) -> Path:
    """The image's file. Raises DatasetError if there is none."""
    if stem not in folder.images:
        raise DatasetError(f"there is no image of '{stem}' in {folder.root / 'JPEGImages'}")
    return folder.root / "JPEGImages" / folder.images[stem]


def read_unannotated(folder: VocFolder, stem: str) -> Record:
    """One image of a split whose annotations are not published. Raises DatasetError naming the file."""
    file = find_image(folder, stem)
    return make_record(stem, file, image_size(file), [])


def read_annotation(folder: VocFolder, stem: str, faults: Faults) -> Record:
    """One image and its objects. Raises DatasetError naming the file."""
    file = find_image(folder, stem)
    path = folder.annotation(stem)
    tree = parse_xml(path)
    size_hw = _size(tree, path, file, faults)
    objects = []
    for number, element in enumerate(tree.findall("object"), start=1):
        where = f"{path}, object {number}"
        with faults.guard():
            annotated = _read_object(element, folder.labels, size_hw, where, faults)
            objects += [] if annotated is None else [annotated]
    return make_record(stem, file, size_hw, objects)


def parse_xml(path: Path) -> ElementTree.Element:
    """The <annotation> of a file. Raises DatasetError: missing, malformed (with the line), another document."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise DatasetError(f"{path} is not well-formed XML: {error}") from None
    except (OSError, ValueError, LookupError) as error:  # the last two: an encoding that is unknown or wrong
        raise DatasetError(f"cannot read annotation {path}: {getattr(error, 'strerror', None) or error}") from None
    if root.tag != "annotation":
        raise DatasetError(f"{path} is no VOC annotation: its root is <{root.tag}>, not <annotation>")
    return root


def _size(tree: ElementTree.Element, path: Path, file: Path, faults: Faults) -> tuple[int, int]:
    """(height, width): of the <size> tag, or of the image file where the tag holds none (some tools write 0)."""
    numbers = [_number(tree.findtext(f"size/{tag}")) for tag in ("height", "width")]
    if any(number is None for number in numbers) and tree.find("size") is not None:
        faults.note(str(path), "<size> without two numbers", "taken from the image")
    if all(number is not None and number >= 1 for number in numbers):
        return int(numbers[0] or 0), int(numbers[1] or 0)
    return image_size(file)


def _read_object(
    element: ElementTree.Element, labels: Mapping[str, int], size_hw: tuple[int, int], where: str, faults: Faults
) -> AnnotatedObject | None:
    """The object, or None where it was dropped, which is noted in `faults`. Raises DatasetError for an unknown class."""
    name = (element.findtext("name") or "").strip()
    if not name:
        faults.note(where, "object without <name>", "dropped")
        return None
    if name not in labels:
        raise DatasetError(f"{where}: unknown class '{name}'{did_you_mean(name, labels)} (data.classes: {', '.join(labels)})")
    box = _read_box(element, size_hw, f"{where} ('{name}')", faults)
    difficult = element.findtext("difficult", "0")
    if _number(difficult) is None:
        faults.note(f"{where}: <difficult> is '{difficult}'", "text for a number", "taken as 0")
    return None if box is None else AnnotatedObject(box, labels[name], difficult=bool(_number(difficult)))


def _read_box(element: ElementTree.Element, size_hw: tuple[int, int], where: str, faults: Faults) -> Box | None:
    texts = {tag: element.findtext(f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")}
    for tag, text in texts.items():
        if text is None:
            faults.note(f"{where}: no <{tag}>", "object without a whole <bndbox>", "dropped")
            return None
        if _number(text) is None:
            faults.note(f"{where}: <{tag}> is '{text}'", "text for a number", "dropped")
            return None
    xmin, ymin, xmax, ymax = (float(text or "") for text in texts.values())
    where = f"{where}, box {xmin:g} {ymin:g} {xmax:g} {ymax:g}"
    extent = min(xmax - xmin, ymax - ymin)
    if extent <= 0:
        # 0 is one pixel to the devkit, but nobody draws such a box on purpose: it is a click that slipped.
        faults.note(where, "inverted box" if extent < 0 else "box without area", "dropped")
        return None
    return repair_box((xmin - 1, ymin - 1, xmax, ymax), size_hw, where, faults)


def _number(text: str | None) -> float | None:
    """The text as a finite number, or None where it is none."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if isfinite(value) else None
