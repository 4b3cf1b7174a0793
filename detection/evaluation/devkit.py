"""Ground truth as the VOC development kit reads it: every object of the XML files, unchanged.

The data loader clips boxes to the image and drops faulty ones; the kit does neither, and its AP is the standard. No
image is opened: annotations are enough to evaluate detection files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree.ElementTree import Element

import torch

from backbones.errors import shorten
from detection.config.class_lists import VOC_CLASSES
from detection.data.records import parse_number
from detection.data.voc import annotated_stems, list_images, read_image_set
from detection.data.voc_xml import parse_xml
from detection.errors import DatasetError
from detection.structures import Record

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Devkit:
    """One split's annotations. Record.labels index `class_names`, the classes that occur in it."""

    records: list[Record]
    class_names: tuple[str, ...]


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
    pictures = list_images(folder).keys() if (folder / "JPEGImages").is_dir() else set[str]()
    stems = [entry.stem for entry in read_image_set(folder, split, annotated_stems(folder) | pictures)]
    repeated = next((stem for stem, after in zip(sorted(stems), sorted(stems)[1:], strict=False) if stem == after), None)
    if repeated is not None:
        raise DatasetError(f"{folder / 'ImageSets' / 'Main' / split}.txt lists image {shorten(repeated)} twice")
    tolerant = class_names is not None
    images = [(stem, list(_objects(folder / "Annotations" / f"{stem}.xml", tolerant, rename or {}))) for stem in stems]
    names = tuple(class_names or sort_classes({each.name for _, objects in images for each in objects}))
    labels = {name: label for label, name in enumerate(names)}
    return Devkit([_record(stem, [each for each in objects if each.name in labels], labels) for stem, objects in images], names)


def sort_classes(names: set[str]) -> list[str]:
    """VOC's classes in their usual order, then any others by name."""
    return [name for name in VOC_CLASSES if name in names] + sorted(names - set(VOC_CLASSES))


def _objects(file: Path, tolerant: bool, rename: Mapping[str, str]) -> Iterator[_Object]:
    for number, element in enumerate(parse_xml(file).findall("object"), start=1):
        try:
            each = _object(element, f"{file}, object {number}")
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


def _record(stem: str, objects: Sequence[_Object], labels: dict[str, int]) -> Record:
    boxes = torch.tensor([each.box for each in objects], dtype=torch.float64, device="cpu").reshape(-1, 4)
    return Record(
        image_id=stem,
        file=Path(stem),
        size_hw=(0, 0),  # not known, and not needed for VOC's AP
        boxes=boxes,
        labels=torch.tensor([labels[each.name] for each in objects], dtype=torch.long, device="cpu"),
        difficult=torch.tensor([each.difficult for each in objects], dtype=torch.bool, device="cpu"),
        crowd=torch.zeros(len(objects), dtype=torch.bool, device="cpu"),
        areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
    )
