"""Ground truth as the VOC development kit reads it: every object of the XML files, unchanged.

The data loader clips boxes to the image and drops faulty ones; the kit does neither, and its AP is the standard. No
image is opened, nor has to be there: annotations are enough to evaluate detection files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree.ElementTree import Element

import torch

from backbones.errors import shorten
from detection.config.class_lists import VOC_CLASSES
from detection.data.faults import Faults
from detection.data.records import parse_number
from detection.data.voc import annotated_stems, list_images, read_image_set
from detection.data.voc_xml import parse_xml, read_size
from detection.errors import DatasetError
from detection.structures import Record

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Devkit:
    """One split's annotations. Record.labels index `class_names`, the classes that occur in it."""

    records: list[Record]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class _Image:
    stem: str
    file: Path
    size_hw: tuple[int, int]
    objects: list[_Object]


@dataclass(frozen=True)
class _Object:
    name: str
    box: tuple[float, float, float, float]  # xyxy, continuous
    difficult: bool


def find_year(devkit: Path, year: str | None) -> Path:
    """The folder with Annotations/: `devkit`/VOC<year>, or `devkit` itself. Raises DatasetError."""
    places = [devkit / f"VOC{year}", devkit] if year else [devkit]
    for place in places:
        if (place / "Annotations").is_dir():
            return place
    years = sorted(path.name for path in devkit.glob("VOC*") if path.is_dir())
    found = f"; it holds {', '.join(years)}: name the year (--year)" if years else ""
    raise DatasetError(f"no folder Annotations in {' or '.join(map(str, places))}{found}")


def read_devkit(
    folder: Path, split: str, class_names: Sequence[str] | None = None, rename: Mapping[str, str] | None = None
) -> Devkit:
    """The annotations of a split; `folder` holds Annotations/ and ImageSets/.

    Without `class_names` the classes are those found, and an object that cannot be read raises DatasetError. With them
    objects of other classes are left out, and unreadable ones too: the data loader has already warned of those. `rename`
    gives names in the files those of classes.
    """
    pictures = list_images(folder)
    stems = [entry.stem for entry in read_image_set(folder, split, annotated_stems(folder) | pictures.keys())]
    repeated = next((stem for stem, after in zip(sorted(stems), sorted(stems)[1:], strict=False) if stem == after), None)
    if repeated is not None:
        raise DatasetError(f"{folder / 'ImageSets' / 'Main' / split}.txt lists image {shorten(repeated)} twice")
    files = {stem: folder / "JPEGImages" / pictures[stem][0] if stem in pictures else Path(stem) for stem in stems}
    tolerant = class_names is not None
    images = [_read_image(folder, stem, files[stem], tolerant, rename or {}) for stem in stems]
    names = tuple(class_names or sort_classes({each.name for image in images for each in image.objects}))
    labels = {name: label for label, name in enumerate(names)}
    return Devkit([_record(image, labels) for image in images], names)


def sort_classes(names: set[str]) -> list[str]:
    """VOC's classes in their usual order, then any others by name."""
    return [name for name in VOC_CLASSES if name in names] + sorted(names - set(VOC_CLASSES))


def _read_image(folder: Path, stem: str, file: Path, tolerant: bool, rename: Mapping[str, str]) -> _Image:
    path = folder / "Annotations" / f"{stem}.xml"
    tree = parse_xml(path)
    return _Image(stem, file, read_size(tree, path, Faults()) or (0, 0), list(_objects(tree, path, tolerant, rename)))


def _objects(tree: Element, path: Path, tolerant: bool, rename: Mapping[str, str]) -> Iterator[_Object]:
    for number, element in enumerate(tree.findall("object"), start=1):
        try:
            each = _object(element, f"{path}, object {number}")
            yield replace(each, name=rename.get(each.name, each.name))
        except DatasetError:
            if not tolerant:
                raise


def _object(element: Element, where: str) -> _Object:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DatasetError(f"{where} has no <name>")
    xmin, ymin, xmax, ymax = (_number(element.findtext(f"bndbox/{tag}"), f"{where}: <{tag}>") for tag in CORNERS)
    difficult = _number((element.findtext("difficult") or "").strip() or "0", f"{where}: <difficult>") != 0
    return _Object(name, (xmin - 1, ymin - 1, xmax, ymax), difficult)


def _number(text: str | None, where: str) -> float:
    value = parse_number(text)
    if value is None:
        raise DatasetError(f"{where} must be a number, found {'nothing' if text is None else shorten(text)}")
    return value


def _record(image: _Image, labels: Mapping[str, int]) -> Record:
    objects = [each for each in image.objects if each.name in labels]
    boxes = torch.tensor([each.box for each in objects], dtype=torch.float64, device="cpu").reshape(-1, 4)
    return Record(
        image_id=image.stem,
        file=image.file,  # the stem where there is none
        size_hw=image.size_hw,  # (0, 0) where the annotation does not tell it: VOC's AP does not need it
        boxes=boxes,
        labels=torch.tensor([labels[each.name] for each in objects], dtype=torch.long, device="cpu"),
        difficult=torch.tensor([each.difficult for each in objects], dtype=torch.bool, device="cpu"),
        crowd=torch.zeros(len(objects), dtype=torch.bool, device="cpu"),
        areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
    )
