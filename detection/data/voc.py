"""Pascal VOC devkits, and folders laid out like one: Annotations/, ImageSets/Main/, JPEGImages/.

VOC counts pixels from 1 and its box includes the last one; ours is continuous and counts from 0, so (xmin, ymin, xmax,
ymax) becomes (xmin - 1, ymin - 1, xmax, ymax). Fractions are kept: VOC 2012 has some.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

from backbones.errors import printable, shorten
from backbones.files import read_regular
from detection.config import VocSource
from detection.data.classes import ClassMap
from detection.data.faults import Faults
from detection.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES, image_size, is_image_name
from detection.data.records import AnnotatedObject, Box, list_files, make_record, parse_number, repair_box
from detection.errors import DatasetError, MissingImageError
from detection.files import read_text
from detection.structures import Record

MAX_XML_BYTES = 1 << 23  # of one annotation: some 25,000 objects
MAX_SPLIT_BYTES = 1 << 28

_FLAG = re.compile(r"\s+(-1|0|1)$")
_ENCODING = re.compile(rb"""<\?xml[^>]{0,100}?encoding\s*=\s*["']([\w.-]{1,20})["']""")
_EAST_ASIAN = frozenset(
    {"gbk", "gb2312", "gb18030", "big5", "big5hkscs", "shift_jis", "cp932", "euc_jp", "euc_kr", "cp949", "iso_2022_jp"}
)


@dataclass(frozen=True)
class VocFolder:
    """One year of a devkit."""

    root: Path  # holds Annotations/
    images: Mapping[str, Sequence[str]]  # stem -> file names in JPEGImages/, of which there should be one
    annotated: frozenset[str]  # stems that have an XML file
    classes: ClassMap

    def annotation(self, stem: str) -> Path:
        """The XML file of an image."""
        return self.root / "Annotations" / f"{stem}.xml"


class SplitEntry(NamedTuple):
    """One image of a split."""

    stem: str
    file_name: str | None  # where the split's line names the image's file, not just its stem


def read_voc(source: VocSource, root: Path, classes: ClassMap, faults: Faults) -> list[Record]:
    """The images of a split, in its order. `root` is the source's, resolved.

    Raises DatasetError: no such folder or split, a listed image or XML missing or not to be told from another, malformed
    XML, an unknown class.
    """
    folder = open_folder(root, source.year, classes)
    records = []
    for entry in read_split(folder.root, source.split, folder.annotated | folder.images.keys()):
        with faults.guard():
            records.append(read_annotation(folder, entry, faults) if source.annotated else read_unannotated(folder, entry))
    return records


def open_folder(root: Path, year: str | None, classes: ClassMap) -> VocFolder:
    """Find the year in a devkit, or a folder that is one itself, and list its images. Raises DatasetError."""
    folder = root if year is None else root / f"VOC{year}"
    if not (folder / "Annotations").is_dir():
        years = sorted(path.name for path in root.glob("VOC*") if path.is_dir())
        found = f"{root} holds {', '.join(years)}: set `year`" if years else "is `root` right?"
        if year is not None and (root / "Annotations").is_dir():
            found = f"{root} has Annotations/ itself: leave `year` out"
        raise DatasetError(f"there is no folder {folder / 'Annotations'}; {found}")
    return VocFolder(folder, list_images(folder), annotated_stems(folder), classes)


def list_images(root: Path) -> dict[str, list[str]]:
    """The image files in JPEGImages/ by their stems. Raises DatasetError."""
    images: dict[str, list[str]] = {}
    for path in map(Path, sorted(list_files(root / "JPEGImages"))):
        if path.suffix.lower() in IMAGE_SUFFIXES | UNREAD_SUFFIXES:
            images.setdefault(path.stem, []).append(path.name)
    return images


def annotated_stems(root: Path) -> frozenset[str]:
    """The stems of the XML files in Annotations/. Raises DatasetError."""
    return frozenset(name.removesuffix(".xml") for name in list_files(root / "Annotations") if name.endswith(".xml"))


def read_split(root: Path, split: str, known: Container[str]) -> list[SplitEntry]:
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
    if path.suffix.lower() in IMAGE_SUFFIXES | UNREAD_SUFFIXES:
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
    place, stem = folder.root / "JPEGImages", shorten(entry.stem)
    if entry.stem not in folder.images:
        raise MissingImageError(f"there is no image of {stem} in {place}")
    names = folder.images[entry.stem]
    found = [name for name in names if entry.file_name in (None, name)]
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
    if not is_image_name(found[0]):
        raise DatasetError(f"image {printable(str(place / found[0]))} is of a kind that is not read: convert it, e.g. to .jpg")
    return place / found[0]


def read_unannotated(folder: VocFolder, entry: SplitEntry) -> Record:
    """One image of a split whose annotations are not published. Raises DatasetError naming the file."""
    file = find_image(folder, entry)
    return make_record(entry.stem, file, image_size(file), [])


def read_annotation(folder: VocFolder, entry: SplitEntry, faults: Faults) -> Record:
    """One image and its objects. Raises DatasetError naming the file."""
    if entry.stem not in folder.images:
        find_image(folder, entry)  # raises: that an image is missing says more than that its annotation is
    path = folder.annotation(entry.stem)
    tree = parse_xml(path)
    file = find_image(folder, entry, tree.findtext("filename") or "")
    size_hw = _size(tree, path, file, faults)
    objects = []
    for number, element in enumerate(tree.findall("object"), start=1):
        where = f"{path}, object {number}"
        with faults.guard():
            annotated = _read_object(element, folder.classes, size_hw, where, faults)
            objects += [] if annotated is None else [annotated]
    return make_record(entry.stem, file, size_hw, objects)


def parse_xml(path: Path) -> ElementTree.Element:
    """The <annotation> of a file. Raises DatasetError: missing, malformed (with the line), too large, another document."""
    try:
        content = read_regular(path, MAX_XML_BYTES)
        declares_entities = any("<!ENTITY".encode(encoding) in content for encoding in ("ascii", "utf-16-le", "utf-16-be"))
        root = ElementTree.Element("") if declares_entities else ElementTree.fromstring(_in_utf8(content))
    except ElementTree.ParseError as error:
        raise DatasetError(f"{path} is not well-formed XML: {printable(str(error))}") from None
    except OSError as error:
        raise DatasetError(f"cannot read annotation {path}: {error.strerror}") from None
    except (ValueError, LookupError) as error:  # an encoding that is unknown or wrong
        raise DatasetError(f"cannot read annotation {path}: {printable(str(error))}") from None
    if declares_entities:
        raise DatasetError(f"{path} declares entities of its own, which can make a small file endless: leave them out")
    if root.tag != "annotation":
        raise DatasetError(f"{path} is no VOC annotation: its root is <{printable(root.tag[:80])}>, not <annotation>")
    return root


def _in_utf8(content: bytes) -> bytes | str:
    """The content as it is, or as text where it is in an encoding of several bytes, which the parser does not know."""
    declared = _ENCODING.match(content)
    if declared is None or declared[1].decode("ascii").lower().replace("-", "_") not in _EAST_ASIAN:
        return content
    return content.decode(declared[1].decode("ascii"))


def _size(tree: ElementTree.Element, path: Path, file: Path, faults: Faults) -> tuple[int, int]:
    """(height, width): of the <size> tag, or of the image file where the tag holds none (some tools write 0)."""
    height, width = (parse_number(tree.findtext(f"size/{tag}")) for tag in ("height", "width"))
    if height and width and _is_side(height) and _is_side(width):
        return int(height), int(width)
    if tree.find("size") is not None and not all(number == 0 or _is_side(number) for number in (height, width)):
        faults.note(str(path), "<size> without two numbers", "taken from the image")
    return image_size(file)


def _is_side(number: float | None) -> bool:
    return number is not None and 1 <= number < 2**31 and number == int(number)


def _read_object(
    element: ElementTree.Element, classes: ClassMap, size_hw: tuple[int, int], where: str, faults: Faults
) -> AnnotatedObject | None:
    """The object, or None where it was dropped, which is noted in `faults`, or is of a class that is left out.

    Raises DatasetError for an unknown class.
    """
    name = (element.findtext("name") or "").strip()
    if not name:
        faults.note(where, "object without <name>", "dropped")
        return None
    label = classes.label(name, where)
    faults.meet(name, left_out=label is None)
    if label is None:
        return None
    if len(element.findall("name")) > 1 or len(element.findall("bndbox")) > 1:
        faults.note(f"{where} ({shorten(name)})", "several <name> or <bndbox>", "the first is taken")
    box = _read_box(element, size_hw, f"{where} ({shorten(name)})", faults)
    # An empty tag says no more than a missing one.
    difficult = (element.findtext("difficult") or "").strip() or "0"
    if parse_number(difficult) is None:
        faults.note(f"{where}: <difficult> is {shorten(difficult)}", "text for a number", "taken as 0")
    return None if box is None else AnnotatedObject(box, label, difficult=bool(parse_number(difficult)))


def _read_box(element: ElementTree.Element, size_hw: tuple[int, int], where: str, faults: Faults) -> Box | None:
    texts = {tag: element.findtext(f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")}
    numbers = []
    for tag, text in texts.items():
        number = parse_number(text)
        if number is None:
            fault = "object without a whole <bndbox>" if text is None else "text for a number"
            faults.note(f"{where}: no <{tag}>" if text is None else f"{where}: <{tag}> is {shorten(text)}", fault, "dropped")
            return None
        numbers.append(number)
    xmin, ymin, xmax, ymax = numbers
    where = f"{where}, box {xmin:g} {ymin:g} {xmax:g} {ymax:g}"
    extent = min(xmax - xmin, ymax - ymin)
    if extent <= 0:
        # 0 is one pixel to the devkit, but nobody draws such a box on purpose: it is a click that slipped.
        faults.note(where, "inverted box" if extent < 0 else "box without area", "dropped")
        return None
    return repair_box((xmin - 1, ymin - 1, xmax, ymax), size_hw, where, faults)
